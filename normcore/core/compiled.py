"""Loops over the regions of a large tensor, compiled for this processor when they are first called.

A tensor comes as `rows` of values that lie side by side in memory. A line of `index` has the rows of one region, or,
for the kernels of columns, of as many regions as a row is long. The line of `which` says where the gain and the shift
of these rows are: one value a row, or one a column (a shift that is missing is one value beside any gain). Both passes
over a region, for its statistics and for its result, follow one another, so that the second finds it in the cache.

The origin of a region is its first value, and `rest` the mean of the distances from it. Sums of many values
are float64. From about 1e18 on the squares of float32 values overflow (in PyTorch's kernels from 1e17 on).
"""

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

CHUNK = 256
"""Values of a row summed in their own precision, before the sum goes on in float64."""
FAR, FAR_COLUMN = 4.0, 25.0
"""How many variances the square of the distance from the origin to the mean may have: so many digits of the variance
are lost in sums of float32. Beyond it, all is summed again about the mean: for a row, or a whole tile of columns."""


def _with(*fastmath):
    """numba's compiler, which keeps what it compiles where there is a place for it."""
    options: Any = {"nogil": True, "error_model": "numpy", "fastmath": set(fastmath)}

    def compile_(function):
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:  # a place that cannot be written to
            return njit(**options)(function)

    return compile_


compiled = _with("nsz", "contract")
summing = _with("nsz", "contract", "reassoc")
"""For sums whose order is free, so that they can be taken on all lanes of the processor at once."""


def at(value, j):
    """An array's element, or the number that stands for all of them."""
    return value[j] if np.ndim(value) else value


@overload(at)
def _at(value, j):
    return (lambda value, j: value[j]) if isinstance(value, types.Array) else (lambda value, j: value)


@compiled
def factor_of(second, eps, outside, tiny):
    """What centered values are multiplied with."""
    return np.reciprocal(np.sqrt(np.maximum(second, tiny)) + eps if outside else np.sqrt(second + eps))


@compiled
def add_moments(some, squares, rows, origin):
    """The sums of the distances from an origin and of their squares, added to those of each column of eight rows."""
    a, b, c, d, e, f, g, h = rows
    for j in range(len(a)):
        o = at(origin, j)
        p, q, r, s, t, u, v, w = a[j] - o, b[j] - o, c[j] - o, d[j] - o, e[j] - o, f[j] - o, g[j] - o, h[j] - o
        some[j] += ((p + q) + (r + s)) + ((t + u) + (v + w))
        squares[j] += ((p * p + q * q) + (r * r + s * s)) + ((t * t + u * u) + (v * v + w * w))


@compiled
def add_squares(squares, rows):
    """The squares of each column of eight rows, added to what is there."""
    a, b, c, d, e, f, g, h = rows
    for j in range(len(a)):
        one = (a[j] * a[j] + b[j] * b[j]) + (c[j] * c[j] + d[j] * d[j])
        squares[j] += one + ((e[j] * e[j] + f[j] * f[j]) + (g[j] * g[j] + h[j] * h[j]))


@compiled
def eight(rows, index, m, low, high, nothing):
    """Some columns of eight rows that an index names, the first being its m-th; beyond its end, of a row of nothing:
    the center, whose distance from itself is 0 (where nothing is centered, that is a row of zeros)."""
    last = len(index) - 1
    whole = m + 7 <= last
    return (
        rows[index[m], low:high],
        rows[index[m + 1], low:high] if whole or m + 1 <= last else nothing,
        rows[index[m + 2], low:high] if whole or m + 2 <= last else nothing,
        rows[index[m + 3], low:high] if whole or m + 3 <= last else nothing,
        rows[index[m + 4], low:high] if whole or m + 4 <= last else nothing,
        rows[index[m + 5], low:high] if whole or m + 5 <= last else nothing,
        rows[index[m + 6], low:high] if whole or m + 6 <= last else nothing,
        rows[index[m + 7], low:high] if whole else nothing,
    )


@summing
def some_moments(values, origin):
    """The sums of the distances from an origin and of their squares, in the precision of the values."""
    some = squares = values.dtype.type(0)
    for j in range(len(values)):
        distance = values[j] - origin
        some += distance
        squares += distance * distance
    return some, squares


@compiled
def moments(row, origin):
    """`some_moments` of a row."""
    some = squares = 0.0
    for begin in range(0, len(row), CHUNK):
        more = some_moments(row[begin : begin + CHUNK], origin)
        some += more[0]
        squares += more[1]
    return some, squares


@compiled
def tile_at(unit, length, tile):
    """Which line of the index a tile belongs to, and from which to which column it reaches."""
    tiles = -(-length // tile)
    low = unit % tiles * tile
    return unit // tiles, low, min(low + tile, length)


@compiled
def settle(some, squares, center, origin, members, total, second, rest):
    """Writes the variances and the rests of columns, from the sums of the distances from a center and their squares.

    Gives whether a center is too far from its mean.
    """
    far = False
    for j in range(len(some)):
        middle = some[j] / members
        away = some[j] * middle
        left = squares[j] - away if not squares[j] < away else 0.0  # nan stays nan
        far |= away > FAR_COLUMN * left
        second[j], rest[j] = left / total, np.float64(center[j]) - origin[j] + middle
    return far


@compiled
def factors_of(second, eps, outside, tiny, factor):
    """`factor_of` of columns."""
    number = second.dtype.type
    for j in range(len(second)):
        factor[j] = factor_of(second[j], number(eps), outside, number(tiny))


@compiled
def write(out, row, origin, rest, factor, gain, shift):
    """The result of a row."""
    for j in range(len(row)):
        out[j] = (row[j] - at(origin, j) - at(rest, j)) * at(factor, j) * at(gain, j) + at(shift, j)


@summing
def slopes_of(slope, row, origin, rest, factor, gain):
    """The sums of the slopes, and of their products with the normalized values."""
    some = along = 0.0
    for j in range(len(row)):
        here = np.float64(slope[j]) * at(gain, j)
        some += here
        along += here * ((np.float64(row[j]) - at(origin, j) - at(rest, j)) * at(factor, j))
    return some, along


@compiled
def add_slopes(some, slope, factor):
    """The slopes of a row, multiplied, added to those that are there."""
    for j in range(len(slope)):
        some[j] += slope[j] * at(factor, j)


@compiled
def add_products(along, slope, row, origin, rest, factor):
    """The products of slopes and centered values, multiplied, added to those that are there."""
    for j in range(len(row)):
        along[j] += slope[j] * (row[j] - at(origin, j) - at(rest, j)) * at(factor, j)


@compiled
def write_slopes(out, slope, row, origin, rest, gain, share, part, factor):
    """The gradient of a row."""
    for j in range(len(row)):
        centered = row[j] - at(origin, j) - at(rest, j)
        out[j] = (slope[j] * at(gain, j) - centered * at(share, j) - at(part, j)) * at(factor, j)


@compiled
def rows_forward(start, stop, rows, out, index, which, gain, shift, second, rest, rule):
    """The regions from start to stop, each of whole rows."""
    eps, total, centered, outside, tiny = rule
    number, members, length = rows.dtype.type, index.shape[1], rows.shape[1]
    for k in range(start, stop):
        origin = rows[index[k, 0], 0] if centered else number(0)
        middle, squares, far = 0.0, 0.0, False
        for _ in range(2):
            center = number(origin + middle)
            some = squares = 0.0
            for m in range(members):
                more = moments(rows[index[k, m]], center)
                some += more[0]
                squares += more[1]
            if centered:
                some /= members * length
                away = some * some * (members * length)
                squares = squares - away if not squares < away else 0.0  # nan stays nan
                middle, far = np.float64(center) - origin + some, away > FAR * squares
            if not far:
                break
        second[k], rest[k] = squares / total, middle
        factor, left = number(factor_of(second[k], eps, outside, tiny)), rest[k]
        for m in range(members):
            i, w = index[k, m], which[k, m]
            if gain.shape[1] == 1:
                write(out[i], rows[i], origin, left, factor, gain[w, 0], shift[w, 0])
            elif shift.shape[1] == 1:
                write(out[i], rows[i], origin, left, factor, gain[w], shift[w, 0])
            else:
                write(out[i], rows[i], origin, left, factor, gain[w], shift[w])


@compiled
def columns_forward(start, stop, rows, out, index, which, gain, shift, second, rest, rule, tile):
    """The tiles from start to stop, each so many columns of the rows in one line of the index."""
    eps, total, centered, outside, tiny = rule
    number, members, length = rows.dtype.type, index.shape[1], rows.shape[1]
    for unit in range(start, stop):
        k, low, high = tile_at(unit, length, tile)
        spread, left = second[k, low:high], rest[k, low:high]
        zeros, factor = np.zeros_like(left), np.empty_like(left)
        origin = rows[index[k, 0], low:high] if centered else zeros
        left[:] = 0
        for _ in range(2):
            center = origin + left
            some, squares = np.zeros(high - low), np.zeros(high - low)
            for m in range(0, members, 8):
                some_rows = eight(rows, index[k], m, low, high, center)
                if centered:
                    add_moments(some, squares, some_rows, center)
                else:
                    add_squares(squares, some_rows)
            if not settle(some, squares, center, origin, members, total, spread, left):
                break
        factors_of(spread, eps, outside, tiny, factor)
        for m in range(members):
            i, w = index[k, m], which[k, m]
            row, to = rows[i, low:high], out[i, low:high]
            if shift.shape[1] > 1:
                write(to, row, origin, left, factor, gain[w, low:high], shift[w, low:high])
            elif gain.shape[1] > 1:
                write(to, row, origin, left, factor, gain[w, low:high], shift[w, 0])
            elif centered:
                write(to, row, origin, left, factor, gain[w, 0], shift[w, 0])
            else:
                write(to, row, number(0), number(0), factor, gain[w, 0], shift[w, 0])


@compiled
def rows_backward(start, stop, slopes, rows, out, index, which, gain, by_gain, by_shift, second, rest, rule):
    """The gradient of the regions from start to stop; that of gain and shift is added to what is there."""
    eps, total, centered, outside, tiny = rule
    number, members, length = rows.dtype.type, index.shape[1], rows.shape[1]
    for k in range(start, stop):
        origin, left = rows[index[k, 0], 0] if centered else number(0), rest[k]
        factor = number(factor_of(second[k], eps, outside, tiny))
        some = along = 0.0
        for m in range(members):
            i, w = index[k, m], which[k, m]
            slope, row = slopes[i], rows[i]
            if gain.shape[1] == 1:
                a, b = slopes_of(slope, row, origin, left, factor, number(1))
                by_shift[w, 0] += a
                by_gain[w, 0] += b
                a, b = a * gain[w, 0], b * gain[w, 0]
            else:
                add_slopes(by_shift[w], slope, number(1))
                add_products(by_gain[w], slope, row, origin, left, factor)
                a, b = slopes_of(slope, row, origin, left, factor, gain[w])
            some += a
            along += b
        along *= factor / total
        if outside:  # the root alone answers to the values, not the eps beside it
            along /= factor * np.sqrt(max(second[k], tiny))
        share, part = number(along), number(some / (members * length) if centered else 0)
        for m in range(members):
            i, w = index[k, m], which[k, m]
            if gain.shape[1] == 1:
                write_slopes(out[i], slopes[i], rows[i], origin, left, gain[w, 0], share, part, factor)
            else:
                write_slopes(out[i], slopes[i], rows[i], origin, left, gain[w], share, part, factor)


@compiled
def columns_backward(start, stop, slopes, rows, out, index, which, gain, by_gain, by_shift, second, rest, rule, tile):
    """The gradient of the tiles from start to stop; that of gain and shift is added to what is there."""
    eps, total, centered, outside, tiny = rule
    number, members, length = rows.dtype.type, index.shape[1], rows.shape[1]
    for unit in range(start, stop):
        k, low, high = tile_at(unit, length, tile)
        some, along, left = np.zeros(high - low), np.zeros(high - low), rest[k, low:high]
        factor, share, part = np.empty_like(left), np.empty_like(left), np.empty_like(left)
        origin = rows[index[k, 0], low:high] if centered else np.zeros_like(left)
        factors_of(second[k, low:high], eps, outside, tiny, factor)
        for m in range(members):
            i, w = index[k, m], which[k, m]
            slope, row = slopes[i, low:high], rows[i, low:high]
            if gain.shape[1] == 1:
                add_slopes(some, slope, gain[w, 0])
                add_products(along, slope, row, origin, left, gain[w, 0])
                a, b = slopes_of(slope, row, origin, left, factor, number(1))
                by_shift[w, 0] += a
                by_gain[w, 0] += b
            else:
                add_slopes(some, slope, gain[w, low:high])
                add_products(along, slope, row, origin, left, gain[w, low:high])
                add_slopes(by_shift[w, low:high], slope, number(1))
                add_products(by_gain[w, low:high], slope, row, origin, left, factor)
        along *= factor * factor / total
        if outside:  # the root alone answers to the values, not the eps beside it
            along /= factor * np.sqrt(np.maximum(second[k, low:high], tiny))
        share[:], part[:] = along, some * (centered / members)
        for m in range(members):
            i, w = index[k, m], which[k, m]
            slope, row, to = slopes[i, low:high], rows[i, low:high], out[i, low:high]
            if gain.shape[1] == 1:
                write_slopes(to, slope, row, origin, left, gain[w, 0], share, part, factor)
            else:
                write_slopes(to, slope, row, origin, left, gain[w, low:high], share, part, factor)

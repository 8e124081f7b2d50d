"""Loops over the regions of a large tensor, compiled for this processor when they are first called.

A tensor comes as `rows` of values that lie side by side in memory. A line of `index` has the rows of one region, or,
for the kernels of columns, of as many regions as a row is long. The line of `which` says where the gain and the shift
of these rows are: one value a row, or one a column (a shift that is missing is one value beside any gain). Both passes
over a region, for its statistics and for its result, follow one another, so that the second finds it in the cache.

The origin of a region is its first value, and `rest` the mean of the distances from it. Sums are float64, so that one
pass is enough for a variance: the mean lies at most sqrt(n) deviations from the origin, which costs n of 1e16.
"""

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload


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
    return 1 / (np.sqrt(np.maximum(second, tiny)) + eps) if outside else 1 / np.sqrt(second + eps)


@summing
def moments(row, origin):
    """The sum and the sum of squares of the distances from an origin."""
    some = squares = 0.0
    for j in range(len(row)):
        distance = np.float64(row[j]) - origin
        some += distance
        squares += distance * distance
    return some, squares


@compiled
def add_moments(some, squares, row, other, origin):
    """The same for each column of two rows, added to what is there."""
    for j in range(len(row)):
        distance, another = np.float64(row[j]) - origin[j], np.float64(other[j]) - origin[j]
        some[j] += distance + another
        squares[j] += distance * distance + another * another


@compiled
def add_squares(squares, row, other):
    """The squares of each column of two rows, added to what is there."""
    for j in range(len(row)):
        squares[j] += row[j] * row[j] + other[j] * other[j]


@compiled
def tile_at(unit, length, tile):
    """Which line of the index a tile belongs to, and from which to which column it reaches."""
    tiles = -(-length // tile)
    low = unit % tiles * tile
    return unit // tiles, low, min(low + tile, length)


@compiled
def settle(some, squares, members):
    """Turns the sums of columns into means, and into sums of squares about them."""
    for j in range(len(some)):
        some[j] /= members
        away = some[j] * some[j] * members
        squares[j] = squares[j] - away if not squares[j] < away else 0.0  # nan stays nan


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
        some = squares = 0.0
        for m in range(members):
            more = moments(rows[index[k, m]], origin)
            some += more[0]
            squares += more[1]
        middle = some / (members * length) if centered else 0.0
        away = some * middle if centered else 0.0
        squares = squares - away if not squares < away else 0.0  # nan stays nan
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
        some, squares, left = np.zeros(high - low), np.zeros(high - low), rest[k, low:high]
        zeros, factor = np.zeros_like(left), np.empty_like(left)
        origin = rows[index[k, 0], low:high] if centered else zeros
        for m in range(0, members, 2):
            row = rows[index[k, m], low:high]
            other = rows[index[k, m + 1], low:high] if m + 1 < members else origin  # which adds nothing
            if centered:
                add_moments(some, squares, row, other, origin)
            else:
                add_squares(squares, row, other)
        settle(some, squares, members)
        second[k, low:high], left[:] = squares / total, some
        factor[:] = factor_of(second[k, low:high], eps, outside, tiny)
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
        factor[:] = factor_of(second[k, low:high], eps, outside, tiny)
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

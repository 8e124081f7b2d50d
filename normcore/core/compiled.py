"""Loops over the regions of a large tensor, compiled for this processor when they are first called.

A tensor comes as `rows` of values that lie side by side in memory. A line of `index` has the rows of one region. The
line of `which` says where the gain and the shift of these rows are: one value a row, or one a column (what is missing
is one value). Both passes over a region, for its statistics and for its result, follow one another, so that the second
finds it in the cache. See `normcore.core.compiled_columns` for regions beside one another.

The origin of a region is its first value, and `rest` the mean of the distances from it. Sums of many values
are float64. From about 1e18 on the squares of float32 values overflow (in PyTorch's kernels from 1e17 on).
"""

import numpy as np
from numba import types
from numba.extending import overload

from normcore.core.compiler import compiled, shared, summing

CHUNK = 512
"""Values of a row summed in their own precision, before the sum goes on in float64."""
FAR = 4.0
"""How many variances the square of the distance from the origin to the mean may have: so many digits of the variance
are lost in sums of float32. Beyond it, all is summed again about the mean."""


def at(value, j):
    """An array's element, or the number that stands for all of them."""
    return value[j] if np.ndim(value) else value


@overload(at)
def _at(value, j):
    return (lambda value, j: value[j]) if isinstance(value, types.Array) else (lambda value, j: value)


def cut(value, low, high):
    """A part of an array, or the number that stands for all of it."""
    return value[low:high] if np.ndim(value) else value


@overload(cut)
def _cut(value, low, high):
    if isinstance(value, types.Array):
        return lambda value, low, high: value[low:high]
    return lambda value, low, high: value


@compiled
def factor_of(second, eps, outside, least):
    """What centered values are multiplied with."""
    return np.reciprocal(np.sqrt(np.maximum(second, least)) + eps if outside else np.sqrt(second + eps))


@compiled
def divided(some, total):
    """A sum divided, by infinity also if it is not finite itself."""
    return some / total if total < np.inf else 0.0


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
def write(out, row, center, rest, factor, gain, shift):
    """The result of a row."""
    for j in range(len(row)):
        out[j] = (row[j] - center - rest) * factor * at(gain, j) + at(shift, j)


@summing
def some_slopes(slope, row, center, factor, offset, gain):
    """The sums of the slopes, and of their products with the normalized values, in the precision of the values.

    These are ``(value - center) * factor - offset``: what is left of the mean must not be added to the center.
    """
    some = along = row.dtype.type(0)
    for j in range(len(row)):
        here = slope[j] * at(gain, j)
        some += here
        along += here * ((row[j] - at(center, j)) * at(factor, j) - at(offset, j))
    return some, along


@compiled
def slopes_of(slope, row, center, factor, offset, gain):
    """`some_slopes` of a row."""
    some = along = 0.0
    for begin in range(0, len(row), CHUNK):
        a, b = begin, begin + CHUNK
        of_columns = cut(center, a, b), cut(factor, a, b), cut(offset, a, b), cut(gain, a, b)
        more = some_slopes(slope[a:b], row[a:b], *of_columns)
        some += more[0]
        along += more[1]
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
        centered = row[j] - origin - rest
        out[j] = (slope[j] * at(gain, j) - centered * share - part) * factor


@shared
@compiled
def rows_forward(start, stop, nth, rows, out, index, which, gain, shift, second, rest, mean, rule):
    """The regions from start to stop, each of whole rows."""
    eps, total, centered, outside, least = rule
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
        second[k], rest[k], mean[k] = divided(squares, total), middle, origin + middle
        factor = number(factor_of(second[k], eps, outside, least))
        center, left = mean[k], number(origin + middle - mean[k])  # the mean, and what its rounding leaves
        for m in range(members):
            i, w = index[k, m], which[k, m]
            if gain.shape[1] == 1:
                write(out[i], rows[i], center, left, factor, gain[w, 0], shift[w, 0])
            elif shift.shape[1] == 1:
                write(out[i], rows[i], center, left, factor, gain[w], shift[w, 0])
            else:
                write(out[i], rows[i], center, left, factor, gain[w], shift[w])


@shared
@compiled
def rows_backward(
    start, stop, nth, slopes, rows, out, index, which, gain, by_gains, by_shifts, second, rest, rule, learns
):
    """The gradient of the regions from start to stop; that of gain and shift is added to what the part has."""
    by_gain, by_shift = by_gains[nth], by_shifts[nth]
    eps, total, centered, outside, least = rule
    number, members, length = rows.dtype.type, index.shape[1], rows.shape[1]
    for k in range(start, stop):
        origin, left = rows[index[k, 0], 0] if centered else number(0), rest[k]
        factor = number(factor_of(second[k], eps, outside, least))
        center = number(np.float64(origin) + left)
        offset = number((np.float64(origin) - center + left) * factor)
        some = along = 0.0
        for m in range(members):
            i, w = index[k, m], which[k, m]
            slope, row = slopes[i], rows[i]
            if gain.shape[1] == 1:
                a, b = slopes_of(slope, row, center, factor, offset, number(1))
                if learns:
                    by_shift[w, 0] += a
                    by_gain[w, 0] += b
                a, b = a * gain[w, 0], b * gain[w, 0]
            else:
                add_slopes(by_shift[w], slope, number(1))
                add_products(by_gain[w], slope, row, origin, left, factor)
                a, b = slopes_of(slope, row, center, factor, offset, gain[w])
            some += a
            along += b
        along = divided(along * factor, total)
        if outside:  # the root alone answers to the values, not the eps beside it, nor what stands for a small one
            along = along * (1 + eps / np.sqrt(second[k])) if not second[k] < least else 0.0
        share, part = number(along), number(some / (members * length) if centered else 0)
        for m in range(members):
            i, w = index[k, m], which[k, m]
            if gain.shape[1] == 1:
                write_slopes(out[i], slopes[i], rows[i], origin, left, gain[w, 0], share, part, factor)
            else:
                write_slopes(out[i], slopes[i], rows[i], origin, left, gain[w], share, part, factor)

"""Loops over the regions of a large tensor, compiled for this processor when they are first called.

A tensor comes as `rows` of values that lie side by side in memory. A line of `index` has the rows of one region, or,
for the kernels of columns, of as many regions as a row is long. The line of `which` says where the gain and the shift
of these rows are: one value a row, or one a column (a shift that is missing is one value beside any gain). Both passes
over a region, for its statistics and for its result, follow one another, so that the second finds it in the cache.
Sums over more than a row are float64.
"""

import numpy as np
from numba import njit, types
from numba.extending import overload

CHUNK = 4096
"""Values summed in the precision of the tensor, before the sum goes on in float64."""

compiled = njit(nogil=True, fastmath={"reassoc", "nsz", "contract"}, error_model="numpy")


def at(value, j):
    """An array's element, or the number that stands for all of them."""
    return value[j] if np.ndim(value) else value


@overload(at)
def _at(value, j):
    return (lambda value, j: value[j]) if isinstance(value, types.Array) else (lambda value, j: value)


@compiled
def factor_of(second, eps, outside):
    """What centered values are multiplied with."""
    return 1 / (np.sqrt(second) + eps) if outside else 1 / np.sqrt(second + eps)


@compiled
def moments(row, origin):
    """The sum and the sum of squares of the distances from an origin."""
    some = squares = row.dtype.type(0)
    for j in range(len(row)):
        distance = row[j] - origin
        some += distance
        squares += distance * distance
    return some, squares


@compiled
def add_moments(some, squares, row, other, origin):
    """The same for each column of two rows, added to what is there."""
    for j in range(len(row)):
        distance, another = row[j] - origin[j], other[j] - origin[j]
        some[j] += distance + another
        squares[j] += distance * distance + another * another


@compiled
def add_squares(squares, row, other):
    """The squares of each column of two rows, added to what is there."""
    for j in range(len(row)):
        squares[j] += row[j] * row[j] + other[j] * other[j]


@compiled
def settle(some, squares, members, total):
    """Turns the sums of columns into means, and into variances (mean squares where the sums are 0)."""
    for j in range(len(some)):
        some[j] /= members
        squares[j] = max(squares[j] - some[j] * some[j] * members, 0.0) / total


@compiled
def write(out, row, origin, rest, factor, gain, shift):
    """The result of a row."""
    for j in range(len(row)):
        out[j] = (row[j] - at(origin, j) - at(rest, j)) * at(factor, j) * at(gain, j) + at(shift, j)


@compiled
def slopes_of(slope, row, mean, factor, gain):
    """The sums of the slopes, and of their products with the normalized values."""
    some = along = row.dtype.type(0)
    for j in range(len(row)):
        some += slope[j] * at(gain, j)
        along += slope[j] * at(gain, j) * ((row[j] - at(mean, j)) * at(factor, j))
    return some, along


@compiled
def add_slopes(some, slope, factor):
    """The slopes of a row, multiplied, added to those that are there."""
    for j in range(len(slope)):
        some[j] += slope[j] * at(factor, j)


@compiled
def add_products(along, slope, row, mean, factor):
    """The products of slopes and centered values, multiplied, added to those that are there."""
    for j in range(len(row)):
        along[j] += slope[j] * (row[j] - at(mean, j)) * at(factor, j)


@compiled
def write_slopes(out, slope, row, mean, gain, share, part, factor):
    """The gradient of a row."""
    for j in range(len(row)):
        out[j] = (slope[j] * at(gain, j) - (row[j] - at(mean, j)) * at(share, j) - at(part, j)) * at(factor, j)


@compiled
def rows_forward(start, stop, rows, out, index, which, gain, shift, second, mean, rule):
    """The regions from start to stop, each of whole rows."""
    eps, total, centered, outside = rule
    number, members, length = rows.dtype.type, index.shape[1], rows.shape[1]
    for k in range(start, stop):
        origin = rows[index[k, 0], 0] if centered else number(0)
        some = squares = 0.0
        for m in range(members):
            row = rows[index[k, m]]
            for begin in range(0, length, CHUNK):
                more = moments(row[begin : begin + CHUNK], origin)
                some += more[0]
                squares += more[1]
        rest = some / (members * length) if centered else 0.0
        spread = max(squares - some * rest, 0.0) / total
        second[k], mean[k] = spread, origin + rest
        factor, middle = number(factor_of(spread, eps, outside)), number(rest)
        for m in range(members):
            i, w = index[k, m], which[k, m]
            if gain.shape[1] == 1:
                write(out[i], rows[i], origin, middle, factor, gain[w, 0], shift[w, 0])
            elif shift.shape[1] == 1:
                write(out[i], rows[i], origin, middle, factor, gain[w], shift[w, 0])
            else:
                write(out[i], rows[i], origin, middle, factor, gain[w], shift[w])


@compiled
def columns_forward(start, stop, rows, out, index, which, gain, shift, second, mean, rule, tile):
    """The tiles from start to stop, each so many columns of the rows in one line of the index."""
    eps, total, centered, outside = rule
    number, members, length = rows.dtype.type, index.shape[1], rows.shape[1]
    tiles = -(-length // tile)
    for unit in range(start, stop):
        k, low = unit // tiles, unit % tiles * tile
        high = min(low + tile, length)
        some, squares, zeros = np.zeros(high - low), np.zeros(high - low), np.zeros(high - low, rows.dtype)
        origin = rows[index[k, 0], low:high] if centered else zeros
        for m in range(0, members, 2):
            row = rows[index[k, m], low:high]
            other = rows[index[k, m + 1], low:high] if m + 1 < members else origin  # which adds nothing
            if centered:
                add_moments(some, squares, row, other, origin)
            else:
                add_squares(squares, row, other)
        settle(some, squares, members, total)
        rest, factor = np.empty_like(zeros), np.empty_like(zeros)
        rest[:], factor[:] = some, factor_of(squares, eps, outside)
        second[k, low:high] = squares
        mean[k, low:high] = origin + rest
        for m in range(members):
            i, w = index[k, m], which[k, m]
            row, to = rows[i, low:high], out[i, low:high]
            if shift.shape[1] > 1:
                write(to, row, origin, rest, factor, gain[w, low:high], shift[w, low:high])
            elif gain.shape[1] > 1:
                write(to, row, origin, rest, factor, gain[w, low:high], shift[w, 0])
            elif centered:
                write(to, row, origin, rest, factor, gain[w, 0], shift[w, 0])
            else:
                write(to, row, number(0), number(0), factor, gain[w, 0], shift[w, 0])


@compiled
def rows_backward(start, stop, slopes, rows, out, index, which, gain, by_gain, by_shift, second, mean, rule):
    """The gradient of the regions from start to stop; that of gain and shift is added to what is there."""
    eps, total, centered, outside = rule
    number, members, length = rows.dtype.type, index.shape[1], rows.shape[1]
    for k in range(start, stop):
        middle, factor = mean[k], number(factor_of(second[k], eps, outside))
        some = along = 0.0
        for m in range(members):
            i, w = index[k, m], which[k, m]
            for begin in range(0, length, CHUNK):
                end = min(begin + CHUNK, length)
                slope, row = slopes[i, begin:end], rows[i, begin:end]
                if gain.shape[1] == 1:
                    a, b = slopes_of(slope, row, middle, factor, number(1))
                    by_shift[w, 0] += a
                    by_gain[w, 0] += b
                    a, b = a * gain[w, 0], b * gain[w, 0]
                else:
                    add_slopes(by_shift[w, begin:end], slope, number(1))
                    add_products(by_gain[w, begin:end], slope, row, middle, factor)
                    a, b = slopes_of(slope, row, middle, factor, gain[w, begin:end])
                some += a
                along += b
        along *= factor / total
        if outside:  # the root alone answers to the values, not the eps beside it
            along /= factor * np.sqrt(second[k])
        share, part = number(along), number(some / (members * length) if centered else 0)
        for m in range(members):
            i, w = index[k, m], which[k, m]
            if gain.shape[1] == 1:
                write_slopes(out[i], slopes[i], rows[i], middle, gain[w, 0], share, part, factor)
            else:
                write_slopes(out[i], slopes[i], rows[i], middle, gain[w], share, part, factor)


@compiled
def columns_backward(start, stop, slopes, rows, out, index, which, gain, by_gain, by_shift, second, mean, rule, tile):
    """The gradient of the tiles from start to stop; that of gain and shift is added to what is there."""
    eps, total, centered, outside = rule
    number, members, length = rows.dtype.type, index.shape[1], rows.shape[1]
    tiles = -(-length // tile)
    for unit in range(start, stop):
        k, low = unit // tiles, unit % tiles * tile
        high = min(low + tile, length)
        middle = mean[k, low:high]
        some, along = np.zeros(high - low), np.zeros(high - low)
        factor, share, part = np.empty_like(middle), np.empty_like(middle), np.empty_like(middle)
        factor[:] = factor_of(second[k, low:high], eps, outside)
        for m in range(members):
            i, w = index[k, m], which[k, m]
            slope, row = slopes[i, low:high], rows[i, low:high]
            if gain.shape[1] == 1:
                add_slopes(some, slope, gain[w, 0])
                add_products(along, slope, row, middle, gain[w, 0])
                a, b = slopes_of(slope, row, middle, factor, number(1))
                by_shift[w, 0] += a
                by_gain[w, 0] += b
            else:
                add_slopes(some, slope, gain[w, low:high])
                add_products(along, slope, row, middle, gain[w, low:high])
                add_slopes(by_shift[w, low:high], slope, number(1))
                add_products(by_gain[w, low:high], slope, row, middle, factor)
        along *= factor * factor / total
        if outside:  # the root alone answers to the values, not the eps beside it
            along /= factor * np.sqrt(second[k, low:high])
        share[:] = along
        part[:] = some * (centered / members)
        for m in range(members):
            i, w = index[k, m], which[k, m]
            slope, row, to = slopes[i, low:high], rows[i, low:high], out[i, low:high]
            if gain.shape[1] == 1:
                write_slopes(to, slope, row, middle, gain[w, 0], share, part, factor)
            else:
                write_slopes(to, slope, row, middle, gain[w, low:high], share, part, factor)

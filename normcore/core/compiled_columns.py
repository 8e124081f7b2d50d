"""Loops over regions that are columns of rows of memory, compiled for this processor when they are first called.

A line of `index` has the rows of several regions, each a column of them or a `block` of columns side by side; after
the last region the first one may begin anew within a row. A gain is one value a row, a region or a column. Both passes
over a tile of columns follow one another; where rows are many and lines few (tall), all threads share the rows of a
line instead, in one pass and then the other.
"""

import numpy as np

from normcore.core.compiled import divided, factor_of, slopes_of
from normcore.core.compiler import compiled, shared

FAR = 25.0
"""As in `normcore.core.compiled`; beyond it, whole tiles are summed again, and all tall columns."""
LONG = 1536
"""Columns from which rows are written four at a time: what each column has no longer stays in a core's first cache."""


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


@compiled
def add_moments(some, squares, rows, origin):
    """The sums of the distances from an origin and of their squares, added to those of each column of eight rows."""
    a, b, c, d, e, f, g, h = rows
    for j in range(len(a)):
        o = origin[j]
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
def add_four_slopes(some, along, slopes, rows, center):
    """The slopes of each column of four rows, and their products with distances from a center, added to what is there.

    More rows at once would fight for places in the cache where they lie 4096 bytes apart.
    """
    p, q, r, s = slopes
    a, b, c, d = rows
    for j in range(len(a)):
        o = center[j]
        some[j] += (p[j] + q[j]) + (r[j] + s[j])
        along[j] += (p[j] * (a[j] - o) + q[j] * (b[j] - o)) + (r[j] * (c[j] - o) + s[j] * (d[j] - o))


@compiled
def add_weighted(some, along, slope, row, center, gain):
    """The slopes of a row times its gain, and their products with distances from a center, added to what is there."""
    for j in range(len(row)):
        some[j] += slope[j] * gain
        along[j] += slope[j] * (row[j] - center[j]) * gain


@compiled
def tile_at(unit, length, tile):
    """Which line of the index a tile belongs to, and from which to which column it reaches."""
    tiles = -(-length // tile)
    low = unit % tiles * tile
    return unit // tiles, low, min(low + tile, length)


@compiled
def in_columns(values, block, length):
    """What regions have, as a value for each column."""
    found = np.empty(length, values.dtype)
    if len(values) == length:
        found[:] = values
        return found
    for begin in range(0, length, len(values) * block):
        for r in range(len(values)):
            found[begin + r * block : begin + (r + 1) * block] = values[r]
    return found


@compiled
def by_region(values, block, regions):
    """The sums of what columns have."""
    if len(values) == regions:
        return values
    found = np.zeros(regions, values.dtype)
    for begin in range(0, len(values), regions * block):
        for r in range(regions):
            found[r] += np.sum(values[begin + r * block : begin + (r + 1) * block])
    return found


@compiled
def first_values(row, low, block, regions, centered):
    """The origins of regions: the first value of each, or 0 where nothing is centered."""
    found = np.zeros(regions, row.dtype)
    for r in range(regions if centered else 0):
        found[r] = row[low + r * block]
    return found


@compiled
def settle(some, squares, center, origin, members, total, second, rest, mean):
    """Writes the variances, rests and means of regions, from the sums of the distances from a center and their squares.

    Gives whether a center is too far from its mean. In place of the first sums stands what rounding left of the means.
    """
    far = False
    for j in range(len(some)):
        middle = some[j] / members
        away = some[j] * middle
        left = squares[j] - away if not squares[j] < away else 0.0  # nan stays nan
        far |= away > FAR * left
        second[j], rest[j] = divided(left, total), np.float64(center[j]) - origin[j] + middle
        mean[j] = center[j] + middle
        some[j] = center[j] + middle - mean[j]
    return far


@compiled
def means_of(origins, rest, block, length):
    """The means of regions, rounded, and what is left of them, for each column."""
    center, left = np.empty_like(origins), np.empty_like(origins)
    for r in range(len(origins)):
        mean = np.float64(origins[r]) + rest[r]
        center[r] = mean
        left[r] = mean - center[r]
    return in_columns(center, block, length), in_columns(left, block, length)


@compiled
def factors_of(second, eps, outside, least):
    """`factor_of` of several regions."""
    factor, number = np.empty_like(second), second.dtype.type
    for j in range(len(second)):
        factor[j] = factor_of(second[j], number(eps), outside, number(least))
    return factor


@compiled
def sum_moments(rows, index, low, high, center, centered, some, squares):
    """Adds up the moments of columns of the rows that an index names."""
    for m in range(0, len(index), 8):
        some_rows = eight(rows, index, m, low, high, center)
        if centered:
            add_moments(some, squares, some_rows, center)
        else:
            add_squares(squares, some_rows)


@compiled
def laid(values, low, high, block, length):
    """A row of gains or shifts as a value for each column from low to high: there is one in all, one a region, or one a
    column."""
    if len(values) == length:
        return values[low:high]
    if len(values) == 1:
        return np.repeat(values, high - low)
    return in_columns(values[low // block : high // block], block, high - low)


@compiled
def write_line(out, row, center, scale, offset, gain, shift):
    """The result of a row: a line for each column, and a gain and shift of the row."""
    for j in range(len(row)):
        out[j] = ((row[j] - center[j]) * scale[j] + offset[j]) * gain + shift


@compiled
def write_lines(outs, rows, center, scale, offset, gains, shifts):
    """The results of four rows."""
    o, p, q, r = outs
    a, b, c, d = rows
    for j in range(len(a)):
        z, s, t = center[j], scale[j], offset[j]
        o[j] = ((a[j] - z) * s + t) * gains[0] + shifts[0]
        p[j] = ((b[j] - z) * s + t) * gains[1] + shifts[1]
        q[j] = ((c[j] - z) * s + t) * gains[2] + shifts[2]
        r[j] = ((d[j] - z) * s + t) * gains[3] + shifts[3]


@compiled
def four(rows, index, m, low, high):
    """Some columns of four rows that an index names, the first being its m-th."""
    a, b, c, d = index[m], index[m + 1], index[m + 2], index[m + 3]
    return rows[a, low:high], rows[b, low:high], rows[c, low:high], rows[d, low:high]


@compiled
def numbers_of(values, which, m, alike, number):
    """The gains or shifts of four rows; if they are alike, the number that changes nothing."""
    if alike:
        return number, number, number, number
    return values[which[m], 0], values[which[m + 1], 0], values[which[m + 2], 0], values[which[m + 3], 0]


@compiled
def write_rows(rows, out, index, which, low, high, block, gain, shift, center, left, factor):
    """The results of columns of the rows that an index names."""
    nothing, one = rows.dtype.type(0), rows.dtype.type(1)
    alike = gain.shape[1] > 1 or len(gain) == 1
    scale, offset = factor, -left * factor
    if alike and len(index):
        scale = factor * laid(gain[which[0]], low, high, block, rows.shape[1])
        offset = laid(shift[which[0]], low, high, block, rows.shape[1]) - left * scale
    fours = len(index) // 4 * 4 if high - low > LONG else 0
    for m in range(0, fours, 4):
        gains, shifts = numbers_of(gain, which, m, alike, one), numbers_of(shift, which, m, alike, nothing)
        some = four(out, index, m, low, high), four(rows, index, m, low, high)
        write_lines(some[0], some[1], center, scale, offset, gains, shifts)
    for m in range(fours, len(index)):
        i, w = index[m], which[m]
        own = (one, nothing) if alike else (gain[w, 0], shift[w, 0])
        write_line(out[i, low:high], rows[i, low:high], center, scale, offset, own[0], own[1])


@shared
@compiled
def columns_forward(start, stop, nth, rows, out, index, which, gain, shift, second, rest, mean, rule, size):
    """The tiles from start to stop, each so many columns of the rows in one line of the index."""
    (eps, total, centered, outside, least), (block, tile) = rule, size
    length, count = rows.shape[1], index.shape[1] * rows.shape[1] // second.shape[1]
    for unit in range(start, stop):
        k, low, high = tile_at(unit, length, tile)
        a, b = low // block, min(high // block, second.shape[1])
        spread, left = second[k, a:b], rest[k, a:b]
        origins = first_values(rows[index[k, 0]], low, block, b - a, centered)
        left[:] = 0
        for _ in range(2):
            centers = origins + left
            center = in_columns(centers, block, high - low)
            some, squares = np.zeros(high - low), np.zeros(high - low)
            sum_moments(rows, index[k], low, high, center, centered, some, squares)
            sums = by_region(some, block, b - a), by_region(squares, block, b - a)
            if not settle(sums[0], sums[1], centers, origins, count, total, spread, left, mean[k, a:b]):
                break
        center = in_columns(mean[k, a:b], block, high - low)
        remainder = in_columns(sums[0].astype(rows.dtype), block, high - low)
        factor = in_columns(factors_of(spread, eps, outside, least), block, high - low)
        write_rows(rows, out, index[k], which[k], low, high, block, gain, shift, center, remainder, factor)


@shared
@compiled
def sum_tall(start, stop, nth, rows, index, center, centered, some, squares):
    """`sum_moments` of the rows from start to stop (in eights) of each line, for each part."""
    for k in range(len(index)):
        lines = some[nth, k], squares[nth, k]
        sum_moments(rows, index[k, 8 * start : 8 * stop], 0, rows.shape[1], center[k], centered, lines[0], lines[1])


@shared
@compiled
def write_tall(start, stop, nth, rows, out, index, which, block, gain, shift, center, left, factor):
    """`write_rows` of the rows from start to stop (in eights) of each line."""
    for k in range(len(index)):
        some, gains = index[k, 8 * start : 8 * stop], which[k, 8 * start : 8 * stop]
        write_rows(rows, out, some, gains, 0, rows.shape[1], block, gain, shift, center[k], left[k], factor[k])


@compiled
def room(rows, lines):
    """Room for a value for each column of some lines."""
    return np.empty((lines, rows.shape[1]), rows.dtype)


@compiled
def tall_forward(team, rows, out, index, which, gain, shift, second, rest, mean, rule, block):
    """All lines, the rows of each shared out (in eights)."""
    eps, total, centered, outside, least = rule
    lines, length, regions = len(index), rows.shape[1], second.shape[1]
    count = index.shape[1] * length // regions
    origins = np.zeros_like(second)
    center, left, factor = room(rows, lines), room(rows, lines), room(rows, lines)
    for k in range(lines):
        origins[k] = first_values(rows[index[k, 0]], 0, block, regions, centered)
    rest[:] = 0
    for _ in range(2):
        centers, far = origins + rest, False
        for k in range(lines):
            center[k] = in_columns(centers[k], block, length)
        sums = np.zeros((2, team[3], lines, length))
        sum_tall(team, rows, index, center, centered, sums[0], sums[1])
        for k in range(lines):
            some = by_region(sums[0, :, k].sum(0), block, regions)
            squares = by_region(sums[1, :, k].sum(0), block, regions)
            far |= settle(some, squares, centers[k], origins[k], count, total, second[k], rest[k], mean[k])
            left[k] = in_columns(some.astype(rows.dtype), block, length)
        if not far:
            break
    for k in range(lines):
        center[k] = in_columns(mean[k], block, length)
        factor[k] = in_columns(factors_of(second[k], eps, outside, least), block, length)
    write_tall(team, rows, out, index, which, block, gain, shift, center, left, factor)


@compiled
def sum_slopes(slopes, rows, index, low, high, center, some, along):
    """Adds up the slopes of columns of the rows that an index names, and products with distances from a center."""
    nothing = np.zeros(high - low, rows.dtype)
    for m in range(0, len(index), 8):
        p, q, r, s, t, u, v, w = eight(slopes, index, m, low, high, nothing)
        a, b, c, d, e, f, g, h = eight(rows, index, m, low, high, center)
        add_four_slopes(some, along, (p, q, r, s), (a, b, c, d), center)
        add_four_slopes(some, along, (t, u, v, w), (e, f, g, h), center)


@compiled
def pulled(some, along, factor, second, block, rule, members):
    """What the slopes of columns do to the mean (for each column) and to the divisor of their regions.

    `some` are their sums, and `along` those of their products with the normalized values.
    """
    eps, total, centered, outside, least = rule
    regions = len(second)
    shares = by_region(along, block, regions) * factor
    for r in range(regions):
        shares[r] = divided(shares[r], total)
        if outside:  # the root alone answers to the values, not the eps beside it, nor what stands for a small one
            shares[r] = shares[r] * (1 + eps / np.sqrt(second[r])) if not second[r] < least else 0.0
    parts = by_region(some, block, regions) * (centered / members)
    number = second.dtype
    return in_columns(shares.astype(number), block, len(some)), in_columns(parts.astype(number), block, len(some))


@compiled
def write_slope_line(out, slope, row, center, scale, along, offset, gain):
    """The gradient of a row: a plane for each column, and a gain of the row."""
    for j in range(len(row)):
        out[j] = slope[j] * (scale[j] * gain) - (row[j] - center[j]) * along[j] - offset[j]


@compiled
def write_slope_lines(outs, slopes, rows, center, scale, along, offset, gains):
    """The gradients of four rows."""
    o, p, q, r = outs
    e, f, g, h = slopes
    a, b, c, d = rows
    for j in range(len(a)):
        z, s, t, u = center[j], scale[j], along[j], offset[j]
        o[j] = e[j] * (s * gains[0]) - (a[j] - z) * t - u
        p[j] = f[j] * (s * gains[1]) - (b[j] - z) * t - u
        q[j] = g[j] * (s * gains[2]) - (c[j] - z) * t - u
        r[j] = h[j] * (s * gains[3]) - (d[j] - z) * t - u


@compiled
def write_row_slopes(slopes, rows, out, index, which, low, high, block, gain, center, left, share, part, factor):
    """The gradients of columns of the rows that an index names."""
    one = rows.dtype.type(1)
    alike = gain.shape[1] > 1 or len(gain) == 1
    scale, along = factor, factor * share
    offset = factor * part - left * along
    if alike and len(index):
        scale = factor * laid(gain[which[0]], low, high, block, rows.shape[1])
    fours = len(index) // 4 * 4 if high - low > LONG else 0
    for m in range(0, fours, 4):
        gains = numbers_of(gain, which, m, alike, one)
        some = four(slopes, index, m, low, high), four(rows, index, m, low, high)
        write_slope_lines(four(out, index, m, low, high), some[0], some[1], center, scale, along, offset, gains)
    for m in range(fours, len(index)):
        i, own = index[m], one if alike else gain[which[m], 0]
        slope, row = slopes[i, low:high], rows[i, low:high]
        write_slope_line(out[i, low:high], slope, row, center, scale, along, offset, own)


@compiled
def learn(found, given, low, high, block, length):
    """Adds what columns from low to high have found to a row of gains or shifts."""
    if len(found) == length:
        found[low:high] += given
    elif len(found) == 1:
        found[0] += given.sum()
    else:
        a, b = low // block, min(high // block, len(found))
        found[a:b] += by_region(given, block, b - a)


@compiled
def taught(by_gain, by_shift, gain, some, along, low, high, block, length):
    """Has rows of gains and shifts learn what columns have found, and gives that times the gains."""
    learn(by_shift, some, low, high, block, length)
    learn(by_gain, along, low, high, block, length)
    gains = laid(gain, low, high, block, length)
    return some * gains, along * gains


@shared
@compiled
def columns_backward(
    start, stop, nth, slopes, rows, out, index, which, gain, by_gains, by_shifts, second, rest, rule, learns, size
):
    """The gradient of the tiles from start to stop; that of gain and shift is added to what the part has, or the line.

    It is a line's where each column has gains of its own, for other tiles have other columns.
    """
    (eps, _, centered, outside, least), (block, tile) = rule, size
    length, count = rows.shape[1], index.shape[1] * rows.shape[1] // second.shape[1]
    for unit in range(start, stop):
        k, low, high = tile_at(unit, length, tile)
        a, b = low // block, min(high // block, second.shape[1])
        origins = first_values(rows[index[k, 0]], low, block, b - a, centered)
        center, left = means_of(origins, rest[k, a:b], block, high - low)
        factors = factors_of(second[k, a:b], eps, outside, least)
        factor = in_columns(factors, block, high - low)
        slot = k if gain.shape[1] > 1 and len(index) == len(by_gains) else nth
        some, along = np.zeros(high - low), np.zeros(high - low)
        if gain.shape[1] > 1 or len(gain) == 1:
            sum_slopes(slopes, rows, index[k], low, high, center, some, along)
            along = (along - some * left) * factor
            if learns:
                w = which[k, 0]
                found = by_gains[slot, w], by_shifts[slot, w]
                some, along = taught(found[0], found[1], gain[w], some, along, low, high, block, length)
        else:
            offset = left * factor
            for m in range(index.shape[1]):
                i, w = index[k, m], which[k, m]
                slope, row = slopes[i, low:high], rows[i, low:high]
                add_weighted(some, along, slope, row, center, gain[w, 0])
                sums = slopes_of(slope, row, center, factor, offset, rows.dtype.type(1))
                by_shifts[slot, w, 0] += sums[0]
                by_gains[slot, w, 0] += sums[1]
            along = (along - some * left) * factor
        share, part = pulled(some, along, factors, second[k, a:b], block, rule, count)
        write_row_slopes(
            slopes, rows, out, index[k], which[k], low, high, block, gain, center, left, share, part, factor
        )


@shared
@compiled
def sum_tall_slopes(start, stop, nth, slopes, rows, index, center, some, along):
    """`sum_slopes` of the rows from start to stop (in eights) of each line, for each part."""
    for k in range(len(index)):
        lines = some[nth, k], along[nth, k]
        sum_slopes(slopes, rows, index[k, 8 * start : 8 * stop], 0, rows.shape[1], center[k], lines[0], lines[1])


@shared
@compiled
def write_tall_slopes(
    start, stop, nth, slopes, rows, out, index, which, block, gain, center, left, share, part, factor
):
    """`write_row_slopes` of the rows from start to stop (in eights) of each line."""
    for k in range(len(index)):
        some, gains = index[k, 8 * start : 8 * stop], which[k, 8 * start : 8 * stop]
        of_columns = center[k], left[k], share[k], part[k], factor[k]
        write_row_slopes(slopes, rows, out, some, gains, 0, rows.shape[1], block, gain, *of_columns)


@compiled
def tall_backward(team, slopes, rows, out, index, which, gain, by_gains, by_shifts, second, rest, rule, learns, block):
    """The gradient of all lines, the rows of each shared out (in eights)."""
    eps, _, centered, outside, least = rule
    lines, length, regions = len(index), rows.shape[1], second.shape[1]
    center, left, factor = room(rows, lines), room(rows, lines), room(rows, lines)
    share, part = room(rows, lines), room(rows, lines)
    for k in range(lines):
        origins = first_values(rows[index[k, 0]], 0, block, regions, centered)
        center[k], left[k] = means_of(origins, rest[k], block, length)
    sums = np.zeros((2, team[3], lines, length))
    sum_tall_slopes(team, slopes, rows, index, center, sums[0], sums[1])
    for k in range(lines):
        factors = factors_of(second[k], eps, outside, least)
        factor[k] = in_columns(factors, block, length)
        some, along = sums[0, :, k].sum(0), sums[1, :, k].sum(0)
        along = (along - some * left[k]) * factor[k]
        if learns:
            w = which[k, 0]
            some, along = taught(by_gains[0, w], by_shifts[0, w], gain[w], some, along, 0, length, block, length)
        share[k], part[k] = pulled(some, along, factors, second[k], block, rule, index.shape[1] * length // regions)
    write_tall_slopes(team, slopes, rows, out, index, which, block, gain, center, left, share, part, factor)

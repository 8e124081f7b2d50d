"""Loops over lists of gradients, compiled for this processor when they are first called.

`spikes` and `squash` take what lies from an element to another, all tensors being laid end to end. Those that get an
`order` take whole tensors: `steady` each at once, the others unit by unit. All of these but `steady` and `centralize`
multiply each unit by a factor, and find its norm before, the factor, and one number more. Sums go from chunk to chunk
in float64.
"""

from typing import Any

import numpy as np
from numba import carray, types
from numba.extending import intrinsic

from normcore.core.compiled import some_moments
from normcore.core.compiler import compiled, shared, summing

CHUNK = 4096
"""Values summed in their own precision, before the sum goes on in float64."""
LEAST = 1e-30
"""A sum of squares below which, as beyond the largest number, some are lost in float32: it is taken in float64 then."""
BEFORE, AFTER, APART, ALONG, CHANGED = range(5)
"""What a loop finds that replaces values: the sums of squares before, after and of the difference, of products, and how
many values changed."""


@intrinsic
def pointer(context: Any, address: Any, like: Any) -> Any:
    """A pointer to numbers like those of an array."""
    kind = types.CPointer(like.dtype)

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(kind))

    return kind(address, like), generate


@compiled
def part(lists, i, column, low, high):
    """A part of a tensor of a list."""
    return carray(pointer(lists.addresses[i, column], lists.like), (high,))[low:high]  # type: ignore[call-arg]


@compiled
def between(starts, start, stop):
    """The first tensor that reaches from an element to another, and the one after the last."""
    return np.searchsorted(starts, start, side="right") - 1, np.searchsorted(starts, stop)


@compiled
def overlap(lists, i, column, start, stop):
    """What lies from an element to another of a tensor of a list."""
    begin, end = lists.starts[i], lists.starts[i + 1]
    return part(lists, i, column, max(start, begin) - begin, min(stop, end) - begin)


@compiled
def units_of(order, lists, firsts):
    """The number of each unit of some tensors, its tensor, and from where to where it lies there (units 4)."""
    found = np.empty((np.sum(firsts[order + 1] - firsts[order]), 4), np.int64)
    k = 0
    for i in order:
        count = firsts[i + 1] - firsts[i]
        length = (lists.starts[i + 1] - lists.starts[i]) // max(1, count)
        for number in range(count):
            found[k] = firsts[i] + number, i, number * length, (number + 1) * length
            k += 1
    return found


@compiled
def pair(lists, unit):
    """What both lists have of a unit."""
    return part(lists, unit[1], 0, unit[2], unit[3]), part(lists, unit[1], 1, unit[2], unit[3])


@summing
def squares_of(values):
    """The sum of squares of a chunk."""
    some = values.dtype.type(0)
    for j in range(len(values)):
        some += values[j] * values[j]
    return some


@summing
def wide_squares_of(values):
    """The sum of squares in float64."""
    some = 0.0
    for j in range(len(values)):
        some += np.float64(values[j]) * values[j]
    return some


@compiled
def sound(some, values):
    """A sum of squares, taken again if it left the range of its precision."""
    return np.float64(some) if LEAST < some < np.inf else wide_squares_of(values)


@compiled
def squares_in_chunks(values):
    """The sum of squares."""
    some = 0.0
    for begin in range(0, len(values), CHUNK):
        chunk = values[begin : begin + CHUNK]
        some += sound(squares_of(chunk), chunk)
    return some


@compiled
def finish(row, gradient, norm, factor, other):
    """Writes down what was found, and multiplies a gradient from its end, which was read last, to its beginning."""
    number = gradient.dtype.type(factor)
    row[0], row[1], row[2] = norm, number, other
    if number == 1:
        return
    for end in range(len(gradient), 0, -CHUNK):
        chunk = gradient[max(0, end - CHUNK) : end]
        for j in range(len(chunk)):
            chunk[j] *= number


@summing
def sum_and_largest(values, bits, unsigned):
    """The sum of squares, and the largest of the numbers read as whole ones, without their sign (nan is largest)."""
    some, largest = values.dtype.type(0), bits.dtype.type(0)
    for j in range(len(values)):
        some += values[j] * values[j]
        largest = max(largest, bits[j] & unsigned)
    return some, largest


@compiled
def size_of(values, bits):
    """The sum of squares and the largest absolute value, nan where there is one; `bits` are whole numbers as wide."""
    squares, largest = 0.0, np.zeros(1, bits.dtype)
    for begin in range(0, len(values), CHUNK):
        chunk = values[begin : begin + CHUNK]
        some, most = sum_and_largest(chunk, chunk.view(bits.dtype), np.iinfo(bits.dtype).max)
        squares += sound(some, chunk)
        largest[0] = max(largest[0], most)
    return squares, largest.view(values.dtype)[0]


@summing
def beyond(gradient, v, factor, most):
    """How many squares are not below `most` and below a multiple of v (any, if the factor is infinite)."""
    count = 0
    for j in range(len(gradient)):
        square = gradient[j] * gradient[j]
        count += not square <= (most if factor == np.inf else min(most, factor * v[j]))
    return count


@compiled
def toward(old, new, share):
    """A running value moved by its share, exact at both ends."""
    return old + share * (new - old) if share < 0.5 else new - (1 - share) * (new - old)


@summing
def enter(gradient, v, share):
    """Moves v toward the squares, and gives their sum."""
    some = gradient.dtype.type(0)
    for j in range(len(gradient)):
        square = gradient[j] * gradient[j]
        v[j] = toward(v[j], square, share)
        some += square
    return some


@compiled
def cut(part, usual, factor, share, most, row):
    """`spikes` of a chunk that has one."""
    for j in range(len(part)):
        old = new = part[j]
        if old * old > factor * usual[j]:
            new = np.copysign(np.sqrt(factor * usual[j]), old)
        moved = toward(usual[j], new * new, share)
        usual[j] = moved if moved <= most else usual[j]
        part[j] = new
        row[BEFORE] += np.float64(old) * old
        row[AFTER] += np.float64(new) * new
        row[APART] += np.float64(old - new) * (old - new)
        row[ALONG] += np.float64(old) * new
        row[CHANGED] += new != old and not np.isnan(old)


@shared
@compiled
def spikes(start, stop, nth, lists, founds, factor, share):
    """Cuts values to the root of a multiple of v (not, if the factor is infinite), then moves v toward their squares.

    A square that is not finite does not enter v.
    """
    number, most = lists.like.dtype.type, np.finfo(lists.like.dtype).max
    factor, share = number(factor), number(share)
    first, last = between(lists.starts, start, stop)
    for i in range(first, last):
        gradient, v, row = overlap(lists, i, 0, start, stop), overlap(lists, i, 1, start, stop), founds[nth, i]
        for begin in range(0, len(gradient), CHUNK):
            some, usual = gradient[begin : begin + CHUNK], v[begin : begin + CHUNK]
            if beyond(some, usual, factor, most):
                cut(some, usual, factor, share, most, row)
            else:  # as nearly always
                squares = enter(some, usual, share)
                row[BEFORE] += squares
                row[AFTER] += squares
                row[ALONG] += squares


@summing
def enter_and_compare(gradient, v, share, least, most):
    """Moves v toward the squares where it stays finite; the sums of squares, and of squares / max(moved v, least)."""
    some = ratio = gradient.dtype.type(0)
    for j in range(len(gradient)):
        square = gradient[j] * gradient[j]
        moved = toward(v[j], square, share)
        v[j] = moved if moved <= most else v[j]
        some += square
        ratio += square / max(moved, least)
    return some, ratio


@shared
@compiled
def updates(start, stop, nth, order, lists, firsts, found, share, least, threshold):
    """Moves v, then shortens what has a mean ratio of squares to v (found) above the square of the threshold."""
    number, most = lists.like.dtype.type, np.finfo(lists.like.dtype).max
    for unit in units_of(order[start:stop], lists, firsts):
        gradient, v = pair(lists, unit)
        squares = ratios = 0.0
        for begin in range(0, len(gradient), CHUNK):
            chunk, usual = gradient[begin : begin + CHUNK], v[begin : begin + CHUNK]
            some, ratio = enter_and_compare(chunk, usual, number(share), number(least), most)
            squares += some
            ratios += ratio
        ratio = ratios / max(1, len(gradient))
        factor = 1 / np.maximum(np.sqrt(ratio) / threshold, 1.0)
        finish(found[unit[0]], gradient, np.sqrt(squares), factor, ratio)


@shared
@compiled
def trust(start, stop, nth, order, lists, firsts, found, coefficient, most):
    """Multiplies by ``coefficient * ‖weights‖ (found) / ‖gradient‖``, at most so much; 1 where a norm is 0 or nan."""
    for unit in units_of(order[start:stop], lists, firsts):
        gradient, weights = pair(lists, unit)
        size, norm = np.sqrt(squares_in_chunks(weights)), np.sqrt(squares_in_chunks(gradient))
        factor = np.minimum(coefficient * size / norm if size > 0 and norm > 0 else 1.0, most)
        finish(found[unit[0]], gradient, norm, factor, size)


@shared
@compiled
def by_weights(start, stop, nth, order, lists, firsts, found, least):
    """Multiplies by the root of the mean square of the weights (found), but at least by so much."""
    for unit in units_of(order[start:stop], lists, firsts):
        gradient, weights = pair(lists, unit)
        square = squares_in_chunks(weights) / max(1, len(weights))
        norm = np.sqrt(squares_in_chunks(gradient))
        finish(found[unit[0]], gradient, norm, np.maximum(np.sqrt(square), least), square)


@shared
@compiled
def adapt(start, stop, nth, order, lists, firsts, found, clip_factor, eps, last):
    """Multiplies by ``clip_factor * max(‖weights‖ (found), eps) / ‖gradient‖``, at most 1; 1 from unit `last` on."""
    for unit in units_of(order[start:stop], lists, firsts):
        gradient, weights = pair(lists, unit)
        size, norm = np.sqrt(squares_in_chunks(weights)), np.sqrt(squares_in_chunks(gradient))
        factor = (
            np.minimum(clip_factor * np.maximum(size, eps) / np.maximum(norm, 1e-6), 1.0) if unit[0] < last else 1.0
        )
        finish(found[unit[0]], gradient, norm, factor, size)


@summing
def lower(values, mean):
    """Subtracts a number from a chunk; the sum of squares after it, and how many values changed."""
    squares, changed = values.dtype.type(0), 0
    for j in range(len(values)):
        new = values[j] - mean
        changed += new != values[j] and values[j] == values[j]
        squares += new * new
        values[j] = new
    return squares, changed


@shared
@compiled
def centralize(start, stop, nth, order, lists, firsts, found, alone):
    """Subtracts the mean of each unit, but not in tensors that are to be let alone; finds it for each tensor."""
    for unit in units_of(order[start:stop], lists, firsts):
        i, some, after = unit[1], 0.0, 0.0
        gradient, row = part(lists, i, 0, unit[2], unit[3]), found[i]
        for begin in range(0, len(gradient), CHUNK):
            more, squares = some_moments(gradient[begin : begin + CHUNK], gradient.dtype.type(0))
            some += more
            row[BEFORE] += squares
        mean = gradient.dtype.type(0 if alone[i] else some / max(1, len(gradient)))
        for begin in range(0, len(gradient), CHUNK):
            squares, changed = lower(gradient[begin : begin + CHUNK], mean)
            after += squares
            row[CHANGED] += changed
        row[AFTER] += after
        row[APART] += np.float64(mean) * mean * len(gradient)
        row[ALONG] += after + mean * (some - np.float64(mean) * len(gradient))


@summing
def squares_about(values, limit):
    """The sums of squares of what is within a limit, and of what is beyond it."""
    within, beyond, nothing = 0.0, 0.0, values.dtype.type(0)
    for j in range(len(values)):
        near = np.float64(values[j] if abs(values[j]) <= limit else nothing)
        far = np.float64(nothing if abs(values[j]) <= limit else values[j])
        within += near * near
        beyond += far * far
    return within, beyond


@summing
def how_many_beyond(values, limit):
    """How many values are beyond a limit."""
    count = 0
    for j in range(len(values)):
        count += abs(values[j]) > limit
    return count


@compiled
def parted(gradient, limit):
    """`squares_about` of a gradient, and `how_many_beyond`."""
    within, beyond, count = 0.0, 0.0, 0
    for begin in range(0, len(gradient), CHUNK):
        chunk = gradient[begin : begin + CHUNK]
        near, far = squares_about(chunk, limit)
        within, beyond, count = within + near, beyond + far, count + how_many_beyond(chunk, limit)
    return within, beyond, count


@compiled
def scale_cut(gradient, limit, share, scale):
    """Multiplies a gradient from its end, which was read last, and what is beyond the limit by its share too."""
    for end in range(len(gradient), 0, -CHUNK):
        chunk = gradient[max(0, end - CHUNK) : end]
        for j in range(len(chunk)):
            chunk[j] *= share * scale if abs(chunk[j]) > limit else scale


@shared
@compiled
def steady(start, stop, nth, order, lists, firsts, found, memory, step, gamma1, gamma2, theta, eps):
    """Multiplies elements above a running maximum by ``maximum / largest``, and each tensor to a steady norm.

    The memory has the maximum and the averages of norms and of their squares; found are what other loops find, and the
    new memory. What is not finite, or 0, is left alone and moves no norms.
    """
    number = lists.like.dtype.type
    for i in order[start:stop]:
        gradient, row = part(lists, i, 0, 0, lists.starts[i + 1] - lists.starts[i]), found[i]
        squares, largest = size_of(gradient, lists.bits)
        maximum, m, v = memory[i, 0], memory[i, 1], memory[i, 2]
        if np.isfinite(largest):
            maximum = theta * maximum + (1 - theta) * largest
        limit = maximum / (1 - theta**step)
        below, share = number(limit), number(limit / largest if largest > limit and np.isfinite(largest) else 1)
        within, beyond, count = (squares, 0.0, 0) if share == 1 else parted(gradient, below)
        cut = within + np.float64(share) * share * beyond
        norm = np.sqrt(cut)
        row[BEFORE], row[AFTER], row[ALONG] = within + beyond, within + beyond, within + beyond
        if norm > 0 and np.isfinite(norm):
            m, v = gamma1 * m + (1 - gamma1) * norm, gamma2 * v + (1 - gamma2) * cut
            scale = number(m / (1 - gamma1**step) / (np.sqrt(v / (1 - gamma2**step)) + eps) / norm)
            both = np.float64(share * scale)
            row[AFTER], row[ALONG] = within * scale * scale + beyond * both * both, within * scale + beyond * both
            row[APART] = within * (1 - np.float64(scale)) ** 2 + beyond * (1 - both) ** 2
            row[CHANGED] = (len(gradient) - count) * (scale != 1) + count * (both != 1)
            scale_cut(gradient, below, share, scale)
        row[5], row[6], row[7] = maximum, m, v


NUMERATOR = 4.89352456e-3, 6.37261929e-4, 1.48572236e-5, 5.12229709e-8, -8.60467152e-11, 2.00018790e-13, -2.76076848e-16
DENOMINATOR = 4.89352519e-3, 2.26843463e-3, 1.18534706e-4, 1.19825840e-6
OVER, UNDER = (tuple(map(np.float32, numbers)) for numbers in (NUMERATOR, DENOMINATOR))
EDGE, SMALL, ONE = np.float32(7.90531111), np.float32(4e-4), np.float32(1)
"""tanh(x) = x * OVER(x²) / UNDER(x²) to 3e-7 of itself (so neighbors keep their order no better), up to EDGE: Eigen's
polynomials for float32. Beyond it, it is 1; below SMALL, x itself is closer than a float32 can tell."""


@compiled
def bend(values, before, threshold, shrink):
    """`squash` of a part."""
    for j in range(len(values)):
        before[j] = values[j]
        x = values[j] * shrink
        cut = min(max(x, -EDGE), EDGE)
        s = cut * cut
        above = OVER[0] + s * (OVER[1] + s * (OVER[2] + s * (OVER[3] + s * (OVER[4] + s * (OVER[5] + s * OVER[6])))))
        below = UNDER[0] + s * (UNDER[1] + s * (UNDER[2] + s * UNDER[3]))
        bent = cut * above / below
        if abs(x) >= SMALL:  # neither nan
            values[j] = threshold * (bent if abs(x) < EDGE else np.copysign(ONE, x))


@shared
@compiled
def squash(start, stop, nth, lists, founds, threshold):
    """Makes ``threshold * tanh(values / threshold)`` of float32 values, after a copy of them in the other list."""
    number = lists.like.dtype.type
    first, last = between(lists.starts, start, stop)
    for i in range(first, last):
        values, before = overlap(lists, i, 0, start, stop), overlap(lists, i, 1, start, stop)
        bend(values, before, number(threshold), number(1 / threshold))

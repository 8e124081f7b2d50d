"""Loops over flat parts of gradients, compiled for this processor when they are first called.

`sizes`, `spikes`, `updates` and `squash` are what methods use; sums go from chunk to chunk in float64.
"""

import numpy as np

from normcore.core.compiled import compiled, summing

CHUNK = 4096
"""Values summed in their own precision, before the sum goes on in float64."""


@summing
def sum_and_largest(values, bits, unsigned):
    """The sum of squares, and the largest of the numbers read as whole ones, without their sign (nan is largest)."""
    some, largest = values.dtype.type(0), bits.dtype.type(0)
    for j in range(len(values)):
        some += values[j] * values[j]
        largest = max(largest, bits[j] & unsigned)
    return some, largest


@compiled
def sizes_in_chunks(values, bits, unsigned):
    """`sum_and_largest` of a part."""
    squares, largest = 0.0, bits.dtype.type(0)
    for begin in range(0, len(values), CHUNK):
        some, high = sum_and_largest(values[begin : begin + CHUNK], bits[begin : begin + CHUNK], unsigned)
        squares += some
        largest = max(largest, high)
    return squares, largest


def sizes(values):
    """The sum of squares and the largest absolute value of a part; nan where there is one."""
    bits = values.view(f"i{values.itemsize}")
    squares, largest = sizes_in_chunks(values, bits, bits.dtype.type(np.iinfo(bits.dtype).max))
    return squares, float(np.asarray(largest, bits.dtype).view(values.dtype))


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
def spikes_in_chunks(gradient, v, factor, share, most):
    """`spikes` of a part."""
    before, after, apart, together, changed = 0.0, 0.0, 0.0, 0.0, 0
    for begin in range(0, len(gradient), CHUNK):
        part, usual = gradient[begin : begin + CHUNK], v[begin : begin + CHUNK]
        if not beyond(part, usual, factor, most):  # as nearly always
            squares = enter(part, usual, share)
            before, after, together = before + squares, after + squares, together + squares
            continue
        for j in range(len(part)):
            old = new = part[j]
            if old * old > factor * usual[j]:
                new = np.copysign(np.sqrt(factor * usual[j]), old)
            moved = toward(usual[j], new * new, share)
            usual[j] = moved if moved <= most else usual[j]
            part[j] = new
            before += np.float64(old) * old
            after += np.float64(new) * new
            apart += np.float64(old - new) * (old - new)
            together += np.float64(old) * new
            changed += new != old and not np.isnan(old)
    return before, after, apart, together, changed


def spikes(gradient, v, factor, share):
    """Cuts a part to the root of a multiple of v (not, if the factor is infinite), then moves v toward its squares.

    A square that is not finite does not enter v. Gives the sums of squares before, after and of the difference, of
    products, and how many elements changed.
    """
    number = gradient.dtype.type
    return spikes_in_chunks(gradient, v, number(factor), number(share), np.finfo(number).max)


@summing
def enter_and_compare(gradient, v, share, least, most):
    """`updates` of a chunk."""
    some = ratio = gradient.dtype.type(0)
    for j in range(len(gradient)):
        square = gradient[j] * gradient[j]
        moved = toward(v[j], square, share)
        v[j] = moved if moved <= most else v[j]
        some += square
        ratio += square / max(moved, least)
    return some, ratio


@compiled
def updates_in_chunks(gradient, v, share, least, most):
    """`enter_and_compare` of a part."""
    squares = ratios = 0.0
    for begin in range(0, len(gradient), CHUNK):
        part = enter_and_compare(gradient[begin : begin + CHUNK], v[begin : begin + CHUNK], share, least, most)
        squares += part[0]
        ratios += part[1]
    return squares, ratios


def updates(gradient, v, share, least):
    """Moves v toward the squares where it stays finite; the sums of squares, and of squares / max(moved v, least)."""
    number = gradient.dtype.type
    return updates_in_chunks(gradient, v, number(share), number(least), np.finfo(number).max)


OVER = 4.89352456e-3, 6.37261929e-4, 1.48572236e-5, 5.12229709e-8, -8.60467152e-11, 2.00018790e-13, -2.76076848e-16
UNDER = 4.89352519e-3, 2.26843463e-3, 1.18534706e-4, 1.19825840e-6
"""tanh(x) = x * OVER(x²) / UNDER(x²) to 3e-7 of itself, where x is cut at 7.905: Eigen's polynomials for float32.

Below 4e-4, x itself is closer than a float32 can tell.
"""


@compiled
def bend(values, before, threshold, shrink, over, under, edge, small):
    """`squash`, with its numbers in the precision of the values."""
    for j in range(len(values)):
        before[j] = values[j]
        x = values[j] * shrink
        cut = min(max(x, -edge), edge)
        s = cut * cut
        above = over[0] + s * (over[1] + s * (over[2] + s * (over[3] + s * (over[4] + s * (over[5] + s * over[6])))))
        below = under[0] + s * (under[1] + s * (under[2] + s * under[3]))
        if abs(x) >= small:  # neither nan
            values[j] = threshold * (cut * above / below)


def squash(values, before, threshold):
    """Makes ``threshold * tanh(values / threshold)`` of a float32 part, after a copy of it."""
    number = values.dtype.type
    numbers = (tuple(map(number, OVER)), tuple(map(number, UNDER)), number(7.90531111), number(4e-4))
    bend(values, before, number(threshold), number(1 / threshold), *numbers)

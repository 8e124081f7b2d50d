"""Normal noise that is added to lists of gradients, by loops compiled for this processor when they are first called.

The random bits are those of SplitMix64 (Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195), made normal by Box
and Muller (1958). Its state goes up by a constant, so that each number can be had at once from where its element lies:
the noise is the same on any number of threads.
"""

from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from normcore.core.compiled_gradients import AFTER, ALONG, APART, BEFORE, CHANGED, between, overlap
from normcore.core.compiler import compiled, shared, summing

CHUNK = 1024
"""Numbers that are drawn together: half are first coordinates of normal points in the plane, half second ones."""
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@compiled
def mixed(z):
    """What SplitMix64 makes of its state."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@compiled
def draw(key, first, low, high):
    """Random bits: the halves of the numbers of SplitMix64 from the first on, its state having begun as a key."""
    for j in range(len(low)):
        drawn = mixed(key + GOLDEN * np.uint64(first + j + 1))
        low[j], high[j] = np.uint32(drawn), np.uint32(drawn >> np.uint64(32))


def _bits_as(given: Any, wanted: Any) -> Any:
    """How compiled code reads the bits of a number as another."""

    @intrinsic
    def read(context: Any, number: Any) -> Any:
        def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], context.get_value_type(wanted))

        return wanted(given), generate

    return read


as_integer, as_float = _bits_as(types.float32, types.int32), _bits_as(types.int32, types.float32)
SINGLE = np.float32
LOGARITHM = tuple(map(SINGLE, (0.33334691, -0.24980574, 0.199102385, -0.17166907, 0.161411757, -0.10224199)))
SINE = tuple(map(SINGLE, (6.28318516, -41.341655, 81.6010041, -76.5497823, 39.536706)))
COSINE = tuple(map(SINGLE, (0.999999953, -19.7391714, 64.9345906, -85.2403303, 56.2423804)))
"""log(1 + z) = z - z²/2 + z³ LOGARITHM(z) from sqrt(1/2) to sqrt(2), sin(2π t) = t SINE(t²) and cos(2π t) = COSINE(t²)
to a quarter of a turn, fitted so that the largest error is least: 6e-8, 3e-9 and 5e-8."""
ROOT_HALF, FRACTION, EXPONENT = np.int32(0x3F3504F3), np.int32(0x007FFFFF), np.int32(23)


@compiled
def normal_pair(u, v, deviation):
    """Two normal numbers from the random bits of two."""
    uniform = (SINGLE(u) + SINGLE(0.5)) * SINGLE(2.0**-32)
    bits = as_integer(uniform) - ROOT_HALF
    z = as_float((bits & FRACTION) + ROOT_HALF) - SINGLE(1)
    p = LOGARITHM
    series = p[0] + z * (p[1] + z * (p[2] + z * (p[3] + z * (p[4] + z * p[5]))))
    logarithm = z - z * z * (SINGLE(0.5) - z * series) + SINGLE(bits >> EXPONENT) * SINGLE(np.log(2))
    radius = deviation * np.sqrt(np.maximum(SINGLE(-2) * logarithm, SINGLE(0)))
    turns = SINGLE(np.int32(v)) * SINGLE(2.0**-32)
    behind = abs(turns) > SINGLE(0.25)
    t = np.copysign(SINGLE(0.5), turns) - turns if behind else turns
    s = t * t
    sine = t * (SINE[0] + s * (SINE[1] + s * (SINE[2] + s * (SINE[3] + s * SINE[4]))))
    cosine = COSINE[0] + s * (COSINE[1] + s * (COSINE[2] + s * (COSINE[3] + s * COSINE[4])))
    return radius * (-cosine if behind else cosine), radius * sine


@compiled
def normals(low, high, one, other, deviation):
    """Normal numbers from as many random bits."""
    for j in range(len(low)):
        one[j], other[j] = normal_pair(low[j], high[j], deviation)


@summing
def add(values, noise):
    """Adds noise; the sums of squares before, after and of the noise, of products, and how many values changed."""
    before = after = apart = along = values.dtype.type(0)
    changed = 0
    for j in range(len(values)):
        old, drawn = values[j], values.dtype.type(noise[j])
        new = old + drawn
        before += old * old
        after += new * new
        apart += drawn * drawn
        along += old * new
        changed += new != old and not np.isnan(old)
        values[j] = new
    return before, after, apart, along, changed


@shared
@compiled
def add_noise(start, stop, nth, lists, founds, keys, deviation):
    """Adds normal noise to values; `keys` are the seed and the step.

    A chunk is drawn whole also where it is only worked on in part. It begins to count where its tensor lies, all being
    laid end to end with a chunk of room after each, so that none counts where another does.
    """
    half = CHUNK // 2
    low, high, noise = np.empty(half, np.uint32), np.empty(half, np.uint32), np.empty(CHUNK, np.float32)
    key = mixed(mixed(np.uint64(keys[0]) + GOLDEN) + np.uint64(keys[1]))
    first, last = between(lists.starts, start, stop)
    for i in range(first, last):
        values, begin, row = overlap(lists, i, 0, start, stop), max(start - lists.starts[i], 0), founds[nth, i]
        for chunk in range(begin // CHUNK * CHUNK, begin + len(values), CHUNK):
            draw(key, lists.starts[i] + i * CHUNK + chunk, low, high)
            normals(low, high, noise[:half], noise[half:], SINGLE(deviation))
            here = values[max(chunk - begin, 0) : chunk + CHUNK - begin]
            before, after, apart, along, changed = add(here, noise[max(begin - chunk, 0) :])
            row[BEFORE] += before
            row[AFTER] += after
            row[APART] += apart
            row[ALONG] += along
            row[CHANGED] += changed

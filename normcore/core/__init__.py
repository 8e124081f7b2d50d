"""The vocabulary that every method is written in (torch and the standard library only)."""

from normcore.core.axes import AXIS_WORDS, LAYOUTS, LETTERS, axis_sizes, plural
from normcore.core.blocks import root
from normcore.core.context import along_samples, chosen_rows, standardize_counted
from normcore.core.domains import FLAG, Divides, Domain, OneOf, Range
from normcore.core.errors import NormcoreError
from normcore.core.facts import Identity, Normed, Paper, Param
from normcore.core.gradients import (
    Examples,
    Multiplied,
    Owned,
    Repeatable,
    Replaced,
    drop,
    example_norms,
    generator,
    in_parts,
    inverse,
    multiply,
    multiply_decayed,
    norms_of,
    parameters_or_zeros,
    replace,
    shortening,
    total,
    unit_norms,
)
from normcore.core.memory import moved_toward, recalled
from normcore.core.method import EMPTY, Method, bounds_of
from normcore.core.parameters import Classes, Epsilon, EpsilonPlace, GhostBatchSize, Groups, Momentum, Seed
from normcore.core.part import Part
from normcore.core.precision import autocasts, full_precision
from normcore.core.region import Bound, Region
from normcore.core.running import apply_running, average, remembered_variance, track
from normcore.core.slots import GAIN, GAIN_AND_BIAS, RUNNING, Slot, counts, new_tensor
from normcore.core.statistics import (
    Later,
    affine,
    along_channels,
    center,
    own_variance,
    rescale,
    shift_away,
    standardize,
    variance,
    widen,
)
from normcore.core.switching import switch, switching_code
from normcore.core.whitening import RUNNING_WHITENING, InverseRoot, whiten
from normcore.core.window import Window

__all__ = [
    "AXIS_WORDS",
    "EMPTY",
    "FLAG",
    "GAIN",
    "GAIN_AND_BIAS",
    "LAYOUTS",
    "LETTERS",
    "RUNNING",
    "RUNNING_WHITENING",
    "Bound",
    "Classes",
    "Divides",
    "Domain",
    "Epsilon",
    "EpsilonPlace",
    "Examples",
    "GhostBatchSize",
    "Groups",
    "Identity",
    "InverseRoot",
    "Later",
    "Method",
    "Momentum",
    "Multiplied",
    "NormcoreError",
    "Normed",
    "OneOf",
    "Owned",
    "Paper",
    "Param",
    "Part",
    "Range",
    "Region",
    "Repeatable",
    "Replaced",
    "Seed",
    "Slot",
    "Window",
    "affine",
    "along_channels",
    "along_samples",
    "apply_running",
    "autocasts",
    "average",
    "axis_sizes",
    "bounds_of",
    "center",
    "chosen_rows",
    "counts",
    "drop",
    "example_norms",
    "full_precision",
    "generator",
    "in_parts",
    "inverse",
    "moved_toward",
    "multiply",
    "multiply_decayed",
    "new_tensor",
    "norms_of",
    "own_variance",
    "parameters_or_zeros",
    "plural",
    "recalled",
    "remembered_variance",
    "replace",
    "rescale",
    "root",
    "shift_away",
    "shortening",
    "standardize",
    "standardize_counted",
    "switch",
    "switching_code",
    "total",
    "track",
    "unit_norms",
    "variance",
    "whiten",
    "widen",
]

"""The vocabulary that every method is written in (torch and the standard library only)."""

from normcore.core.axes import AXIS_WORDS, LAYOUTS, LETTERS, axis_sizes, plural
from normcore.core.blocks import root
from normcore.core.context import along_samples, chosen_rows, standardize_counted
from normcore.core.domains import FLAG, Divides, Domain, OneOf, Range
from normcore.core.errors import NormcoreError
from normcore.core.facts import Identity, Normed, Paper, Param
from normcore.core.method import EMPTY, Method, bounds_of
from normcore.core.parameters import Classes, Epsilon, EpsilonPlace, GhostBatchSize, Groups, Momentum
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
    "GhostBatchSize",
    "Groups",
    "Identity",
    "InverseRoot",
    "Later",
    "Method",
    "Momentum",
    "NormcoreError",
    "Normed",
    "OneOf",
    "Paper",
    "Param",
    "Part",
    "Range",
    "Region",
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
    "full_precision",
    "new_tensor",
    "plural",
    "remembered_variance",
    "rescale",
    "root",
    "shift_away",
    "standardize",
    "standardize_counted",
    "switch",
    "switching_code",
    "track",
    "variance",
    "whiten",
    "widen",
]

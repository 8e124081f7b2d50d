"""The vocabulary that every method is written in (torch and the standard library only)."""

from normcore.core.axes import AXIS_WORDS, LAYOUTS, LETTERS, axis_sizes, plural
from normcore.core.domains import FLAG, Divides, Domain, OneOf, Range
from normcore.core.errors import NormcoreError
from normcore.core.facts import Identity, Normed, Paper, Param
from normcore.core.method import EMPTY, Method
from normcore.core.parameters import Epsilon, EpsilonPlace, GhostBatchSize, Groups, Momentum
from normcore.core.region import Bound, Region
from normcore.core.running import apply_running, track
from normcore.core.slots import GAIN, GAIN_AND_BIAS, RUNNING, Slot, counts, new_tensor
from normcore.core.statistics import affine, along_channels, center, rescale, root, standardize, variance, widen
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
    "Bound",
    "Divides",
    "Domain",
    "Epsilon",
    "EpsilonPlace",
    "GhostBatchSize",
    "Groups",
    "Identity",
    "Method",
    "Momentum",
    "NormcoreError",
    "Normed",
    "OneOf",
    "Paper",
    "Param",
    "Range",
    "Region",
    "Slot",
    "Window",
    "affine",
    "along_channels",
    "apply_running",
    "axis_sizes",
    "center",
    "counts",
    "new_tensor",
    "plural",
    "rescale",
    "root",
    "standardize",
    "track",
    "variance",
    "widen",
]

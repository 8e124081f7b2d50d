"""normcore: every normalization and gradient-clipping method, with who shares a statistic written down and tested."""

import importlib
from typing import TYPE_CHECKING, Any

from normcore.clipper import Clipper, ClipReport, clipper
from normcore.core import Bound, Method, NormcoreError, Normed, Region, Window
from normcore.describe import Finding, diagnose
from normcore.influence import influence
from normcore.layer import NormLayer, layer, reparametrize
from normcore.registry import METHODS

if TYPE_CHECKING:
    from normcore import figures

__all__ = [
    "METHODS",
    "Bound",
    "ClipReport",
    "Clipper",
    "Finding",
    "Method",
    "NormLayer",
    "NormcoreError",
    "Normed",
    "Region",
    "Window",
    "clipper",
    "diagnose",
    "figures",
    "influence",
    "layer",
    "reparametrize",
]


def __getattr__(name: str) -> Any:
    if name == "figures":  # plotly is needed for figures alone: the engine works without it
        return importlib.import_module("normcore.figures")
    raise AttributeError(f"module 'normcore' has no attribute {name!r}")

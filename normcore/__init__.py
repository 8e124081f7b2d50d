"""normcore: normalization and gradient clipping, with who shares a statistic written down, drawn and tested."""

import importlib
from typing import TYPE_CHECKING, Any

from normcore.audit import AuditEntry, AuditReport, audit
from normcore.cells import LayerNormGRUCell, LayerNormLSTMCell, LayerNormRNNCell, RecurrentBatchNormLSTMCell
from normcore.clipper import Clipper, ClipReport, clipper, per_example_gradients
from normcore.convert import Conversion, ConversionReport, convert
from normcore.core import Bound, Method, NormcoreError, Normed, Region, Window
from normcore.diagnose import diagnose
from normcore.finding import Finding
from normcore.influence import influence
from normcore.initialization import data_dependent_init
from normcore.layer import NormLayer, layer, reparametrize
from normcore.penalties import orthogonal_regularization
from normcore.registry import METHODS

if TYPE_CHECKING:
    from normcore import figures as figures
    from normcore import lab as lab

__all__ = [
    "METHODS",
    "AuditEntry",
    "AuditReport",
    "Bound",
    "ClipReport",
    "Clipper",
    "Conversion",
    "ConversionReport",
    "Finding",
    "LayerNormGRUCell",
    "LayerNormLSTMCell",
    "LayerNormRNNCell",
    "Method",
    "NormLayer",
    "NormcoreError",
    "Normed",
    "RecurrentBatchNormLSTMCell",
    "Region",
    "Window",
    "audit",
    "clipper",
    "convert",
    "data_dependent_init",
    "diagnose",
    "influence",
    "layer",
    "orthogonal_regularization",
    "per_example_gradients",
    "reparametrize",
]


def __getattr__(name: str) -> Any:
    if name in ("figures", "lab"):  # figures need plotly, which the engine does without
        return importlib.import_module(f"normcore.{name}")
    raise AttributeError(f"module 'normcore' has no attribute {name!r}")

"""The object around a gradient method: it changes the gradients in place and says what it did."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from normcore.core import NormcoreError, widen
from normcore.registry import method


@dataclass(frozen=True)
class TensorReport:
    """What happened to one gradient tensor; the fields are those of `ClipReport`."""

    norm_before: float
    norm_after: float
    scale: float
    angle: float
    fraction: float


@dataclass(frozen=True)
class ClipReport:
    """What a clipper did in one call.

    `norm_before` and `norm_after` are norms of all gradients together (the L2 norm, or the clipper's `norm_type`), in
    the gradient's unit; `scale` is their ratio (1 where nothing was there to clip); `angle` lies between the gradient
    before and after, in radians; `fired` says whether anything changed; `fraction` is the share of elements that did.
    """

    norm_before: float
    norm_after: float
    scale: float
    angle: float
    fired: bool
    fraction: float
    per_tensor: tuple[TensorReport, ...]


class Clipper:
    """Clips the gradients of parameters, like ``torch.nn.utils.clip_grad_norm_``. Made by `clipper`."""

    def __init__(self, key: str, **settings: Any) -> None:
        self.method = method(key, "gradient")
        self.settings = self.method.settings(settings, {})
        self.state: dict[str, Any] = {}

    def __call__(self, parameters: Tensor | Iterable[Tensor]) -> ClipReport:
        """Replaces every ``p.grad`` by its clipped value, in place; parameters without a gradient are passed over."""
        given = [parameters] if isinstance(parameters, Tensor) else parameters
        given = list(given) if isinstance(given, Iterable) else [given]
        strange = next((type(p).__name__ for p in given if not isinstance(p, Tensor)), None)
        if strange:
            raise NormcoreError(f"{self.method.key}: parameters must be tensors, not {strange}; try model.parameters()")
        gradients = [p.grad for p in given if p.grad is not None]
        with torch.no_grad():
            memory: dict[str, Any] = {"state": self.state} if self.state else {}
            normed = self.method(gradients, **self.settings, **memory)
            report = compare(gradients, normed.y, self.settings.get("norm_type", 2.0))
            for gradient, clipped in zip(gradients, normed.y, strict=True):
                gradient.copy_(clipped)
        self.state = dict(normed.state)
        return report

    def state_dict(self) -> dict[str, Any]:
        """The clipper's memory, empty for methods that have none."""
        return dict(self.state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state = dict(state)

    def __repr__(self) -> str:
        settings = "".join(f", {name}={value!r}" for name, value in self.settings.items())
        return f"clipper({self.method.key!r}{settings})"


def clipper(key: str, **settings: Any) -> Clipper:
    """A clipper by the key of its method, to be called with parameters after ``backward()``.

    Raises:
        NormcoreError: No such method or setting, or a value outside its domain.
    """
    return Clipper(key, **settings)


def compare(before: list[Tensor], after: list[Tensor], norm_type: float = 2.0) -> ClipReport:
    """The report on gradients before and after clipping."""
    wide = [(widen(b).flatten(), widen(a).flatten()) for b, a in zip(before, after, strict=True)]
    tensors = tuple(_report(b, a, norm_type) for b, a in wide)
    if not wide:
        return ClipReport(0.0, 0.0, 1.0, 0.0, False, 0.0, ())
    device, dtype = wide[0][0].device, torch.float64
    joined = [torch.cat([part.to(device, dtype) for part in side]) for side in zip(*wide, strict=True)]
    whole = _report(joined[0], joined[1], norm_type)
    return ClipReport(**vars(whole), fired=whole.fraction > 0, per_tensor=tensors)


def _report(before: Tensor, after: Tensor, norm_type: float) -> TensorReport:
    norm_before, norm_after = (float(torch.linalg.vector_norm(g, norm_type)) for g in (before, after))
    changed = (before != after) & ~(before.isnan() & after.isnan())
    return TensorReport(
        norm_before,
        norm_after,
        norm_after / norm_before if norm_before else 1.0,
        _angle(before.double(), after.double()),
        float(changed.double().mean()) if changed.numel() else 0.0,
    )


def _angle(a: Tensor, b: Tensor) -> float:
    """The angle between two vectors, in radians, exact also where they are nearly parallel; 0 where one is zero."""
    length_a, length_b = a.norm(), b.norm()
    if not length_a or not length_b:
        return 0.0
    u, v = a / length_a, b / length_b
    return 2 * math.atan2(float((u - v).norm()), float((u + v).norm()))

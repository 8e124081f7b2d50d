"""The object around a gradient method: it changes the gradients in place and says what it did."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from normcore.core import NormcoreError
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
    tensors = tuple(_report([b], [a], norm_type) for b, a in zip(before, after, strict=True))
    whole = _report(before, after, norm_type)
    return ClipReport(**vars(whole), fired=whole.fraction > 0, per_tensor=tensors)


def _report(before: list[Tensor], after: list[Tensor], norm_type: float) -> TensorReport:
    norm_before, norm_after = _norm(before, norm_type), _norm(after, norm_type)
    pairs = list(zip(before, after, strict=True))
    changed = sum(int(((b != a) & ~(b.isnan() & a.isnan())).sum()) for b, a in pairs)
    return TensorReport(
        norm_before,
        norm_after,
        norm_after / norm_before if norm_before else 1.0,
        _angle(pairs),
        changed / (sum(b.numel() for b in before) or 1),
    )


def _norm(tensors: Iterable[Tensor], norm_type: float = 2.0) -> float:
    """The norm of all tensors together, without joining them: they may be large, and on several devices."""
    norms = [float(torch.linalg.vector_norm(t, norm_type, dtype=torch.float64)) for t in tensors if t.numel()]
    return float(torch.linalg.vector_norm(torch.tensor(norms, dtype=torch.float64), norm_type)) if norms else 0.0


def _angle(pairs: list[tuple[Tensor, Tensor]]) -> float:
    """The angle between two gradients, in radians, exact also where they are nearly parallel; 0 where one is zero."""
    length, other = _norm(b for b, _ in pairs), _norm(a for _, a in pairs)
    if not length or not other:
        return 0.0
    apart = _norm(b.double() / length - a.double() / other for b, a in pairs)
    together = _norm(b.double() / length + a.double() / other for b, a in pairs)
    return 2 * math.atan2(apart, together)

"""What a clipper did in one call, worked out from what it wrote down when somebody asks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from normcore.core import Multiplied, Repeatable, Replaced


@dataclass(frozen=True)
class TensorReport:
    """What happened to one gradient tensor; the fields are those of `ClipReport`."""

    norm_before: float
    norm_after: float
    scale: float
    angle: float
    fraction: float


@dataclass(frozen=True)
class Row:
    """One tensor: norm before, after, of the difference, inner product, and how many elements changed; of how many."""

    before: float
    after: float
    apart: float
    together: float
    changed: float
    size: int
    turned: bool = True

    @classmethod
    def of(cls, numbers: Sequence[float], size: int, turned: bool = True) -> "Row":
        """The first five in one."""
        before, after, apart, together, changed = numbers
        return cls(before, after, apart, together, changed, size, turned)


class ClipReport:
    """What a clipper did in one call.

    `norm_before` and `norm_after` are norms of all gradients together (the L2 norm, or the clipper's `norm_type`), in
    the gradient's unit; `scale` is norm_after / norm_before (1 where norm_before is 0, even if noise came on top;
    where norm_before is not finite, 0 for a dropped step, and else 0 or nan); `angle` lies between the gradient before
    and after, in radians; `fired` says whether anything was changed; `fraction` is the share of elements that the
    method changed, where an element multiplied by another factor than 1 counts, even if it is 0; `per_tensor` has the
    same for each gradient. With per-example methods, before is the gradient that no clipping and no noise would have
    given, and `fraction` counts the elements of all examples. Where gradients of half precision are multiplied by a
    factor, norm_after is that before rounding: it misses what became 0 or infinite there.

    Everything is worked out when it is first asked for: nothing waits for the device before.
    """

    def __init__(
        self, change: Multiplied | Replaced | Repeatable | None, sizes: Sequence[int], norm_type: float = 2.0
    ) -> None:
        self._change, self._sizes, self._norm_type = change, tuple(sizes), norm_type

    def settle(self) -> None:
        """Work out the numbers now, before the copy that they come from is written over."""
        if isinstance(self._change, Repeatable):
            _ = self._rows
            self._change = None

    @cached_property
    def _rows(self) -> list[Row]:
        if self._change is None:
            return [Row(0.0, 0.0, 0.0, 0.0, 0.0, size) for size in self._sizes]
        if isinstance(self._change, Replaced | Repeatable):
            found = self._change.pieces if isinstance(self._change, Replaced) else self._change.pieces()
            return [_replaced(piece, size) for piece, size in zip(found, self._sizes, strict=True)]
        norms, factors, dropped = self._change.norms, self._change.factors, self._change.dropped
        if isinstance(factors, list):
            return [_multiplied(n, f, size) for n, f, size in zip(norms, factors, self._sizes, strict=True)]
        norms, factors = _numbers(norms), _numbers(factors.expand(len(self._sizes)))
        after, apart = _changed(norms, factors, dropped)
        sizes = torch.tensor(self._sizes, dtype=torch.float64)
        columns = norms, after, apart, norms * after, sizes * (factors != 1)
        rows = zip(torch.stack(columns, 1).tolist(), self._sizes, (factors < 0).tolist(), strict=True)
        return [Row.of(numbers, size, turned) for numbers, size, turned in rows]

    @cached_property
    def _whole(self) -> TensorReport:
        change = self._change
        one = isinstance(change, Multiplied) and not isinstance(change.factors, list) and change.factors.ndim == 0
        return _report(self._rows, self._norm_type, turned=not one)

    @property
    def norm_before(self) -> float:
        return self._whole.norm_before

    @property
    def norm_after(self) -> float:
        return self._whole.norm_after

    @property
    def scale(self) -> float:
        return self._whole.scale

    @property
    def angle(self) -> float:
        return self._whole.angle

    @property
    def fraction(self) -> float:
        return self._whole.fraction

    @property
    def fired(self) -> bool:
        return self._whole.fraction > 0

    @cached_property
    def per_tensor(self) -> tuple[TensorReport, ...]:
        return tuple(_report([row], self._norm_type, row.turned) for row in self._rows)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ClipReport) and (self._whole, self.per_tensor) == (other._whole, other.per_tensor)

    def __hash__(self) -> int:
        return hash((self._whole, self.per_tensor))

    def __repr__(self) -> str:
        whole = ", ".join(f"{name}={value!r}" for name, value in vars(self._whole).items())
        return f"ClipReport({whole}, fired={self.fired}, per_tensor=<{len(self._sizes)}>)"

    def __reduce__(self) -> Any:
        return _restored, (self._rows, self._whole, self._norm_type)


def _restored(rows: list[Row], whole: TensorReport, norm_type: float) -> ClipReport:
    report = ClipReport(None, [row.size for row in rows], norm_type)
    report.__dict__ |= {"_rows": rows, "_whole": whole}
    return report


def _numbers(values: Tensor) -> Tensor:
    return values.detach().reshape(-1).to("cpu", torch.float64)


def _changed(norms: Tensor, factors: Tensor, dropped: bool = False) -> tuple[Tensor, Tensor]:
    """Norms after the multiplication, and those of the difference; with `dropped` a factor of 0 makes 0 of anything."""
    after = torch.where(factors == 0, 0.0, norms * factors) if dropped else norms * factors
    return after, norms * (1 - factors).abs()


def _multiplied(norms: Tensor, factors: Tensor, size: int) -> Row:
    """A tensor of which each region, of equal size, was multiplied by its factor."""
    norms, factors = _numbers(norms), _numbers(factors)
    after, apart = _changed(norms, factors)
    changed = (factors != 1).sum() * (size / max(1, len(factors)))
    lengths = (torch.linalg.vector_norm(vector) for vector in (norms, after, apart))
    numbers = torch.stack([*lengths, torch.dot(norms, after), changed]).tolist()
    return Row.of(numbers, size, len(factors) > 1 or bool((factors < 0).any()))


def _replaced(piece: tuple[Tensor, ...] | list[float], size: int) -> Row:
    """A tensor that was replaced."""
    numbers = piece if isinstance(piece, list) else torch.stack([part.detach().double() for part in piece]).tolist()
    return Row.of(numbers, size)


def _norm(values: Sequence[float], norm_type: float = 2.0) -> float:
    if not values:
        return 0.0
    return float(torch.linalg.vector_norm(torch.tensor(values, dtype=torch.float64), norm_type))


def _report(rows: Sequence[Row], norm_type: float, turned: bool) -> TensorReport:
    before, after = (_norm([getattr(row, name) for row in rows], norm_type) for name in ("before", "after"))
    size = sum(row.size for row in rows) or 1
    angle = 0.0
    if turned or not math.isfinite(before):
        angle = _angle(before, after, _norm([row.apart for row in rows]), sum(row.together for row in rows))
    scale = after / before if before and after else float(not before)  # 0 / nan is 0: the step was dropped
    return TensorReport(before, after, scale, angle, sum(r.changed for r in rows) / size)


def _angle(before: float, after: float, apart: float, together: float) -> float:
    """The angle between two vectors, by their distance where that is small and exact; 0 where one is zero."""
    if not before or not after:
        return 0.0
    if not all(map(math.isfinite, (before, after, apart, together))):
        return math.nan
    if apart < 0.1 * before:
        return 2 * math.asin(max(0.0, (apart**2 - (before - after) ** 2) / before / after) ** 0.5 / 2)
    return math.acos(min(1.0, max(-1.0, together / before / after)))

"""Overlapping neighborhoods, where every element has a set of its own: local response and its kin."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from normcore.core.axes import SPATIAL, check_shape
from normcore.core.errors import NormcoreError
from normcore.core.region import Bound, Factor, Factors, Region, check_index

Box = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Window:
    """A neighborhood around each element: ``Window("n c ...", {"c": "size"})``.

    `over` maps an axis letter (``...`` for all spatial axes) to the setting that gives its extent, or to None for the
    whole axis. The inner factor of a split axis, as in ``Window("n (g k) h w", {"k": "channels_per_group"})``, is a
    block that its elements have in common; the setting gives its size. An even extent reaches one step further back
    than ahead, as in PyTorch. The borders cut a window, or with `inside` move it inward. `times` windows follow one
    another: what is left after a window's mean was taken out depends on one window more.

    A bound window also has `shape`, `blocks`, the length on each axis within which windows stay, and `reach`, the
    steps back and ahead of one window on each axis.
    """

    pattern: str
    over: Mapping[str, str | None] = field(hash=False)
    inside: bool = False
    times: int = 1
    when: Mapping[str, Any] = field(default_factory=dict, hash=False)
    shape: tuple[int, ...] = ()
    blocks: tuple[int, ...] = ()
    reach: tuple[tuple[int, int], ...] = ()
    running = False

    @cached_property
    def _whole(self) -> Region:
        return Region(f"{self.pattern} ->")

    def fits(self, layout: str) -> bool:
        """Whether the pattern is written for the layout's axes."""
        return self._whole.fits(layout)

    def bind(self, shape: Sequence[int], **settings: Any) -> "Window":
        """The window for one shape; `settings` gives the extents that `over` names."""
        shape, blocks, reach = check_shape(shape), [], []
        axes = self._whole.letters(len(shape))
        missing = [setting for setting in self.over.values() if setting is not None and setting not in settings]
        if len(axes) != len(shape) or missing:
            what = f"needs {missing[0]}" if missing else f"names {len(axes)} axes, but shape {shape} has {len(shape)}"
            raise NormcoreError(f"{self.pattern!r} {what}")
        for factors, size in zip(axes, shape, strict=True):
            setting = self.over.get(_name(factors))
            block = settings[setting] if len(factors) > 1 and setting else size
            extent = 2 * block if len(factors) > 1 or setting is None else settings[setting]
            blocks.append(block)
            listed = _name(factors) in self.over
            reach.append((min(extent // 2, block - 1), min((extent - 1) // 2, block - 1)) if listed else (0, 0))
        bound = replace(self, shape=shape, blocks=tuple(blocks), reach=tuple(reach))
        _ = bound.axes  # worked out here: torch.compile cannot follow what is cached later
        return bound

    @cached_property
    def axes(self) -> Bound:
        """The axes of the tensor, as the region that holds all of it."""
        letters = self._whole.letters(len(self.shape))
        sizes = {factors[-1]: b for factors, b in zip(letters, self.blocks, strict=True) if len(factors) > 1}
        return self._whole.bind(self.shape, **sizes)

    @property
    def factors(self) -> tuple[tuple[Factor, ...], ...]:
        return self.axes.factors

    def span(self, axis: int, i: int, times: int = 1) -> tuple[int, int]:
        """The neighborhood of index `i` along one axis, as [start, stop)."""
        (back, ahead), block = self.reach[axis], self.blocks[axis]
        first = i - i % block
        if self.inside:
            extent = min(back + ahead + 1, block)
            start = min(max(first, i - back), first + block - extent)
            return start, start + extent
        return max(first, i - times * back), min(first + block, i + times * ahead + 1)

    def box(self, index: Sequence[int]) -> Box:
        """The neighborhood of one element: one [start, stop) an axis."""
        index = check_index(index, self.shape)
        return tuple(self.span(axis, i, self.times) for axis, i in enumerate(index))

    def members(self, index: Sequence[int]) -> Tensor:
        """The indices of all elements in the neighborhood of `index`: whole numbers, shape (size, axes)."""
        return inside_of(self.box(index))

    @cached_property
    def count(self) -> int:
        """The number of different neighborhoods, and so of statistics."""
        spans = ({self.span(axis, i, self.times) for i in range(size)} for axis, size in enumerate(self.shape))
        return math.prod(len(different) for different in spans)

    @cached_property
    def size(self) -> int:
        """The number of elements of a neighborhood that no border cuts."""
        extents = (1 + self.times * (back + ahead) for back, ahead in self.reach)
        return math.prod(min(block, extent) for block, extent in zip(self.blocks, extents, strict=True))

    def mean(self, x: Tensor, sigma: float | None = None) -> Tensor:
        """The mean of each window, in a shape that broadcasts against x; what lies beyond a border does not count.

        With `sigma`, the axes that have an extent are weighed by a Gaussian of that width, in steps, around the
        element. Costs a matrix product an axis, however large the window is.
        """
        for axis, factors in enumerate(self._whole.letters(len(self.shape))):
            if self.reach[axis] == (0, 0):
                continue
            if len(factors) == 1 and self.over[_name(factors)] is None:
                x = x.mean(axis, keepdim=True)
                continue
            spans = [self.span(axis, i) for i in range(self.shape[axis])]
            start, stop = torch.tensor(spans, device=x.device)[..., None].unbind(1)
            at = torch.arange(self.shape[axis], device=x.device)
            weights = ((start <= at) & (at < stop)).to(x.dtype)
            if sigma is not None:
                weights = weights * torch.exp(-0.5 * ((at - at[:, None]).to(x.dtype) / sigma).square())
            weights = weights / weights.sum(1, keepdim=True)
            x = (x.movedim(axis, -1) @ weights.mT).movedim(-1, axis)
        return x

    def center(self, x: Tensor, sigma: float | None = None) -> tuple[Tensor, Tensor]:
        """Each element minus the mean of its window, and that mean.

        Each sample's own mean is taken out first: it changes nothing but the digits that a large one would cost.
        """
        origin = x.detach().mean(tuple(range(1, x.ndim)), keepdim=True)
        mean = self.mean(x - origin, sigma)
        return x - origin - mean, mean + origin


def inside_of(box: Box) -> Tensor:
    """The indices of all elements in a box."""
    return torch.cartesian_prod(*(torch.arange(start, stop) for start, stop in box)).reshape(-1, len(box))


def _name(factors: Factors) -> str:
    return "..." if factors[-1] in SPATIAL else factors[-1]

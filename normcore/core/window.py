"""Overlapping neighborhoods, where every element has a set of its own: local response and its kin."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from normcore.core.axes import SPATIAL, check_shape
from normcore.core.errors import NormcoreError
from normcore.core.region import Region, check_index


@dataclass(frozen=True)
class Window:
    """A neighborhood around each element: ``Window("n c ...", {"c": "size"})``.

    `over` maps an axis letter (``...`` for all spatial axes) to the setting that gives its extent, or to None for the
    whole axis. An even extent reaches one step further back than ahead, as in PyTorch. A bound window also has `shape`
    and `reach`, the steps back and ahead on each axis.
    """

    pattern: str
    over: Mapping[str, str | None] = field(hash=False)
    shape: tuple[int, ...] = ()
    reach: tuple[tuple[int, int], ...] = ()
    running = False
    when: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def _axes(self) -> Region:
        return Region(f"{self.pattern} ->")

    def fits(self, layout: str) -> bool:
        """Whether the pattern is written for the layout's axes."""
        return self._axes.fits(layout)

    def bind(self, shape: Sequence[int], **settings: int) -> "Window":
        """The window for one shape; `settings` gives the extents that `over` names."""
        shape, reach = check_shape(shape), []
        axes = self._axes.letters(len(shape))
        missing = [setting for setting in self.over.values() if setting is not None and setting not in settings]
        if len(axes) != len(shape) or missing:
            what = f"needs {missing[0]}" if missing else f"names {len(axes)} axes, but shape {shape} has {len(shape)}"
            raise NormcoreError(f"{self.pattern!r} {what}")
        for (letter,), size in zip(axes, shape, strict=True):
            name = "..." if letter in SPATIAL else letter
            if name not in self.over:
                reach.append((0, 0))
                continue
            setting = self.over[name]
            extent = 2 * size if setting is None else settings[setting]
            reach.append((min(extent // 2, size - 1), min((extent - 1) // 2, size - 1)))
        return replace(self, shape=shape, reach=tuple(reach))

    def box(self, index: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """The neighborhood of one element, cut at the borders: one [start, stop) an axis."""
        index = check_index(index, self.shape)
        return tuple(
            (max(0, i - back), min(size, i + ahead + 1))
            for i, size, (back, ahead) in zip(index, self.shape, self.reach, strict=True)
        )

    def members(self, index: Sequence[int]) -> Tensor:
        """The indices of all elements in the neighborhood of `index`: whole numbers, shape (size, axes)."""
        along = [torch.arange(start, stop) for start, stop in self.box(index)]
        return torch.cartesian_prod(*along).reshape(-1, len(self.shape))

    @property
    def count(self) -> int:
        """The number of statistics: one for every element."""
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """The number of elements of a neighborhood that no border cuts."""
        size = 1
        for extent, (back, ahead) in zip(self.shape, self.reach, strict=True):
            size *= min(extent, back + ahead + 1)
        return size

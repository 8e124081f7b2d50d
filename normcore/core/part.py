"""Statistics in which only a part of the channels takes part."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from normcore.core.axes import check_shape
from normcore.core.region import Bound, Factor, Factors, Region, check_index
from normcore.core.window import Box, inside_of


@dataclass(frozen=True)
class Part:
    """A region of the first channels alone, or of the others: ``Part("n c ... -> n c", "ratio")``.

    The setting `share` says which share of the channels comes first; with `rest` the others take part instead. A
    channel outside has no such statistic, so that its elements stay by themselves, unless the statistic is `lent`:
    then the part's statistic (of one channel at least) serves all channels of its region.

    Like a window it has members and no ids: a lent statistic's members need not hold the element that uses it.
    `count` and `size` speak of the part. A bound part also has `shape` and `span`, its channels as [start, stop).
    """

    pattern: str
    share: str
    rest: bool = False
    lent: bool = False
    running: bool = False
    when: Mapping[str, Any] = field(default_factory=dict, hash=False)
    shape: tuple[int, ...] = ()
    span: tuple[int, int] = (0, 0)

    @cached_property
    def _region(self) -> Region:
        return Region(self.pattern)

    @property
    def axes(self) -> tuple[Factors, ...]:
        return self._region.axes

    @property
    def kept(self) -> Factors:
        return self._region.kept

    def fits(self, layout: str) -> bool:
        """Whether the pattern is written for the layout's axes."""
        return self._region.fits(layout)

    def bind(self, shape: Sequence[int], **settings: Any) -> "Part":
        """The part for one shape; `settings` gives the share."""
        bound = replace(self, shape=check_shape(shape))
        channels = bound.shape[bound.axis]
        first = max(int(settings[self.share] * channels), 1 if self.lent else 0)
        bound = replace(bound, span=(first, channels) if self.rest else (0, first))
        _ = bound.whole, bound.count  # worked out here: torch.compile cannot follow what is cached later
        return bound

    @cached_property
    def axis(self) -> int:
        """Where the channels lie."""
        return self._region.letters(len(self.shape)).index(("c",))

    @cached_property
    def whole(self) -> Bound:
        """The region as if all channels took part."""
        return self._region.bind(self.shape)

    @cached_property
    def inner(self) -> Bound:
        """The region of the part, for a tensor that holds nothing else: what `take` gives."""
        start, stop = self.span
        return self._region.bind((*self.shape[: self.axis], stop - start, *self.shape[self.axis + 1 :]))

    def take(self, x: Tensor) -> Tensor:
        """The part of a tensor that takes part."""
        start, stop = self.span
        return x.narrow(self.axis, start, stop - start)

    @property
    def factors(self) -> tuple[tuple[Factor, ...], ...]:
        return self.whole.factors

    @property
    def letters(self) -> Factors:
        return self.whole.letters

    @property
    def count(self) -> int:
        return self.inner.count if self.span[0] < self.span[1] else 0

    @property
    def size(self) -> int:
        return self.inner.size if self.count else 0

    @cached_property
    def parts(self) -> tuple[Tensor, ...]:
        """One whole-number vector an axis, as a bound region's; a channel that takes no part has -1."""
        if not self.count:
            return tuple(torch.full((size,), -1 if axis == self.axis else 0) for axis, size in enumerate(self.shape))
        parts, (start, stop) = list(self.inner.parts), self.span
        parts[self.axis] = torch.full((self.shape[self.axis],), -1)
        parts[self.axis][start:stop] = self.inner.parts[self.axis]
        return tuple(parts)

    def box(self, index: Sequence[int]) -> Box:
        """The elements that make the statistic that `index` uses, or itself alone: one [start, stop) an axis."""
        index, (start, stop) = check_index(index, self.shape), self.span
        if not (self.lent or start <= index[self.axis] < stop):
            return tuple((i, i + 1) for i in index)
        kept = [all(factor.kept for factor in factors) for factors in self.factors]
        spans = [self.span if axis == self.axis else (0, size) for axis, size in enumerate(self.shape)]
        return tuple((i, i + 1) if own else span for i, own, span in zip(index, kept, spans, strict=True))

    def members(self, index: Sequence[int]) -> Tensor:
        """The indices of these elements: whole numbers, shape (size, axes)."""
        return inside_of(self.box(index))

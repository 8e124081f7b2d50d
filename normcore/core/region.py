"""Who shares a statistic: a reduction written as a value, the way einops writes it.

A `Region` is declared without a shape; `Region.bind` holds a shape against it, and is the only place that does.
"""

import math
import numbers
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from normcore.core.axes import LETTERS, PARENT, check_shape
from normcore.core.errors import NormcoreError
from normcore.core.factors import Axes, Factor, groups_of, merge, spreading, tail_of

Factors = tuple[str, ...]
SPATIAL_BY_RANK: dict[int, Factors] = {0: (), 1: ("l",), 2: ("h", "w"), 3: ("d", "h", "w")}


@dataclass(frozen=True)
class Region:
    """A declared reduction to one statistic per region, such as ``Region("n (g k) ... -> n g")``.

    `running` marks a statistic that evaluation takes from a running average instead of from the batch.
    `when` names the settings under which the region applies, for methods whose reduction is a setting.
    """

    pattern: str
    running: bool = False
    when: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        letters = [letter for axis in self.axes for letter in axis]
        in_order = list(self.kept) == [letter for letter in letters if letter in self.kept]
        if "->" not in self.pattern or not in_order or len(set(letters)) < len(letters):
            raise NormcoreError(
                f"Region({self.pattern!r}): left of the arrow stands each axis once, right of it some of them in the "
                "same order, as in 'n (g k) ... -> n g'"
            )

    @cached_property
    def axes(self) -> tuple[Factors, ...]:
        """The left side, one entry a tensor axis: ``(("n",), ("g", "k"), ("...",))``."""
        return tuple(
            tuple(grouped.split()) if grouped else (single,)
            for grouped, single in re.findall(r"\(([^)]*)\)|(\S+)", self.pattern.partition("->")[0])
        )

    @cached_property
    def kept(self) -> Factors:
        """The right side: the factors that keep a statistic of their own."""
        return tuple(self.pattern.partition("->")[2].split())

    def letters(self, rank: int) -> tuple[Factors, ...]:
        """The left side for a tensor of `rank` axes, with ``...`` written out."""
        missing = rank - len(self.axes) + 1
        if ("...",) not in self.axes:
            return self.axes
        spatial = tuple((letter,) for letter in SPATIAL_BY_RANK.get(missing, ()))
        at = self.axes.index(("...",))
        return self.axes[:at] + spatial + self.axes[at + 1 :]

    def fits(self, layout: str) -> bool:
        """Whether the pattern is written for the layout's axes."""
        letters = self.letters(len(LETTERS[layout]))
        parents = tuple(PARENT.get(factors[0], factors[0]) for factors in letters)
        return parents == LETTERS[layout]

    def bind(self, shape: Sequence[int], **sizes: int) -> "Bound":
        """Holds a shape against the pattern; `sizes` gives the factors that the shape leaves open, as in ``g=4``."""
        shape = check_shape(shape)
        axes = self.letters(len(shape))
        if len(axes) != len(shape):
            raise NormcoreError(f"shape {shape} has {len(shape)} axes, but {self.pattern!r} names {len(axes)}")
        strange = sorted(set(sizes) - {letter for factors in axes for letter in factors})
        if strange:
            raise NormcoreError(f"{self.pattern!r} has no axis {strange[0]!r}")
        return Bound(shape, tuple(self._split(factors, size, sizes) for factors, size in zip(axes, shape, strict=True)))

    def _split(self, factors: Factors, size: int, sizes: Mapping[str, int]) -> tuple[Factor, ...]:
        known = {letter: sizes[letter] for letter in factors if letter in sizes}
        unknown = [letter for letter in factors if letter not in known]
        product = math.prod(known.values())
        if not all(isinstance(value, numbers.Integral) for value in known.values()):
            raise NormcoreError(f"{self.pattern!r}: {known} must be whole numbers")
        if len(unknown) > 1:
            raise NormcoreError(f"{self.pattern!r}: the axis ({' '.join(factors)}) needs the size of {unknown[0]}")
        if product < 1 or size % product or (not unknown and product != size):
            given = ", ".join(f"{letter}={value}" for letter, value in known.items())
            raise NormcoreError(f"{self.pattern!r}: {given} does not divide the axis ({' '.join(factors)}) of {size}")
        known |= dict.fromkeys(unknown, size // product)
        spatial = "..." in self.kept
        return tuple(Factor(f, known[f], f in self.kept or (spatial and f in ("l", "d", "h", "w"))) for f in factors)


def _derived() -> Any:
    return field(init=False, repr=False, compare=False)


@dataclass(frozen=True)
class Bound:
    """A region held against a shape: `count` regions of `size` elements each. Every question about it is a method.

    `parts` carries all of it: the label of an element is the sum of one part per axis, so that elements share a
    statistic exactly where their parts agree on every axis.
    """

    shape: tuple[int, ...]
    factors: Axes
    split_shape: tuple[int, ...] = _derived()
    reduced: tuple[int, ...] = _derived()
    """The dimensions of the split view that share a statistic."""
    region_shape: tuple[int, ...] = _derived()
    letters: tuple[str, ...] = _derived()
    """The letters of the kept factors, one for each axis of `region_shape`."""
    count: int = _derived()
    size: int = _derived()
    merged: tuple[str, tuple[int, ...]] = _derived()
    """The split view with like neighbors merged, axes of one dropped: ``("KR", (8, 128))``, K kept, R reduced."""
    channel_axis: int = _derived()
    """Which axis of the tensor the channels lie on; with weights the first."""
    tail: tuple[int, ...] = _derived()
    """The last axes, where these alone are reduced: the shape that a layer norm kernel takes."""
    groups: tuple[int, int, int, int] | None = _derived()
    """Samples, channels, positions and groups, where a group norm kernel computes the region."""
    _spreading: tuple[tuple[int, ...], ...] = _derived()
    _laid: tuple[tuple[int, ...], ...] = _derived()
    """How parameters that cover no axis, the channels, the channels and the next axis ... lie in the split view."""

    def __post_init__(self) -> None:
        every = [factor for axis in self.factors for factor in axis]
        kept = [factor for factor in every if factor.kept]
        count = math.prod(factor.size for factor in kept)
        channels = next((i for i, axis in enumerate(self.factors) if axis[0].letter in ("c", "g")), 0)
        found = {
            "split_shape": tuple(factor.size for factor in every),
            "reduced": tuple(i for i, factor in enumerate(every) if not factor.kept),
            "region_shape": tuple(factor.size for factor in kept),
            "letters": tuple(factor.letter for factor in kept),
            "count": count,
            "size": math.prod(self.shape) // count,
            "merged": merge(self.factors),
            "channel_axis": channels,
            "tail": tail_of(self.factors),
            "groups": groups_of(self.factors),
            "_spreading": spreading(self.factors),
            "_laid": tuple(
                tuple(
                    f.size if 0 <= axis - channels < covered else 1 for axis, fs in enumerate(self.factors) for f in fs
                )
                for covered in range(len(self.shape) - channels + 1)
            ),
        }
        for name, value in found.items():
            object.__setattr__(self, name, value)

    def split(self, x: Tensor) -> Tensor:
        """The tensor with one dimension a factor: ``(n c h w)`` becomes ``(n g k h w)``."""
        return x if x.shape == self.split_shape else x.reshape(self.split_shape)

    def join(self, y: Tensor) -> Tensor:
        """The reverse of `split`."""
        return y if y.shape == self.shape else y.reshape(self.shape)

    def mean(self, x: Tensor) -> Tensor:
        """The mean of each region, shaped by the kept factors, as in ``(n g)``."""
        return self.split(x).mean(self.reduced) if self.reduced else self.split(x)

    def spread(self, statistic: Tensor) -> Tensor:
        """A statistic shaped by the kept factors, reshaped so that it broadcasts against the tensor."""
        *before, last = self._spreading
        if before:
            single, repeated = before
            statistic = statistic.reshape(single).expand(repeated)
        return statistic.reshape(last)

    def lay(self, parameter: Tensor) -> Tensor:
        """A parameter of shape (c) or (c h w), or one that broadcasts against the tensor, reshaped so that it
        broadcasts against the split view."""
        if parameter.ndim < len(self.shape):
            return parameter.reshape(self._laid[parameter.ndim])
        pairs = zip(self.factors, parameter.shape, strict=True)
        return parameter.reshape([f.size if size > 1 else 1 for factors, size in pairs for f in factors])

    def gather(self, statistic: Tensor) -> Tensor:
        """The reverse of `spread`: one value a region from a statistic that broadcasts against the tensor."""
        if statistic.numel() == self.count:
            return statistic.reshape(self.region_shape)
        whole = self.split(statistic.expand(self.shape))
        return whole[tuple(slice(None) if f.kept else 0 for axis in self.factors for f in axis)]

    @cached_property
    def as_rows(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], bool]:
        """How the split view is permuted so that each region is a row, how that is undone, how long the dimensions of
        a row are, and whether a row is the channels."""
        split = range(len(self.split_shape))
        order = (*(d for d in split if d not in self.reduced), *self.reduced)
        back = tuple(sorted(split, key=order.__getitem__))
        before = sum(len(axis) for axis in self.factors[: self.channel_axis])
        channels = tuple(range(before, before + len(self.factors[self.channel_axis])))
        return order, back, tuple(self.split_shape[d] for d in self.reduced), self.reduced == channels

    @cached_property
    def parts(self) -> tuple[Tensor, ...]:
        """One whole-number vector an axis; an element's label is the sum of its parts."""
        strides, stride = [], self.count
        for factor in (f for axis in self.factors for f in axis):
            stride //= factor.size if factor.kept else 1
            strides.append(stride if factor.kept else 0)
        remaining, parts = iter(strides), []
        for axis in self.factors:
            part = torch.zeros(1, dtype=torch.long, device="cpu")
            for factor in axis:
                step = torch.arange(factor.size, device="cpu") * next(remaining)
                part = (part[:, None] + step).reshape(-1)
            parts.append(part)
        return tuple(parts)

    def ids(self) -> Tensor:
        """A label per element; equal labels share a statistic. Labels count regions by their first elements."""
        rank = len(self.shape)
        labels = sum(part.reshape([-1 if i == a else 1 for i in range(rank)]) for a, part in enumerate(self.parts))
        return torch.as_tensor(labels).expand(self.shape)

    def label(self, index: Sequence[int]) -> int:
        """The label of one element."""
        return sum(int(part[i]) for part, i in zip(self.parts, check_index(index, self.shape), strict=True))

    def members(self, index: Sequence[int]) -> Tensor:
        """The indices of all elements that share a statistic with `index`: whole numbers, shape (size, axes)."""
        index = check_index(index, self.shape)
        along = [(part == part[i]).nonzero().flatten() for part, i in zip(self.parts, index, strict=True)]
        return torch.cartesian_prod(*along).reshape(-1, len(self.shape))

    def boxes(self) -> Tensor:
        """Each region as few axis-aligned boxes: whole numbers, shape (count, boxes, axes, 2), as [start, stop)."""
        runs = [_runs(part) for part in self.parts]
        table = torch.zeros(self.count, math.prod(r.shape[1] for r in runs), len(runs), 2, dtype=torch.long)
        labels = torch.cartesian_prod(*(torch.unique(part) for part in self.parts)).reshape(-1, len(runs)).sum(1)
        which = torch.cartesian_prod(*(torch.arange(r.shape[0]) for r in runs)).reshape(-1, len(runs))
        nth = torch.cartesian_prod(*(torch.arange(r.shape[1]) for r in runs)).reshape(-1, len(runs))
        for axis, run in enumerate(runs):
            table[labels, :, axis] = run[which[:, axis]][:, nth[:, axis]]
        return table


def _runs(part: Tensor) -> Tensor:
    """The intervals on which a part is constant: shape (distinct values, intervals of each, 2)."""
    starts = torch.cat([torch.zeros(1, dtype=torch.long), (part.diff() != 0).nonzero().flatten() + 1])
    stops = torch.cat([starts[1:], torch.tensor([len(part)])])
    order = part[starts].argsort(stable=True)
    return torch.stack([starts, stops], 1)[order].reshape(len(torch.unique(part)), -1, 2)


def check_index(index: Sequence[int], shape: Sequence[int]) -> tuple[int, ...]:
    """The index as whole numbers, refused in a sentence when it lies outside the shape."""
    index = index.tolist() if isinstance(index, Tensor) else index
    index = tuple(index) if isinstance(index, Iterable) else (index,)
    if not all(isinstance(i, numbers.Integral) for i in index):
        raise NormcoreError(f"index {index!r} must be whole numbers, one for each axis of shape {tuple(shape)}")
    if len(index) != len(shape) or not all(0 <= i < size for i, size in zip(index, shape, strict=True)):
        last = tuple(size - 1 for size in shape)
        raise NormcoreError(f"index {index} lies outside shape {tuple(shape)}; the last element is {last}")
    return tuple(int(i) for i in index)

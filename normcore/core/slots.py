"""The tensors that a layer owns: what it learns and what it remembers."""

import math
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from normcore.core.axes import LETTERS, SPATIAL
from normcore.core.precision import full_precision

AXES = {letter for letters in LETTERS.values() for letter in letters}


@dataclass(frozen=True)
class Slot:
    """A tensor that a layer owns, or that comes with its input: its shape in axis letters, and its first value.

    ``...`` in the axes stands for those spatial axes whose sizes the layer was given, a final ``*`` for any further
    axes; a digit is itself a size, the name of a setting its value, and ``c/num_groups`` a quotient. ``x`` stands for
    all axes of the input, ``positions`` for all but its channels, and ``or`` between two shapes admits both.
    The first value is a number, the setting that has it (as ``1-`` and its name, what that leaves of 1), the root of a
    size as in ``sqrt(c)``, "identity" for square matrices, or with weight methods a function of the weight.
    """

    axes: str
    init: float | str | Callable[..., Tensor] = 0.0
    dtype: torch.dtype | None = None

    def start(self, weight: Tensor, *bounds: Any) -> Tensor:
        """The first value that suits a weight."""
        assert callable(self.init), "others start without one"
        with full_precision(weight):
            return self.init(weight.detach(), *bounds)

    def letters(self, axes: Iterable[str]) -> tuple[str, ...]:
        """The axis letters, with ``...``, ``x`` and ``positions`` written out from the axes at hand."""
        here = [axis for axis in axes if axis in AXES]
        whole = {"...": [a for a in here if a in SPATIAL], "x": here, "positions": [a for a in here if a != "c"]}
        return tuple(letter for word in self.axes.split() for letter in whole.get(word, [word]))

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The shape for these axis sizes."""
        return tuple(_size(axis, sizes) for axis in self.letters(sizes) if axis != "*")

    def shapes(self, sizes: Mapping[str, int]) -> list[tuple[int, ...]]:
        """The shapes that fit a tensor with these axis sizes: with ``...``, the spatial axes may be left out."""
        few = {axis: size for axis, size in sizes.items() if axis not in SPATIAL or "..." not in self.axes}
        choices = [Slot(axes) for axes in self.axes.split(" or ")]
        return sorted({choice.shape(known) for choice in choices for known in (few, sizes)}, key=len)

    def fits(self, shape: Sequence[int], sizes: Mapping[str, int]) -> bool:
        """Whether a tensor of this shape can stand in the slot."""
        if callable(self.init):
            axes = [size for axis, size in sizes.items() if axis in AXES]
            return len(shape) == len(axes) and all(have in (1, size) for have, size in zip(shape, axes, strict=True))
        if self.axes.endswith("*"):
            shape = shape[: len(self.shape(sizes))]
        return tuple(shape) in self.shapes(sizes)

    def words(self, sizes: Mapping[str, int]) -> str:
        """What shape would fit."""
        if callable(self.init):
            return f"{tuple(size for axis, size in sizes.items() if axis in AXES)} with ones for some of the sizes"
        return " or ".join(map(str, self.shapes(sizes))) + (" and any further axes" if self.axes.endswith("*") else "")


GAIN = {"weight": Slot("c", 1.0)}
GAIN_AND_BIAS = {**GAIN, "bias": Slot("c", 0.0)}
RUNNING = {
    "running_mean": Slot("c", 0.0),
    "running_var": Slot("c", 1.0),
    "num_batches_tracked": Slot("", 0, torch.long),
}


def new_tensor(
    slot: Slot, sizes: Mapping[str, int], like: Tensor | None = None, settings: Mapping[str, Any] = MappingProxyType({})
) -> Tensor:
    """A slot's tensor with its first value; half-precision input gets float32."""
    dtype = slot.dtype
    if dtype is None and like is not None:
        dtype = torch.promote_types(like.dtype, torch.float32)
    device = None if like is None else like.device
    dtype, shape = dtype or torch.get_default_dtype(), slot.shape(sizes)
    if slot.init == "identity":
        return torch.eye(shape[-1], dtype=dtype, device=device).expand(shape).clone()
    init = _number(slot.init, {**sizes, **settings}) if isinstance(slot.init, str) else slot.init
    assert isinstance(init, int | float), "slots that start from a weight are filled from it"
    return torch.full(shape, init, dtype=dtype, device=device)


def counts(settings: Mapping[str, Any]) -> dict[str, int]:
    """The settings that can be the size of an axis: whole numbers."""
    return {name: int(v) for name, v in settings.items() if isinstance(v, numbers.Integral) and not isinstance(v, bool)}


def _number(init: str, known: Mapping[str, Any]) -> float:
    if init.startswith("sqrt("):
        return math.sqrt(known[init[5:-1]])
    return 1 - known[init[2:]] if init.startswith("1-") else known[init]


def _size(axis: str, sizes: Mapping[str, int]) -> int:
    whole, _, parts = axis.partition("/")
    return (int(whole) if whole.isdigit() else sizes[whole]) // (sizes[parts] if parts else 1)

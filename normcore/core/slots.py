"""The tensors that a layer owns: what it learns and what it remembers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from normcore.core.axes import SPATIAL


@dataclass(frozen=True)
class Slot:
    """A tensor that a layer owns: its shape in axis letters, and its first value (or a function of the weight).

    ``...`` in the axes stands for those spatial axes whose sizes the layer was given; a digit is itself a size.
    """

    axes: str
    init: float | Callable[..., Tensor]
    dtype: torch.dtype | None = None

    def letters(self, axes: Iterable[str]) -> tuple[str, ...]:
        """The axis letters, with ``...`` written out from the axes at hand."""
        spatial = " ".join(axis for axis in axes if axis in SPATIAL)
        return tuple(self.axes.replace("...", spatial).split())

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The shape for these axis sizes."""
        return tuple(int(axis) if axis.isdigit() else sizes[axis] for axis in self.letters(sizes))

    def shapes(self, sizes: Mapping[str, int]) -> list[tuple[int, ...]]:
        """The shapes that fit a tensor with these axis sizes: with ``...``, the spatial axes may be left out."""
        few = {axis: size for axis, size in sizes.items() if axis not in SPATIAL}
        return sorted({self.shape(few), self.shape(sizes)}, key=len)

    def fits(self, shape: Sequence[int], sizes: Mapping[str, int]) -> bool:
        """Whether a tensor of this shape can stand in the slot."""
        if callable(self.init):
            return len(shape) == len(sizes) and all(
                have in (1, size) for have, size in zip(shape, sizes.values(), strict=True)
            )
        return tuple(shape) in self.shapes(sizes)

    def words(self, sizes: Mapping[str, int]) -> str:
        """What shape would fit."""
        if callable(self.init):
            return f"{tuple(sizes.values())} with ones for some of the sizes"
        return " or ".join(map(str, self.shapes(sizes)))


GAIN = {"weight": Slot("c", 1.0)}
GAIN_AND_BIAS = {**GAIN, "bias": Slot("c", 0.0)}
RUNNING = {
    "running_mean": Slot("c", 0.0),
    "running_var": Slot("c", 1.0),
    "num_batches_tracked": Slot("", 0, torch.long),
}


def new_tensor(slot: Slot, sizes: Mapping[str, int], like: Tensor | None = None) -> Tensor:
    """A slot's tensor with its first value; half-precision input gets float32."""
    dtype = slot.dtype
    if dtype is None and like is not None:
        dtype = torch.promote_types(like.dtype, torch.float32)
    device = None if like is None else like.device
    assert not callable(slot.init), "slots that start from a weight are filled by reparametrize"
    return torch.full(slot.shape(sizes), slot.init, dtype=dtype or torch.get_default_dtype(), device=device)

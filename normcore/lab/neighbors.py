"""Who else decides an output: one other sample is replaced, and the change of yours is measured."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from normcore.core import Divides, Method, NormcoreError, axis_sizes
from normcore.registry import method

SEEN = 64
"""How many samples the running state was formed from, in one batch of which every part counts the same."""

ROUNDING = 1e-9
"""A change below this share of the output is what float64 rounds away."""

# Who comes in the neighbor's place, made from a sample of the same kind and from yours.
NEWCOMERS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "another of its kind": lambda other, yours: other,
    "ten times as large": lambda other, yours: 10 * other,
    "shifted by 5": lambda other, yours: other + 5,
    "all zeros": lambda other, yours: torch.zeros_like(other),
    "a copy of yours": lambda other, yours: yours.clone(),
}


@dataclass(frozen=True)
class Swap:
    """What replacing one other sample did to yours.

    `change` is the root mean square of what your output moved by, as a share of its own root mean square; `largest` is
    the largest move of a single value.
    """

    change: float
    largest: float

    @property
    def noticed(self) -> bool:
        """Whether the output moved by more than rounding."""
        return self.change > ROUNDING


def swap(
    key: str,
    shape: Sequence[int],
    layout: str,
    neighbor: int = 1,
    newcomer: str = "another of its kind",
    training: bool = True,
    seed: int = 0,
    **settings: Any,
) -> Swap:
    """Replaces sample `neighbor` of a batch and measures how far the output of sample 0 moves, in float64.

    The values are normal, every channel with a mean and a spread of its own; gains are 1 and biases 0, and what comes
    beside the input is left out. A running state has seen 64 other samples of the same kind.

    Raises:
        NormcoreError: No such method, layout or setting, a value outside its domain, or a neighbor outside the batch.
    """
    norm = method(key, "activation")
    if not 1 <= neighbor < shape[0]:
        raise NormcoreError(f"neighbor={neighbor} must be another sample of the batch: 1 to {shape[0] - 1}")
    if newcomer not in NEWCOMERS:
        raise NormcoreError(f"newcomer={newcomer!r} is not known; try one of {', '.join(NEWCOMERS)}")
    drawn = samples((SEEN + shape[0] + 1, *shape[1:]), layout, seed)
    x, other = drawn[1 : shape[0] + 1], drawn[0]
    arguments = {**settings, **remembered(norm, drawn[-SEEN:], layout, settings), **_mode(norm, training)}
    changed = x.clone()
    changed[neighbor] = NEWCOMERS[newcomer](other, x[0])
    before, after = (norm(batch, layout, **arguments).y[0] for batch in (x, changed))
    return Swap(relative(after - before, before), float((after - before).abs().max()))


def samples(shape: Sequence[int], layout: str, seed: int) -> Tensor:
    """Normal values in which every channel has a mean and a spread of its own."""
    generator = torch.Generator().manual_seed(seed)
    options: dict[str, Any] = {"generator": generator, "dtype": torch.float64}
    letters = list(axis_sizes(shape, layout))
    column = [-1 if letter == "c" else 1 for letter in letters]
    channels = shape[letters.index("c")]
    mean = torch.randn(channels, **options).reshape(column)
    spread = torch.rand(channels, **options).reshape(column) + 0.5
    return torch.randn(*shape, **options) * spread + mean


def remembered(norm: Method, seen: Tensor, layout: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The running state after one batch, as an argument; its parts count the same where the method has a momentum."""
    if not norm.state:
        return {}
    names = {param.name for param in norm.params}
    fitted = fitting(norm, tuple(seen.shape), layout, settings)
    everything_counts = {"momentum": None} if "momentum" in names else {}
    return {"state": norm(seen, layout, **{**settings, **fitted, **everything_counts}).state}


def fitting(norm: Method, shape: Sequence[int], layout: str, wished: Mapping[str, Any]) -> dict[str, Any]:
    """The settings wished for that the method has; one that has to divide an axis and does not moves below it."""
    sizes = axis_sizes(shape, layout)
    found = {}
    for param in norm.params:
        value = wished.get(param.name, param.default)
        if isinstance(param.domain, Divides):
            value = max(n for n in param.domain.samples(sizes) if n <= value)
        if value != param.default:
            found[param.name] = value
    return found


def relative(difference: Tensor, of: Tensor) -> float:
    """The root mean square of a difference as a share of that of the whole; 0 where nothing differs."""
    moved, whole = (math.sqrt(float(values.square().mean())) for values in (difference, of))
    return moved / whole if moved else 0.0


def _mode(norm: Method, training: bool) -> dict[str, bool]:
    return {"training": training} if norm.state else {}

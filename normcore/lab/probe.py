"""One element under the microscope: its numbers on the way through a method, and what measurably moves it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from normcore.core import Method, Normed, axis_sizes
from normcore.formula import numbers_at
from normcore.influence import influence
from normcore.registry import method

LIMIT = 4096
"""The most elements that are really computed; a larger tensor is probed on a small one of the same structure."""

BATCHES = 20
"""How many batches a running state has seen before evaluation is probed."""

SMALL = {"n": 8, "o": 8, "t": 8, "c": 16, "i": 16, "d": 2}


@dataclass(frozen=True)
class Probe:
    """What one element went through, on the tensor that was really computed.

    `shape`, `index` and `settings` are those of that tensor: the given ones, or smaller ones of the same structure.
    `numbers` has the input `x`, the output `y` and the statistics used; `influence` is |∂y[index]/∂x|.
    """

    shape: tuple[int, ...]
    index: tuple[int, ...]
    settings: Mapping[str, Any]
    numbers: Mapping[str, float]
    influence: Tensor


def probe(
    key: str,
    shape: Sequence[int],
    layout: str,
    index: Sequence[int],
    training: bool = True,
    seed: int = 0,
    **settings: Any,
) -> Probe:
    """Runs a method on random values (channels of unlike mean and spread) and reports on one element.

    In evaluation the running state has seen 20 batches of the same kind. Gains are 1 and biases 0.

    Raises:
        NormcoreError: No such method, layout or setting, a value outside its domain, or an index outside the shape.
    """
    norm = method(key)
    shape, index, settings = stand_in(norm, shape, layout, index, settings)
    batches = source(shape, layout, seed)
    x = next(batches)
    arguments = ready(norm, batches, layout, training, settings)

    def run(tensor: Tensor) -> Normed:
        return norm([tensor] if norm.family == "gradient" else tensor, layout, **arguments)

    def output(tensor: Tensor) -> Tensor:
        y = run(tensor).y
        return y[0] if isinstance(y, list) else y

    return Probe(shape, index, settings, numbers_at(x, run(x), index), influence(output, x, index))


def ready(
    norm: Method, batches: Iterator[Tensor], layout: str, training: bool, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The settings with what a mode needs beside them: in evaluation a running state that has seen 20 batches.

    A gradient method that asks for parameters gets random ones.
    """
    arguments: dict[str, Any] = dict(settings)
    if "parameters" in norm.inputs:
        arguments["parameters"] = [next(batches)]
    if norm.state:
        arguments["training"] = training
    if norm.state and not training:
        for batch in islice(batches, BATCHES):
            arguments["state"] = norm(batch, layout, **settings, state=arguments.get("state")).state
    return arguments


def stand_in(
    norm: Method, shape: Sequence[int], layout: str, index: Sequence[int], settings: Mapping[str, Any]
) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]:
    """A shape, index and settings of the same structure with few elements; a tensor of at most `LIMIT` is left alone.

    The shape and the index are the same for every method, so that their numbers speak of the same element.
    """
    bounds = norm.bound(shape, layout, **settings)
    if math.prod(shape) <= LIMIT:
        return tuple(shape), tuple(index), dict(settings)
    sizes, smaller = [], dict(settings)
    for axis, (letter, size) in enumerate(axis_sizes(shape, layout).items()):
        sizes.append(min(size, SMALL.get(letter, 4)))
        split = next((b.factors[axis] for b in bounds if len(b.factors[axis]) > 1), ())
        if split and sizes[-1] < size:
            parts, members = (factor.size for factor in split)
            small = _split(sizes[-1], parts, members)
            smaller |= {
                norm.sizes[factor.letter]: n
                for factor, n in zip(split, small, strict=True)
                if factor.letter in norm.sizes
            }
    at = tuple(i * small_size // size for i, small_size, size in zip(index, sizes, shape, strict=True))
    return tuple(sizes), at, smaller


def _split(size: int, parts: int, members: int) -> tuple[int, int]:
    """A power of two split in two as a larger axis was: into one part or several, of one member or several."""
    if parts == 1 or members == 1:
        return (1, size) if parts == 1 else (size, 1)
    several = max(min(2 ** int(math.log2(parts)), size // 4), size // 2 ** int(math.log2(members)))
    return several, size // several


def source(shape: Sequence[int], layout: str, seed: int) -> Iterator[Tensor]:
    """Batches of normal values in which every channel has a mean and a spread of its own."""
    generator = torch.Generator().manual_seed(seed)
    letters = list(axis_sizes(shape, layout))
    channel = letters.index("c") if "c" in letters else 0
    column = [-1 if axis == channel else 1 for axis in range(len(shape))]
    options: dict[str, Any] = {"generator": generator, "dtype": torch.float64}
    mean = 2 * torch.randn(shape[channel], **options).reshape(column)
    spread = torch.rand(shape[channel], **options).reshape(column) + 0.5
    while True:
        yield torch.randn(*shape, **options) * spread + mean

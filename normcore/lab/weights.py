"""The weight behind a norm: what becomes of the output, and of the weight's gradient, when the weight is changed."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from normcore.core import LETTERS, Method, Normed
from normcore.core.axes import SPATIAL
from normcore.lab.probe import ready, stand_in
from normcore.registry import method

FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0)
"""What a weight is multiplied by to see its gradient shrink."""
STAYS = 1e-3
"""The largest change, as a share of the largest value, that is put down to ε."""
FEATURES, KERNEL = 5, 3
"""The layer before a norm takes this many features, and if it is a convolution, reaches over this many places."""
CONVOLUTIONS = (functional.conv1d, functional.conv2d, functional.conv3d)


@dataclass(frozen=True)
class WeightScale:
    """A weight, multiplied by each of `factors`: how far the output moved, as a share of its largest value, and the
    length of the weight's gradient, as a multiple of that at factor 1 (nan where that one is 0)."""

    factors: tuple[float, ...]
    outputs: tuple[float, ...]
    gradients: tuple[float, ...]

    @property
    def shrinks(self) -> bool:
        """Whether a weight made larger by c leaves the output, and its gradient becomes 1/c of what it was."""
        large = [(c, y, g) for c, y, g in zip(self.factors, self.outputs, self.gradients, strict=True) if c > 1]
        return all(moved < STAYS and abs(c * gradient - 1) < 10 * STAYS for c, moved, gradient in large)


def weight_scale(
    key: str, layout: str, shape: Sequence[int], training: bool = True, seed: int = 0, **settings: Any
) -> WeightScale | None:
    """Measures what becomes of the output and of a weight's gradient when the weight is multiplied by a number.

    The weight is the method's own input, or with activations that of the linear layer or the convolution before it; the
    loss is a random linear function of the output. None for methods that work on gradients.

    Raises:
        NormcoreError: No such method, layout or setting, or a value outside its domain.
    """
    norm = method(key)
    if norm.family == "gradient":
        return None
    layout = norm.layout(layout, len(shape))
    shape, _, settings = stand_in(norm, shape, layout, [0] * len(shape), settings)
    options: dict[str, Any] = {"generator": torch.Generator().manual_seed(seed), "dtype": torch.float64}
    run, weight = from_weight(norm, shape, layout, training, settings, options)
    direction = torch.randn(shape, **options)
    values, lengths = [], []
    for factor in FACTORS:
        scaled = (factor * weight).requires_grad_(True)
        y = run(scaled)
        (gradient,) = torch.autograd.grad((y * direction).sum(), scaled)
        values.append(y.detach())
        lengths.append(float(gradient.norm()))
    one = FACTORS.index(1.0)
    base = lengths[one] or math.nan
    moved = tuple(share(value - values[one], values[one]) for value in values)
    return WeightScale(FACTORS, moved, tuple(length / base for length in lengths))


def from_weight(
    norm: Method,
    shape: Sequence[int],
    layout: str,
    training: bool,
    settings: Mapping[str, Any],
    options: Mapping[str, Any],
) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """The output as a function of a weight, and that weight; `options` go to torch.randn.

    With activations it is the weight of a layer without a bias that comes before: linear, or a convolution where there
    is space. In evaluation the running state has seen what the unchanged weight makes of other inputs.
    """
    if norm.family == "weight":
        weight = torch.randn(*shape, **options)
        arguments = ready(norm, repeat(weight), layout, training, settings)
        return lambda w: output(norm, w, layout, arguments), weight
    sizes = dict(zip(LETTERS[layout], shape, strict=True))
    space = [size for letter, size in sizes.items() if letter in SPATIAL]
    kernel = [KERNEL] * len(space)
    weight = torch.randn(sizes["c"], FEATURES, *kernel, **options) / math.sqrt(FEATURES * math.prod(kernel))

    def features() -> Tensor:
        return torch.randn(*(sizes | {"c": FEATURES}).values(), **options)

    def before(inputs: Tensor, w: Tensor) -> Tensor:
        return CONVOLUTIONS[len(space) - 1](inputs, w, padding=KERNEL // 2) if space else inputs @ w.mT

    def seen() -> Iterator[Tensor]:
        while True:
            yield before(features(), weight)

    inputs = features()
    arguments = ready(norm, seen(), layout, training, settings)
    return lambda w: output(norm, before(inputs, w), layout, arguments), weight


def output(norm: Method, x: Tensor, layout: str, arguments: Mapping[str, Any]) -> Tensor:
    """What a method makes of one tensor."""
    normed: Normed = norm([x] if norm.family == "gradient" else x, layout, **arguments)
    y = normed.y[0] if isinstance(normed.y, list) else normed.y
    assert isinstance(y, Tensor)
    return y


def share(change: Tensor, of: Tensor) -> float:
    """The largest change as a share of the largest value; all values may be 0."""
    return float(change.abs().max() / of.abs().max().clamp(min=1e-9))

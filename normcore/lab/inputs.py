"""Numbers to normalize: made ones whose trouble is known, a trained net's activations, photographs, a visitor's own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from normcore.core import AXIS_WORDS, LAYOUTS, LETTERS, NormcoreError, axis_sizes

LIMIT = 2**18
"""The most values that are computed with: a change of any setting answers at once."""

WIDEST = 256
"""The most channels: methods that whiten work on the square of them."""

STEPS, BATCH, RATE = 240, 64, 0.3
"""How the small net is trained."""

EVERY = (*LAYOUTS["activation"], *LAYOUTS["weight"])


@dataclass(frozen=True)
class Input:
    """Numbers to normalize: `x` shaped by the layout, in float64, which of them count, and what they are, in words."""

    x: Tensor
    layout: str
    note: str
    mask: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.x.shape)

    @property
    def context(self) -> dict[str, Tensor]:
        """What a method may take beside the tensor."""
        return {} if self.mask is None else {"mask": self.mask}

    @property
    def counted(self) -> np.ndarray:
        """For each element, whether it counts."""
        if self.mask is None:
            return np.ones(self.shape, dtype=bool)
        return self.mask.unsqueeze(-1).expand(self.shape).numpy().copy()


@dataclass(frozen=True)
class _Draw:
    """What a recipe draws from: the shape, the axis of the channels, and its own randomness."""

    shape: tuple[int, ...]
    layout: str
    options: Mapping[str, Any]

    @property
    def channel(self) -> int:
        letters = LETTERS[self.layout]
        return letters.index("c") if "c" in letters else 0

    @property
    def word(self) -> str:
        return AXIS_WORDS[LETTERS[self.layout][self.channel]]

    def normal(self) -> Tensor:
        return torch.randn(self.shape, **self.options)

    def of_channels(self, values: Tensor) -> Tensor:
        """One value a channel, in an order of chance, so that it broadcasts."""
        order = torch.randperm(len(values), generator=self.options["generator"])
        return values[order].reshape([-1 if axis == self.channel else 1 for axis in range(len(self.shape))])

    def spaced(self, low: float, high: float) -> Tensor:
        return torch.linspace(low, high, self.shape[self.channel], dtype=torch.float64)


def _normal(draw: _Draw) -> Input:
    return Input(3 + 2 * draw.normal(), draw.layout, "Normal values with mean 3 and standard deviation 2.")


def _skewed(draw: _Draw) -> Input:
    return Input((0.8 * draw.normal()).exp(), draw.layout, "Lognormal values: all positive, with a long tail upwards.")


def _heavy(draw: _Draw) -> Input:
    squares = sum(draw.normal().square() for _ in range(3)) / 3
    note = "Student's t with 3 degrees of freedom: most values small, a few very large."
    return Input(draw.normal() / torch.as_tensor(squares).sqrt(), draw.layout, note)


def _offsets(draw: _Draw) -> Input:
    spread = draw.of_channels(draw.spaced(0.5, 1.5))
    x = draw.normal() * spread + draw.of_channels(draw.spaced(-6, 6))
    return Input(
        x, draw.layout, f"Normal values; every {draw.word} has a mean between −6 and 6 and a deviation of its own."
    )


def _mixed(draw: _Draw) -> Input:
    scale = draw.of_channels(torch.logspace(-1, 2, draw.shape[draw.channel], dtype=torch.float64))
    note = f"Like a table of unlike features: the deviations of the {draw.word}s go from 0.1 to 100."
    return Input((draw.normal() + 0.5) * scale, draw.layout, note)


def _outliers(draw: _Draw) -> Input:
    x = draw.normal()
    count = max(1, x.numel() // 200)
    places = torch.randperm(x.numel(), generator=draw.options["generator"])[:count]
    x.view(-1)[places] = torch.where(torch.arange(count) % 2 == 0, 30.0, -30.0).double()
    found = "one of them is 30" if count == 1 else f"{count:,} of them are ±30"
    return Input(x, draw.layout, f"Standard normal values, but {found}.")


def _padded(draw: _Draw) -> Input:
    samples, tokens, _ = draw.shape
    shortest = max(1, tokens // 4)
    lengths = torch.linspace(tokens, shortest, samples, dtype=torch.float64).round().long()
    mask = torch.arange(tokens) < lengths[:, None]
    x = (draw.normal() + draw.of_channels(draw.spaced(1, 4))) * mask.unsqueeze(-1)
    note = (
        f"{samples} sentences of {int(lengths.min())} to {tokens} tokens, filled up with zeros: "
        f"{int((~mask).sum())} of {mask.numel()} positions are padding."
    )
    return Input(x, draw.layout, note, mask)


MADE: Mapping[str, tuple[Callable[[_Draw], Input], tuple[str, ...]]] = {
    "normal": (_normal, EVERY),
    "skewed": (_skewed, EVERY),
    "heavy-tailed": (_heavy, EVERY),
    "channel offsets": (_offsets, EVERY),
    "mixed scales": (_mixed, EVERY),
    "outliers": (_outliers, EVERY),
    "padded sentences": (_padded, ("tokens",)),
}
"""Inputs that are drawn by a recipe for a shape, and the layouts that the recipe is for."""

STAGES: Mapping[str, str] = {"convolution 1": "image", "convolution 2": "image", "hidden layer": "vector"}
"""The places in the small net where a norm would stand, before the activation function, with their layouts."""

PHOTOGRAPHS = ("china", "flower", "both")


def made(source: str, shape: Sequence[int], layout: str, seed: int = 0) -> Input:
    """Draws an input by its recipe.

    Raises:
        NormcoreError: No such recipe, a layout that it is not for, or a shape that does not fit or is too large.
    """
    if source not in MADE:
        raise NormcoreError(f"input={source!r} is not known; try {', '.join(MADE)}")
    recipe, layouts = MADE[source]
    if layout not in layouts:
        raise NormcoreError(f"layout={layout!r} is not for the input {source!r}; try {', '.join(layouts)}")
    axis_sizes(shape, layout)
    _check_count(shape)
    generator = torch.Generator().manual_seed(seed)
    return recipe(_Draw(tuple(shape), layout, {"generator": generator, "dtype": torch.float64}))


def fitted(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape with as few samples fewer as it takes to stay within the limit."""
    each = int(np.prod(shape[1:], dtype=np.int64))
    return (max(1, min(shape[0], LIMIT // each)), *shape[1:])


def own(values: np.ndarray, layout: str, name: str) -> Input:
    """A visitor's numbers, whose axes are those of the layout.

    Raises:
        NormcoreError: The axes do not fit, or there are too many values or channels.
    """
    sizes = axis_sizes(values.shape, layout)
    _check_count(values.shape)
    if sizes["c"] > WIDEST:
        raise NormcoreError(f"{name}: {sizes['c']:,} channels; at most {WIDEST} are taken, so choose some of them")
    shape = " × ".join(f"{size:,}" for size in values.shape)
    return Input(torch.as_tensor(values, dtype=torch.float64).clone(), layout, f"{name}: {shape} values.")


def _check_count(shape: Sequence[int]) -> None:
    count = int(np.prod([int(size) for size in shape], dtype=object))
    if count > LIMIT:
        raise NormcoreError(f"shape {tuple(shape)} has {count:,} values; at most {LIMIT:,} are taken, so send a part")


@lru_cache(maxsize=4)
def photographs(which: str) -> Input:
    """The two photographs that come with scikit-learn, made eight times smaller by averaging; values from 0 to 1."""
    from sklearn.datasets import load_sample_images  # noqa: PLC0415  (slow to import, and rarely asked for)

    if which not in PHOTOGRAPHS:
        raise NormcoreError(f"photograph={which!r} is not known; try {', '.join(PHOTOGRAPHS)}")
    pictures = dict(zip(PHOTOGRAPHS, load_sample_images().images, strict=False))
    chosen = list(pictures.values()) if which == "both" else [pictures[which]]
    whole = np.stack([picture[: picture.shape[0] // 8 * 8, : picture.shape[1] // 8 * 8] for picture in chosen])
    samples, rows, columns, _ = whole.shape
    small = whole.reshape(samples, rows // 8, 8, columns // 8, 8, 3).mean((2, 4)) / 255
    words = "Two photographs" if which == "both" else f"The photograph “{which}”"
    note = f"{words} from scikit-learn, {columns // 8} × {rows // 8} pixels in red, green and blue, from 0 to 1."
    return Input(torch.as_tensor(small.transpose(0, 3, 1, 2).copy()), "image", note)


@lru_cache(maxsize=1)
def _trained() -> tuple[Mapping[str, Tensor], Mapping[str, Tensor], float]:
    """A small net trained on scikit-learn's digits: its activations before and after training, and what it gets right.

    Its weights are drawn as PyTorch draws them; it has no norm. The activations are those of 32 digits that it has
    never seen, before the activation function.
    """
    from sklearn.datasets import load_digits  # noqa: PLC0415  (as above)

    digits = load_digits()
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(digits.target), generator=generator)
    images = torch.as_tensor(digits.images, dtype=torch.float32)[order, None] / 16
    labels = torch.as_tensor(digits.target)[order]
    shapes = ((8, 1, 3, 3), (12, 8, 3, 3), (32, 192), (10, 32))
    weights = []
    for shape in shapes:
        bound = int(np.prod(shape[1:])) ** -0.5
        weights += [(2 * torch.rand(size, generator=generator) - 1) * bound for size in (shape, shape[:1])]
    fresh = _stages(weights, images[:32])[0]
    for weight in weights:
        weight.requires_grad_()
    with torch.enable_grad():
        for _ in range(STEPS):
            batch = torch.randint(297, len(labels), (BATCH,), generator=generator)
            loss = functional.cross_entropy(_stages(weights, images[batch])[1], labels[batch])
            slopes = torch.autograd.grad(loss, weights)
            for weight, slope in zip(weights, slopes, strict=True):
                weight.data -= RATE * slope
    with torch.no_grad():
        right = float((_stages(weights, images[:297])[1].argmax(1) == labels[:297]).double().mean())
        return fresh, _stages(weights, images[:32])[0], right


def _stages(weights: Sequence[Tensor], images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    first = functional.conv2d(images, weights[0], weights[1], padding=1)
    second = functional.conv2d(first.relu(), weights[2], weights[3], padding=1, stride=2)
    hidden = functional.linear(second.relu().flatten(1), weights[4], weights[5])
    return dict(zip(STAGES, (first, second, hidden), strict=True)), functional.linear(
        hidden.relu(), weights[6], weights[7]
    )


def activations(stage: str, trained: bool = True) -> Input:
    """What arrives at one place of a small net trained on scikit-learn's digits, for 32 digits it has never seen.

    Raises:
        NormcoreError: The net has no such place.
    """
    if stage not in STAGES:
        raise NormcoreError(f"layer={stage!r} is not in the net; try {', '.join(STAGES)}")
    fresh, taught, right = _trained()
    found = (taught if trained else fresh)[stage].double()
    state = f"after {STEPS} steps of training ({right:.0%} right on new digits)" if trained else "before any training"
    note = f"What {stage} of a small net without norms hands its activation function, for 32 digits, {state}."
    return Input(found, STAGES[stage], note)

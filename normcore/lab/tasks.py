"""What nets learn in a race: small tasks, drawn from a seed or shipped with a package, split once for everybody."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from normcore.core import NormcoreError

DATA = 3 << 30
"""Keeps the seeds of the data apart from those of first weights: the same seed would draw the same numbers for both."""
ROWS = {2: "features", 3: "sequence", 4: "image"}
"""What rows of data are, by the number of axes of the whole."""
LONGEST, LARGEST, MOST = 500, 64 * 64, 20_000
"""The most steps of a sequence, places of an image, and numbers of one example, in data of one's own."""


@dataclass(frozen=True)
class Data:
    """Examples to learn from and examples held out.

    `kind` says what an example is: "features" (c), an "image" (c h w) or a "sequence" (t c). `y` is a class (long) or a
    number (float); `classes` is 0 where numbers are to be predicted. With `ordered` batches come as they stand in the
    data, not shuffled.
    """

    kind: str
    x: Tensor
    y: Tensor
    held_x: Tensor
    held_y: Tensor
    classes: int
    ordered: bool = False


@dataclass(frozen=True)
class Task:
    """A task by its name: what there is to learn, and how its data come about."""

    key: str
    name: str
    about: str
    kind: str
    make: Callable[[torch.Generator], Data]


def data(key: str, seed: int = 0) -> Data:
    """The data of a task; the same seed gives the same data.

    Raises:
        NormcoreError: No task is called so.
    """
    if key not in TASKS:
        raise NormcoreError(f"race: no task is called {key!r}; there are {', '.join(TASKS)}")
    return TASKS[key].make(torch.Generator().manual_seed(DATA + seed))


def table(x: Any, y: Any, seed: int = 0) -> Data:
    """A visitor's own numbers as data: a fifth of the rows is held out; whole numbers in `y` are classes.

    Args:
        x: One example a row: features (m c), sequences (m t c) or images (m c h w).
        y: One number or class a row (m).

    Raises:
        NormcoreError: Not numbers, not finite, other axes than these, unlike lengths, examples that are too large, or
            fewer than ten rows.
    """
    try:
        features, target = np.array(x, dtype=np.float64), np.array(y, dtype=np.float64)
    except (TypeError, ValueError):
        raise NormcoreError("race: the data hold something that is not a number; numbers alone would do") from None
    if features.ndim not in ROWS or target.shape != features.shape[:1] or len(features) < 10 or not features.size:
        raise NormcoreError(
            f"race: x has shape {features.shape} and y {target.shape}; they must be (rows, features), or (rows, steps, "
            "features), or (rows, channels, height, width), and (rows), with ten rows or more"
        )
    _fits(features.shape)
    if not (np.isfinite(features).all() and np.isfinite(target).all()):
        raise NormcoreError("race: the data hold nan or infinity; leave those rows out")
    whole = bool((target == np.round(target)).all()) and len(np.unique(target)) <= 100
    names, indices = np.unique(target, return_inverse=True)
    classes = len(names) if whole else 0
    if classes == 1:
        raise NormcoreError(f"race: y is {target[0]:g} in every row; there must be two values at least")
    wanted = torch.from_numpy(indices) if whole else torch.from_numpy(target).float()
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))
    return _split(ROWS[features.ndim], torch.from_numpy(features).float()[order], wanted[order], classes)


def _fits(shape: tuple[int, ...]) -> None:
    """Refuses examples that are too large to be learned from while somebody waits."""
    kind, places = ROWS[len(shape)], int(np.prod(shape[2:])) if len(shape) == 4 else shape[1]
    most, what = {"sequence": (LONGEST, "steps"), "image": (LARGEST, "places")}.get(kind, (MOST, "features"))
    if places > most:
        raise NormcoreError(f"race: x has shape {shape}, so {places:,} {what} an example; at most {most:,} are taken")
    if (size := int(np.prod(shape[1:]))) > MOST:
        raise NormcoreError(f"race: x has shape {shape}, so {size:,} numbers an example; at most {MOST:,} are taken")


def _split(kind: str, x: Tensor, y: Tensor, classes: int, ordered: bool = False) -> Data:
    """The last fifth is held out."""
    cut = len(x) - len(x) // 5
    return Data(kind, x[:cut], y[:cut], x[cut:], y[cut:], classes, ordered)


def _threshold_sum(generator: torch.Generator) -> Data:
    x = torch.rand(1500, 10, generator=generator)
    y = (x.sum(1) > 5).long()
    return Data("features", x[:1000], y[:1000], x[1000:], y[1000:], 2)


def _plane(points: Callable[[Tensor, Tensor], Tensor], noise: float) -> Callable[[torch.Generator], Data]:
    """Two classes in the plane: `points` gives the place for a class and a position along its curve."""

    def make(generator: torch.Generator) -> Data:
        y = torch.arange(1000) % 2
        along = torch.rand(1000, generator=generator)
        x = points(y, along) + noise * torch.randn(1000, 2, generator=generator)
        return _split("features", x, y, 2)

    return make


def _moons(y: Tensor, along: Tensor) -> Tensor:
    angle = torch.pi * along
    inside = y == 1
    across = torch.where(inside, 1 - angle.cos(), angle.cos())
    up = torch.where(inside, 0.5 - angle.sin(), angle.sin())
    return torch.stack([across, up], 1)


def _circles(y: Tensor, along: Tensor) -> Tensor:
    angle, radius = 2 * torch.pi * along, 1 - 0.5 * y
    return torch.stack([radius * angle.cos(), radius * angle.sin()], 1)


def _spirals(y: Tensor, along: Tensor) -> Tensor:
    angle = 3 * torch.pi * along.sqrt() + torch.pi * y
    return torch.stack([angle.cos(), angle.sin()], 1) * along.sqrt()[:, None]


def _mixed_scale(generator: torch.Generator) -> Data:
    x = torch.randn(1500, 10, generator=generator)
    direction = torch.randn(10, generator=generator)
    y = (x @ direction + 0.5 * x[:, 0] * x[:, 1] > 0).long()
    return _split("features", x * torch.logspace(-2, 2, 10), y, 2)


@cache
def _digits() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits  # noqa: PLC0415 - only where the lab is used

    found = load_digits()
    return torch.from_numpy(found.images).float()[:, None] / 16, torch.from_numpy(found.target).long()


def _real_digits(generator: torch.Generator) -> Data:
    x, y = _digits()
    order = torch.randperm(len(x), generator=generator)
    return _split("image", x[order], y[order], 10)


def _sorted_digits(generator: torch.Generator) -> Data:
    whole = _real_digits(generator)
    order = whole.y.argsort(stable=True)
    return Data("image", whole.x[order], whole.y[order], whole.held_x, whole.held_y, 10, ordered=True)


def _styled_digits(generator: torch.Generator) -> Data:
    x, y = _digits()
    order = torch.randperm(len(x), generator=generator)
    contrast = 4.0 ** (2 * torch.rand(len(x), 1, 1, 1, generator=generator) - 1)
    brightness = 4 * torch.rand(len(x), 1, 1, 1, generator=generator) - 2
    return _split("image", x[order] * contrast + brightness, y[order], 10)


def _adding(generator: torch.Generator, length: int = 30) -> Data:
    """Hochreiter and Schmidhuber 1997: the sum of the two marked numbers of a sequence."""
    values = torch.rand(2000, length, generator=generator)
    places = torch.rand(2000, length, generator=generator).topk(2, dim=1).indices
    marks = torch.zeros(2000, length).scatter_(1, places, 1.0)
    return _split("sequence", torch.stack([values, marks], 2), (values * marks).sum(1), 0)


def _memory(generator: torch.Generator, delay: int = 20, symbols: int = 8) -> Data:
    """The symbol at the start, asked for at the end."""
    y = torch.randint(symbols, (2000,), generator=generator)
    noise = torch.randint(symbols, (2000, delay), generator=generator)
    shown = torch.nn.functional.one_hot(torch.cat([y[:, None], noise], 1), symbols).float()
    first = torch.zeros(2000, delay + 1, 1)
    first[:, 0] = 1.0
    return _split("sequence", torch.cat([shown, first], 2), y, symbols)


@cache
def _story() -> tuple[Tensor, int]:
    """The letters of the story by their numbers, and how many letters there are."""
    story = (Path(__file__).parent / "alice.txt").read_text(encoding="utf-8").lower()
    numbers = {letter: number for number, letter in enumerate(sorted(set(story)))}
    return torch.tensor([numbers[letter] for letter in story]), len(numbers)


def _text(generator: torch.Generator, length: int = 20, many: int = 4000) -> Data:
    """The next character of a story, whose last fifth is held out."""
    symbols, letters = _story()
    cut = len(symbols) - len(symbols) // 5

    def windows(first: int, last: int, count: int) -> tuple[Tensor, Tensor]:
        starts = first + torch.randperm(last - first - length, generator=generator)[:count]
        found = symbols[starts[:, None] + torch.arange(length + 1)]
        return torch.eye(letters)[found[:, :-1]], found[:, -1]

    return Data("sequence", *windows(0, cut, many), *windows(cut, len(symbols), many // 5), letters)


TASKS = {
    task.key: task
    for task in (
        Task("threshold_sum", "Threshold of a sum", "Ten numbers from 0 to 1: is their sum above 5?", "features",
             _threshold_sum),
        Task("moons", "Two moons", "Two interleaved half circles in the plane.", "features", _plane(_moons, 0.15)),
        Task("circles", "Two circles", "One circle inside the other.", "features", _plane(_circles, 0.1)),
        Task("spirals", "Two spirals", "Two arms that wind around each other.", "features", _plane(_spirals, 0.02)),
        Task("mixed_scale", "Mixed scales", "Ten features whose spreads range from 0.01 to 100.", "features",
             _mixed_scale),
        Task("digits", "Digits", "1,797 handwritten digits of 8 × 8 pixels.", "image", _real_digits),
        Task("sorted_digits", "Digits, sorted", "The same digits, in batches of one class after the other.", "image",
             _sorted_digits),
        Task("styled_digits", "Digits in many styles", "The same digits, each with a brightness and contrast of its "
             "own.", "image", _styled_digits),
        Task("adding", "Adding problem", "The sum of the two marked numbers among 30.", "sequence", _adding),
        Task("memory", "Memory", "Which of eight symbols came first, twenty steps ago?", "sequence", _memory),
        Task("text", "Alice in Wonderland", "The next character after twenty of Lewis Carroll's story.", "sequence",
             _text),
    )
}  # fmt: skip
"""All tasks, by their names in a link."""


@dataclass(frozen=True)
class Spoil:
    """What is wrong with a bad batch: its name, a sentence, and what it makes of x (n ...) and y (n)."""

    name: str
    about: str
    change: Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]


SPOILS = {
    "scaled_inputs": Spoil(
        "inputs times 30",
        "All inputs of a bad batch are 30 times as large, as if one part of the data had another unit.",
        lambda x, y, generator: (30 * x, y),
    ),
    "shuffled_labels": Spoil(
        "shuffled labels",
        "The labels of a bad batch are dealt out to its examples anew, so that most of them are wrong.",
        lambda x, y, generator: (x, y[torch.randperm(len(y), generator=generator)]),
    ),
    "noise": Spoil(
        "noise in place of inputs",
        "A bad batch shows noise with a standard deviation of 10 in place of its inputs.",
        lambda x, y, generator: (10 * torch.randn(x.shape, generator=generator), y),
    ),
}
"""Ways in which a batch can be bad, by their names in a link."""

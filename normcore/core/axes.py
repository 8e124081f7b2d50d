"""Axes and layouts: the letters that every pattern, shape and caption in this project is written in."""

import numbers
from collections.abc import Iterable, Sequence
from typing import Any

from normcore.core.errors import NormcoreError

AXIS_WORDS = {
    "n": "sample",
    "c": "channel",
    "t": "token",
    "l": "position",
    "d": "slice",
    "h": "row",
    "w": "column",
    "o": "output unit",
    "i": "input",
    "g": "group",
    "k": "channel in group",
    "v": "ghost batch",
    "m": "sample in ghost batch",
}

PARENT = {"g": "c", "k": "c", "v": "n", "m": "n"}
"""The tensor axis that a factor letter is a part of: groups split the channels, ghost batches the samples."""

LAYOUTS = {
    "activation": {
        "vector": "n c",
        "signal": "n c l",
        "image": "n c h w",
        "volume": "n c d h w",
        "tokens": "n t c",
    },
    "weight": {
        "linear": "o i",
        "conv1d": "o i l",
        "conv2d": "o i h w",
        "conv3d": "o i d h w",
    },
}
LAYOUTS["gradient"] = {"bias": "o", **LAYOUTS["weight"], "examples": "n o"}

LETTERS = {name: tuple(axes.split()) for family in LAYOUTS.values() for name, axes in family.items()}
SPATIAL = ("l", "d", "h", "w")
WITH_POSITIONS = tuple(axes for axes in LAYOUTS["activation"].values() if axes != "n c")
"""The layouts in which a channel of a sample has more than one value."""


def axis_sizes(shape: Sequence[int], layout: str, known: Iterable[str] = LETTERS) -> dict[str, int]:
    """The size of each axis by its letter, after checking that the shape fits the layout, one of those known."""
    letters = LETTERS[layout]
    if len(shape) != len(letters):
        fitting = [name for name in known if len(LETTERS[name]) == len(shape)]
        hint = f"try layout={' or '.join(map(repr, fitting))}" if fitting else "no layout here has that many axes"
        noun = "axis" if len(shape) == 1 else "axes"
        raise NormcoreError(
            f"shape {tuple(shape)} has {len(shape)} {noun}, but layout {layout!r} has {len(letters)}"
            f" ({' '.join(letters)}); {hint}"
        )
    return dict(zip(letters, check_shape(shape), strict=True))


def check_shape(shape: Any) -> tuple[int, ...]:
    """The shape as whole numbers of at least 1, refused in a sentence when it is not that."""
    whole = isinstance(shape, Sequence) and all(
        isinstance(size, numbers.Integral) and not isinstance(size, bool) for size in shape
    )
    if not whole:
        raise NormcoreError(f"shape={shape!r} must be whole numbers, one for each axis")
    if min(shape, default=1) < 1:
        raise NormcoreError(f"shape {tuple(shape)} has an empty axis; every axis needs at least one element")
    return tuple(int(size) for size in shape)


def plural(count: int, word: str) -> str:
    """A count with its noun: ``plural(2, "channel")`` is ``"2 channels"``."""
    return f"{count:,} {word}{'' if count == 1 else 'es' if word.endswith('ch') else 's'}"

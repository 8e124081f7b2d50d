"""The sides of a block picture: which cells of an axis are drawn when there is no room for all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

CAPS = {"sample": 6, "channel": 8, "space": 16}
CAPS_APART = {"sample": 4, "channel": 8, "across": 5, "along": 5}
WORDS = {"n": "sample", "c": "channel", "t": "token", "l": "position", "d": "slice", "h": "row", "w": "column"}
WORDS |= {"o": "output unit", "i": "input"}


@dataclass(frozen=True)
class Side:
    """One side of the block: the tensor axes that lie along it, flattened, and the cells drawn, as [start, stop)."""

    letters: tuple[str, ...]
    sizes: tuple[int, ...]
    starts: np.ndarray
    stops: np.ndarray

    @property
    def length(self) -> int:
        return int(np.prod(self.sizes, dtype=np.int64))

    @property
    def word(self) -> str:
        return WORDS[self.letters[0]] if len(self.letters) == 1 else "position"

    def index(self, letter: str) -> np.ndarray:
        """The index along one tensor axis at which each cell starts."""
        return np.unravel_index(self.starts, self.sizes)[self.letters.index(letter)]

    def cell(self, position: int) -> int:
        """The cell that holds a position of the flattened axis."""
        return int(np.searchsorted(self.starts, position, side="right")) - 1

    def name(self, cell: int) -> str:
        start, stop = int(self.starts[cell]), int(self.stops[cell])
        if stop - start > 1:
            return f"{self.word}s {start:,}–{stop - 1:,}"
        where = zip(self.letters, np.unravel_index(start, self.sizes), strict=True)
        return ", ".join(f"{WORDS[letter]} {int(i)}" for letter, i in where)

    def shortened(self) -> list[str]:
        """What the side leaves out and merges, in words; nothing when every element is drawn by itself."""
        drawn, widest = int((self.stops - self.starts).sum()), int((self.stops - self.starts).max())
        left_out = [f"{drawn:,} of {self.length:,} {self.word}s are drawn"] if drawn < self.length else []
        return left_out + ([f"one block spans {widest:,} {self.word}s"] if widest > 1 else [])


def cap(axes: tuple[str, ...], apart: bool) -> int:
    kind = {"n": "sample", "o": "sample", "c": "channel", "i": "channel"}.get(axes[0])
    if apart:
        return CAPS_APART[kind or ("along" if axes[-1] in "wlt" else "across")]
    return CAPS[kind or "space"]


def lay_out(
    axes: tuple[str, ...],
    shape: Sequence[int],
    letters: Sequence[str],
    parts: list[list[np.ndarray]],
    most: int,
    index: Sequence[int] | None,
) -> Side:
    """The cells of a side: every element where there is room, else pieces of regions, else a selection of regions."""
    at = [letters.index(letter) for letter in axes]
    sizes = tuple(shape[i] for i in at)
    length = int(np.prod(sizes, dtype=np.int64))
    if length <= most:
        starts = np.arange(length)
        return Side(axes, sizes, starts, starts + 1)
    edges = _edges([[bound[i] for i in at] for bound in parts], length)
    if edges is not None and len(edges) - 1 <= most:
        pieces = min(most // (len(edges) - 1), 8)  # enough to show that there are many, and half the price
        runs = list(pairwise(edges))
        cuts = [np.linspace(a, b, min(pieces, b - a) + 1).astype(int)[:-1] for a, b in runs]
        starts = np.concatenate(cuts)
        return Side(axes, sizes, starts, np.append(starts[1:], length))
    count = length if edges is None else len(edges) - 1
    halves = 2 if edges is not None and int(np.diff(edges).min()) > 1 else 1  # a region of several is drawn as several
    chosen = np.linspace(0, count - 1, most // halves).round().astype(np.int64)
    if index is not None:
        position = int(np.ravel_multi_index([index[i] for i in at], sizes))
        run = position if edges is None else int(np.searchsorted(edges, position, side="right")) - 1
        chosen[np.abs(chosen - run).argmin()] = run
    if edges is None:
        return Side(axes, sizes, chosen, chosen + 1)
    first, last = edges[chosen], edges[chosen + 1]
    if halves == 1:
        return Side(axes, sizes, first, last)
    middle = (first + last) // 2
    return Side(axes, sizes, np.stack([first, middle], 1).reshape(-1), np.stack([middle, last], 1).reshape(-1))


def _edges(parts: list[list[np.ndarray]], length: int) -> np.ndarray | None:
    """Where any region ends along a side; None where every element of a flattened side is a region's end."""
    inner = {0, length}
    for axes in parts:
        varying = [part for part in axes if part[0] != part[-1]]
        if varying and len(axes) > 1:
            return None
        inner |= {int(i) + 1 for part in varying for i in np.flatnonzero(np.diff(part))}
    return np.array(sorted(inner))

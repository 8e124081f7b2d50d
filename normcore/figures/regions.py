"""From regions to a block picture: which elements are drawn, where, and in which color.

The price follows the number of cells drawn, at most 800, never the number of elements: a layer of 25 million
values costs what a toy costs, because a region is described by one vector an axis.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from normcore.figures.blocks import FADED, STRENGTHS, Axis, Blocks
from normcore.figures.sides import CAPS, Side, cap, lay_out
from normcore.figures.theme import REGION_COLORS

SPACING = 0.6  # between cells that are not neighbors in the tensor, in cells
STEPS = {"n": 5, "o": 5, "c": 1, "i": 1, "t": 7, "l": 7, "w": 7, "h": 11, "d": 5}  # coprime to the twelve colors


def region_blocks(
    shape: Sequence[int],
    letters: Sequence[str],
    bounds: Sequence[Any],
    *,
    index: Sequence[int] | None = None,
    statistic: int = 0,
    stored: bool = False,
    apart: bool = False,
    influence: np.ndarray | None = None,
) -> Blocks:
    """The block picture of who shares a statistic.

    Args:
        shape: The tensor's sizes.
        letters: Its axes, such as ("n", "c", "h", "w").
        bounds: What `Method.bound` gave: regions, windows, or nothing for pointwise methods.
        index: One element; its region is lit and the rest fades. Without it every region has its color.
        statistic: Which of several bounds the colors and the gaps speak of.
        stored: Without bounds, whether the method uses stored statistics, one a channel, which the colors then show.
        apart: Pulls the samples apart and keeps rows and columns, instead of flattening space as the GroupNorm paper.
        influence: Measured strengths, of the tensor's shape, shown instead of the declared regions.
    """
    parts = [_parts(bound, shape) for bound in bounds] or [_own(shape)]
    if index is None and bounds and not hasattr(bounds[statistic], "parts"):
        index = [size // 2 for size in shape]  # windows overlap: only one of them can be lit
    groups = _arrangement(letters, apart)
    sides = [[lay_out(axes, shape, letters, parts, cap(axes, apart), index) for axes in group] for group in groups]
    chosen = _by_channel(shape, letters) if stored and not bounds else parts[statistic]
    where = {letter: side.index(letter) for group in sides for side in group for letter in side.letters}
    table = _combine(sides, where, letters, _ranked(chosen, where, letters)) % len(REGION_COLORS)
    axes = tuple(_axis(group, where, letters, chosen) for group in sides)
    picked = None if index is None else _picked(sides, index, letters)
    if influence is not None:
        table = _strengths(influence, sides, letters, index)
    elif index is None:
        outside = [(part < 0).astype(int) for part in chosen]
        table[_combine(sides, where, letters, outside) > 0] = FADED
    else:
        table = _lit(table, sides, where, letters, bounds, parts, index, statistic)
    notes = [note for group in sides for side in group for note in side.shortened()]
    count = int(sum(int(part.max()) for part in chosen)) + 1
    if index is None and influence is None and count > len(REGION_COLORS):
        what = "regions" if bounds or stored else "elements, each for itself,"
        notes.append(f"{count:,} {what} share {len(REGION_COLORS)} colors, so that colors come back")
    return Blocks(
        axes=(axes[0], axes[1], axes[2]),
        colors=table.astype(np.uint8),
        picked=picked,
        palette="regions" if influence is None else "influence",
        count=count,
        note="; ".join(notes),
    )


def element(
    blocks_index: Sequence[int],
    shape: Sequence[int],
    letters: Sequence[str],
    apart: bool,
    bounds: Sequence[Any],
    index: Sequence[int] | None,
) -> tuple[int, ...]:
    """The tensor element at the start of a cell that was clicked."""
    parts = [_parts(bound, shape) for bound in bounds] or [_own(shape)]
    found: dict[str, int] = {}
    for group, cell in zip(_arrangement(letters, apart), blocks_index, strict=True):
        sides = [lay_out(axes, shape, letters, parts, cap(axes, apart), index) for axes in group]
        cells = np.unravel_index(cell, [len(side.starts) for side in sides])
        for side, at in zip(sides, cells, strict=True):
            found |= {letter: int(side.index(letter)[at]) for letter in side.letters}
    return tuple(found[letter] for letter in letters)


def _arrangement(letters: Sequence[str], apart: bool) -> list[list[tuple[str, ...]]]:
    """Which tensor axes lie along x, y and z; the axes of one tuple are flattened, tuples of a side are nested."""
    sample, channel = letters[0], "c" if "c" in letters else "i" if "i" in letters else None
    space = tuple(letter for letter in letters[1:] if letter != channel)
    channels: list[tuple[str, ...]] = [(channel,)] if channel else []
    if not apart:
        return [channels, [(sample,)], [space] if space else []]
    across: list[tuple[str, ...]] = [(sample,), *([space[-1:]] if space else [])]
    return [across, [space[:-1]] if space[:-1] else [], channels]


def _parts(bound: Any, shape: Sequence[int]) -> list[np.ndarray]:
    """One vector an axis: elements whose vectors agree share a statistic, and those with a negative entry have none."""
    return [np.asarray(part) for part in bound.parts] if hasattr(bound, "parts") else _own(shape)


def _by_channel(shape: Sequence[int], letters: Sequence[str]) -> list[np.ndarray]:
    """Parts that tell the channels apart and nothing else."""
    return [np.arange(size) * (letter == "c") for size, letter in zip(shape, letters, strict=True)]


def _own(shape: Sequence[int]) -> list[np.ndarray]:
    """Parts that tell every element from every other."""
    strides = np.cumprod([1, *shape[:0:-1]], dtype=np.int64)[::-1]
    return [np.arange(size) * stride for size, stride in zip(shape, strides, strict=True)]


def _ranked(parts: list[np.ndarray], where: dict[str, np.ndarray], letters: Sequence[str]) -> list[np.ndarray]:
    """Color steps for each index of each axis: neighbors among the cells drawn differ, however far apart they are."""
    steps = []
    for part, letter in zip(parts, letters, strict=True):
        drawn = np.unique(part[where[letter]])
        steps.append(np.searchsorted(drawn, part) * STEPS[letter])
    return steps


def _along(
    group: list[Side], where: dict[str, np.ndarray], letters: Sequence[str], values: Sequence[np.ndarray]
) -> np.ndarray:
    """The sum of the values of a side's tensor axes, one for each of its cells."""
    total = np.zeros(1, dtype=np.int64)
    for side in group:
        here = sum(values[letters.index(letter)][where[letter]] for letter in side.letters)
        total = (total[:, None] + here).reshape(-1)
    return total


def _combine(
    sides: list[list[Side]], where: dict[str, np.ndarray], letters: Sequence[str], values: Sequence[np.ndarray]
) -> np.ndarray:
    x, y, z = (_along(group, where, letters, values) for group in sides)
    return x[:, None, None] + y[:, None] + z


def _axis(group: list[Side], where: dict[str, np.ndarray], letters: Sequence[str], parts: list[np.ndarray]) -> Axis:
    spans: list[tuple[float, float]] = []
    names: list[str] = []
    ticks: list[tuple[float, str]] = []
    outer = group[0] if len(group) > 1 else None
    inner = group[-1] if group else None
    position = 0.0
    whole = inner is None or not inner.shortened()
    unit = 1 if whole or inner is None or inner.word != "position" else CAPS["space"] / max(8, len(inner.starts))
    every = 1 if inner is None else -(-len(inner.starts) // (8 if whole else 4))
    for block in range(len(outer.starts) if outer else 1):
        first = position
        for cell in range(len(inner.starts) if inner else 1):
            if inner and cell and inner.stops[cell - 1] != inner.starts[cell]:
                position += SPACING
            spans.append((position, position + unit))
            own = inner.name(cell) if inner else ""
            names.append(f"{outer.name(block)}, {own}" if outer else own)
            if not outer and inner and cell % every == 0:
                ticks.append((position + unit / 2, _short(int(inner.starts[cell]))))
            position += unit
        if outer:
            ticks.append(((first + position) / 2, f"{int(outer.starts[block])}"))
            position += 1
    title = ", each with its ".join(f"{side.word}s {' '.join(side.letters)}" for side in group)
    return Axis(title, tuple(spans), tuple(names), tuple(ticks), tuple(_along(group, where, letters, parts).tolist()))


def _short(place: int) -> str:
    """A place on an axis in few letters: a longer one runs into the axis' title."""
    return f"{place / 1000:.1f}k" if place >= 1000 else str(place)


def _picked(sides: list[list[Side]], index: Sequence[int], letters: Sequence[str]) -> tuple[int, int, int]:
    cells = []
    for group in sides:
        at = 0
        for side in group:
            position = int(np.ravel_multi_index([index[letters.index(letter)] for letter in side.letters], side.sizes))
            at = at * len(side.starts) + side.cell(position)
        cells.append(at)
    return cells[0], cells[1], cells[2]


def _lit(
    colors: np.ndarray,
    sides: list[list[Side]],
    where: dict[str, np.ndarray],
    letters: Sequence[str],
    bounds: Sequence[Any],
    parts: list[list[np.ndarray]],
    index: Sequence[int],
    statistic: int,
) -> np.ndarray:
    """The regions of one element in color, smaller ones over larger ones, and all else faded."""
    shown, picked = np.full(colors.shape, FADED), _picked(sides, index, letters)
    own = int(colors[picked])
    shown[picked] = own
    for nth in sorted(range(len(parts)), key=lambda b: -getattr(bounds[b], "size", 1) if bounds else 0):
        if bounds and hasattr(bounds[nth], "box"):
            box = bounds[nth].box(index)
            apart = [
                ((np.arange(size) < a) | (np.arange(size) >= b)).astype(int)
                for size, (a, b) in zip(bounds[nth].shape, box, strict=True)
            ]
        else:
            apart = [(part != part[i]).astype(int) for part, i in zip(parts[nth], index, strict=True)]
        shown[_combine(sides, where, letters, apart) == 0] = (own + 3 * ((nth - statistic) % len(parts))) % 12
    return shown


def _strengths(
    influence: np.ndarray, sides: list[list[Side]], letters: Sequence[str], index: Sequence[int] | None
) -> np.ndarray:
    """Measured influence in steps, as a share of the strongest of the *other* elements; what has none fades."""
    values = np.abs(influence)
    order = [letter for group in sides for side in group for letter in side.letters]
    values = values.transpose([letters.index(letter) for letter in order])
    for axis, side in enumerate(side for group in sides for side in group):
        values = values.reshape(*values.shape[:axis], side.length, *values.shape[axis + len(side.letters) :])
        cells = zip(side.starts, side.stops, strict=True)
        values = np.stack([values.take(range(a, b), axis).max(axis) for a, b in cells], axis)
    values = values.reshape([int(np.prod([len(side.starts) for side in group], dtype=int)) for group in sides])
    others = values.copy()
    if index is not None:
        others[_picked(sides, index, letters)] = 0
    top = others.max() or values.max() or 1.0
    return np.where(values > 0, ((STRENGTHS - 1) * np.clip(values / top, 0, 1)).round(), FADED)

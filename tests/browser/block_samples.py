"""Block pictures that tests draw: one small tensor (n c s), divided as normalization methods divide it."""

import numpy as np

from normcore.figures.blocks import ABSENT, FADED, STRENGTHS, Axis, Blocks

LETTERS = ("sample", "channel", "position")


def axis(letter: int, size: int, groups: int, weight: int, space: float = 0.0) -> Axis:
    """Make one axis of `size` cells in `groups` equal groups; a group counts `weight` in the region label."""
    name = LETTERS[letter]
    each = size // groups
    spans = tuple((cell + space * (cell // each), cell + 1 + space * (cell // each)) for cell in range(size))
    return Axis(
        title=name + "s",
        spans=spans,
        names=tuple(f"{name} {cell + 1}" for cell in range(size)),
        ticks=tuple(((start + stop) / 2, str(cell + 1)) for cell, (start, stop) in enumerate(spans)),
        parts=tuple(weight * (cell // each) for cell in range(size)),
    )


def partition(shape: tuple[int, int, int], groups: tuple[int, int, int], lit: int | None = None, **more) -> Blocks:
    """Divide a block into equal regions; with `lit`, only that region has its color and the others are faded."""
    weights = (groups[1] * groups[2], groups[2], 1)
    axes = tuple(axis(i, shape[i], groups[i], weights[i]) for i in range(3))
    parts = [np.array(one.parts) for one in axes]
    labels = parts[0][:, None, None] + parts[1][:, None] + parts[2]
    colors = (labels % 12).astype(np.uint8)
    if lit is not None:
        colors[labels != lit] = FADED
    count = int(np.prod(groups))
    return Blocks(
        **({"axes": axes, "colors": colors, "picked": None, "palette": "regions", "count": count, "note": ""} | more)
    )


def influence(shape: tuple[int, int, int] = (3, 4, 5)) -> Blocks:
    """Give every cell a strength of its own, and nothing to some."""
    base = partition(shape, shape)
    strength = np.arange(np.prod(shape)).reshape(shape)
    colors = (strength * (STRENGTHS - 1) // strength.max()).astype(np.uint8)
    colors[0, 0] = FADED
    return Blocks(base.axes, colors, (1, 1, 1), "influence", 1, "")


def carved(shape: tuple[int, int, int] = (3, 4, 5)) -> Blocks:
    """Make one region with inner corners: a block from which a corner, a notch and a tunnel were cut."""
    base = partition(shape, (1, 1, 1))
    colors = base.colors.copy()
    colors[-1, :2, -2:] = ABSENT
    colors[:2, -1, 2] = FADED
    return Blocks(base.axes, colors, (0, 0, 0), "regions", 1, "a note")


SAMPLES = {
    "batch": partition((4, 6, 8), (1, 6, 1)),
    "layer": partition((4, 6, 8), (4, 1, 1)),
    "instance": partition((4, 6, 8), (4, 6, 1)),
    "group": partition((4, 6, 8), (4, 2, 1)),
    "group lit": partition((4, 6, 8), (4, 2, 1), lit=1, picked=(0, 3, 7)),
    "instance lit": partition((4, 6, 8), (4, 6, 1), lit=2, picked=(0, 2, 7)),
    "influence": influence(),
    "carved": carved(),
    "big": partition((8, 12, 16), (8, 4, 1)),
}

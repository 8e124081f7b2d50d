"""Lines of a tree that keep to the space between its rows, so that they run through as few names as can be."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ASIDE = 0.16  # years: how far left of a point a line goes up or down
GUTTER = 0.5  # rows: where between two rows a line runs
SPREAD = 0.3  # rows: how far apart the lines of different beginnings are in one gutter
CORNER = (0.12, 0.3)  # years and rows: how large a corner is


@dataclass(frozen=True)
class Name:
    """The space that a name takes up: its row, from where, and up to where."""

    row: float
    start: float
    stop: float


def route(
    start: tuple[float, float], stop: tuple[float, float], names: Sequence[Name], lane: float = 0.0
) -> tuple[list[float], list[float]]:
    """The way from one point to a later one: along a gutter, over the rows where fewest names are, in from the left.

    `lane`, from -0.5 to 0.5, says which of the parallel tracks of a gutter it takes.
    """
    (x0, y0), (x1, y1) = start, stop
    side = -1.0 if y1 <= y0 else 1.0
    leaves = y0 + side * GUTTER + lane * SPREAD
    arrives = (leaves if y1 == y0 else y1 - side * GUTTER + lane * SPREAD) if x1 > x0 else leaves
    between = [name for name in names if min(y0, y1) < name.row < max(y0, y1)]
    # Before a name, if not before the point itself, there is room, and the later the better.
    before = {x1 - ASIDE, *(name.start - 0.03 for name in between if x0 + 0.5 < name.start < x1)}
    columns = [x + lane * ASIDE / 2 for x in sorted(before, reverse=True)]
    x = min(columns, key=lambda at: sum(name.start <= at <= name.stop for name in between))
    corners = [(x0, y0), (x0, leaves), (x, leaves), (x, arrives), (x1 - 2 * ASIDE, arrives), (x1 - 2 * ASIDE, y1), stop]
    if x1 == x0 or leaves == arrives:
        corners = [(x0, y0), (x0, leaves), (x1 - 2 * ASIDE, leaves), (x1 - 2 * ASIDE, y1), stop]
    return _rounded(np.array(corners, dtype=float))


def _rounded(corners: np.ndarray) -> tuple[list[float], list[float]]:
    """A line through corners, each cut off by a curve that is no longer than half of the way to the next."""
    points = [corners[0]]
    for before, corner, after in zip(corners[:-2], corners[1:-1], corners[2:], strict=True):
        ends = []
        for other in (before, after):
            way = other - corner
            reach = np.minimum(np.abs(way) / 2, CORNER)
            ends.append(corner + np.sign(way) * reach)
        shares = np.array([0.0, 1 / 3, 2 / 3, 1.0])[:, None]
        curve = (1 - shares) ** 2 * ends[0] + 2 * shares * (1 - shares) * corner + shares**2 * ends[1]
        points.extend(curve)
    points.append(corners[-1])
    x, y = np.round(np.array(points), 3).T
    return x.tolist(), y.tolist()

"""Where the faces and lines of a block picture lie: plain numpy, no Plotly.

Cells that touch and look alike fuse into one solid: no face and no space between them. Everywhere else a face is drawn,
set back by a small gap, so that two solids never share a plane. `explorer/plot.js` builds the same arrays in the same
order; a browser test compares the two.
"""

from dataclasses import dataclass

import numpy as np

ABSENT = 254
FADED = 255
AXES = (0, 1, 2)
SIDES = (0, 1)


@dataclass(frozen=True)
class Cells:
    """A block of cuboids: where each one lies, which ones belong together, and which are shown."""

    starts: tuple[np.ndarray, ...]  # per axis: lower end of every cell
    stops: tuple[np.ndarray, ...]  # per axis: upper end of every cell
    labels: np.ndarray  # (a b c): cells of different regions never fuse
    colors: np.ndarray  # (a b c): cells of different colors never fuse; FADED and ABSENT are colors, too
    gap: float
    lift: float  # how far lines float above a face, so that the face does not swallow them


@dataclass(frozen=True)
class Mesh:
    """Triangles: three coordinates per corner, three corners, a cell and a facing axis per triangle."""

    corners: np.ndarray  # (corners 3) float
    triangles: np.ndarray  # (triangles 3) int
    cells: np.ndarray  # (triangles) int: flat index of the cell that a triangle belongs to
    facing: np.ndarray  # (triangles) int: 0, 1, 2 for x, y, z


def neighbor(values: np.ndarray, axis: int, side: int) -> np.ndarray:
    """Give every cell the value of the cell next to it, and False beyond the border."""
    moved = np.zeros_like(values)
    inner = [slice(None)] * 3
    outer = [slice(None)] * 3
    inner[axis] = slice(1, None) if side == 0 else slice(None, -1)
    outer[axis] = slice(None, -1) if side == 0 else slice(1, None)
    moved[tuple(inner)] = values[tuple(outer)]
    return moved


def fusions(cells: Cells) -> dict[tuple[int, int], np.ndarray]:
    """Say for every cell and each of its six sides whether it fuses with what lies there."""
    alike = 1 + cells.labels.astype(np.int64) * 256 + cells.colors
    alike[cells.colors == ABSENT] = 0
    fused = {}
    for axis in AXES:
        touching = np.isclose(cells.stops[axis][:-1], cells.starts[axis][1:])
        for side in SIDES:
            touches = np.append(touching, False) if side else np.insert(touching, 0, False)
            same = (neighbor(alike, axis, side) == alike) & (alike > 0)
            fused[axis, side] = same & np.expand_dims(touches, tuple(other for other in AXES if other != axis))
    return fused


def _along(values: np.ndarray, axis: int) -> np.ndarray:
    return np.expand_dims(values, tuple(other for other in AXES if other != axis))


class Surface:
    """The faces of all cells of a block, and how far each face reaches."""

    def __init__(self, cells: Cells) -> None:
        """Find out which of the six sides of every cell are open."""
        self.cells = cells
        self.fused = fusions(cells)
        present = cells.colors != ABSENT
        self.open = {side: present & ~fused for side, fused in self.fused.items()}

    def flush(self, face: tuple[int, int], edge: tuple[int, int]) -> np.ndarray:
        """Say where the face goes on, in the same plane, beyond one of its edges."""
        return self.fused[edge] & neighbor(self.open[face], *edge)

    def reach(self, face: tuple[int, int], edge: tuple[int, int]) -> np.ndarray:
        """Give the coordinate of one edge of every face: set back, flush, or meeting an inner corner."""
        axis, side = edge
        gap = self.cells.gap
        back = np.where(~self.fused[edge], gap, np.where(self.flush(face, edge), 0.0, -gap))
        return _along(self.cells.stops[axis], axis) - back if side else _along(self.cells.starts[axis], axis) + back

    def plane(self, face: tuple[int, int]) -> np.ndarray:
        """Give the coordinate of the plane in which every face lies."""
        axis, side = face
        ends = self.cells.stops[axis] - self.cells.gap if side else self.cells.starts[axis] + self.cells.gap
        return np.broadcast_to(_along(ends, axis), self.cells.colors.shape)

    def mesh(self, shown: np.ndarray, hull: bool = False) -> Mesh:
        """Build two triangles for every open side of the cells shown.

        With `hull`, leave out what lies between two cells shown: many panes of glass in a row make a fog.
        """
        corners, owners, facing, flips = [], [], [], []
        for axis, side in self.open:
            face = (axis, side)
            first, second = (other for other in AXES if other != axis)
            here = np.nonzero(self.open[face] & shown & ~(hull & neighbor(shown, axis, side)))
            low_first, high_first = (self.reach(face, (first, end))[here] for end in SIDES)
            low_second, high_second = (self.reach(face, (second, end))[here] for end in SIDES)
            quad = np.empty((len(here[0]), 4, 3))
            quad[:, :, axis] = self.plane(face)[here][:, None]
            quad[:, :, first] = np.stack([low_first, high_first, high_first, low_first], axis=1)
            quad[:, :, second] = np.stack([low_second, low_second, high_second, high_second], axis=1)
            corners.append(quad.reshape(-1, 3))
            owners.append(np.ravel_multi_index(here, shown.shape))
            facing.append(np.full(len(quad), axis))
            # x and z look outward on their upper side in this order of corners, y on its lower one.
            flips.append(np.full(len(quad), (axis == 1) == bool(side)))
        turn = np.where(np.concatenate(flips)[:, None, None], [[0, 2, 1], [0, 3, 2]], [[0, 1, 2], [0, 2, 3]])
        triangles = turn + 4 * np.arange(len(turn))[:, None, None]
        return Mesh(
            corners=np.concatenate(corners),
            triangles=triangles.reshape(-1, 3),
            cells=np.repeat(np.concatenate(owners), 2),
            facing=np.repeat(np.concatenate(facing), 2),
        )

    def lines(self, shown: np.ndarray, inner: bool) -> np.ndarray:
        """Draw the borders of the cells on the faces if `inner`, else the edges of the solids.

        Each row is a point; NaN rows separate lines. Borders in one straight line are joined to a single long one.
        """
        parts = [np.empty((0, 3, 3))]
        for face in self.open:
            for across in AXES:
                if across == face[0]:
                    continue
                for end in SIDES:
                    parts.append(self._runs(face, (across, end), shown, inner))
        return np.concatenate(parts).reshape(-1, 3)

    def _runs(self, face: tuple[int, int], edge: tuple[int, int], shown: np.ndarray, inner: bool) -> np.ndarray:
        axis, side = face
        across, end = edge
        run = 3 - axis - across
        flush = self.flush(face, edge)
        visible = self.open[face] & shown
        # A border between two cells is drawn by the upper one, an edge between two faces by the one of the lower axis.
        drawn = visible & (flush & (end == 0) if inner else ~flush & (axis < across))
        lift = self.cells.lift if inner else 0.0
        level = self.reach(face, edge)
        joined = drawn & neighbor(drawn, run, 0) & self.flush(face, (run, 0)) & (level == neighbor(level, run, 0))
        order = (axis, across, run)
        begins = (drawn & ~joined).transpose(order)
        ends = (drawn & ~neighbor(joined, run, 1)).transpose(order)
        segments = np.full((int(begins.sum()), 3, 3), np.nan)
        for point, mask in ((0, begins), (1, ends)):
            low_or_high = self.reach(face, (run, point)).transpose(order)[mask]
            segments[:, point, axis] = self.plane(face).transpose(order)[mask] + (lift if side else -lift)
            segments[:, point, across] = level.transpose(order)[mask]
            segments[:, point, run] = low_or_high
        return segments

    def outline(self, cell: tuple[int, int, int]) -> np.ndarray:
        """Draw the twelve edges of one cell."""
        ends = np.empty((3, 2))
        for axis, side in self.open:
            back = 0.0 if self.fused[axis, side][cell] else self.cells.gap
            back -= 2 * self.cells.lift
            bound = self.cells.stops if side else self.cells.starts
            ends[axis, side] = bound[axis][cell[axis]] + (-back if side else back)
        segments = []
        for run in AXES:
            first, second = (axis for axis in AXES if axis != run)
            for one in SIDES:
                for two in SIDES:
                    points = np.full((3, 3), np.nan)
                    points[:2, run] = ends[run]
                    points[:2, first] = ends[first, one]
                    points[:2, second] = ends[second, two]
                    segments.append(points)
        return np.concatenate(segments)

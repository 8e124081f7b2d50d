"""The block picture as a small drawing: a hundred of them fit on a page where Plotly could show a dozen."""

import numpy as np

from normcore.figures import theme
from normcore.figures.blocks import ABSENT, CAMERA, FADED, Blocks, scene, surface

FADED_COLOR = "#9aa0ab"


def thumbnail(blocks: Blocks, width: int = 132, height: int = 110) -> str:
    """Draw a block picture as SVG, seen from where the 3-D plots are first seen from."""
    built = surface(blocks)
    mesh = built.mesh(blocks.colors != ABSENT)
    quads = mesh.corners.reshape(-1, 4, 3)
    axis, cell = mesh.facing[::2], mesh.cells[::2]
    shape = blocks.colors.shape
    middle = _centers(built.cells.starts, built.cells.stops, np.unravel_index(cell, shape))
    upper = np.take_along_axis(quads[:, 0] - middle, axis[:, None], axis=1)[:, 0] > 0
    right, up, toward = _view()
    seen = np.where(upper, 1, -1) * toward[axis] > 0
    placed = _placed(blocks, quads[seen])
    flat = np.stack([placed @ right, -(placed @ up)], axis=-1)
    low, high = flat.min(axis=(0, 1)), flat.max(axis=(0, 1))
    scale = min(width / (high - low)[0], height / (high - low)[1])
    flat = (flat - (low + high) / 2) * scale + np.array([width, height]) / 2
    nearest_last = np.argsort((placed @ toward).mean(axis=1), kind="stable")
    colors = [_color(int(blocks.colors.reshape(-1)[c]), int(a)) for c, a in zip(cell[seen], axis[seen], strict=True)]
    paths = "".join(_path(flat[i], colors[i]) for i in nearest_last)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'fill="currentColor" stroke="currentColor" stroke-linejoin="round" stroke-width="0.6">{paths}</svg>'
    )


def _view() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The directions to the right, upwards, and towards the eye."""
    eye = np.array([CAMERA["eye"][letter] for letter in "xyz"])
    toward = eye / np.linalg.norm(eye)
    across = np.cross([0.0, 0.0, 1.0], toward)
    right = across / np.linalg.norm(across)
    return right, np.cross(toward, right), toward


def _placed(blocks: Blocks, points: np.ndarray) -> np.ndarray:
    """Display units in the proportions of the 3-D plots."""
    described = scene(blocks)
    spans = np.array([described[f"{letter}axis"]["range"] for letter in "xyz"], dtype=float)
    ratio = np.array([described["aspectratio"][letter] for letter in "xyz"], dtype=float)
    return np.asarray((points - spans.mean(axis=1)) / np.diff(spans, axis=1)[:, 0] * ratio)


def _centers(
    starts: tuple[np.ndarray, ...], stops: tuple[np.ndarray, ...], cells: tuple[np.ndarray, ...]
) -> np.ndarray:
    return np.stack([(starts[a][at] + stops[a][at]) / 2 for a, at in enumerate(cells)], axis=1)


def _color(index: int, axis: int) -> str:
    color = FADED_COLOR if index == FADED else theme.REGION_COLORS[index % len(theme.REGION_COLORS)]
    return theme.shade(color, theme.SHADES[axis])


def _path(corners: np.ndarray, color: str) -> str:
    points = "L".join(f"{x:.1f} {y:.1f}" for x, y in corners)
    return f'<path color="{color}" d="M{points}z"/>'

"""The block picture: a tensor as cuboids in which everything that shares a statistic is one solid of one color."""

from base64 import b64encode
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go

from normcore.figures import theme
from normcore.figures.geometry import ABSENT, FADED, Cells, Mesh, Surface

__all__ = ["ABSENT", "FADED", "STRENGTHS", "Axis", "Blocks", "figure", "share", "surface", "wire"]

GAP = 0.07  # of the smallest cell: the space on each side between two solids
# Of the longest side: a line has a width on the screen, and where a face falls away steeply it would sink in.
LIFT = 0.0025
STRENGTHS = 64  # three faces of that many colors fit into the 256 that the browser can tell apart
MARGIN = 4  # levels between the faces' scales, for the browser blends neighboring colors
LEVELS = {"regions": len(theme.REGION_COLORS), "influence": STRENGTHS + MARGIN}
# Parallel lines stay parallel, as in the drawings of the papers: equal cells look equal, near or far.
CAMERA: dict[str, Any] = {
    "eye": {"x": 0.95, "y": -1.6, "z": 0.85},
    "center": {"x": 0, "y": 0, "z": -0.07},
    "projection": {"type": "orthographic"},
}


@dataclass(frozen=True)
class Axis:
    """One display axis of the block: where its cells lie and what they are called."""

    title: str
    spans: tuple[tuple[float, float], ...]  # [start, stop) per cell in display units; a space between two is drawn
    names: tuple[str, ...]  # per cell, in words: "channel 4", "channels 4–7"
    ticks: tuple[tuple[float, str], ...]  # position in display units, text in real ones
    parts: tuple[int, ...]  # the region label of a cell is the sum of the parts of its three axes


@dataclass(frozen=True)
class Blocks:
    """Everything that the block picture shows, in numbers small enough to send on every change."""

    axes: tuple[Axis, Axis, Axis]
    colors: np.ndarray  # uint8 (a b c): index into the palette, FADED (translucent) or ABSENT (nothing)
    picked: tuple[int, int, int] | None
    palette: Literal["regions", "influence"]
    count: int
    note: str


def surface(blocks: Blocks) -> Surface:
    """Lay out the faces of a block picture."""
    return Surface(cells_of(blocks))


def cells_of(blocks: Blocks) -> Cells:
    """Lay out the cells of a block picture."""
    spans = [np.array(axis.spans, dtype=float).reshape(-1, 2) for axis in blocks.axes]
    smallest = min(float(np.diff(span).min()) for span in spans)
    longest = max(float(span[-1, 1] - span[0, 0]) for span in spans)
    parts = [np.array(axis.parts, dtype=np.int64) for axis in blocks.axes]
    return Cells(
        starts=tuple(span[:, 0] for span in spans),
        stops=tuple(span[:, 1] for span in spans),
        labels=parts[0][:, None, None] + parts[1][:, None] + parts[2],
        colors=np.asarray(blocks.colors, dtype=np.int64),
        gap=GAP * smallest,
        lift=min(LIFT * longest, 1.5 * GAP * smallest),
    )


def scene(blocks: Blocks) -> dict[str, Any]:
    """Describe the axes: titles, ticks in real units, and an aspect in which no side becomes a sliver."""
    described: dict[str, Any] = {}
    extents = np.array([axis.spans[-1][1] - axis.spans[0][0] for axis in blocks.axes], dtype=float)
    ratio = np.clip(extents / extents.max(), 0.4, 1.0)
    ratio *= 1.08 / np.cbrt(ratio.prod())
    ratio *= min(1.0, 1.65 / ratio.max())
    for letter, axis, extent in zip("xyz", blocks.axes, extents, strict=True):
        margin = 0.02 * float(extent)
        described[letter + "axis"] = {
            "title": {"text": axis.title},
            "range": [_short(axis.spans[0][0] - margin), _short(axis.spans[-1][1] + margin)],
            "tickvals": [_short(position) for position, _ in axis.ticks],
            "ticktext": [text for _, text in axis.ticks],
        }
    described["aspectmode"] = "manual"
    described["aspectratio"] = {letter: _short(part) for letter, part in zip("xyz", ratio, strict=True)}
    return described


def styles() -> dict[str, Any]:
    """Describe how the five traces look; only their coordinates differ from picture to picture."""
    flat = {"ambient": 1, "diffuse": 0, "specular": 0, "fresnel": 0}
    mesh = {"type": "mesh3d", "flatshading": True, "lighting": flat, "showscale": False, "hoverinfo": "text"}
    mesh["intensitymode"] = "cell"  # one value a triangle; it also makes a click name the triangle, not a corner
    line = {"type": "scatter3d", "mode": "lines", "hoverinfo": "skip", "showlegend": False}
    shades = [[theme.shade(color, amount) for color in theme.REGION_COLORS] for amount in theme.SHADES]
    unit = 1 / (3 * LEVELS["influence"])
    ramps = []
    for band, amount in enumerate(theme.SHADES):
        scale = [(place, theme.shade(color, amount)) for place, color in theme.sequential(faint=False)]
        first = band / 3
        ramps += [(first, scale[0][1])]
        ramps += [(first + (0.5 + place * (STRENGTHS - 1)) * unit, color) for place, color in scale]
        ramps += [((band + 1) / 3, scale[-1][1])]
    return {
        "lit": mesh | {"name": "lit"},
        "faded": mesh
        | {"name": "faded", "colorscale": [(0, "$muted"), (1, "$muted")], "cmin": 0, "cmax": 2, "opacity": 0.08},
        "lines": line | {"name": "lines", "line": {"color": "#ffffff", "width": 1.5}, "opacity": 0.6},
        "edges": line | {"name": "edges", "line": {"color": "$muted", "width": 1}, "opacity": 0.4},
        "picked": line | {"name": "picked", "line": {"color": "$ink", "width": 6}},
        "scales": {"regions": theme.stepped([color for band in shades for color in band]), "influence": ramps},
        "levels": LEVELS,
        "strengths": STRENGTHS,
        "layout": {
            "margin": {"l": 0, "r": 0, "t": 0, "b": 0},
            "showlegend": False,
            "scene": {"camera": CAMERA, "dragmode": "turntable"},
        },
    }


def wire(blocks: Blocks) -> dict[str, Any]:
    """Give the block picture as a small JSON object, from which the browser builds the same geometry."""
    cells = cells_of(blocks)
    colors = np.ascontiguousarray(blocks.colors, dtype=np.uint8)
    return {
        "spans": [[[_short(start), _short(stop)] for start, stop in axis.spans] for axis in blocks.axes],
        "names": [list(axis.names) for axis in blocks.axes],
        "parts": [[int(part) for part in axis.parts] for axis in blocks.axes],
        "colors": b64encode(colors.tobytes()).decode("ascii"),
        "picked": None if blocks.picked is None else [int(index) for index in blocks.picked],
        "palette": blocks.palette,
        "count": int(blocks.count),
        "note": blocks.note,
        "gap": cells.gap,
        "lift": cells.lift,
        "scene": scene(blocks),
    }


def figure(blocks: Blocks, title: str = "") -> go.Figure:
    """Draw the block picture as a complete Plotly figure, for a notebook or a file."""
    look = theme.resolve(styles())
    built = surface(blocks)
    present = blocks.colors != ABSENT
    faded = blocks.colors == FADED
    levels = LEVELS[blocks.palette]
    lit, ghost = built.mesh(present & ~faded), built.mesh(faded, hull=True)
    colors = built.cells.colors.reshape(-1)[lit.cells] % levels
    shown = go.Figure(
        [
            look["lit"]
            | _triangles(blocks, built, lit)
            | {
                "intensity": (lit.facing * levels + colors).astype(np.uint16),
                # Half a step on either side puts every value in the middle of its color.
                "cmin": -0.5,
                "cmax": 3 * levels - 0.5,
                "colorscale": look["scales"][blocks.palette],
            },
            look["faded"] | _triangles(blocks, built, ghost) | {"intensity": ghost.facing.astype(np.uint8)},
            look["lines"] | _points(built.lines(present & ~faded, inner=True)),
            look["edges"] | _points(built.lines(faded, inner=False)),
            look["picked"] | _points(np.empty((0, 3)) if blocks.picked is None else built.outline(blocks.picked)),
        ]
    )
    shown.update_layout(look["layout"], template=theme.template(), meta={"alt": describe(blocks)})
    shown.update_layout(scene=scene(blocks))
    if title:
        shown.update_layout(title={"text": title}, margin={"t": 48})
    return shown


def describe(blocks: Blocks) -> str:
    """Say in one sentence what the picture shows."""
    sizes = " × ".join(f"{len(axis.spans)} {axis.title}" for axis in blocks.axes)
    what = "measured influence" if blocks.palette == "influence" else f"{blocks.count} regions"
    return f"A block of {sizes}, colored by {what}. {blocks.note}".strip()


def share(strength: int) -> int:
    """The percentage that a color of measured influence stands for."""
    return 0 if strength == FADED else round(100 * strength / (STRENGTHS - 1))


def hover_text(blocks: Blocks, labels: np.ndarray) -> np.ndarray:
    """Say in words, for every cell, where it is and what it belongs to."""
    words = []
    for index, label in np.ndenumerate(labels):
        color = int(blocks.colors[index])
        if blocks.palette == "regions":
            belongs = f"region {label + 1} of {blocks.count}"
        else:
            itself = index == blocks.picked
            belongs = "the element itself" if itself else f"{share(color)} % of the strongest other influence"
        where = ", ".join(axis.names[i] for axis, i in zip(blocks.axes, index, strict=True))
        words.append("<br>".join(part for part in (where, belongs, blocks.note) if part))
    return np.array(words, dtype=object)


def _triangles(blocks: Blocks, built: Surface, mesh: Mesh) -> dict[str, Any]:
    x, y, z = mesh.corners.T.astype(np.float32)
    i, j, k = mesh.triangles.T.astype(np.int32)
    text = hover_text(blocks, built.cells.labels)[mesh.cells].tolist()
    return {"x": x, "y": y, "z": z, "i": i, "j": j, "k": k, "hovertext": text}


def _points(points: np.ndarray) -> dict[str, Any]:
    x, y, z = points.T.astype(np.float32)
    return {"x": x, "y": y, "z": z}


def _short(number: float) -> float | int:
    rounded = round(float(number), 4)
    return int(rounded) if rounded == int(rounded) else rounded

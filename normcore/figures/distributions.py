"""How values are spread, before and after: ridges of a few regions, bands of many."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from normcore.figures import theme
from normcore.figures.assemble import assemble
from normcore.figures.heat import number

FEW = 12
"""How many regions are drawn as ridges, each in its own color."""
BANDS = ((0, 6, 0.18), (1, 5, 0.30), (2, 4, 0.55))
GAP = 0.17  # between the two panels, as a share of the height; it holds the axis of the upper one
OVERLAP = 1.7  # how high a ridge reaches, in rows


@dataclass(frozen=True)
class Ridge:
    """One region: a density (evenly spaced from `start`, peak 1), its ends, and its statistics in words."""

    start: float
    step: float
    height: np.ndarray
    low: float
    high: float
    words: str


def ridges(
    before: Sequence[Ridge],
    after: Sequence[Ridge],
    names: Sequence[str],
    title: str,
    spans: Sequence[tuple[float, float]],
) -> go.Figure:
    """Draw each region's density over a line from its least to its largest value: before above, after below.

    `names` stand beside the regions, and `title` says what they count. `spans` are the least and the largest number on
    the two axes, so that the pictures of several methods compare.
    """
    traces: list[dict[str, Any]] = []
    for panel, regions in enumerate((before, after)):
        known = [(row, region) for row, region in enumerate(regions) if np.isfinite([region.low, region.high]).all()]
        traces += [_hill(region, row) | _axes(panel) for row, region in known]
        traces.append(_ends(known) | _axes(panel))
    ticks = {-row: name for row, name in enumerate(names)}
    return assemble(traces, _panels(spans, (0.5 - len(before), OVERLAP + 0.05), ticks, title))


def bands(
    before: np.ndarray,
    after: np.ndarray,
    names: Sequence[str],
    words_before: Sequence[str],
    words_after: Sequence[str],
    spans: Sequence[tuple[float, float]],
    color: str,
) -> go.Figure:
    """Draw many regions, one below the other, each as a band that is darker where its values lie, and its median.

    The bands hold all values, nine of ten, and the middle half; `names` are numbers or short names of the regions.
    `before` and `after` have one row a region: minimum, 5, 25, 50, 75 and 95 percent, maximum.
    """
    traces: list[dict[str, Any]] = []
    tall = 0.85 if len(before) <= 40 else 1.0
    for panel, (found, said) in enumerate(((before, words_before), (after, words_after))):
        known = np.flatnonzero(np.isfinite(found).all(axis=1))
        shared = {**_axes(panel), "showlegend": False, "hoverinfo": "skip"}
        for low, high, opacity in BANDS:
            band = {"mode": "lines", "line": {"width": 0}, "fill": "toself", "fillcolor": _faded(color, opacity)}
            traces.append(shared | band | _boxes(found[known, low], found[known, high], -known, tall))
        median = {
            "x": found[known, 3].astype(np.float32),
            "y": -known.astype(np.float32),
            "mode": "markers",
            "marker": {"symbol": "line-ns-open", "size": 5 if len(known) < 50 else 3, "color": color},
            "hovertext": [said[i] for i in known.tolist()],
            "hoverinfo": "text",
        }
        traces.append(shared | median)
    places = np.unique(np.linspace(0, len(before) - 1, min(5, len(before))).round().astype(int)).tolist()
    layout = _panels(spans, (0.4 - len(before), 0.6), {-place: names[place] for place in places}, "region")
    layout |= {"hovermode": "y"}
    return assemble(traces, layout)


def _boxes(left: np.ndarray, right: np.ndarray, middle: np.ndarray, tall: float) -> dict[str, np.ndarray]:
    """The outlines of boxes, with a hole between any two: all of them are one path."""
    hole = np.full(len(left), np.nan)
    low, high = middle - tall / 2, middle + tall / 2
    x, y = np.stack([left, right, right, left, hole], 1), np.stack([low, low, high, high, hole], 1)
    return {"x": x.ravel().astype(np.float32), "y": y.ravel().astype(np.float32)}


def span(lows: np.ndarray, highs: np.ndarray) -> tuple[float, float]:
    """An axis that holds all values, with some room beside them."""
    low, high = (float(f(ends[np.isfinite(ends)], initial=0)) for f, ends in ((np.min, lows), (np.max, highs)))
    room = 0.07 * (high - low) or 1.0
    return low - room, high + room


def _hill(region: Ridge, row: int) -> dict[str, Any]:
    """The density over its line, and back along that; a needle where there is one value only."""
    x, height = region.start + region.step * np.arange(len(region.height)), OVERLAP * region.height
    if len(height) == 1:
        x = np.array([region.high])
    return {
        "x": x[[0, *range(len(x)), -1, 0]].astype(np.float32),
        "y": (np.pad(height, (1, 2)) - row).astype(np.float32),
        "mode": "lines",
        "line": {"color": _color(row), "width": 1.6},
        "fill": "toself",
        "fillcolor": _faded(_color(row), 0.42),
        "hovertext": region.words,
        "hoveron": "points+fills",
        "hoverinfo": "text",
        "showlegend": False,
    }


def _ends(regions: Sequence[tuple[int, Ridge]]) -> dict[str, Any]:
    """A mark at the least and the largest value of each region, on its line."""
    colors = [_color(row) for row, _ in regions for _ in range(2)]
    return {
        "x": [end for _, region in regions for end in (region.low, region.high)],
        "y": [-row for row, _ in regions for _ in range(2)],
        "mode": "markers",
        "marker": {"symbol": "line-ns-open", "size": 7, "color": colors, "line": {"width": 1.6, "color": colors}},
        "hovertext": [region.words for _, region in regions for _ in range(2)],
        "hoverinfo": "text",
        "showlegend": False,
    }


def _color(row: int) -> str:
    return theme.REGION_COLORS[row % len(theme.REGION_COLORS)]


def _panels(
    spans: Sequence[tuple[float, float]], rows: tuple[float, float], ticks: Mapping[int, str], title: str
) -> dict[str, Any]:
    """Two panels with the same rows, before above and after below, each with an axis of values of its own."""
    layout: dict[str, Any] = {
        "margin": {"l": 56, "r": 12, "t": 8, "b": 44},
        "hovermode": "closest",
        "dragmode": "pan",
        "uirevision": "distributions",
    }
    for panel, (side, domain) in enumerate((("before", (0.5 + GAP / 2, 1.0)), ("after", (0.0, 0.5 - GAP / 2)))):
        across, upwards = _axes(panel).values()
        layout[across.replace("x", "xaxis")] = {
            "range": list(spans[panel]),
            "anchor": upwards,
            "title": {"text": f"value {side}", "standoff": 4},
            "nticks": 6,
            "tickangle": 0,
            "zeroline": True,
            "automargin": False,  # measuring labels takes a third of the time of drawing
        }
        layout[upwards.replace("y", "yaxis")] = {
            "domain": list(domain),
            "range": list(rows),
            "anchor": across,
            "title": {"text": title},
            "tickvals": list(ticks),
            "ticktext": list(ticks.values()),
            "showline": False,
            "showgrid": len(ticks) <= FEW,
            "ticks": "",
            "fixedrange": True,
            "automargin": False,
        }
    return layout


def _axes(panel: int) -> dict[str, str]:
    """What Plotly calls the axes of a panel."""
    number = str(panel + 1) if panel else ""
    return {"xaxis": f"x{number}", "yaxis": f"y{number}"}


def _faded(color: str, opacity: float) -> str:
    red, green, blue = (int(color[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {opacity})"


def words(name: str, count: int, mean: float, std: float, low: float, high: float) -> str:
    """What the pointer says about a region."""
    return (
        f"<b>{name}</b>, {count:,} values<br>mean {number(mean)}, deviation {number(std)}<br>"
        f"from {number(low)} to {number(high)}"
    )

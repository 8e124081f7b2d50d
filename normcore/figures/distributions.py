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
        for row, region in enumerate(regions):
            color = theme.REGION_COLORS[row % len(theme.REGION_COLORS)]
            traces += _ridge(region, float(-row), color, panel)
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
    for panel, (found, said) in enumerate(((before, words_before), (after, words_after))):
        known = np.flatnonzero(np.isfinite(found).all(axis=1))
        shared = {
            **_axes(panel),
            "y": -known.astype(np.float32),
            "showlegend": False,
            "hoverinfo": "skip",
        }
        for low, high, opacity in BANDS:
            bar = {
                "type": "bar",
                "orientation": "h",
                "base": found[known, low].tolist(),
                "x": (found[known, high] - found[known, low]).astype(np.float32),
                "marker": {"color": _faded(color, opacity), "line": {"width": 0}},
            }
            traces.append(shared | bar)
        median = {
            "x": found[known, 3].astype(np.float32),
            "mode": "markers",
            "marker": {"symbol": "line-ns-open", "size": 5 if len(known) < 50 else 3, "color": color},
            "hovertext": [said[i] for i in known.tolist()],
            "hoverinfo": "text",
        }
        traces.append(shared | median)
    places = np.unique(np.linspace(0, len(before) - 1, min(5, len(before))).round().astype(int)).tolist()
    layout = _panels(spans, (0.4 - len(before), 0.6), {-place: names[place] for place in places}, "region")
    layout |= {"barmode": "overlay", "bargap": 0.15 if len(before) <= 40 else 0.0, "hovermode": "y"}
    return assemble(traces, layout)


def span(lows: np.ndarray, highs: np.ndarray) -> tuple[float, float]:
    """An axis that holds all values, with some room beside them."""
    low, high = (float(f(ends[np.isfinite(ends)], initial=0)) for f, ends in ((np.min, lows), (np.max, highs)))
    room = 0.07 * (high - low) or 1.0
    return low - room, high + room


def _ridge(region: Ridge, base: float, color: str, panel: int) -> list[dict[str, Any]]:
    """A line from the least to the largest value, and the density over it; a needle where there is one value only."""
    if not np.isfinite([region.low, region.high]).all():
        return []
    shared = {
        **_axes(panel),
        "line": {"color": color, "width": 1.6},
        "showlegend": False,
        "hoverinfo": "text",
    }
    needle = len(region.height) == 1
    ends = {
        "x": [region.low, region.high],
        "y": [base, base + OVERLAP * float(region.height[0]) if needle else base],
        "mode": "lines" if needle else "lines+markers",
        "marker": {"symbol": "line-ns-open", "size": 7, "color": color, "line": {"width": 1.6}},
        "hovertext": [region.words] * 2,
    }
    if needle:
        return [ends | shared]
    hill = {
        "x0": region.start,
        "dx": region.step,
        "y": (base + OVERLAP * region.height).astype(np.float32),
        "mode": "lines",
        "fill": "toself",
        "fillcolor": _faded(color, 0.42),
        "hovertext": region.words,
        "hoveron": "points+fills",
    }
    return [ends | shared, hill | shared]


def _panels(
    spans: Sequence[tuple[float, float]], rows: tuple[float, float], ticks: Mapping[int, str], title: str
) -> dict[str, Any]:
    """Two panels with the same rows, before above and after below, each with an axis of values of its own."""
    layout: dict[str, Any] = {
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
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

"""Gradients of a deep net step by step while it learns, and depth by depth for every remedy."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from normcore.figures import theme
from normcore.figures.flow import line, powers, short, ticks
from normcore.figures.heat import heat

DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross")
REACH = 12.0
"""Up to how many factors of ten from 1 a cell of the remedies changes its color."""
COLUMNS = 120
"""The most steps that a heat map has columns for."""


def course(values: np.ndarray, steps: np.ndarray, title: str, unit: str, *, share: bool = False) -> go.Figure:
    """Draw a number of every layer (layers, steps) while the net learns, the last layer on top.

    The scale is logarithmic, from what nearly all exceed to what nearly all stay below, or from 0 to 1 for a `share`.
    """
    chosen = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), COLUMNS)).round().astype(int))
    shown = values[::-1, chosen]
    known = shown[np.isfinite(shown) & (shown > 0)]
    limits = (0.0, 1.0) if share else None
    if known.size and not share:
        low, high = np.quantile(known, [0.01, 0.99])
        limits = (float(low), float(max(high, 1.0001 * low)))
    figure = heat(
        shown,
        [str(layer) for layer in range(len(values), 0, -1)],
        [f"{step:,}" for step in steps[chosen]],
        title=title,
        row_title=unit,
        column_title="step",
        log=not share,
        limits=limits,
    )
    trace = figure.data[0]
    # Half the digits are enough for a color, and half as much crosses the wire.
    trace.z = np.asarray(trace.z, dtype=np.float32)
    if limits is not None and not share:
        places, words = ticks(float(np.log10(limits[0])), float(np.log10(limits[1])))
        trace.colorbar.update(tickvals=places, ticktext=words)
    return figure


@dataclass(frozen=True)
class Curve:
    """The ratio against depth of one remedy: its geometric mean, and from the least to the largest seed."""

    name: str
    middle: np.ndarray
    low: np.ndarray
    high: np.ndarray


def against_depth(depths: Sequence[int], curves: Sequence[Curve], seeds: int, unit: str) -> go.Figure:
    """Draw the first layer's gradient over the last one's against depth, with a band over the seeds; 1 is dashed."""
    figure = go.Figure()
    for place, curve in enumerate(curves):
        color = theme.NEUTRAL["$ink"] if place == 0 else theme.REGION_COLORS[place - 1]
        plain = "#6b7280" if place == 0 else color
        red, green, blue = (int(plain[i : i + 2], 16) for i in (1, 3, 5))
        common = {"x": list(depths), "legendgroup": curve.name, "mode": "lines", "line": {"width": 0}}
        figure.add_scatter(y=curve.low, showlegend=False, hoverinfo="skip", **common)
        fill = f"rgba({red}, {green}, {blue}, 0.16)"
        figure.add_scatter(y=curve.high, showlegend=False, hoverinfo="skip", fill="tonexty", fillcolor=fill, **common)
        figure.add_scatter(
            x=list(depths),
            y=curve.middle,
            name=curve.name,
            legendgroup=curve.name,
            mode="lines+markers",
            line={"color": color, "dash": DASHES[place % len(DASHES)], "width": 2.4},
            marker={"symbol": SYMBOLS[place % len(SYMBOLS)], "size": 8},
            customdata=np.stack([curve.low, curve.high], -1),
            hovertemplate=f"<b>{curve.name}</b><br>%{{x}} {unit}s: %{{y:.3g}}<br>"
            f"%{{customdata[0]:.3g}} to %{{customdata[1]:.3g}}, N = {seeds}<extra></extra>",
        )
    figure.update_layout(
        xaxis={
            "title": {"text": f"depth, {unit}s"},
            "type": "log",
            "tickvals": list(depths),
            "ticktext": [*map(str, depths)],
        },
        yaxis={
            "title": {"text": f"first over last {unit}'s gradient"},
            **powers(np.concatenate([np.array([0.1, 10.0]), *(c.low for c in curves), *(c.high for c in curves)])),
        },
        shapes=[line("y", 1.0)],
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        margin={"l": 72, "r": 16, "t": 30, "b": 48},
        hovermode="closest",
        uirevision="depth",
    )
    return figure


def beside(names: Sequence[str], depths: Sequence[int], middle: np.ndarray, hover: np.ndarray, unit: str) -> go.Figure:
    """Draw the ratio of every remedy (remedies, depths) as a heat map with powers of ten; pale is 1."""
    safe = np.where(np.isfinite(middle) & (middle > 0), middle, np.nan)
    tens = np.log10(safe)
    text = np.full(middle.shape, "", dtype=object)
    for at in np.ndindex(*middle.shape):
        if np.isfinite(tens[at]):
            text[at] = short(float(safe[at]))
    figure = heat(
        np.clip(tens, -REACH, REACH),
        names,
        [str(depth) for depth in depths],
        column_title=f"depth, {unit}s",
        hover=hover,
        diverging=True,
        limits=(-REACH, REACH),
        bar=False,
    )
    for i, j in np.ndindex(*middle.shape):
        if text[i, j]:
            dark = abs(tens[i, j]) > REACH / 2
            ink = "#ffffff" if dark else "#1d2129"
            figure.add_annotation(x=j, y=i, text=text[i, j], showarrow=False, font={"size": 11, "color": ink})
    return figure

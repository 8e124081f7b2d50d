"""What a layer sees and remembers over the steps, as curves above each other."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from normcore.figures import theme

DASHES = {"curve": "solid", "truth": "dash", "beside": "dot"}
MARKS = {"dots": ("circle", 5), "diamonds": ("diamond", 6), "rings": ("circle-open", 7)}


@dataclass(frozen=True)
class Curve:
    """One series over the steps.

    `look` is "curve", "truth" or "beside" for a line that is solid, dashed or dotted, and "dots", "diamonds" or
    "rings" for single points. Curves of the same name share a line of the legend, which serves all panels, and a color
    of `theme.REGION_COLORS`, -1 for ink.
    """

    name: str
    y: np.ndarray
    look: str
    color: int


@dataclass(frozen=True)
class Panel:
    """Curves that share an axis, with its title; `floor` starts the axis at 0."""

    title: str
    curves: Sequence[Curve]
    floor: bool = False


def timeline(
    step: np.ndarray, panels: Sequence[Panel], switch: int | None = None, word: str = "evaluation"
) -> go.Figure:
    """Draw the panels above each other; the ground is darker from the step after `switch` on, with a word there."""
    figure = make_subplots(rows=len(panels), shared_xaxes=True, vertical_spacing=0.05)
    named: list[str] = []
    for row, panel in enumerate(panels, 1):
        for curve in panel.curves:
            figure.add_trace(_trace(step, curve, curve.name not in named), row=row, col=1)
            named.append(curve.name)
        start = "tozero" if panel.floor else "normal"
        figure.update_yaxes(title_text=panel.title, title_standoff=6, nticks=5, rangemode=start, row=row, col=1)
    figure.update_xaxes(title_text="step", row=len(panels), col=1)
    figure.update_xaxes(range=[step[0] - 1, step[-1] + 1], showgrid=False)
    if switch is not None and switch < step[-1]:
        figure.add_vrect(
            x0=switch + 0.5,
            x1=step[-1] + 1,
            fillcolor=theme.NEUTRAL["$muted"],
            opacity=0.13,
            line_width=0,
            layer="below",
        )
        figure.add_annotation(
            x=switch + 1, y=1, yref="paper", text=word, showarrow=False, xanchor="left", yanchor="bottom", font_size=12
        )
    figure.update_layout(
        hovermode="x unified",
        legend={"orientation": "h", "x": 0, "y": -0.12, "yanchor": "top", "itemwidth": 30},
        margin={"l": 56, "r": 12, "t": 26, "b": 40},
    )
    return figure


def _trace(step: np.ndarray, curve: Curve, first: bool) -> go.Scatter:
    color = theme.NEUTRAL["$ink"] if curve.color < 0 else theme.REGION_COLORS[curve.color]
    points = curve.look in MARKS
    symbol, size = MARKS.get(curve.look, ("", 0))
    return go.Scatter(
        x=step,
        y=curve.y,
        name=curve.name,
        legendgroup=curve.name,
        showlegend=first,
        mode="markers" if points else "lines",
        marker={"size": size, "color": color, "symbol": symbol, "opacity": 0.75} if points else None,
        line=None
        if points
        else {"color": color, "width": 2.2 if curve.look == "curve" else 1.6, "dash": DASHES[curve.look]},
        hovertemplate="%{y:.3g}",
    )

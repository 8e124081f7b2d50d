"""Gradients of two numbers as arrows: one with its answers, close up, and a whole field of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from normcore.figures import theme

INK = theme.NEUTRAL["$ink"]
MUTED = theme.NEUTRAL["$muted"]
CELLS = 49
"""Cells along a side of the plane that a click is found by."""
KEPT, TURNED = theme.REGION_COLORS[0], theme.REGION_COLORS[1]
"""The colors of an arrow that keeps its direction, and of one that turns by `FULL` degrees or more."""
FULL = 30.0


@dataclass(frozen=True)
class Arrow:
    """An arrow from the origin: what it is called, where it ends, its color, and words for the pointer."""

    label: str
    tip: tuple[float, float]
    color: str
    words: str


def cells(reach: float) -> np.ndarray:
    """The coordinates of the cells that a click on `plane` names."""
    return np.linspace(-reach, reach, CELLS)


def plane(gradient: Arrow, answers: Sequence[Arrow], reach: float, names: tuple[str, str]) -> go.Figure:
    """Draw a gradient and its answers in one plane, every place of which can be clicked."""
    line = cells(reach)
    ground = go.Heatmap(
        x=line, y=line, z=np.zeros((CELLS, CELLS), dtype=np.int8), opacity=0, showscale=False, hoverinfo="none"
    )
    traces = [ground, *_arrows([gradient, *answers], 5)]
    return go.Figure(data=traces, layout=_layout(reach, names, legend=True))


def close(gradient: Arrow, answers: Sequence[Arrow], names: tuple[str, str]) -> go.Figure:
    """Draw the answers alone, as large as they fit, with the direction of the gradient as a dashed ray."""
    tips = np.array([arrow.tip for arrow in answers] or [(1.0, 1.0)])
    finite = tips[np.isfinite(tips).all(axis=1)]
    reach = 1.15 * max(float(np.abs(finite).max(initial=0.0)), 1e-12) if finite.any() else 1.0
    traces: list[Any] = []
    length = float(np.hypot(*gradient.tip))
    if np.isfinite(length) and length > 0:
        far = [1.5 * reach * value / max(map(abs, gradient.tip)) for value in gradient.tip]
        traces.append(
            go.Scatter(
                x=[0, far[0]],
                y=[0, far[1]],
                mode="lines",
                line={"color": MUTED, "width": 1.5, "dash": "dash"},
                hoverinfo="skip",
                showlegend=False,
            )
        )
    return go.Figure(data=[*traces, *_arrows(answers, 7)], layout=_layout(reach, names, legend=False))


def field(starts: np.ndarray, ends: np.ndarray, degrees: np.ndarray, reach: float, names: tuple[str, str]) -> go.Figure:
    """Draw where each of many gradients goes: a pale line from it to the answer, a dot where the answer lies.

    Args:
        starts: The gradients (count 2).
        ends: The answers (count 2); what is not finite is left out.
        degrees: By how much each was turned (count), nan where there is no direction.
        reach: How far the axes go.
        names: The two axes.
    """
    drawn = np.isfinite(ends).all(axis=1)
    starts, ends, degrees = starts[drawn], ends[drawn], degrees[drawn]
    gap = np.full((len(starts), 1), np.nan)
    across, along = (np.hstack([starts[:, [i]], ends[:, [i]], gap]).astype(np.float32).ravel() for i in (0, 1))
    lines = go.Scatter(
        x=across, y=along, mode="lines", line={"color": MUTED, "width": 1}, opacity=0.45, hoverinfo="skip"
    )
    moved = np.abs(ends - starts).max(axis=1, initial=0.0) > 1e-6 * reach
    tips = go.Scatter(
        x=ends[:, 0],
        y=ends[:, 1],
        mode="markers",
        marker={
            "size": np.where(moved, 6, 4),
            "symbol": ["circle" if move else "circle-open" for move in moved],
            "color": np.nan_to_num(degrees),
            "cmin": 0,
            "cmax": FULL,
            "colorscale": [(0, KEPT), (1, TURNED)],
        },
        customdata=np.column_stack([starts, np.nan_to_num(degrees)]),
        hovertemplate="(%{customdata[0]:.3g}, %{customdata[1]:.3g}) becomes (%{x:.3g}, %{y:.3g})"
        "<br>turned by %{customdata[2]:.1f}°<extra></extra>",
    )
    layout = _layout(reach, names, legend=False)
    layout["margin"] = {"l": 44, "r": 8, "t": 8, "b": 44}
    return go.Figure(data=[lines, tips], layout=layout)


def _arrows(arrows: Sequence[Arrow], width: float) -> list[go.Scatter]:
    """Arrows that lie on each other stay visible: every later one is thinner."""
    traces = []
    for place, arrow in enumerate(arrows):
        if not np.isfinite(arrow.tip).all():
            continue
        thick = max(1.5, width - 1.2 * place)
        still = not np.any(arrow.tip)
        traces.append(
            go.Scatter(
                x=[0, arrow.tip[0]],
                y=[0, arrow.tip[1]],
                mode="lines+markers",
                name=arrow.label,
                line={"color": arrow.color, "width": thick},
                marker={
                    "symbol": "circle" if still else "arrow",
                    "angleref": "up" if still else "previous",
                    "size": [0, 6 + 2 * thick],
                    "color": arrow.color,
                    "opacity": 1,
                    "line": {"width": 0},
                },
                hovertext=["", arrow.words],
                hovertemplate="%{hovertext}<extra></extra>",
            )
        )
    return traces


def _layout(reach: float, names: tuple[str, str], legend: bool) -> dict[str, Any]:
    axis = {"range": [-reach, reach], "zeroline": True, "zerolinewidth": 1, "nticks": 7}
    return {
        "template": theme.template(),
        "xaxis": axis | {"title": {"text": names[0]}},
        "yaxis": axis | {"title": {"text": names[1]}, "scaleanchor": "x", "constrain": "domain"},
        "showlegend": legend,
        "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.01, "xanchor": "left", "x": 0},
        "hovermode": "closest",
        "dragmode": False,
    }


def trail(lengths: np.ndarray, now: float) -> go.Figure:
    """Draw the lengths of the gradients that came before, and of the one that comes now."""
    values = np.append(lengths, now if np.isfinite(now) else np.nan)
    ago = np.arange(-len(lengths), 1)
    words = [f"{-step} steps before: {length:.3g} long" for step, length in zip(ago, values, strict=True)]
    words[-1] = f"now: {now:.3g} long"
    bars = go.Bar(
        x=ago,
        y=values,
        marker={"color": [MUTED] * len(lengths) + [INK], "line": {"width": 0}},
        hovertext=words,
        hovertemplate="%{hovertext}<extra></extra>",
    )
    layout = {
        "template": theme.template(),
        "xaxis": {"title": {"text": "steps from now"}},
        "yaxis": {"title": {"text": "length"}, "rangemode": "tozero"},
        "showlegend": False,
        "bargap": 0.3,
    }
    return go.Figure(data=[bars], layout=layout)

"""Gradients in training: layers over steps, when clipping fired, what it did; five panels on one axis of steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from normcore.figures import theme
from normcore.figures.assemble import assemble

PANELS = {
    "heat": (0.70, 1.0),
    "fired": (0.52, 0.635),
    "norms": (0.27, 0.475),
    "scale": (0.14, 0.225),
    "angle": (0.0, 0.095),
}
"""Where each panel begins and ends, from below."""
FIRED, BAD = 1.4, 1.85
"""At which height of their panel the marks stand, where the rate ends at 1."""
BEFORE, AFTER, RATE, BADLY = (theme.REGION_COLORS[i] for i in (1, 0, 2, 6))


@dataclass(frozen=True)
class Heat:
    """Layers over bins of steps: norms (layers bins), names, where bins begin, their width, the ends of the scale."""

    values: np.ndarray
    names: Sequence[str]
    start: np.ndarray
    width: int
    limits: tuple[float, float]


@dataclass(frozen=True)
class Course:
    """A run over its steps (points): norms before and after, scale, angle in degrees, rate; the steps of the marks."""

    step: np.ndarray
    before: np.ndarray
    after: np.ndarray
    scale: np.ndarray
    angle: np.ndarray
    rate: np.ndarray
    events: np.ndarray
    bad: np.ndarray
    lost: int


def watch(heat: Heat, course: Course, steps: int, roll: int, clipped: bool) -> go.Figure:
    """Draw one run.

    Args:
        heat: The norm of each layer's gradient before clipping.
        course: What clipping did to the whole gradient.
        steps: How long the run is to be, so that the axis stands still.
        roll: Over how many steps the rate is taken.
        clipped: Whether this run is clipped at all; if not, only the norm before is drawn.
    """
    traces = [_heat(heat), _rate(course, roll), *_marks(course), *_norms(course, clipped)]
    traces += _line(course.step, course.scale, "scale", "y4", AFTER, "%{y:.3~g} of its length")
    traces += _line(course.step, course.angle, "angle", "y5", AFTER, "turned by %{y:.3~g}°")
    layout: dict[str, Any] = {
        "xaxis": {
            "range": [-0.5, steps - 0.5],
            "title": {"text": "step"},
            "anchor": "y5",
            "showgrid": False,
        },
        "showlegend": False,
        "margin": {"l": 64, "r": 8, "t": 26, "b": 44},
        "hovermode": "closest",
        "uirevision": "observatory",
    }
    layout |= _axes(heat, course)
    layout |= {"annotations": _titles(clipped, roll), "shapes": _lost(course)}
    return assemble(traces, layout)


def _axes(heat: Heat, course: Course) -> dict[str, Any]:
    tall = bool(np.nanmax(course.angle, initial=0.0) > 1e-3)
    common = {"fixedrange": True, "showgrid": True, "nticks": 4}
    return {
        "yaxis": {
            "domain": PANELS["heat"],
            "autorange": "reversed",
            "ticks": "",
            "showgrid": False,
            "showline": False,
            "tickvals": list(range(len(heat.names))),
            "ticktext": list(heat.names),
            "fixedrange": True,
        },
        "yaxis2": common
        | {
            "domain": PANELS["fired"],
            "range": [0, 2.1],
            "tickvals": [0, 0.5, 1, FIRED, BAD],
            "ticktext": [
                "0 %",
                "50 %",
                "100 %",
                "clipped" if len(course.events) else "",
                "bad" if len(course.bad) else "",
            ],
            "showgrid": False,
        },
        "yaxis3": common
        | {"domain": PANELS["norms"], "type": "log", "exponentformat": "power", "dtick": _decades(course)},
        "yaxis4": common
        | {"domain": PANELS["scale"], "range": [0, max(1.08, 1.08 * _most(course.scale))], "nticks": 3},
        "yaxis5": common
        | {
            "domain": PANELS["angle"],
            "range": [0, 1.1 * _most(course.angle) if tall else 1],
            "ticksuffix": "°",
            "nticks": 3,
        },
    }


def _most(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.max()) if known.size else 1.0


def _decades(course: Course) -> int:
    """Every how many powers of ten a number stands on the axis."""
    both = np.concatenate([course.before, course.after])
    known = both[np.isfinite(both) & (both > 0)]
    return max(1, int(np.ceil(np.log10(known.max() / known.min()) / 5))) if known.size else 1


def _heat(heat: Heat) -> dict[str, Any]:
    positive = np.where(heat.values > 0, heat.values, np.nan)
    low, high = (float(np.log10(limit)) for limit in heat.limits)
    step = max(1, int(np.ceil((high - low) / 4)))
    powers = np.arange(np.ceil(low), np.floor(high) + 1, step)
    if len(powers) >= 2:
        ticks, words = powers.tolist(), [f"10<sup>{int(p)}</sup>".replace("-", "−") for p in powers]
    else:
        ends = np.linspace(low, high, 3)
        ticks, words = ends.tolist(), [f"{10**end:.2g}" for end in ends]
    return {
        "type": "heatmap",
        "z": np.log10(positive).round(3),
        "x": heat.start + (heat.width - 1) / 2,
        "y": list(range(len(heat.names))),
        "customdata": heat.values.astype(np.float32),
        "zmin": low,
        "zmax": high,
        "colorscale": theme.sequential(),
        "hoverongaps": False,
        "hovertemplate": "step %{x:,.0f}: %{customdata:.4~g}<extra></extra>",
        "colorbar": {
            "thickness": 10,
            "outlinewidth": 0,
            "len": PANELS["heat"][1] - PANELS["heat"][0],
            "y": PANELS["heat"][1],
            "yanchor": "top",
            "tickvals": ticks,
            "ticktext": words,
            "tickfont": {"family": theme.NUMBER_FONT, "size": 10, "color": theme.NEUTRAL["$muted"]},
        },
    }


def _rate(course: Course, roll: int) -> dict[str, Any]:
    red, green, blue = (int(RATE[i : i + 2], 16) for i in (1, 3, 5))
    return {
        "type": "scatter",
        "x": course.step,
        "y": course.rate,
        "yaxis": "y2",
        "mode": "lines",
        "fill": "tozeroy",
        "fillcolor": f"rgba({red}, {green}, {blue}, 0.18)",
        "line": {"color": RATE, "width": 1.6, "shape": "hv"},
        "hovertemplate": f"%{{y:.0%}} of the last {roll} steps<br>up to step %{{x:,}}<extra></extra>",
    }


def _marks(course: Course) -> list[dict[str, Any]]:
    """A stroke for every step that was clipped, a triangle for every bad batch."""
    strokes = (
        course.events[np.unique(np.linspace(0, len(course.events) - 1, 800).astype(int))]
        if len(course.events)
        else course.events
    )
    look = {"type": "scatter", "mode": "markers", "yaxis": "y2"}
    return [
        look
        | {
            "x": strokes,
            "y": np.full(len(strokes), FIRED, np.float32),
            "marker": {"symbol": "line-ns", "size": 9, "line": {"width": 1.2, "color": BEFORE}},
            "hovertemplate": "step %{x:,}: clipped<extra></extra>",
        },
        look
        | {
            "x": course.bad,
            "y": np.full(len(course.bad), BAD, np.float32),
            "marker": {"symbol": "triangle-down", "size": 8, "color": BADLY},
            "hovertemplate": "step %{x:,}: a bad batch<extra></extra>",
        },
    ]


def _norms(course: Course, clipped: bool) -> list[dict[str, Any]]:
    lines = [("before clipping", course.before, BEFORE, "solid")]
    lines += [("after clipping", course.after, AFTER, "dot")] if clipped else []
    return [
        {
            "type": "scatter",
            "x": course.step,
            "y": np.where(np.isfinite(y) & (y > 0), y, np.nan).astype(np.float32),
            "yaxis": "y3",
            "mode": "lines" if len(y) > 1 else "markers",
            "name": name,
            "line": {"color": color, "width": 1.5, "dash": dash},
            "hovertemplate": f"<b>{name}</b>: %{{y:.4~g}}<br>step %{{x:,}}<extra></extra>",
        }
        for name, y, color, dash in lines
    ]


def _line(step: np.ndarray, values: np.ndarray, name: str, axis: str, color: str, words: str) -> list[dict[str, Any]]:
    return [
        {
            "type": "scatter",
            "x": step,
            "y": np.where(np.isfinite(values), values, np.nan).astype(np.float32),
            "yaxis": axis,
            "mode": "lines" if len(values) > 1 else "markers",
            "name": name,
            "line": {"color": color, "width": 1.4},
            "hovertemplate": f"{words}<br>step %{{x:,}}<extra></extra>",
        }
    ]


def _titles(clipped: bool, roll: int) -> list[dict[str, Any]]:
    words = {
        "heat": "Norm of each layer's gradient before clipping",
        "fired": f"Share of clipped steps, of the last {roll}",
        "norms": f"Whole gradient: <span style='color:{BEFORE}'><b>—</b></span> before"
        + (f", <span style='color:{AFTER}'><b>···</b></span> after clipping" if clipped else " clipping"),
        "scale": "Scale: what is left of its length",
        "angle": "Angle to the raw gradient",
    }
    return [
        {
            "text": words[panel],
            "x": 0,
            "xanchor": "left",
            "xref": "paper",
            "y": end + 0.004,
            "yref": "paper",
            "yanchor": "bottom",
            "showarrow": False,
            "font": {"size": 12, "color": theme.NEUTRAL["$ink"]},
        }
        for panel, (_, end) in PANELS.items()
    ]


def _lost(course: Course) -> list[dict[str, Any]]:
    """A line through all panels where the run diverged."""
    if course.lost < 0:
        return []
    look = {"color": BADLY, "width": 1.5, "dash": "dash"}
    return [{"type": "line", "x0": course.lost, "x1": course.lost, "yref": "paper", "y0": 0, "y1": 1, "line": look}]

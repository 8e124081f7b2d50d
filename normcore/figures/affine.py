"""An activation function, where the data lie under it, and how much of them it passes on."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from normcore.figures import theme
from normcore.figures.assemble import assemble

LEGEND = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}
MARGIN = {"l": 8, "r": 8, "t": 8, "b": 8}
ZONES = {
    "flat": theme.REGION_COLORS[6],
    "between": "#c3c7cf",
    "linear": theme.REGION_COLORS[8],
}
"""The colors of what is saturated, between, and nearly linear."""


def curves(
    x: np.ndarray,
    function: np.ndarray,
    name: str,
    zones: Sequence[tuple[float, float, str]],
    densities: Sequence[tuple[str, np.ndarray, np.ndarray, str, bool]],
) -> go.Figure:
    """Draw an activation function over its zones (from, to, "flat" or "linear"), with where the data lie below it.

    Each density has a name, places, heights with peak 1, a color, and whether its line is dashed.
    """
    zone = {"type": "rect", "xref": "x", "y0": 0, "y1": 1, "opacity": 0.16, "line": {"width": 0}, "layer": "below"}
    shapes = [
        zone | {"x0": low, "x1": high, "yref": f"{axis} domain", "fillcolor": ZONES[kind]}
        for axis in ("y", "y2")
        for low, high, kind in zones
    ]
    traces: list[dict[str, Any]] = [
        {
            "x": x.astype(np.float32),
            "y": function.astype(np.float32),
            "mode": "lines",
            "line": {"color": theme.NEUTRAL["$ink"], "width": 2.2},
            "name": name,
            "showlegend": False,
            "hovertemplate": f"{name}(%{{x:.3g}}) = %{{y:.3g}}<extra></extra>",
        }
    ]
    for label, places, height, color, dashed in densities:
        needle = len(height) == 1
        traces.append(
            {
                "x": np.repeat(places, 2) if needle else places.astype(np.float32),
                "y": np.array([0.0, 1.0]) if needle else height.astype(np.float32),
                "mode": "lines",
                "line": {"color": color, "width": 2, "dash": "dot" if dashed else "solid"},
                "name": label,
                "hovertemplate": f"{label}, at %{{x:.3g}}<extra></extra>",
                "yaxis": "y2",
            }
        )
    layout = {
        "shapes": shapes,
        "xaxis": {
            "range": [float(x[0]), float(x[-1])],
            "title": {"text": f"value that {name} gets"},
            "anchor": "y2",
            "zeroline": True,
        },
        "yaxis": {"domain": [0.56, 1.0], "title": {"text": name}},
        "yaxis2": {"domain": [0.0, 0.48], "title": {"text": "density"}, "showticklabels": False, "range": [0, 1.08]},
        "legend": LEGEND,
        "margin": MARGIN,
        "uirevision": "curves",
    }
    return assemble(traces, layout)


def shares(rows: Sequence[tuple[str, tuple[float, float, float]]]) -> go.Figure:
    """Draw for each row how much of the data is saturated, between, and in the linear part, as one bar of 100 %."""
    kinds = (("flat", "saturated"), ("between", "between"), ("linear", "linear part"))
    traces = []
    for i, (kind, words) in enumerate(kinds):
        amounts = [100 * found[i] for _, found in rows]
        pattern = {"shape": "/", "fillmode": "overlay", "fgcolor": "#ffffff", "fgopacity": 0.35, "solidity": 0.12}
        traces.append(
            {
                "type": "bar",
                "y": [name for name, _ in rows],
                "x": amounts,
                "orientation": "h",
                "name": words,
                "marker": {"color": ZONES[kind], "pattern": pattern if kind == "flat" else {}},
                "text": [f"{amount:.0f}%" if amount >= 9 else "" for amount in amounts],
                "textposition": "inside",
                "insidetextanchor": "middle",
                "insidetextfont": {"color": "#1d2129" if kind == "between" else "#ffffff"},
                "textangle": 0,
                "hovertemplate": "%{y}: %{x:.1f}% " + words + "<extra></extra>",
            }
        )
    layout = {
        "barmode": "stack",
        "bargap": 0.28,
        "xaxis": {
            "range": [0, 100],
            "tickvals": [0, 25, 50, 75, 100],
            "title": {"text": "share of the values, percent"},
        },
        "yaxis": {"autorange": "reversed", "showline": False, "ticks": ""},
        "legend": LEGEND | {"traceorder": "normal"},
        "margin": MARGIN | {"r": 20},
        "uirevision": "shares",
    }
    return assemble(traces, layout)

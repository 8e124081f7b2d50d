"""A gradient on its way back through a deep net, layer by layer, and what single switches make of it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from normcore.figures import theme
from normcore.figures.assemble import assemble


def powers(values: np.ndarray, room: float = 0.08) -> dict[str, Any]:
    """A logarithmic axis around all values: powers of ten where they reach far, plain numbers between where not."""
    known = values[np.isfinite(values) & (values > 0)]
    low, high = (np.log10(known.min()), np.log10(known.max())) if known.size else (-1.0, 1.0)
    if high - low < 0.6:
        low, high = (low + high) / 2 - 0.3, (low + high) / 2 + 0.3
    spare = room * (high - low)
    low, high = float(low - spare), float(high + spare)
    places, words = ticks(low, high)
    return {"type": "log", "range": [low, high], "tickvals": [10**p for p in places], "ticktext": words}


def ticks(low: float, high: float, most: int = 6) -> tuple[list[float], list[str]]:
    """Where a scale from 10^low to 10^high has its marks, as powers of ten, and what stands there."""
    if high - low > 2:
        step = max(1, int(np.ceil((high - low) / most)))
        # Multiples of the step, so that 1 has a mark wherever it lies within.
        whole = [p for p in range(int(np.ceil(low)), int(np.floor(high)) + 1) if p % step == 0]
        return [float(p) for p in whole], [f"10<sup>{p}</sup>".replace("-", "−") if p else "1" for p in whole]
    steps = (1, 2, 5) if high - low > 0.5 else (1, 1.5, 2, 3, 4, 5, 7)
    between = [float(np.log10(m)) + p for p in range(int(np.floor(low)), int(np.ceil(high)) + 1) for m in steps]
    shown = [place for place in between if low <= place <= high]
    return shown, [f"{10**place:.3g}" for place in shown]


def layers(gradient: np.ndarray, weights: np.ndarray, spread: np.ndarray, flat: np.ndarray, unit: str) -> go.Figure:
    """Draw, layer by layer, the gradient's length (logarithmic), the outputs' spread and the saturated share.

    Args:
        gradient: ∂loss/∂output, its length at every layer; what is not above 0 stays a hole.
        weights: ∂loss/∂W, its length at every layer; empty for none.
        spread: The outputs' standard deviation.
        flat: The saturated share.
        unit: What a layer is: "layer" or "time step".
    """
    x = np.arange(1, len(gradient) + 1)
    lines = [("at the output", gradient, theme.REGION_COLORS[0], "solid", "y", "gradient")]
    if weights.size:
        lines.append(("of the weights", weights, theme.REGION_COLORS[1], "dot", "y", "gradient"))
    lines.append(("spread of the outputs", spread, theme.REGION_COLORS[2], "dash", "y2", "standard deviation"))
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "x": x,
            "y": np.where(values > 0, values, np.nan),
            "name": name,
            "yaxis": axis,
            "line": {"color": color, "dash": dash, "width": 2.2},
            "marker": {"size": 6 if len(x) <= 40 else 3},
            "hovertemplate": f"{unit} %{{x}}<br>{what} {name}: %{{y:.3g}}<extra></extra>",
        }
        for name, values, color, dash, axis, what in lines
    ]
    traces.append(
        {
            "type": "bar",
            "x": x,
            "y": flat,
            "name": "saturated share",
            "yaxis": "y3",
            "marker": {"color": theme.REGION_COLORS[6]},
            "hovertemplate": f"{unit} %{{x}}<br>%{{y:.1%}} saturated<extra></extra>",
        }
    )
    layout = {
        "xaxis": {"title": {"text": f"{unit}, from the input on"}, "anchor": "y3", "range": [0.4, len(x) + 0.6]},
        "yaxis": {"title": {"text": "gradient"}, "domain": [0.52, 1], **powers(np.concatenate([gradient, weights]))},
        "yaxis2": {"title": {"text": "spread"}, "domain": [0.26, 0.46], **powers(spread, 0.15)},
        "yaxis3": {
            "title": {"text": "saturated"},
            "domain": [0, 0.2],
            "tickformat": ".0%",
            "range": [0, 1],
            "nticks": 3,
        },
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "margin": {"l": 72, "r": 16, "t": 40, "b": 48},
        "hovermode": "closest",
        "uirevision": "layers",
    }
    return assemble(traces, layout)


def singular(values: np.ndarray, floor: float) -> go.Figure:
    """Draw singular values from the largest on (logarithmic); those below `floor` are rounding, and left out."""
    sure = np.isfinite(values) & (values >= floor) & (values > 0)
    trace = {
        "type": "scatter",
        "mode": "markers",
        "x": np.arange(1, len(values) + 1)[sure],
        "y": values[sure],
        "marker": {"size": 7, "color": theme.REGION_COLORS[4]},
        "hovertemplate": "singular value %{x}: %{y:.3g}<extra></extra>",
        "cliponaxis": False,
    }
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": "singular values, from the largest on"}},
        "yaxis": {"title": {"text": "size, ∂last / ∂first"}, **powers(np.append(values[sure], 1.0))},
        "margin": {"l": 72, "r": 16, "t": 12, "b": 48},
        "shapes": [line("y", 1.0)],
        "uirevision": "singular",
    }
    return assemble([trace], layout)


def line(axis: str, at: float) -> dict[str, Any]:
    """A dashed line through 1, where nothing is lost and nothing added."""
    other = "x" if axis == "y" else "y"
    look = {"color": theme.NEUTRAL["$ink"], "width": 1.2, "dash": "dash"}
    return {"type": "line", f"{other}0": 0, f"{other}1": 1, f"{other}ref": "paper", f"{axis}0": at, f"{axis}1": at} | {
        "line": look,
        "layer": "below",
    }


def switches(names: Sequence[str], ratios: np.ndarray, now: str) -> go.Figure:
    """Draw the ratio that every switch leaves on a logarithmic axis, the first name on top; 1 is a dashed line."""
    known = np.where(np.isfinite(ratios) & (ratios > 0), ratios, np.nan)
    mine = [name == now for name in names]
    figure = go.Figure(
        [
            {
                "type": "scatter",
                "mode": "markers+text",
                "x": known,
                "y": list(names),
                "text": [short(value) if np.isfinite(value) else "none left" for value in known],
                "textposition": ["middle left" if value > 1 else "middle right" for value in known],
                "textfont": {"size": 11, "color": theme.NEUTRAL["$ink"]},
                "marker": {
                    "size": 11,
                    "color": [theme.REGION_COLORS[6] if is_now else theme.REGION_COLORS[0] for is_now in mine],
                    "symbol": ["diamond" if is_now else "circle" for is_now in mine],
                },
                "hovertemplate": "%{y}: first over last gradient %{x:.3g}<extra></extra>",
                "cliponaxis": False,
            }
        ]
    )
    figure.update_layout(
        xaxis={
            "title": {"text": "first over last layer's gradient"},
            **powers(np.append(known, [0.1, 10.0]), 0.16),
        },
        yaxis={
            "categoryorder": "array",
            "categoryarray": list(names)[::-1],
            "ticks": "",
            "ticksuffix": "  ",
            "showline": False,
            "tickfont": {"family": theme.FONT, "size": 12, "color": theme.NEUTRAL["$ink"]},
        },
        shapes=[line("x", 1.0)],
        showlegend=False,
        margin={"l": 8, "r": 20, "t": 12, "b": 48},
        uirevision="switches",
    )
    return figure


def short(value: float) -> str:
    """A ratio in a few letters: two figures near 1, a power of ten far from it."""
    power = round(float(np.log10(value)))
    return f"{value:.2g}" if abs(power) < 2 else f"10<sup>{power}</sup>".replace("-", "−")

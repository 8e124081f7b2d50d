"""The way back: what a gradient loses in a normalization, and what ε does."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from normcore.figures import theme
from normcore.figures.affine import LEGEND, MARGIN
from normcore.figures.assemble import assemble


def gradients(output: np.ndarray, series: Sequence[tuple[str, np.ndarray]], shown: np.ndarray) -> go.Figure:
    """Draw four gradients over the output at their elements, each with the line that fits it best.

    The height of a line is a gradient's mean, its slope the gradient's part along the output. `shown` picks the
    elements that are drawn as points; the last gradient is drawn as open circles on top.
    """
    colors = (theme.NEUTRAL["$muted"], theme.REGION_COLORS[3], theme.REGION_COLORS[0], theme.REGION_COLORS[1])
    symbols, dashes = ("square", "diamond", "circle", "circle-open"), ("dot", "dashdot", "solid", "dash")
    centered = output - output.mean()
    square = float(centered @ centered)
    ends = np.array([output.min(), output.max()])
    traces = []
    for i, (label, values) in enumerate(series):
        slope = float(centered @ values) / square if square > 0 else 0.0
        line = {
            "x": ends,
            "y": values.mean() + slope * (ends - output.mean()),
            "mode": "lines",
            "line": {"color": colors[i], "width": 2, "dash": dashes[i]},
            "hoverinfo": "skip",
            "showlegend": False,
            "legendgroup": label,
        }
        points = {
            "x": output[shown],
            "y": values[shown],
            "mode": "markers",
            "name": label,
            "legendgroup": label,
            "marker": {
                "color": colors[i],
                "size": 10 if i == 3 else 5,
                "symbol": symbols[i],
                "line": {"width": 1.6 if i == 3 else 0},
            },
            "hovertemplate": f"output %{{x:.3g}}<br>{label}: %{{y:.4g}}<extra></extra>",
        }
        traces += [line, points]
    layout = {
        "xaxis": {"title": {"text": "output y of the element"}, "zeroline": True},
        "yaxis": {"title": {"text": "gradient"}, "zeroline": True},
        "legend": LEGEND,
        "margin": MARGIN,
        "uirevision": "gradients",
    }
    return assemble(traces, layout)


def epsilon_lines(lines: Sequence[tuple[str, np.ndarray, np.ndarray, float, str]]) -> go.Figure:
    """Draw the deviation after normalization against ε: a name, the ε tried, the deviations, the ε in use, a color."""
    dashes, symbols = ("solid", "dash", "dot", "dashdot"), ("circle", "square", "diamond", "triangle-up")
    traces, shapes = [], []
    for i, (name, eps, std, current, color) in enumerate(lines):
        line = {"color": color, "dash": dashes[i % 4]}
        traces.append(
            {
                "x": eps,
                "y": std,
                "mode": "lines+markers",
                "name": name,
                "line": line | {"width": 2},
                "marker": {"size": 6, "symbol": symbols[i % 4]},
                "hovertemplate": f"{name}<br>ε = %{{x:.0e}}: deviation %{{y:.4g}}<extra></extra>",
            }
        )
        if current > 0:
            ends = {"x0": current, "x1": current, "y0": 0, "y1": 1, "yref": "paper"}
            shapes.append({"type": "line", "opacity": 0.6, "line": line | {"width": 1}} | ends)
    layout = {
        "xaxis": {"type": "log", "title": {"text": "ε"}, "exponentformat": "power", "dtick": 2},
        "yaxis": {"title": {"text": "deviation after"}, "rangemode": "tozero"},
        "shapes": shapes,
        "legend": LEGEND,
        "margin": MARGIN,
        "uirevision": "epsilon",
    }
    return assemble(traces, layout)

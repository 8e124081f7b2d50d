"""Recorded gradient norms and a threshold: how they are spread, and how they went over the steps."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from normcore.figures import theme
from normcore.figures.assemble import assemble

UNDER, OVER, OUTSIDE = theme.REGION_COLORS[0], theme.REGION_COLORS[1], theme.REGION_COLORS[6]
MANY = 300
"""From so many steps in one bar on, the counts are drawn logarithmically, so that single steps stay visible."""


def histogram(edges: np.ndarray, counts: np.ndarray, threshold: float, words: str) -> go.Figure:
    """Draw how many norms lie where, on a logarithmic axis; the bars beyond the threshold are hatched.

    Args:
        edges: The ends of the bars (bars + 1).
        counts: How many norms lie in each.
        threshold: Where the line stands.
        words: What stands beside the line.
    """
    ends = np.log10(edges)
    middle, beyond = (ends[:-1] + ends[1:]) / 2, np.sqrt(edges[:-1] * edges[1:]) > threshold
    said = [
        f"{plural(int(count))} of {low:.3g} to {high:.3g}"
        for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True)
    ]
    bars = {
        "type": "bar",
        "x": middle,
        "y": counts,
        "width": np.diff(ends),
        "marker": {
            "color": [OVER if over else UNDER for over in beyond],
            "pattern": {"shape": ["/" if over else "" for over in beyond], "size": 6, "solidity": 0.25},
            "line": {"width": 0.5, "color": "rgba(255, 255, 255, 0.5)"},
        },
        "hovertext": said,
        "hovertemplate": "%{hovertext}<extra></extra>",
    }
    at = float(np.log10(threshold))
    low, high = min(float(ends[0]), at), max(float(ends[-1]), at)
    room = 0.04 * (high - low)
    near_right = at > (low + high) / 2
    ticks = decades(low, high)
    layout = {
        "xaxis": {
            "title": {"text": "norm of the whole gradient"},
            "range": [low - room, high + room],
            "tickvals": np.log10(ticks).tolist(),
            "ticktext": [power(tick) for tick in ticks],
        },
        "yaxis": {"title": {"text": "steps"}}
        | (
            {"type": "log", "dtick": 1, "range": [-0.3, float(np.log10(counts.max())) + 0.3]}
            if counts.max(initial=0) > MANY
            else {"rangemode": "tozero"}
        ),
        "showlegend": False,
        "bargap": 0,
        "margin": {"l": 56, "r": 12, "t": 30, "b": 48},
        "shapes": [
            {
                "type": "line",
                "x0": at,
                "x1": at,
                "yref": "paper",
                "y0": 0,
                "y1": 1,
                "line": {"color": theme.NEUTRAL["$ink"], "width": 2},
            }
        ],
        "annotations": [
            {
                "text": words,
                "x": at,
                "y": 1.0,
                "yref": "paper",
                "yanchor": "bottom",
                "xanchor": "right" if near_right else "left",
                "showarrow": False,
                "font": {"size": 12, "color": theme.NEUTRAL["$ink"]},
            }
        ],
        "uirevision": "histogram",
    }
    return assemble([bars], layout)


def plural(count: int) -> str:
    """A count of norms in words."""
    return f"{count:,} norm" if count == 1 else f"{count:,} norms"


def decades(low: float, high: float) -> list[float]:
    """Round numbers for an axis of logarithms from `low` to `high`: powers of ten, with 2 and 5 where few fit."""
    powers = np.arange(np.floor(low), np.ceil(high) + 1)
    factors: Sequence[float] = (
        (1,) if high - low > 2.5 else (1, 2, 5) if high - low > 0.6 else (1, 1.5, 2, 3, 4, 5, 6, 8)
    )
    step = max(1, int(np.ceil((high - low) / 8)))
    ticks = [float(f * 10.0**p) for p in powers[::step] for f in factors]
    return [tick for tick in ticks if low - 0.05 <= np.log10(tick) <= high + 0.05]


def power(value: float) -> str:
    """A round number as short as it gets."""
    if 1e-3 <= value < 1e5:
        return f"{value:g}"
    mantissa, exponent = f"{value:.0e}".split("e")
    start = "" if mantissa == "1" else f"{mantissa} × "
    return f"{start}10<sup>{int(exponent)}</sup>".replace("-", "−")


def course(
    step: np.ndarray,
    norm: np.ndarray,
    band_step: np.ndarray,
    bands: np.ndarray,
    spikes: tuple[np.ndarray, np.ndarray],
    lost: np.ndarray,
    threshold: float,
) -> go.Figure:
    """Draw norms over the steps with rolling percentiles, spikes, and a threshold.

    Args:
        step: The steps of the drawn norms.
        norm: The norms.
        band_step: The steps of the percentiles.
        bands: The 5th, 50th, 95th and 99th percentile (4 points).
        spikes: Steps and norms of what stands out.
        lost: Steps whose norm is not finite.
        threshold: Where the line stands.
    """
    low, middle, high, top = (np.where(row > 0, row, np.nan).astype(np.float32) for row in bands)
    shared: dict[str, Any] = {"type": "scatter", "x": band_step, "mode": "lines"}
    shade = {"fill": "tonexty", "fillcolor": "rgba(101, 120, 205, 0.20)", "hoverinfo": "skip"}
    said = "%{y:.4~g}<br>up to step %{x:,}<extra></extra>"
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "x": step,
            "y": np.where(np.isfinite(norm) & (norm > 0), norm, np.nan).astype(np.float32),
            "mode": "lines",
            "name": "each step",
            "line": {"color": theme.NEUTRAL["$muted"], "width": 0.7},
            "opacity": 0.6,
            "hovertemplate": "%{y:.4~g} at step %{x:,}<extra></extra>",
        },
        shared | {"y": low, "line": {"width": 0}, "showlegend": False, "hoverinfo": "skip"},
        shared | {"y": high, "line": {"width": 0}, "name": "5th to 95th percentile", **shade},
        shared
        | {"y": middle, "line": {"color": UNDER, "width": 2.2}, "name": "median", "hovertemplate": f"median {said}"},
        shared
        | {
            "y": top,
            "line": {"color": theme.REGION_COLORS[4], "width": 1.4, "dash": "dot"},
            "name": "99th percentile",
            "hovertemplate": f"99th percentile {said}",
        },
        {
            "type": "scatter",
            "x": spikes[0],
            "y": spikes[1],
            "mode": "markers",
            "name": "spikes",
            "marker": {"symbol": "x", "size": 7, "color": OUTSIDE},
            "hovertemplate": "spike of %{y:.4~g} at step %{x:,}<extra></extra>",
        },
    ]
    known = norm[np.isfinite(norm) & (norm > 0)]
    ends = (float(known.min()), float(known.max())) if known.size else (0.1, 1.0)
    if len(lost):
        traces.append(
            {
                "type": "scatter",
                "x": lost,
                "y": np.full(len(lost), ends[1]),
                "mode": "markers",
                "name": "not finite",
                "marker": {"symbol": "triangle-up", "size": 10, "color": theme.NEUTRAL["$ink"]},
                "hovertemplate": "not finite at step %{x:,}<extra></extra>",
            }
        )
    low_end, high_end = (float(np.log10(v)) for v in (min(ends[0], threshold), max(ends[1], threshold)))
    room = 0.05 * (high_end - low_end) or 0.2
    ticks = decades(low_end, high_end)
    layout = {
        "xaxis": {"title": {"text": "step"}},
        "yaxis": {
            "title": {"text": "gradient norm"},
            "type": "log",
            "range": [low_end - room, high_end + room],
            "tickvals": ticks,
            "ticktext": [power(tick) for tick in ticks],
        },
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"size": 11}},
        "margin": {"l": 56, "r": 12, "t": 30, "b": 48},
        "shapes": [
            {
                "type": "line",
                "x0": 0,
                "x1": 1,
                "xref": "paper",
                "y0": threshold,
                "y1": threshold,
                "line": {"color": theme.NEUTRAL["$ink"], "width": 2},
            }
        ],
        "annotations": [
            {
                "text": f"threshold {threshold:g}",
                "x": 1,
                "xref": "paper",
                "xanchor": "right",
                "y": float(np.log10(threshold)),
                "yanchor": "bottom",
                "showarrow": False,
                "font": {"size": 12, "color": theme.NEUTRAL["$ink"]},
            }
        ],
        "hovermode": "closest",
        "uirevision": "course",
    }
    return assemble(traces, layout)

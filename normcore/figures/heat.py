"""A heat map: a matrix of numbers with named rows and columns, on one scale of color."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from normcore.figures import theme
from normcore.figures.assemble import assemble

# From far below the middle to far above it; both ends differ from it in lightness, and from each other in hue.
DIVERGING = ("#1f3f7a", "#4a6fc0", "#93a8de", "#e9e7dc", "#e3a469", "#bd6427", "#7a3510")
CROWD = 24
"""How many names fit along an axis; of more, eight are shown and the pointer says the others."""

SPOKEN = 2_500
"""Up to how many cells the pointer says their names; of more, only their numbers."""

ROOM = 0.3
"""What share of its height a heat map that stands on another one leaves to the names below it."""

TEMPLATE = "row %{{y}}, column %{{x}}<br>%{{{}:.4g}}<extra></extra>"


def heat(
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str = "",
    unit: str = "",
    row_title: str = "",
    column_title: str = "",
    text: np.ndarray | None = None,
    hover: np.ndarray | None = None,
    diverging: bool = False,
    log: bool = False,
    limits: tuple[float, float] | None = None,
    square: bool = False,
    bar: bool = True,
) -> go.Figure:
    """Draw a matrix, its first row on top.

    Args:
        values: The numbers, shape (rows, columns); what is not finite stays a hole.
        rows: A name for each row.
        columns: A name for each column.
        title: What the numbers are; it stands over the color bar.
        unit: Their unit, after every number that the pointer finds.
        row_title: What the rows are.
        column_title: What the columns are.
        text: Words to stand in the cells, of the same shape; none by default.
        hover: Words for the pointer, of the same shape; by default row, column and number.
        diverging: Two hues that meet at 0 (at 1 on a logarithmic scale), instead of one from pale to dark.
        log: A logarithmic scale; numbers of at most 0 take the color of the smallest other number.
        limits: The least and the largest number of the scale, so that several maps compare; by default from `values`.
        square: Cells as high as wide.
        bar: Whether the color bar is drawn.
    """
    values = np.asarray(values, dtype=float)
    shown, low, high = _scaled(values, limits, diverging, log)
    trace: dict[str, Any] = {
        "type": "heatmap",
        "z": shown,
        "zmin": low,
        "zmax": high,
        "colorscale": colors(diverging),
        "hoverongaps": False,
        "xgap": 1 if len(columns) <= CROWD else 0,
        "ygap": 1 if len(rows) <= CROWD else 0,
        "showscale": bar,
        "colorbar": _bar(title, low, high, log),
    }
    if hover is None and values.size > SPOKEN:
        trace |= {"hovertemplate": TEMPLATE.format("customdata" if log else "z")}
        trace |= {"customdata": values} if log else {}
    else:
        words = _words(values, rows, columns, unit) if hover is None else hover
        trace |= {"hovertext": words, "hovertemplate": "%{hovertext}<extra></extra>"}
    if text is not None:
        trace |= {"text": np.asarray(text), "texttemplate": "%{text}"}
    across, down = _axis(columns, column_title), _axis(rows, row_title) | {"autorange": "reversed"}
    if square:
        across, down = across | {"constrain": "domain"}, down | {"constrain": "domain", "scaleanchor": "x"}
    margin = {"l": 8, "r": 8, "t": 12, "b": 8}
    return assemble([trace], {"xaxis": across, "yaxis": down, "margin": margin, "uirevision": "heat"})


def stacked(maps: Sequence[go.Figure]) -> go.Figure:
    """Draw heat maps one below the other, each with its own scale."""
    traces: list[dict[str, Any]] = []
    layout = maps[0].to_plotly_json()["layout"]
    share = 1 / len(maps)
    for place, figure in enumerate(maps):
        number, drawn = str(place + 1) if place else "", figure.to_plotly_json()
        bottom, top = 1 - share * (place + 1 - ROOM), 1 - share * place
        bar = {**drawn["data"][0]["colorbar"], "y": top, "yanchor": "top", "len": top - bottom}
        traces.append({**drawn["data"][0], "xaxis": f"x{number}", "yaxis": f"y{number}", "colorbar": bar})
        layout[f"xaxis{number}"] = drawn["layout"]["xaxis"] | {"anchor": f"y{number}"}
        layout[f"yaxis{number}"] = drawn["layout"]["yaxis"] | {"anchor": f"x{number}", "domain": [bottom, top]}
    return assemble(traces, layout)


def _words(values: np.ndarray, rows: Sequence[str], columns: Sequence[str], unit: str) -> list[list[str]]:
    """What the pointer says about each cell."""
    return [
        [
            f"{', '.join(filter(None, (row, column)))}<br>{number(value, unit)}"
            for column, value in zip(columns, line, strict=True)
        ]
        for row, line in zip(rows, values.tolist(), strict=True)
    ]


def colors(diverging: bool) -> list[tuple[float, str]]:
    """The color scale: pale to dark, or one hue to another."""
    if not diverging:
        return theme.sequential()
    return list(zip(np.linspace(0, 1, len(DIVERGING)).tolist(), DIVERGING, strict=True))


def number(value: float, unit: str = "") -> str:
    """A number as the pointer says it: four figures, a true minus, powers of ten written out."""
    if not np.isfinite(value):
        return "not defined"
    written = f"{value:.4g}"
    if "e" in written:
        mantissa, exponent = written.split("e")
        written = f"{mantissa} × 10<sup>{int(exponent)}</sup>"
    return f"{written} {unit}".strip().replace("-", "−")


def _scaled(
    values: np.ndarray, limits: tuple[float, float] | None, diverging: bool, log: bool
) -> tuple[np.ndarray, float, float]:
    """The numbers as the scale has them, with its ends."""
    finite = np.isfinite(values)
    shown = np.where(finite, values, np.nan)
    if log:
        positive = values[finite & (values > 0)]
        least = float(positive.min()) if positive.size else 1.0
        shown = np.log10(np.where(finite, np.maximum(values, least), np.nan))
        limits = None if limits is None else (float(np.log10(limits[0])), float(np.log10(limits[1])))
    known = shown[np.isfinite(shown)]
    low, high = limits or ((float(known.min()), float(known.max())) if known.size else (0.0, 1.0))
    if diverging:
        reach = max(abs(low), abs(high)) or 1.0
        return shown, -reach, reach
    if low == high:
        low, high = low - 0.5, high + 0.5
    return shown, low, high


def _bar(title: str, low: float, high: float, log: bool) -> dict[str, Any]:
    """The color bar, with numbers of the values, not of their logarithms."""
    found: dict[str, Any] = {
        "title": {
            "text": title,
            "side": "top",
            "font": {"family": theme.FONT, "size": 12, "color": theme.NEUTRAL["$ink"]},
        },
        "thickness": 12,
        "outlinewidth": 0,
        "tickfont": {"family": theme.NUMBER_FONT, "size": 11, "color": theme.NEUTRAL["$muted"]},
        "nticks": 6,
        "ticklabeloverflow": "allow",
    }
    if log:
        step = max(1, round((high - low) / 6))
        powers = np.arange(np.ceil(low), np.floor(high) + 1, step)
        found |= {"tickvals": powers.tolist(), "ticktext": [f"10<sup>{int(p)}</sup>".replace("-", "−") for p in powers]}
    return found


def _axis(names: Sequence[str], title: str) -> dict[str, Any]:
    """An axis with the names of as many cells as fit."""
    step = 1 if len(names) <= CROWD else -(-len(names) // 8)
    places = list(range(0, len(names), step))
    return {
        "tickvals": places,
        "ticktext": [str(names[place]) for place in places],
        "title": {"text": title},
        "showgrid": False,
        "showline": False,
        "ticks": "",
    }

"""What is the same stands out: a heat map with marked cells, and a ring of names joined where they are equal."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from normcore.figures import theme
from normcore.figures.heat import heat

MARKS = ("#13808a", "#7cc4c9")
"""The colors of cells that are the same, and of those that are the same but for something."""
NONE, SAME, NEARLY, ALIKE = range(4)
"""How two names are joined on a ring: not at all, as the same, the same but for something, or alike in one respect."""


def marked_heat(
    values: np.ndarray,
    marks: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str,
    text: np.ndarray,
    hover: np.ndarray,
    limits: tuple[float, float],
    bar: bool = True,
) -> go.Figure:
    """Draw numbers on a logarithmic scale, and flat, in colors of their own, the cells that have a mark.

    Args:
        values: The numbers, shape (rows, columns); what is not finite stays a hole.
        marks: 0 for a number, 1 for a cell that is the same, 2 for one that is the same but for something.
        rows: A name for each row.
        columns: A name for each column.
        title: What the numbers are.
        text: What stands in each cell.
        hover: What the pointer finds there.
        limits: The ends of the scale; numbers beyond them take the color of the end.
        bar: Whether the color bar is drawn.
    """
    numbers = np.where(marks == 0, values, np.nan)
    figure = heat(
        np.where(np.isfinite(numbers), np.clip(numbers, *limits), np.nan),
        rows,
        columns,
        title=title,
        log=True,
        limits=limits,
        text=np.where(marks == 0, text, ""),
        hover=np.where(marks == 0, hover, ""),
        bar=bar,
    )
    gap = figure.data[0].xgap
    for mark, color in enumerate(MARKS, 1):
        figure.add_heatmap(
            z=np.where(marks == mark, 1.0, np.nan),
            zmin=0,
            zmax=1,
            colorscale=[[0, color], [1, color]],
            showscale=False,
            text=np.where(marks == mark, text, ""),
            texttemplate="%{text}",
            hovertext=np.where(marks == mark, hover, ""),
            hovertemplate="%{hovertext}<extra></extra>",
            hoverongaps=False,
            xgap=gap,
            ygap=gap,
        )
    figure.update_traces(textfont={"family": theme.NUMBER_FONT, "size": 11})
    figure.data[1].textfont.color = "#ffffff"
    figure.data[0].colorbar.update(orientation="h", x=0, xanchor="left", y=1, yanchor="bottom", len=0.6, ypad=4)
    figure.update_xaxes(tickangle=-45)
    figure.update_layout(clickmode="event", dragmode=False)
    return figure


def ring(names: Sequence[str], joined: np.ndarray, hover: np.ndarray, said: Sequence[str]) -> go.Figure:
    """Place names on a circle and join them: `joined` (names, names) says how, `said` what the three ways mean."""
    angle = np.pi / 2 - 2 * np.pi * np.arange(len(names)) / len(names)
    x, y = np.cos(angle), np.sin(angle)
    figure = go.Figure()
    looks = {
        ALIKE: {"color": theme.NEUTRAL["$muted"], "width": 1.2, "dash": "dot"},
        NEARLY: {"color": MARKS[1], "width": 3, "dash": "dash"},
        SAME: {"color": MARKS[0], "width": 4.5},
    }
    for kind, look in looks.items():
        pairs = np.argwhere(np.triu(joined == kind, 1))
        lines = np.array([[x[i], x[j], np.nan, y[i], y[j], np.nan] for i, j in pairs]).reshape(-1, 2, 3)
        figure.add_scatter(
            x=lines[:, 0].ravel(),
            y=lines[:, 1].ravel(),
            mode="lines",
            line=look,
            name=said[kind - 1],
            showlegend=True,
            hoverinfo="skip",
            visible=True if len(pairs) else "legendonly",
        )
        middles = np.array([[(x[i] + x[j]) / 2, (y[i] + y[j]) / 2] for i, j in pairs]).reshape(-1, 2)
        figure.add_scatter(
            x=middles[:, 0],
            y=middles[:, 1],
            mode="markers",
            marker={"size": 14, "opacity": 0},
            hovertext=[hover[i, j] for i, j in pairs],
            hovertemplate="%{hovertext}<extra></extra>",
            showlegend=False,
        )
    met = np.any(np.isin(joined, (SAME, NEARLY)) & ~np.eye(len(names), dtype=bool), axis=1)
    figure.add_scatter(
        x=x,
        y=y,
        mode="markers",
        marker={"size": 9, "color": np.where(met, MARKS[0], theme.REGION_COLORS[9])},
        hoverinfo="skip",
        showlegend=False,
    )
    for name, right, up in zip(names, x, y, strict=True):
        figure.add_annotation(
            x=1.09 * right,
            y=1.09 * up,
            text=_two_lines(name),
            showarrow=False,
            xanchor="center" if abs(right) < 0.2 else "left" if right > 0 else "right",
            yanchor="bottom" if up > 0.85 else "top" if up < -0.85 else "middle",
            font={"size": 11.5, "color": theme.NEUTRAL["$ink"]},
        )
    hidden = {"visible": False, "fixedrange": True}
    figure.update_layout(
        xaxis=hidden | {"range": [-2.1, 2.1]},
        yaxis=hidden | {"range": [-1.35, 1.35], "scaleanchor": "x", "constrain": "domain"},
        legend={"orientation": "h", "x": 0.5, "xanchor": "center", "y": -0.02, "yanchor": "top", "itemclick": False},
        margin={"l": 0, "r": 0, "t": 8, "b": 8},
        dragmode=False,
    )
    return figure


def _two_lines(name: str) -> str:
    """A long name, broken where its two lines are nearest to equal."""
    breaks = [i for i, letter in enumerate(name) if letter in " -"] if len(name) > 14 else []
    if not breaks:
        return name
    at = min(breaks, key=lambda i: abs(2 * i - len(name)))
    return f"{name[:at]}{'-' if name[at] == '-' else ''}<br>{name[at + 1 :]}"


def shrinking(
    factors: Sequence[float], lengths: Sequence[Sequence[float]], names: Sequence[str], lawful: Sequence[bool]
) -> go.Figure:
    """Draw, a line a name, how long a weight's gradient is when the weight is multiplied, beside the law 1/c."""
    figure = go.Figure()
    looks = {
        True: {"color": MARKS[0], "width": 2.4},
        False: {"color": theme.REGION_COLORS[1], "width": 1.6, "dash": "dot"},
    }
    legends = {True: "output stays, gradient becomes 1/c", False: "anything else"}
    told: set[bool] = set()
    for name, values, law in sorted(zip(names, lengths, lawful, strict=True), key=lambda line: line[2]):
        figure.add_scatter(
            x=list(factors),
            y=list(values),
            mode="lines+markers",
            line=looks[law],
            marker={"size": 7, "symbol": "circle" if law else "diamond"},
            name=legends[law],
            legendgroup=str(law),
            showlegend=law not in told,
            hovertemplate=f"<b>{name}</b><br>weight × %{{x:g}}: gradient × %{{y:.4g}}<extra></extra>",
        )
        told.add(law)
    figure.add_scatter(
        x=list(factors),
        y=[1 / factor for factor in factors],
        mode="lines",
        line={"color": theme.NEUTRAL["$ink"], "width": 1, "dash": "dash"},
        name="1/c",
        hoverinfo="skip",
    )
    figure.update_layout(
        xaxis={"type": "log", "title": {"text": "Weight × c"}, "tickvals": list(factors), "tickformat": "~g"},
        yaxis={
            "type": "log",
            "title": {"text": "Its gradient, of that at c = 1"},
            "dtick": 1,
            "tickformat": "~g",
        },
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        hovermode="closest",
        margin={"l": 56, "r": 16, "t": 24, "b": 48},
    )
    return figure

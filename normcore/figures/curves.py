"""What grows or falls with a size: measured curves, what is expected beside them, and single points to compare."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from normcore.figures import theme

WHOLE = 1.1
"""Where the axis of shares ends when some are larger: a little above 1."""
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "x")


def errors(
    size: np.ndarray,
    lines: Mapping[str, np.ndarray],
    expected: Mapping[str, np.ndarray],
    points: Sequence[tuple[str, float, float]],
    titles: tuple[str, str],
) -> go.Figure:
    """Draw measured errors over the size on two logarithmic axes, what is expected dashed, and points with a name."""
    figure = go.Figure()
    for name, values in expected.items():
        figure.add_scatter(
            x=size,
            y=values,
            name=name,
            mode="lines",
            line={"color": theme.NEUTRAL["$ink"], "dash": "dash", "width": 1.6},
        )
    for (name, values), dash, color in zip(lines.items(), ("solid", "dot"), (0, 0), strict=False):
        look = {"color": theme.REGION_COLORS[color], "dash": dash, "width": 2.2 if dash == "solid" else 1.6}
        marked = "lines+markers" if dash == "solid" else "lines"
        figure.add_scatter(x=size, y=values, name=name, mode=marked, line=look, marker={"size": 6})
    figure.update_traces(hovertemplate="%{fullData.name}<br>over %{x:,} values: %{y:.3g}<extra></extra>")
    for (name, x, y), symbol, color in zip(points, SYMBOLS[1:], (1, 2, 4), strict=False):
        figure.add_scatter(
            x=[x],
            y=[y],
            name=name,
            mode="markers",
            marker={"size": 13, "symbol": symbol, "color": theme.REGION_COLORS[color], "line": {"width": 0}},
            hovertemplate=f"{name}<br>over %{{x:,}} values: %{{y:.3g}}<extra></extra>",
        )
    spread = [*size, *(x for _, x, _ in points)]
    _axes(figure, titles)
    figure.update_xaxes(type="log", tickvals=_powers(min(spread), max(spread)), tickformat=",")
    figure.update_yaxes(type="log", dtick="D2", tickformat=".3~g")
    return figure


def by_parts(
    parts: np.ndarray, lines: Mapping[str, np.ndarray], colors: Sequence[str], titles: tuple[str, str]
) -> go.Figure:
    """Draw one curve a name over a number of parts that doubles; curves that coincide are told apart by their marks.

    Shares above 1 leave the picture, and are written into it, so that the others keep their room.
    """
    figure = go.Figure()
    for place, ((name, values), color) in enumerate(zip(lines.items(), colors, strict=True)):
        figure.add_scatter(
            x=parts,
            y=values,
            name=name,
            mode="lines+markers",
            line={"color": color, "width": 2.2},
            # Where several lie at zero, the later and smaller marks leave a rim of the earlier ones.
            marker={"symbol": SYMBOLS[place % len(SYMBOLS)], "size": max(7, 16 - 3 * place)},
            cliponaxis=False,
            hovertemplate=f"{name}<br>%{{x}} parts: %{{y:.1%}}<extra></extra>",
        )
    _axes(figure, titles)
    figure.update_xaxes(type="log", tickvals=parts)
    figure.update_yaxes(tickformat=".0%", rangemode="nonnegative")
    above = [
        f"{name} at {count}: {values[place]:.0%}"
        for place, count in enumerate(parts)
        for name, values in lines.items()
        if values[place] > WHOLE
    ]
    if above:
        figure.update_yaxes(range=[0, WHOLE])
        # Curves start low: the upper left is free.
        figure.add_annotation(
            x=0.02,
            xref="paper",
            y=0.99,
            yref="paper",
            text="<br>".join(["above the picture:", *above]),
            showarrow=False,
            xanchor="left",
            yanchor="top",
            align="left",
            font_size=12,
        )
    return figure


def _axes(figure: go.Figure, titles: tuple[str, str]) -> None:
    figure.update_xaxes(title_text=titles[0])
    figure.update_yaxes(title_text=titles[1])
    figure.update_layout(
        hovermode="closest",
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        margin={"l": 56, "r": 16, "t": 24, "b": 48},
    )


def _powers(low: float, high: float) -> list[int]:
    """Powers of two that span the axis, at most ten of them."""
    first, last = int(np.floor(np.log2(low))), int(np.ceil(np.log2(high)))
    step = 1 if last - first <= 9 else 2
    return [2**power for power in range(first, last + 1, step)]

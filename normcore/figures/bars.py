"""One number a method, as bars that lie: long names stay readable, and a phone has room for them."""

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from normcore.figures import theme

ROW = 24  # pixels
AROUND = 96


@dataclass(frozen=True)
class Bar:
    """One bar: its name, what is said at its end, what a pointer reads, and the kind that gives its color."""

    name: str
    value: float | None
    label: str
    kind: str
    hover: str


def bars(entries: Sequence[Bar], kinds: Sequence[str], title: str, base: float = 0.0) -> go.Figure:
    """Draw the bars from `base` on, the first on top; a value that is missing leaves its label alone."""
    figure = go.Figure()
    for color, kind in zip(theme.REGION_COLORS, kinds, strict=False):
        members = [entry for entry in entries if entry.kind == kind]
        if members:
            figure.add_bar(
                y=[entry.name for entry in members],
                x=[(base if entry.value is None else entry.value) - base for entry in members],
                base=base,
                orientation="h",
                name=kind,
                marker={"color": color},
                text=[entry.label for entry in members],
                textposition="outside",
                textfont={"size": 11, "color": theme.NEUTRAL["$ink"]},
                cliponaxis=False,
                hovertext=[entry.hover for entry in members],
                hoverinfo="text",
            )
    known = [base if entry.value is None else entry.value for entry in entries]
    low, high = min([base, *known]), max([base, *known])
    room = 0.26 * (high - low or 1.0)  # for the labels, on a phone too
    figure.update_layout(
        xaxis={
            "title": {"text": title},
            "range": [low - (1.4 * room if low < base else 0.0), high + room],
            "nticks": 6,
        },
        yaxis={
            "categoryorder": "array",
            "categoryarray": [entry.name for entry in reversed(entries)],
            "ticks": "",
            "ticksuffix": "  ",
            "showline": False,
            "showgrid": False,
            "tickfont": {"family": theme.FONT, "size": 12, "color": theme.NEUTRAL["$ink"]},
        },
        barmode="overlay",
        bargap=0.35,
        showlegend=len({entry.kind for entry in entries}) > 1,
        legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"},
        margin={"l": 8, "r": 20, "t": 30, "b": 44},
    )
    return figure


def height(entries: Sequence[Bar]) -> int:
    """How many pixels the bars need."""
    return AROUND + ROW * max(3, len(entries))

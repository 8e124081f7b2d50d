"""The family tree: methods by year, in lanes of one kind each, with lines from what a method builds on."""

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from normcore.figures import theme

ROW = 1.0
GAP = 1.2  # between lanes
LETTER = 0.11  # years that a letter of a name takes up at the usual width


@dataclass(frozen=True)
class Entry:
    """One method in the tree."""

    key: str
    name: str
    year: int
    lane: str
    builds_on: tuple[str, ...]
    why: str


def family_tree(entries: Sequence[Entry], lanes: Sequence[str]) -> tuple[go.Figure, list[str]]:
    """Draw the tree; also give the keys of its points, in the order in which a click counts them."""
    figure = go.Figure()
    places: dict[str, tuple[float, float]] = {}
    keys: list[str] = []
    colors = dict(zip(lanes, theme.REGION_COLORS, strict=False))
    top = 0.0
    middles = []
    for lane in lanes:
        members = sorted((entry for entry in entries if entry.lane == lane), key=lambda entry: (entry.year, entry.name))
        rows: list[float] = []  # where each row of the lane is taken up to
        for entry in members:
            width = LETTER * len(entry.name) + 0.35
            row = next((i for i, end in enumerate(rows) if end <= entry.year), len(rows))
            rows[row : row + 1] = [entry.year + width]
            places[entry.key] = (entry.year, -(top + row * ROW))
        keys += [entry.key for entry in members]
        middles.append(-(top + max(0, len(rows) - 1) * ROW / 2))
        top += max(1, len(rows)) * ROW + GAP
    x: list[float | None] = []
    y: list[float | None] = []
    for entry in entries:
        for parent in entry.builds_on:
            if parent in places:
                (x0, y0), (x1, y1) = places[parent], places[entry.key]
                x += [x0, x1, None]
                y += [y0, y1, None]
    known = {entry.key: entry for entry in entries}
    shown = [known[key] for key in keys]
    figure.add_scatter(
        x=x, y=y, mode="lines", line={"color": theme.NEUTRAL["$line"], "width": 1.2}, hoverinfo="skip", showlegend=False
    )
    figure.add_scatter(
        x=[places[key][0] for key in keys],
        y=[places[key][1] for key in keys],
        mode="markers+text",
        marker={"size": 9, "color": [colors[entry.lane] for entry in shown]},
        text=[entry.name for entry in shown],
        textposition="middle right",
        textfont={"size": 12, "color": theme.NEUTRAL["$ink"]},
        hovertext=[f"<b>{entry.name}</b>, {entry.year}<br>{_wrapped(entry.why)}" for entry in shown],
        hoverinfo="text",
        showlegend=False,
    )
    figure.update_layout(
        xaxis={
            "range": [2008.5, max((e.year for e in entries), default=2025) + 2],
            "dtick": 2,
            "showgrid": True,
            "side": "top",
        },
        yaxis={
            "tickvals": middles,
            "ticktext": list(lanes),
            "range": [-top + GAP / 2, ROW],
            "showline": False,
            "showgrid": False,
        },
        dragmode="pan",
        hovermode="closest",
        margin={"l": 120, "r": 16, "t": 40, "b": 8},
    )
    return figure, keys


def _wrapped(text: str, width: int = 60) -> str:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "<br>".join(lines)

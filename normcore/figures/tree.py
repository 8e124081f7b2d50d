"""The family tree: methods by year, in lanes of one kind each, with lines from what a method builds on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from normcore.figures import theme
from normcore.figures.routes import Name, route

ROW = 1.0
GAP = 1.2  # between lanes
LETTER = 0.0064  # the share of the figure's width that a letter of a name takes up in a figure 1100 pixels wide
USUAL = 22  # years in the tree of all methods, for which the sizes in years are meant
ARROW = 0.13  # years between a point and the arrow that leads to it


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
    """Draw the tree; also give the keys of its points, which are the last trace, in the order of a click's count."""
    years = [entry.year for entry in entries]
    span = max(years) - min(years) + 2
    unit = span / USUAL
    widths = {entry.key: LETTER * span * len(entry.name) + 0.35 * unit for entry in entries}
    places: dict[str, tuple[float, float]] = {}
    colors = dict(zip(lanes, theme.REGION_COLORS, strict=False))
    top = 0.0
    middles, shown = [], []
    for lane in lanes:
        members = sorted((entry for entry in entries if entry.lane == lane), key=lambda entry: (entry.year, entry.name))
        rows: list[float] = []  # where each row of the lane is taken up to
        for entry in members:
            row = next((i for i, end in enumerate(rows) if end <= entry.year), len(rows))
            rows[row : row + 1] = [entry.year + widths[entry.key]]
            places[entry.key] = (entry.year, -(top + row * ROW))
        shown += members
        middles.append(-(top + max(0, len(rows) - 1) * ROW / 2))
        top += max(1, len(rows)) * ROW + GAP
    stop = max(*(entry.year + widths[entry.key] for entry in entries), min(years) + span - 0.5 * unit)
    figure = go.Figure()
    _lines(figure, shown, lanes, places, widths, colors, unit)
    figure.add_scatter(
        x=[places[entry.key][0] for entry in shown],
        y=[places[entry.key][1] for entry in shown],
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
            "range": [min(years) - 0.5 * unit, stop],
            "dtick": 2 if span > USUAL / 2 else 1,
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
    return figure, [entry.key for entry in shown]


def _lines(
    figure: go.Figure,
    entries: Sequence[Entry],
    lanes: Sequence[str],
    places: Mapping[str, tuple[float, float]],
    widths: Mapping[str, float],
    colors: Mapping[str, str],
    unit: float,
) -> None:
    """Draw what leads to what: a line in the color of the later method's lane, and an arrow before its point."""
    ends = {key: (x / unit, y) for key, (x, y) in places.items()}
    names = [Name(y, x - ARROW, x + widths[key] / unit - 0.25) for key, (x, y) in ends.items()]
    order = {key: i for i, key in enumerate(places)}
    led = []
    for lane in lanes:
        x: list[float | None] = []
        y: list[float | None] = []
        for entry in entries:
            parents = [key for key in entry.builds_on if key in places] if entry.lane == lane else []
            led += [entry] if parents else []
            for parent in parents:
                track = order[parent] * 0.38 % 1 - 0.5  # neighbors take tracks far from each other
                across, down = route(ends[parent], ends[entry.key], names, track)
                x += [*(at * unit for at in across), None]
                y += [*down, None]
        line = {"color": colors[lane], "width": 1.4}
        figure.add_scatter(x=x, y=y, mode="lines", line=line, opacity=0.55, hoverinfo="skip", showlegend=False)
    figure.add_scatter(
        x=[places[entry.key][0] - ARROW * unit for entry in led],
        y=[places[entry.key][1] for entry in led],
        mode="markers",
        marker={"symbol": "triangle-right", "size": 7, "color": [colors[entry.lane] for entry in led]},
        hoverinfo="skip",
        showlegend=False,
    )


def _wrapped(text: str, width: int = 60) -> str:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "<br>".join(lines)

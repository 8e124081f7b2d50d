"""A race as pictures: curves with their bands, differences to a baseline, and who stands where."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import plotly.graph_objects as go

from normcore.figures import theme
from normcore.figures.assemble import assemble
from normcore.figures.heat import heat

DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
GHOST = "#9aa0ab"
EMPTY: Mapping[str, "Sequence[Line]"] = {}
RUNAWAY = 4.0
"""How many times the first loss a curve may reach before the axis lets it go."""
LEGEND = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}
MARGIN = {"l": 56, "r": 16, "t": 24, "b": 48}


@dataclass(frozen=True)
class Line:
    """One curve: its name and color, points, band, single seeds (seeds points), and where which seed was lost."""

    name: str
    color: str
    dash: str
    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    seeds: np.ndarray
    singles: np.ndarray | None = None
    lost: Sequence[tuple[int, float, float]] = field(default_factory=tuple)


def curves(
    lines: Sequence[Line],
    titles: tuple[str, str],
    *,
    ghosts: Mapping[str, Sequence[Line]] = EMPTY,
    log: str = "",
    zero: str = "",
    limits: tuple[float, float] | None = None,
    percent: bool = False,
) -> go.Figure:
    """Draw a mean with its band for every contestant, single seeds faintly, and ✕ where one diverged.

    Args:
        lines: The contestants.
        titles: What runs across and what upwards.
        ghosts: Curves of earlier races by their names, gray and behind.
        log: Which axes are logarithmic: "", "x", "y" or "xy".
        zero: The name of a line at 0; none by default.
        limits: From where to where the axis across goes, so that it stands still while curves grow.
        percent: Whether the numbers are shares.
    """
    traces = [
        _ghost(line, name, place == 0, titles[0], percent)
        for name, race in ghosts.items()
        for place, line in enumerate(race)
    ]
    bottom = 0.0 if "y" in log else -np.inf
    traces += [_band(line, bottom) for line in lines if not np.array_equal(line.low, line.high, equal_nan=True)]
    traces += [_singles(line) for line in lines if line.singles is not None and len(line.singles) > 1]
    traces += [_mean(line, titles[0], percent) for line in lines]
    top = None if "y" in log or percent or zero else _top(lines, [line for race in ghosts.values() for line in race])
    traces += [_lost(line, titles[0], top) for line in lines if line.lost]
    # Measuring labels for a margin that stands anyway takes a fifth of the time of drawing.
    across: dict[str, Any] = {"title": {"text": titles[0]}, "automargin": False}
    upwards: dict[str, Any] = {"title": {"text": titles[1]}, "automargin": False}
    if "x" in log:
        across |= {"type": "log", "exponentformat": "power", "dtick": 1}
    elif limits:
        across |= {"range": list(limits)}
    if "y" in log:
        upwards |= {"type": "log", "dtick": "D2", "tickformat": ".3~g"}
    elif percent:
        upwards |= {"tickformat": ".0%"}
    if top is not None:
        upwards |= {"range": [0, top]}
    layout = {"hovermode": "closest", "legend": LEGEND, "margin": MARGIN, "uirevision": "race"}
    layout |= {"xaxis": across, "yaxis": upwards}
    return assemble(traces, layout | (_zero(zero) if zero else {}))


def _zero(name: str) -> dict[str, Any]:
    """A line at 0 with a name at its end."""
    look = {"color": theme.NEUTRAL["$ink"], "width": 1.2, "dash": "dash"}
    words = {"size": 11, "color": theme.NEUTRAL["$muted"]}
    place = {"x": 1, "xref": "paper", "xanchor": "right", "y": 0, "yanchor": "bottom", "showarrow": False}
    line = {"type": "line", "x0": 0, "x1": 1, "xref": "paper", "y0": 0, "y1": 0, "line": look}
    return {"shapes": [line], "annotations": [{"text": name, "font": words, **place}]}


def _top(lines: Sequence[Line], ghosts: Sequence[Line]) -> float | None:
    """Where the axis upwards ends, if some curve runs far away from the others, so that those stay readable."""
    known = [line.mean[np.isfinite(line.mean)] for line in lines]
    known = [mean for mean in known if mean.size]
    if not known:
        return None
    usual = max(min(float(mean[0]) for mean in known), min(float(np.median(mean)) for mean in known))
    most = max(float(np.nanmax(line.mean, initial=0.0)) for line in (*lines, *ghosts))
    return RUNAWAY * usual if most > RUNAWAY * usual > 0 else None


def _ghost(line: Line, race: str, first: bool, across: str, percent: bool) -> dict[str, Any]:
    return {
        "type": "scatter",
        "x": line.x,
        "y": line.mean,
        "name": race,
        "legendgroup": race,
        "showlegend": first,
        "mode": "lines",
        "line": {"color": GHOST, "width": 1.4, "dash": line.dash},
        "hovertemplate": f"{line.name}, {race}<br>{_spoken('y', percent)} at {across} %{{x:,.4~g}}<extra></extra>",
    }


def _spoken(what: str, percent: bool) -> str:
    return f"%{{{what}:.1%}}" if percent else f"%{{{what}:.4~g}}"


def _mean(line: Line, across: str, percent: bool) -> dict[str, Any]:
    """The thick curve, which speaks for its contestant."""
    low, high = (_spoken(f"customdata[{place}]", percent) for place in (0, 1))
    return {
        "type": "scatter",
        "x": line.x,
        "y": line.mean,
        "name": line.name,
        "legendgroup": line.name,
        "mode": "lines" if len(line.x) > 1 else "markers",
        "line": {"color": line.color, "width": 2.4, "dash": line.dash},
        "marker": {"color": line.color, "size": 7},
        "customdata": np.stack([line.low, line.high, line.seeds], -1).astype(np.float32),
        "hovertemplate": f"<b>{line.name}</b>: {_spoken('y', percent)}<br>band {low} to {high}, N = %{{customdata[2]}}"
        f"<br>{across} %{{x:,.4~g}}<extra></extra>",
    }


def _band(line: Line, bottom: float) -> dict[str, Any]:
    """From low to high, as one outline that the legend counts to the mean's; nothing where it reaches `bottom`."""
    red, green, blue = (int(line.color[i : i + 2], 16) for i in (1, 3, 5))
    known = np.isfinite(line.high) & (line.low > bottom)
    there, back = np.flatnonzero(known), np.flatnonzero(known)[::-1]
    return {
        "type": "scatter",
        "x": line.x[np.concatenate([there, back])],
        "y": np.concatenate([line.low[there], line.high[back]]),
        "legendgroup": line.name,
        "showlegend": False,
        "mode": "lines",
        "line": {"width": 0, "color": line.color},
        "fill": "toself",
        "fillcolor": f"rgba({red}, {green}, {blue}, 0.16)",
        "hoverinfo": "skip",
    }


def _singles(line: Line) -> dict[str, Any]:
    """All seeds as one faint trace, with a hole between any two."""
    assert line.singles is not None
    gap = np.full((len(line.singles), 1), np.nan)
    return {
        "type": "scatter",
        "x": np.concatenate([np.broadcast_to(line.x, line.singles.shape), gap], 1).ravel().astype(np.float32),
        "y": np.concatenate([line.singles, gap], 1).ravel().astype(np.float32),
        "legendgroup": line.name,
        "showlegend": False,
        "mode": "lines",
        "line": {"color": line.color, "width": 0.8},
        "opacity": 0.35,
        "hoverinfo": "skip",
    }


def _lost(line: Line, across: str, top: float | None) -> dict[str, Any]:
    """A cross where a seed diverged, at its last finite loss, or at the upper end of the axis if that is beyond."""
    known = line.mean[np.isfinite(line.mean)]
    spare = float(known.max()) if known.size else 1.0
    heights = [y if np.isfinite(y) else spare for _, _, y in line.lost]
    said = [f"<b>{line.name}</b><br>seed {seed} diverged after {across} {x:,.4g}" for seed, x, _ in line.lost]
    return {
        "type": "scatter",
        "x": [x for _, x, _ in line.lost],
        "y": heights if top is None else [min(y, top) for y in heights],
        "legendgroup": line.name,
        "name": line.name,
        "showlegend": not known.size,
        "mode": "markers",
        "marker": {
            "symbol": "x",
            "size": 11,
            "color": line.color,
            "line": {"width": 1, "color": theme.NEUTRAL["$ink"]},
        },
        "hovertext": said,
        "hovertemplate": "%{hovertext}<extra></extra>",
        "cliponaxis": False,
    }


def standings(
    names: Sequence[str],
    colors: Sequence[str],
    values: np.ndarray,
    intervals: np.ndarray,
    words: Sequence[str],
    title: str,
) -> go.Figure:
    """Draw who stands where: one bar a contestant from the best on top, with its confidence interval.

    Args:
        names: The contestants.
        colors: A color for each.
        values: A number for each; one that is missing has no bar.
        intervals: The half width of each interval; nan for none.
        words: What the pointer says of each.
        title: What the number is.
    """
    order = np.argsort(np.where(np.isfinite(values), values, np.inf), kind="stable")
    bars, ink = [], {"color": theme.NEUTRAL["$ink"]}
    for i in order:
        reach = float(intervals[i]) if np.isfinite(intervals[i]) else 0.0
        there = np.isfinite(values[i])
        bars.append(
            {
                "type": "bar",
                "x": [float(values[i]) if there else 0.0],
                "y": [names[i]],
                "orientation": "h",
                "marker": {"color": colors[i], "opacity": 0.85},
                "error_x": {"type": "data", "array": [reach], "thickness": 1.6, "width": 5} | ink,
                "text": [f"{values[i]:.4g}" + (f" ± {reach:.1g}" if reach else "") if there else "diverged ✕"],
                # Inside the bar at its foot: the interval at its end stays free.
                "textposition": "inside" if there else "outside",
                "insidetextanchor": "start",
                "insidetextfont": {"color": theme.readable_on(colors[i])},
                "cliponaxis": False,
                "hovertext": [words[i]],
                "hovertemplate": "%{hovertext}<extra></extra>",
            }
        )
    across = {"title": {"text": title}, "rangemode": "tozero", "nticks": 6}
    upwards = {
        "categoryorder": "array",
        "categoryarray": [names[i] for i in order[::-1]],
        "ticks": "",
        "ticksuffix": "  ",
        "showline": False,
        "showgrid": False,
        "tickfont": {"family": theme.FONT, "size": 12, "color": theme.NEUTRAL["$ink"]},
    }
    margin = {"l": 8, "r": 20, "t": 12, "b": 44}
    look = {"bargap": 0.3, "showlegend": False, "margin": margin, "uirevision": "standings"}
    return assemble(bars, look | {"xaxis": across, "yaxis": upwards})


def layers(
    rows: Sequence[tuple[str, str]],
    step: np.ndarray,
    values: np.ndarray,
    title: str,
    *,
    diverging: bool = False,
) -> go.Figure:
    """Draw a number for every layer of every contestant over the steps; a line parts the contestants.

    The scale is logarithmic, or has two hues that meet at 0; what is far beyond nearly all has the color of its end.
    """
    known = np.abs(values[np.isfinite(values)])
    reach = float(np.quantile(known, 0.98)) if known.size else 1.0
    names = [f"{contestant} · {layer}" for contestant, layer in rows]
    figure = heat(
        values,
        names,
        [f"{at:,}" for at in step],
        title=title,
        column_title="step",
        log=not diverging,
        diverging=diverging,
        limits=(-reach, reach) if diverging else None,
    )
    for i in range(1, len(rows)):
        if rows[i][0] != rows[i - 1][0]:
            figure.add_hline(i - 0.5, line={"color": theme.NEUTRAL["$ink"], "width": 1.5})
    return figure


def strip(
    mean: np.ndarray,
    lost: np.ndarray,
    seeds: int,
    done: int,
    labels: Sequence[str],
    values: Sequence[str],
    knob: str,
) -> go.Figure:
    """Draw final losses (contestants values) as a heat map; ✕ and a number stand where seeds diverged.

    Args:
        mean: Mean loss over the seeds that came through; nan for none.
        lost: How many diverged.
        seeds: How many there are.
        done: How many columns have been raced.
        labels: The contestants.
        values: The knob's values.
        knob: What it is.
    """
    text, hover = np.full(mean.shape, "", dtype=object), np.full(mean.shape, "", dtype=object)
    for i, j in np.ndindex(*mean.shape):
        told = f"loss {mean[i, j]:.4g}" if np.isfinite(mean[i, j]) else "no loss"
        gone = f"{lost[i, j]} of {seeds} seeds diverged"
        if j < done:
            cross = f"✕ {lost[i, j]}" if lost[i, j] else ""
            number = f"{mean[i, j]:.2g}" if np.isfinite(mean[i, j]) else ""
            text[i, j] = "<br>".join(filter(None, (number, cross)))
            hover[i, j] = f"<b>{labels[i]}</b>, {knob} {values[j]}<br>{told}<br>{gone}"
        else:
            hover[i, j] = f"<b>{labels[i]}</b>, {knob} {values[j]}<br>yet to come"
    known = mean[np.isfinite(mean)]
    # What diverged as a whole has no color; its cross stands on the bare ground.
    figure = heat(
        mean,
        labels,
        values,
        title="final loss",
        column_title=knob,
        hover=hover,
        log=bool(known.size and known.min() > 0 and known.max() > 10 * known.min()),
    )
    for i, j in np.ndindex(*mean.shape):
        if text[i, j]:
            bare = not np.isfinite(mean[i, j])
            color = theme.NEUTRAL["$ink"] if bare else _readable(figure, i, j)
            figure.add_annotation(x=j, y=i, text=text[i, j], showarrow=False, font={"size": 12, "color": color})
    return figure


def _readable(figure: go.Figure, row: int, column: int) -> str:
    """Dark on pale cells, light on dark ones."""
    trace = figure.data[0]
    share = (trace.z[row][column] - trace.zmin) / (trace.zmax - trace.zmin)
    return "#1d2129" if share < 0.5 else "#ffffff"

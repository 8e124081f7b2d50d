"""The one plot component of the app: every figure, flat or in space, still or live, goes through `plot`."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
import plotly.io
import streamlit as st
from plotly.io.json import to_json_plotly

from explorer import serving
from normcore.figures import theme
from normcore.figures.blocks import Blocks, wire

# Streamlit sends a component's script along with every change, so this one only fetches the real script once.
_STUB = f"""
const module = import(new URL("plot/{serving.version()}/plot.js", document.baseURI).href);
export default async (component) => (await module).default(component);
"""
# The browser brings its own template; checking Plotly's for every figure takes longer than the rest of the figure.
plotly.io.templates.default = None
_component = st.components.v2.component("normcore_plot", js=_STUB, isolate_styles=False)


@dataclass(frozen=True)
class Pick:
    """What a visitor clicked on: a cell of a block picture or (row, column, 0) of a heat map, or a point of a trace."""

    cell: tuple[int, int, int] | None
    trace: int
    point: int


@dataclass(frozen=True)
class Live:
    """New points for a plot that grows: the browser appends them to what it has.

    `start` is the number of points that came before, in every trace. If the browser has fewer, it says so and `plot`
    answers the next run with `missing`; if it has more, it skips what it knows. A new `run` starts from nothing.
    """

    run: str
    start: int
    x: Sequence[Sequence[float]]  # one sequence a trace, for the first traces of the figure
    y: Sequence[Sequence[float]]


def plot(
    figure: go.Figure | Blocks,
    *,
    key: str,
    alt: str,
    height: int = 440,
    camera_group: str | None = None,
    live: Live | None = None,
    on_pick: Callable[[], None] | None = None,
) -> Pick | None:
    """Show a figure that keeps its camera, zoom and legend through every change, and say what was just clicked.

    A click is returned in exactly one run, the one that it causes; inside `on_pick`, ask `picked`.
    Plots with the same `camera_group` are always seen from the same side.
    """
    data: dict[str, Any] = {"alt": alt, "height": height}
    if isinstance(figure, Blocks):
        data["blocks"] = wire(figure)
    else:
        drawn = figure.to_plotly_json()
        drawn["layout"]["template"] = {}  # the browser brings its own, which knows light and dark
        data["figure"] = theme.follow(to_json_plotly(drawn))
    if camera_group is not None:
        data["group"] = camera_group
    if live is not None:
        data["live"] = {"run": live.run, "start": live.start, "x": _finite(live.x), "y": _finite(live.y)}
    result = _component(
        key=key,
        data=data,
        height=height,
        on_pick_change=on_pick or _nothing,
        on_have_change=_nothing,
    )
    return _pick(result.pick)


def picked(key: str) -> Pick | None:
    """Say, inside the `on_pick` of the plot with this key, what was clicked."""
    return _pick(_state(key).get("pick"))


def missing(key: str, run: str) -> int | None:
    """Say from which point on the browser asks for the points of a run again, if it does."""
    have = _state(key).get("have")
    if not isinstance(have, Mapping) or have.get("run") != run:
        return None
    count = have.get("count")
    return count if isinstance(count, int) and count >= 0 else None


def _state(key: str) -> Mapping[str, Any]:
    state = st.session_state.get(key)
    return state if isinstance(state, Mapping) else {}


def _pick(sent: Any) -> Pick | None:
    """Read a click; anything that is not one, whoever sent it, is no click."""
    if not isinstance(sent, Mapping):
        return None
    trace, point, cell = sent.get("trace"), sent.get("point"), sent.get("cell")
    if not (isinstance(trace, int) and isinstance(point, int)):
        return None
    if cell is None:
        return Pick(None, trace, point)
    if not isinstance(cell, list) or len(cell) != 3 or not all(isinstance(index, int) and index >= 0 for index in cell):
        return None
    return Pick((cell[0], cell[1], cell[2]), trace, point)


def _finite(series: Sequence[Sequence[float]]) -> list[list[float | None]]:
    """Write what is not a number as a hole, for JSON knows no other word for it."""
    return [[float(value) if math.isfinite(value) else None for value in values] for values in series]


def _nothing() -> None:
    pass

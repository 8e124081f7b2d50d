"""The Clipping page's second tab: descents with and without clipping, rolling over a tiny recurrent net's cliff."""

from collections.abc import Sequence
from typing import Any

import streamlit as st

from explorer import controls
from explorer.cliff_words import happened, numbers, track
from explorer.clipping_setup import THRESHOLDS, Setup, setup
from explorer.plot import picked, plot
from explorer.vector_view import RAW, colors, nearest
from normcore import NormcoreError
from normcore.figures import cliff as figures
from normcore.lab import cliff as lab
from normcore.lab.cliff import Descent, Surface
from normcore.lab.vectors import Variant

TICK = 0.35
"""Seconds from one picture of a rolling descent to the next."""
SPEEDS = {"one step": 1, "two steps": 2, "five steps": 5}
W, B = (tuple(round(low + 0.05 * i, 2) for i in range(count)) for low, count in ((0.0, 161), (-5.0, 121)))
LANDS = {
    "close up": ((4.0, 5.4), (-3.0, -1.6)),
    "the cliff": ((3.5, 6.5), (-4.0, -1.0)),
    "the land around": ((0.0, 8.0), (-5.0, 1.0)),
}
PRESETS: dict[str, dict[str, Any]] = {
    "Over the edge": {"w": 5.0, "b": -2.2, "step_size": 2.0, "cliff_at": 0.05, "land": "close up"},
    "Along the valley": {"w": 6.0, "b": -2.5, "step_size": 1.0, "cliff_at": 0.1, "land": "the cliff"},
    "Against the wall": {"w": 4.5, "b": -2.6, "step_size": 0.5, "cliff_at": 0.1, "land": "close up"},
    "Long steps": {"w": 5.5, "b": -2.2, "step_size": 5.0, "cliff_at": 0.02, "land": "the land around"},
}


def cliff() -> None:
    """The controls, the land with the paths on it, what happened, and all of it as numbers."""
    here = setup(alone=False)
    with st.sidebar:
        steps = controls.select("Steps", (10, 20, 40, 80, 160), "descent_steps", 40)
        borders = LANDS[controls.choose("Shown", list(LANDS), "land")]
    st.markdown(
        "A recurrent net of one unit, $x_t = w\\,\\sigma(x_{t-1}) + b$ from $x_0 = 0.5$, shall end near 0.7 after "
        "fifty steps: its loss is $(\\sigma(x_{50}) - 0.7)^2$. Over $w$ and $b$ that is a valley at the foot of a wall."
    )
    controls.presets(PRESETS)
    places = st.columns(4, gap="medium")
    with places[0]:
        w = controls.select("Start, w", W, "w", 5.0, "{:g}".format)
    with places[1]:
        b = controls.select("Start, b", B, "b", -2.2, "{:g}".format)
    with places[2]:
        rate = controls.select("Step size", (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0), "step_size", 2.0, "{:g}".format)
    with places[3]:
        threshold = controls.select("Threshold", THRESHOLDS, "cliff_at", 0.05, "{:g}".format)
    paths, keys = _paths(here, threshold, (w, b), rate, steps)
    land = _land(*borders)
    rolling = bool(st.session_state.get("_rolling"))
    st.fragment(_look, run_every=TICK if rolling else None)(paths, _colors(keys), land, steps, rolling)
    numbers(paths, land)


@st.cache_data(max_entries=8, show_spinner=False)
def _land(w: tuple[float, float], b: tuple[float, float]) -> Surface:
    return lab.surface(w, b, 61)


@st.cache_data(max_entries=512, show_spinner=False)
def _path(
    key: str | None, settings: tuple[Any, ...], start: tuple[float, float], rate: float, steps: int, parts: str
) -> Descent:
    return lab.descend(Variant(key, dict(settings)) if key else None, start, rate, steps, parts)


def _paths(
    here: Setup, threshold: float, start: tuple[float, float], rate: float, steps: int
) -> tuple[list[Descent], list[str]]:
    """The path without clipping and one for each variant; one that refuses gets its sentence."""
    paths, keys = [_path(None, (), start, rate, steps, here.parts)], [""]
    for variant in here.variants(threshold):
        try:
            paths.append(_path(variant.key, tuple(variant.settings.items()), start, rate, steps, here.parts))
            keys.append(variant.key)
        except NormcoreError as error:
            st.warning(f"{error}.", icon=":material/block:")
    return paths, keys


def _colors(keys: Sequence[str]) -> list[str]:
    chosen = colors([key for key in keys if key])
    return [chosen.get(key, RAW) for key in keys]


def _look(paths: list[Descent], paints: list[str], land: Surface, steps: int, ticking: bool) -> None:
    """One picture of the descents. The timer is this fragment's own, so that no other change is lost to it."""
    shown = f"until_{steps}"
    if ticking and st.session_state.get("_rolling"):
        _advance(shown, steps, SPEEDS.get(str(st.session_state.get("pace")), 1))
    until = _buttons(shown, steps)
    cut = [path.until(until) for path in paths]
    tracks = [track(path, paint, land) for path, paint in zip(cut, paints, strict=True)]
    words = " ".join(happened(path, land, until).replace("*", "") for path in cut)
    space, above = st.columns([6, 5], gap="medium")
    with space:
        in_space = plot(
            figures.in_space(land.w, land.b, land.loss, tracks),
            key="cliff",
            alt=f"The loss over w and b in space, with {len(cut)} descents after {until} of {steps} steps. {words}",
            height=440,
            on_pick=_start_in_space,
        )
    with above:
        on_map = plot(
            figures.from_above(land.w, land.b, land.loss, tracks),
            key="map",
            alt=f"The same from above. {words}",
            height=440,
            on_pick=_start_on_map,
        )
    st.caption("Click on the land, here or there, to start from that place.")
    st.markdown("\n".join(f"- {happened(path, land, until)}" for path in cut))
    plot(
        figures.over_steps(tracks, steps),
        key="losses",
        alt=f"Loss against step, on a logarithmic scale, after {until} of {steps} steps: "
        + "; ".join(f"{path.label} {path.loss[-1]:.3g}" for path in cut),
        height=340,
    )
    if in_space or on_map or bool(st.session_state.get("_rolling")) != ticking:
        st.rerun()  # at the end, so that a click is answered before the page begins anew


def _buttons(shown: str, steps: int) -> int:
    """Play, pause, step, reset, how fast; the step that is shown."""
    rolling = bool(st.session_state.get("_rolling"))
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        places = [st.container(width="content") for _ in range(3)]
        with st.container(width=150):
            controls.pick("Every look", list(SPEEDS), "pace", "one step")
        with st.container(width=320):
            until = int(controls.select("Shown up to step", range(steps + 1), shown, steps))
    with places[0]:
        # Pause has a key of its own, as on the Race page.
        label, key, icon = ("Pause", "stand", "pause") if rolling else ("Roll", "roll", "play_arrow")
        asked = (not rolling, shown, steps)
        st.button(label, on_click=_roll, args=asked, key=key, type="primary", icon=f":material/{icon}:")
    with places[1]:
        stuck = rolling or until == steps
        asked_one = (shown, steps, 1)
        st.button(
            "Step", on_click=_advance, args=asked_one, key="one_step", icon=":material/skip_next:", disabled=stuck
        )
    with places[2]:
        st.button("Reset", on_click=_reset, args=(shown,), key="roll_reset", icon=":material/replay:")
    return until


def _roll(on: bool, shown: str, steps: int) -> None:
    """Begin to roll, from the start where all is shown already; or stand."""
    st.session_state["_rolling"] = on
    if on and st.session_state.get(shown, steps) >= steps:
        controls.put(**{shown: 0})


def _advance(shown: str, steps: int, by: int) -> None:
    """Some steps on; at the end it stands."""
    reached = min(steps, int(st.session_state.get(shown, steps)) + by)
    controls.put(**{shown: reached})
    if reached == steps:
        st.session_state["_rolling"] = False


def _reset(shown: str) -> None:
    controls.put(**{shown: 0})
    st.session_state["_rolling"] = False


def _start_in_space() -> None:
    _start("cliff")


def _start_on_map() -> None:
    _start("map")


def _start(key: str) -> None:
    """After a click on the land: the descents start there."""
    click = picked(key)
    if click and click.cell:
        land = _land(*LANDS[str(st.session_state.get("land", next(iter(LANDS))))])
        row, column = (min(index, len(land.w) - 1) for index in click.cell[:2])
        controls.put(w=nearest(W, land.w[column]), b=nearest(B, land.b[row]))

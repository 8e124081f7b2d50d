"""The Race page while it runs: its buttons, its curves, who stands where, and what it came to."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import streamlit as st

from explorer import controls, race_buttons, race_strip, race_tabs, race_words
from explorer.desk import Desk
from explorer.plot import plot
from explorer.race_setup import Setup
from explorer.runner import State
from normcore.figures.race import standings
from normcore.lab.results import Results, course, sentences
from normcore.lab.strips import StripResults

TICK = 0.2
"""Seconds from one look at a running race to the next."""
ENOUGH = 10
"""Steps before a verdict means anything."""


@st.cache_resource(scope="session", max_entries=1, on_release=Desk.close, show_spinner=False)
def desk() -> Desk:
    """What this visitor has on the server; it ends with the visit."""
    return Desk()


def live(setup: Setup) -> None:
    """The race, looked at again and again only while it goes on; its buttons change when it begins and ends."""
    mine = desk()
    state = mine.runner.state() if mine.runner else State("ready", 0, setup.steps)
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        race_buttons.buttons(setup, mine, state)
        how = None if _is_strip(setup, state) else race_tabs.drawing()
    if how is not None:
        how = replace(how, view=race_tabs.view())
    race_buttons.live(mine, TICK, partial(_look, setup, mine, how), state)


def _is_strip(setup: Setup, state: State) -> bool:
    return setup.strip if state.results is None else isinstance(state.results, StripResults)


def _look(setup: Setup, mine: Desk, how: race_tabs.Drawing | None) -> State:
    state = mine.runner.state() if mine.runner else State("ready", 0, setup.steps)
    race_buttons.status(setup, mine, state)
    if how is None:
        race_strip.show(state.results if isinstance(state.results, StripResults) else None, state)
    else:
        results = state.results if isinstance(state.results, Results) else None
        labels, keys = (setup.labels, setup.keys) if results is None else (results.labels, _keys(results))
        _race(race_tabs.Look(results, labels, keys, state, mine.kept), how, mine.readable(state))
    return state


def _race(look: race_tabs.Look, how: race_tabs.Drawing, judged: Results | None) -> None:
    """A race of its own, and who stands where beside it."""
    left, right = st.columns([7, 4], gap="large")
    if st.session_state.get("against") not in look.labels:  # other contestants; the box itself shows the new one
        st.session_state.pop("against", None)
    with right:
        baseline = look.labels.index(controls.pick("Compared with", look.labels, "against", look.labels[0]))
        standing(judged, race_tabs.colors(look.keys), baseline, look.state)
    with left:
        race_tabs.show(look, how, baseline)


def _keys(results: Results) -> tuple[str, ...]:
    return tuple(str(one["norm"] or "none") for one in results.race["contestants"])


def standing(results: Results | None, colors: Sequence[str], baseline: int, state: State) -> None:
    """Who stands where, with intervals, and the verdict in words."""
    if results is None or results.loss.shape[-1] < ENOUGH:
        st.caption("The standings come with the first steps.")
        return
    rows = results.summary(baseline)
    late = results.loss.shape[-1] - results.late.start
    words = [
        f"<b>{row.label}</b><br>loss {row.final:.4g} ± {row.interval:.2g} over {row.seeds} seeds, "
        f"{row.diverged} diverged<br>held out: loss {row.held_loss:.4g}"
        f"<br>{1e3 * row.seconds_per_step:.3g} ms a step, {row.parameters:,} parameters"
        for row in rows
    ]
    said = "; ".join(
        f"{row.label} {row.final:.4g}" + (f" ± {row.interval:.2g}" if np.isfinite(row.interval) else "") for row in rows
    )
    plot(
        standings(
            results.labels,
            colors,
            np.array([row.final for row in rows]),
            np.array([row.interval for row in rows]),
            words,
            f"mean loss of the last {late:,} steps",
        ),
        key="standings",
        alt=f"Mean training loss of the last {late:,} steps with its 95 % confidence interval: {said}.",
        height=90 + 38 * len(rows),
    )
    st.markdown("**So far**" if state.phase != "finished" else "**The verdict**")
    for sentence in sentences(rows, baseline):
        st.markdown(f"- {sentence}")
    if way := course(rows):
        st.markdown(f"- {way}")
    for row in rows:
        if row.diverged:
            st.markdown(f"- {row.label} diverged on {row.diverged} of {len(results.seeds)} seeds.")
    pairs = sorted({row.pairs for i, row in enumerate(rows) if i != baseline} or {rows[baseline].seeds})
    known = f"{pairs[0]}" if len(pairs) == 1 else f"{pairs[0]} to {pairs[-1]}"
    st.caption(
        f"All {race_words.fair(results.race['contestants'])}; differences are paired seed by seed, N = {known}, "
        "± is half a 95 % confidence interval."
    )
    if how := race_words.starts(results):
        st.caption(how)

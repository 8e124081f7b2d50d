"""The Race page while it runs: its buttons, its curves, who stands where, and what it came to."""

from functools import partial

import numpy as np
import streamlit as st

from explorer import controls, race_strip, race_tabs
from explorer.plot import plot
from explorer.race_setup import Setup
from explorer.runner import Desk, Runner, State
from explorer.turns import SEATS
from normcore.figures.race import standings
from normcore.lab.results import Results
from normcore.lab.strips import StripResults

TICK = 0.2
"""Seconds from one look at a running race to the next."""
SPEEDS = {"full speed": 0.0, "100 steps a second": 100.0, "10 steps a second": 10.0, "1 step a second": 1.0}
ENOUGH = 10
"""Steps before a verdict means anything."""


@st.cache_resource(scope="session", max_entries=1, on_release=Desk.close, show_spinner=False)
def desk() -> Desk:
    """What this visitor has on the server; it ends with the visit."""
    return Desk()


def live(setup: Setup) -> None:
    """The race, looked at again and again only while it goes on."""
    runner = desk().runner
    ticking = runner is not None and runner.state().going
    st.fragment(_look, run_every=TICK if ticking else None)(setup, ticking)


def _look(setup: Setup, ticking: bool) -> None:
    """One look. The timer is this fragment's own, so that no other change is lost to it."""
    mine = desk()
    if mine.runner is not None:
        mine.runner.set_speed(SPEEDS.get(str(st.session_state.get("speed")), 0.0))
        mine.runner.beat()
    state = mine.runner.state() if mine.runner else State("ready", 0, setup.steps)
    same = mine.runner is not None and mine.made_from == setup.text
    found: Results | StripResults | None = state.results
    strip = setup.strip if found is None else isinstance(found, StripResults)
    results = found if isinstance(found, Results) else None
    labels, keys = (setup.labels, setup.keys) if results is None else (results.labels, _keys(results))
    look = race_tabs.Look(results, labels, keys, state, mine.kept)
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        _buttons(setup, mine, state, same)
        how = None if strip else race_tabs.drawing(look)
    _status(setup, state, same or mine.runner is None)
    if how is None:
        race_strip.show(found if isinstance(found, StripResults) else None, state)
    else:
        _race(look, how)
    if state.going != ticking:
        st.rerun()  # at the end, so that a click is answered before the page begins anew


def _race(look: race_tabs.Look, how: race_tabs.Drawing) -> None:
    """A race of its own: the tabs, and who stands where beside them."""
    left, right = st.columns([7, 4], gap="large")
    with right:
        baseline = look.labels.index(controls.pick("Compared with", look.labels, "against", look.labels[0]))
        _standing(look.results, look.keys, baseline, look.state)
    with left:
        race_tabs.show(look, how, baseline)


def _keys(results: Results) -> tuple[str, ...]:
    return tuple(str(one["norm"] or "none") for one in results.race["contestants"])


def _buttons(setup: Setup, mine: Desk, state: State, same: bool) -> None:
    """Play, pause, step, reset, keep; and how fast."""
    over = same and state.phase in ("finished", "broken off")
    if state.going:
        st.button("Pause", on_click=_pause, key="go", type="primary", icon=":material/pause:")
    else:
        label = "Go on" if same and state.phase == "paused" else "Start"
        stuck = over or bool(setup.problem and not same)
        st.button(
            label,
            on_click=partial(_play, setup, None),
            key="go",
            type="primary",
            icon=":material/play_arrow:",
            disabled=stuck,
            help="This race is over; change something, or reset it." if over else None,
        )
    blocked = state.going or over or bool(setup.problem and not same)
    st.button("Step", on_click=partial(_play, setup, 1), key="one", icon=":material/skip_next:", disabled=blocked)
    st.button("Reset", on_click=_reset, key="reset", icon=":material/replay:", disabled=mine.runner is None)
    kept = any(old is state.results for _, old in mine.kept)
    idle = not isinstance(state.results, Results) or state.going or kept
    st.button(
        "Keep",
        on_click=_keep,
        key="keep",
        icon=":material/keep:",
        disabled=idle,
        help="Its curves stay, gray, behind those of the next races; three races at most.",
    )
    if mine.kept:
        st.button("Forget", on_click=_forget, key="forget", icon=":material/keep_off:")
    with st.container(width=190):
        controls.pick("Speed", list(SPEEDS), "speed", "full speed")


def _play(setup: Setup, steps: int | None) -> None:
    mine = desk()
    runner: Runner | None = mine.runner
    if runner is None or mine.made_from != setup.text:
        runner = mine.begin(setup.text, setup.make, setup.steps)
    if steps is None:
        runner.play()
    else:
        runner.advance(steps)


def _pause() -> None:
    runner = desk().runner
    if runner is not None:
        runner.pause()


def _reset() -> None:
    mine = desk()
    mine.close()
    mine.runner = None


def _keep() -> None:
    mine = desk()
    if mine.runner is not None and (results := mine.runner.state().results) is not None:
        mine.number += 1
        mine.keep(f"race {mine.number}", results)


def _forget() -> None:
    desk().kept = []


def _status(setup: Setup, state: State, same: bool) -> None:
    """Where the race is, and what stands in its way."""
    pace = ""
    if isinstance(state.results, Results):
        pace = f" · {1e3 * float(state.results.seconds.sum()):.3g} ms a step"
    if state.phase == "waiting":
        told = f"{SEATS} races compute at once; {state.place - 1} wait before yours: it is number {state.place} in line"
    else:
        told = f"{state.phase.capitalize()} · step {state.step:,} of {state.steps:,}{pace}"
    st.progress(min(1.0, state.step / state.steps), text=told)
    if state.sentence:
        st.warning(state.sentence, icon=":material/warning:")
    if setup.problem:
        st.warning(setup.problem, icon=":material/block:")
    else:
        before = "" if same else "**Below is the race before your change.** Start races what is set up now: "
        st.caption(before + setup.weight)


def _standing(results: Results | None, keys: tuple[str, ...], baseline: int, state: State) -> None:
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
            race_tabs.colors(keys),
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
    for sentence in results.verdict(baseline):
        st.markdown(f"- {sentence}")
    for row in rows:
        if row.diverged:
            st.markdown(f"- {row.label} diverged on {row.diverged} of {len(results.seeds)} seeds.")
    st.caption(
        f"Same first weights and same batches for all; differences are paired seed by seed, N = {len(results.seeds)}, "
        "± is half a 95 % confidence interval."
    )

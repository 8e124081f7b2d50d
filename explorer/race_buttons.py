"""What drives a race on a page: play, pause, step, reset, keep and speed, and the line that says where it is."""

from collections.abc import Callable
from functools import partial
from typing import Protocol

import streamlit as st

from explorer import controls
from explorer.courtesy import COURTESY
from explorer.desk import Desk
from explorer.runner import Racing, State
from explorer.turns import SEATS
from normcore.lab.results import Results

SPEEDS = {"full speed": 0.0, "100 steps a second": 100.0, "10 steps a second": 10.0, "1 step a second": 1.0}


class Raced(Protocol):
    """What is to be raced: told as text, how many steps, what it weighs, and what stands in its way, if anything."""

    @property
    def text(self) -> str: ...
    @property
    def steps(self) -> int: ...
    @property
    def weight(self) -> str: ...
    @property
    def problem(self) -> str: ...
    @property
    def make(self) -> Callable[[], Racing]: ...


def live(mine: Desk, tick: float, look: Callable[[], State], shown: State | None = None) -> None:
    """What is at hand, looked at every `tick` seconds while it goes on; `look` draws it and returns how it stood.

    `shown` is how it stood when its buttons were drawn, if those are not part of the look: they are drawn anew when it
    no longer stands so. The timer is the fragment's own, so that no other change is lost to it.
    """
    now = shown or (mine.runner.state() if mine.runner else None)
    ticking = now is not None and now.changing
    st.fragment(_look, run_every=tick if ticking else None)(mine, ticking, look)


@COURTESY.looking()
def _look(mine: Desk, ticking: bool, look: Callable[[], State]) -> None:
    if mine.runner is not None:
        mine.runner.set_speed(_speed())
        mine.runner.beat()
    if look().changing != ticking:
        st.rerun()  # at the end, so that a click is answered before the page begins anew


def _speed() -> float:
    return SPEEDS.get(str(st.session_state.get("speed")), 0.0)


def start(
    setup: Raced, mine: Desk, state: State, begin: Callable[[], None], before: str = "", help_when_over: str = ""
) -> bool:
    """The button that begins a race, goes on with it or pauses it; says whether there is nothing to begin now.

    Pause has a key of its own: while a timer ticks, the browser may send a click twice, and the second time whatever
    stands under its key by then would be pressed. `before` comes before the keys.
    """
    if state.going:
        st.button(
            "Pause", on_click=partial(_pause, mine), key=f"{before}pause", type="primary", icon=":material/pause:"
        )
        return True
    same = is_same(setup, mine)
    over = same and state.over
    stuck = over or bool(setup.problem and not same)
    st.button(
        "Go on" if same and state.phase == "paused" else "Start",
        on_click=begin,
        key=f"{before}go",
        type="primary",
        icon=":material/play_arrow:",
        disabled=stuck,
        help=help_when_over if over else None,
    )
    return stuck


def buttons(setup: Raced, mine: Desk, state: State, keeps: bool = True) -> None:
    """Play, pause, step, reset, keep; and how fast."""
    blocked = start(
        setup,
        mine,
        state,
        partial(play, setup, mine),
        help_when_over="This race is over; change something, or reset it.",
    )
    st.button("Step", on_click=partial(play, setup, mine, 1), key="one", icon=":material/skip_next:", disabled=blocked)
    st.button(
        "Reset", on_click=partial(_reset, mine), key="reset", icon=":material/replay:", disabled=mine.runner is None
    )
    if keeps:
        _keeping(mine, state)
    with st.container(width=190):
        controls.pick("Speed", list(SPEEDS), "speed", "full speed")


def _keeping(mine: Desk, state: State) -> None:
    kept = any(old is state.results for _, old in mine.kept)
    idle = not isinstance(state.results, Results) or state.going or kept
    st.button(
        "Keep",
        on_click=partial(_keep, mine),
        key="keep",
        icon=":material/keep:",
        disabled=idle,
        help="Its curves stay, gray, behind those of the next races; three races at most.",
    )
    if mine.kept:
        st.button("Forget", on_click=partial(_forget, mine), key="forget", icon=":material/keep_off:")


def is_same(setup: Raced, mine: Desk) -> bool:
    """Whether the race at hand is the one that is set up."""
    return mine.runner is not None and mine.made_from == setup.text


def play(setup: Raced, mine: Desk, steps: int | None = None) -> None:
    """Go on with the race that is set up, or begin it; to the end, or for some steps."""
    runner = mine.runner
    if runner is None or mine.made_from != setup.text:
        runner = mine.begin(setup.text, setup.make, setup.steps)
    runner.set_speed(_speed())
    if steps is None:
        runner.play()
    else:
        runner.advance(steps)


def _pause(mine: Desk) -> None:
    if mine.runner is not None:
        mine.runner.pause()


def _reset(mine: Desk) -> None:
    mine.close()
    mine.runner = None


def _keep(mine: Desk) -> None:
    if mine.runner is not None and (results := mine.runner.state().results) is not None:
        mine.number += 1
        mine.keep(f"race {mine.number}", results)


def _forget(mine: Desk) -> None:
    mine.kept = []


def status(setup: Raced, mine: Desk, state: State) -> None:
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
        same = mine.runner is None or is_same(setup, mine)
        before = "" if same else "**Below is the race before your change.** Start races what is set up now: "
        st.caption(before + setup.weight)

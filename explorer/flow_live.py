"""Experiments of the Gradient flow page that take longer than a moment: begun by a button, watched, stopped, kept."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import streamlit as st

from explorer import race_buttons
from explorer.desk import Desk
from explorer.runner import Racing, State
from explorer.turns import SEATS

TICK = 0.3
"""Seconds from one look at a running experiment to the next."""


class Bench(Desk):
    """A desk that knows how to show what is on it: in the words of the settings that it was begun with."""

    show: Callable[[Any, State], None] | None = None


class Desks(dict[str, Bench]):
    """What one visitor has on the server: a desk for each kind of experiment."""

    def close(self) -> None:
        """The visitor has gone."""
        for desk in self.values():
            desk.close()


@st.cache_resource(scope="session", max_entries=1, on_release=Desks.close, show_spinner=False)
def desks() -> Desks:
    """This visitor's desks; they end with the visit."""
    return Desks()


@dataclass(frozen=True)
class Experiment:
    """A kind of experiment: what it is made from, as text; how to make it; its steps; and how to show what it found.

    `weight` says what will be computed, `problem` why it cannot be.
    """

    name: str
    text: str
    make: Callable[[], Racing]
    steps: int
    weight: str
    show: Callable[[Any, State], None]
    problem: str = ""


def live(experiment: Experiment) -> None:
    """The experiment, looked at again and again only while it goes on."""
    desk = desks().setdefault(experiment.name, Bench())
    race_buttons.live(desk, TICK, partial(_look, experiment, desk))


def _look(experiment: Experiment, desk: Bench) -> State:
    state = desk.runner.state() if desk.runner else State("ready", 0, experiment.steps)
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        race_buttons.start(
            experiment,
            desk,
            state,
            partial(_begin, experiment, desk),
            f"{experiment.name}_",
            "This has been measured; change something, and measure again.",
        )
        st.caption(experiment.problem or experiment.weight)
    if desk.runner is not None:
        told = f"{state.phase.capitalize()} · {state.step:,} of {state.steps:,}"
        if state.phase == "waiting":
            told = f"{SEATS} experiments compute at once; this is number {state.place} in line"
        # One that diverged is over before its last step.
        st.progress(1.0 if state.over else min(1.0, state.step / state.steps), text=told)
    if state.sentence:
        st.warning(state.sentence, icon=":material/warning:")
    if state.results is not None and not race_buttons.is_same(experiment, desk):
        st.info("This was measured before your last change; start again to measure what is set up now.")
    if state.results is not None and desk.show is not None:
        desk.show(state.results, state)
    return state


def _begin(experiment: Experiment, desk: Bench) -> None:
    """Begin or go on; what is found is shown in the words of the settings that it was begun with."""
    race_buttons.play(experiment, desk)
    desk.show = experiment.show

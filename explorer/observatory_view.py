"""The observatory: gradients of a real net in training, clipped in several ways at once, while it runs."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import streamlit as st

from explorer import controls, race_buttons, race_tabs, race_view
from explorer.desk import Desk
from explorer.observatory_setup import NONE, THRESHOLDS, Setup, real, setup
from explorer.plot import plot
from explorer.race_numbers import numbers
from explorer.runner import State
from explorer.table import table
from explorer.threshold_view import bars, show, threshold_slider
from normcore import NormcoreError
from normcore.figures import observatory as figures
from normcore.lab import observatory as lab
from normcore.lab.gradient_log import histogram, percent
from normcore.lab.results import Results

TICK = 0.35
"""Seconds from one look at a running net to the next."""
GROWING = 220
"""Points of a picture that grows and is sent at every look."""


class Watch(Desk):
    """What a visitor has under observation; `asked` is set by the button that runs a what-if for real."""

    asked = False


@st.cache_resource(scope="session", max_entries=1, on_release=Watch.close, show_spinner=False)
def desk() -> Watch:
    """What this visitor watches; it ends with the visit."""
    return Watch()


@dataclass(frozen=True)
class Run:
    """The one run that is looked at closely: which variant, and the place of its seed."""

    contestant: int
    seed: int


def observatory() -> None:
    """A real net in training: its gradients layer by layer, when clipping fires, what another threshold would do."""
    st.markdown(
        "**On a real net clipping is rare or constant, depending on one number.** Train it, look at its gradients "
        "step by step, and race several clippings from the same weights on the same batches."
    )
    mine, chosen = desk(), setup()
    if mine.asked:
        mine.asked = False
        if not chosen.problem:
            race_buttons.play(chosen, mine)
    race_buttons.live(mine, TICK, partial(_look, chosen, mine))


def _look(chosen: Setup, mine: Watch) -> State:
    state = mine.runner.state() if mine.runner else State("ready", 0, chosen.steps)
    results: Results | None = state.results
    labels, keys = (chosen.labels, chosen.keys) if results is None else (results.labels, _keys(results))
    look = race_tabs.Look(results, labels, keys, state, ())
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        race_buttons.buttons(chosen, mine, state, keeps=False)
        how = race_tabs.drawing()
    race_buttons.status(chosen, mine, state)
    if results is not None:
        _verdict(results, state)
    tabs = st.tabs(["Gradients", "Threshold", "Losses", "Numbers"], key="watch", on_change="rerun", bind="query-params")
    draw = (_gradients, _threshold, _losses, _numbers)
    for tab, one in zip(tabs, draw, strict=True):
        if tab.open:
            with tab:
                if results is None:
                    st.caption("Press **Start**: everything here is drawn from what happens then.")
                elif one is _losses:
                    _losses(look, how, mine.readable(state))
                elif one is _numbers:
                    _numbers(look, how)
                elif one is _threshold:
                    _threshold(results, chosen, mine)
                else:
                    _gradients(results, state)
    if mine.asked:
        st.rerun()  # the run that is asked for begins outside this fragment
    return state


def _keys(results: Results) -> tuple[str, ...]:
    return tuple(str(one["overrides"].get("clip") or NONE) for one in results.race["contestants"])


def _names(results: Results) -> list[str]:
    """The variants without their thresholds, which change more often than a picture should."""
    return [label.partition(" at ")[0] for label in results.labels]


def _verdict(results: Results, state: State) -> None:
    """Who came through, and who stands where."""
    if results.loss.shape[-1] < race_view.ENOUGH:
        return
    free = [key == NONE for key in _keys(results)]
    sentences = lab.verdict(results, free, lab.naive(str(results.race["task"])))
    head = "So far" if state.phase != "finished" else "The verdict"
    st.markdown("\n".join([f"**{head}**", "", *(f"- {sentence}" for sentence in sentences)]))


def _run(results: Results) -> Run:
    """Asks which run is looked at."""
    names = _names(results)
    left, right = st.columns([2, 1])
    with left:
        first = next((i for i, key in enumerate(_keys(results)) if key != NONE), 0)
        name = controls.choose("Variant", names, "variant_watched", names[first])
    with right:
        seed = controls.choose("Seed", [str(seed) for seed in results.seeds], "seed_watched")
    return Run(names.index(name), [str(one) for one in results.seeds].index(seed))


def _gradients(results: Results, state: State) -> None:
    """One run, step by step: layers, events, norms, scale, angle."""
    run = _run(results)
    clipped = _keys(results)[run.contestant] != NONE
    most = GROWING if state.going else 2 * GROWING
    heat = lab.layers(results, run.contestant, run.seed)
    course = lab.course(results, run.contestant, run.seed, most)
    figure = figures.watch(
        figures.Heat(heat.values, heat.names, heat.start, heat.width, heat.limits),
        figures.Course(**vars(course)),
        results.race["steps"],
        lab.ROLL,
        clipped,
    )
    plot(figure, key="observatory", alt=_alt(results, run, heat, course), height=720)
    st.caption(_words(heat, course, clipped))


def _alt(results: Results, run: Run, heat: lab.Layers, course: lab.Course) -> str:
    known = course.before[np.isfinite(course.before)]
    ends = f"from {known.min():.3g} to {known.max():.3g}" if known.size else "nowhere finite"
    gone = f" The run diverged at step {course.lost:,}." if course.lost >= 0 else ""
    bad = f" {len(course.bad)} batches were bad." if len(course.bad) else ""
    return (
        f"{results.labels[run.contestant]}, seed {results.seeds[run.seed]}, {len(heat.names)} layers over "
        f"{results.loss.shape[-1]:,} steps: the norm of the whole gradient went {ends}; clipping fired in "
        f"{len(course.events):,} steps.{bad}{gone}"
    )


def _words(heat: lab.Layers, course: lab.Course, clipped: bool) -> str:
    """How the picture is to be read, and what it shows."""
    told = []
    if clipped:
        share = len(course.events) / max(1, int(course.step[-1]) + 1)
        told.append(f"Clipping fired in {percent(share)} of the steps: orange strokes.")
    if len(course.bad):
        told.append("Red triangles are bad batches.")
    if course.lost >= 0:
        told.append(f"The run diverged at step {course.lost:,}, the red line; what came after is not shown.")
    if (heat.values == 0).any():
        told.append("White cells have a gradient of exactly 0: that layer is dead.")
    told.append("Colors end at the 2nd and 98th percentile, so that one spike does not bleach the rest.")
    if heat.width > 1:
        told.append(f"A cell of the map is the largest of {heat.width} steps.")
    return " ".join(told)


def _losses(look: race_tabs.Look, how: race_tabs.Drawing, found: Results | None) -> None:
    """The training losses of all variants, and who stands where."""
    left, right = st.columns([7, 4], gap="large")
    with right:
        names = _names(look.results) if look.results else list(look.labels)
        baseline = names.index(controls.pick("Compared with", names, "compared", names[0]))
        judged = None if found is None else lab.good(found)
        race_view.standing(judged, race_tabs.colors(look.keys), baseline, look.state)
        if judged is not None and judged.bad is not None:
            st.caption("Bad batches are left out of these means.")
    with left:
        race_tabs.training(look, how, baseline)


def _threshold(results: Results, chosen: Setup, mine: Watch) -> None:
    """All norms of a variant, held against a threshold that was not there; and the button that makes it real."""
    left, right = st.columns([7, 4], gap="large")
    with right:
        names = _names(results)
        name = controls.pick("Norms of", names, "norms_of", names[0])
        value = threshold_slider("What if the threshold were", THRESHOLDS, "threshold", chosen.threshold)
    norms = lab.norms(results, names.index(name))
    with left:
        whose = f"the gradient norms of {name}, all seeds and steps so far"
        try:
            told = show(norms, value, THRESHOLDS, "threshold", whose)
        except NormcoreError as error:
            st.warning(f"{error}.")
            return
        st.caption(f"Recorded: {whose}, before clipping, up to where a run diverged. A click on a bar moves the line.")
    with right:
        st.markdown(f"**What if?** {told.sentence}")
        st.caption("The norms are those of the run as it was: clipping would have changed the later ones too.")
        same = race_buttons.is_same(chosen, mine)
        hint = None if same else "The settings have changed since these norms were recorded; start again first."
        asked = partial(_for_real, mine, chosen, value)
        icon = ":material/play_circle:"
        st.button("Run it for real", key="real", icon=icon, on_click=asked, disabled=not same, help=hint)


def _for_real(mine: Watch, chosen: Setup, threshold: float) -> None:
    real(chosen, threshold)
    mine.asked = True


def _numbers(look: race_tabs.Look, how: race_tabs.Drawing) -> None:
    """Everything that the other tabs draw."""
    results = look.results
    if results is None or look.state.going:
        st.caption("Pause, or let it finish, to see and take the numbers.")
        return
    run = _run(results)
    course = lab.course(results, run.contestant, run.seed, 2 * GROWING)
    st.caption("The run, exactly as drawn:")
    table(course.columns(), key="course", file="observatory-run", height=240)
    heat = lab.layers(results, run.contestant, run.seed)
    st.caption(f"Its layers, the largest norm of every {heat.width} steps:" if heat.width > 1 else "Its layers:")
    columns = dict(zip(heat.names, heat.values, strict=True))
    table({"step": heat.start, **columns}, key="layers", file="observatory-layers", height=240)
    found = histogram(lab.norms(results, run.contestant))
    st.caption("The histogram of the norms of all seeds of this variant:")
    table(bars(found), key="bars", file="observatory-histogram", height=240)
    numbers(results, look.state, (), 0, how, race_tabs.points(look, how))

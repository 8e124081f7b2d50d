"""The experiments of the Gradient flow page: while it learns, every remedy at every depth, cells and learning rates."""

import json
from dataclasses import asdict
from functools import partial

import numpy as np
import streamlit as st

from explorer import controls, flow_words, race_strip
from explorer.flow_live import Experiment, live
from explorer.flow_setup import Setup, called
from explorer.flow_words import said
from explorer.plot import plot
from explorer.runner import State
from explorer.table import table
from normcore.core import plural
from normcore.figures import flow_runs as figures
from normcore.lab.flow_rates import CELLS, RATES, SEEDS, STEPS, rates, stability
from normcore.lab.flow_remedies import AS_IT_IS, Compared, Comparison, compared, counted
from normcore.lab.flow_training import Course, Training
from normcore.lab.observatory import naive
from normcore.lab.strips import StripResults

WEIGHTS = "gradient of the weights"
SHARE = "saturated share"
SHOWN = {
    "gradient at the output": "gradient",
    WEIGHTS: "weights",
    "spread of the outputs": "spread",
    SHARE: "flat",
}
LADDERS = {"up to 32": (2, 4, 8, 16, 32), "up to 64": (2, 4, 8, 16, 32, 64)}
FIRST = ("ReLU with He", "BatchNorm", "LayerNorm", "residual connections", "LSTM", "orthogonal start")
AT_ONCE = 5


def learning(setup: Setup) -> None:
    """The heat maps over layers and steps."""
    text = json.dumps([asdict(setup.wiring), setup.seed, setup.steps])
    about = f"{setup.steps:,} steps of {called(setup.wiring)} on {_task(setup)}, every {setup.unit} measured in each"
    live(
        Experiment(
            name="learning",
            text=text,
            make=partial(Training, setup.wiring, setup.seed, setup.steps),
            steps=setup.steps,
            weight=about,
            show=_course,
            problem=setup.problem,
        )
    )


def _task(setup: Setup) -> str:
    return f"the adding problem over {setup.wiring.depth} steps" if setup.wiring.recurrent else "handwritten digits"


def _course(course: Course, state: State) -> None:
    if not len(course.step):
        st.caption("It diverged before a step was measured.")
        return
    unit = "layer" if course.weights.size else "time step"
    offered = [name for name in SHOWN if name != WEIGHTS or course.weights.size]
    with st.container(horizontal=True):
        upper = controls.pick("Above", offered, "upper", offered[0])
        lower = controls.pick("Below", offered, "lower", "spread of the outputs")
    for name, key in ((upper, "upper_map"), (lower, "lower_map")):
        values = getattr(course, SHOWN[name])
        st.markdown(f"**{name.capitalize()}**")
        plot(
            figures.course(values, course.step, "", unit, share=name == SHARE),
            key=key,
            alt=_told(name, values, unit),
            height=330,
        )
    lost = f" It diverged in step {course.lost:,}." if course.lost >= 0 else ""
    with np.errstate(divide="ignore", invalid="ignore"):
        first, last = (float(course.gradient[0, at] / course.gradient[-1, at]) for at in (0, -1))
    st.caption(
        f"Loss {said(float(course.loss[0]))} → {said(float(course.loss[-1]))}; first over last {unit}'s gradient "
        f"{said(first)} → {said(last)}, over {len(course.step):,} steps.{lost}{_drawn({upper, lower})}"
    )
    if not state.going:
        _course_table(course, unit)


def _drawn(names: set[str]) -> str:
    """What has to be known about the maps that are shown."""
    told = " Weights' gradients are those after clipping." if WEIGHTS in names else ""
    cut = sorted(names - {SHARE})
    return told + (f" The colors of {' and '.join(cut)} leave out the last hundredth at each end." if cut else "")


def _told(name: str, values: np.ndarray, unit: str) -> str:
    """A heat map in words."""
    ends = [said(float(value)) for value in (values[0, 0], values[-1, 0], values[0, -1], values[-1, -1])]
    told = f"{name} over {len(values)} {unit}s and {values.shape[1]:,} steps: first {unit} {ends[0]}, last {ends[1]} "
    told += f"at the start; {ends[2]} and {ends[3]} at the end."
    return told


def _course_table(course: Course, unit: str) -> None:
    numbers = st.expander("The numbers as a table", key="course_open", on_change="rerun", bind="query-params")
    if numbers.open:
        with numbers:
            count, steps = course.gradient.shape
            columns = {
                "step": np.repeat(course.step, count),
                unit: np.tile(np.arange(1, count + 1), steps),
                "loss": np.repeat(course.loss, count),
            }
            columns |= {name: getattr(course, key).T.reshape(-1) for name, key in SHOWN.items() if name != WEIGHTS}
            if course.weights.size:
                columns[WEIGHTS] = course.weights.T.reshape(-1)
            table(columns, key="course", file="gradient-flow-training", height=260)


def every_remedy(setup: Setup) -> None:
    """The ratio of the first to the last layer's gradient against depth, every remedy side by side."""
    with st.container(horizontal=True):
        ladder = LADDERS[controls.choose("Depths", list(LADDERS), "ladder")]
        count = controls.select("Seeds", (1, 2, 3, 5, 8), "seeds", 3)
        after = controls.select("After steps of training", (0, 5, 10, 20), "after", 0)
    seeds = tuple(range(setup.seed, setup.seed + count))
    text = json.dumps([asdict(counted(setup.wiring, after)), ladder, seeds, after])
    cells = len(compared(setup.wiring, after)) * len(ladder) * count
    size = f"{len(ladder)} depths with {plural(count, 'seed')}"
    about = f"{cells:,} nets: each remedy alone, on top of what is set up, at {size}"
    live(
        Experiment(
            name="remedies",
            text=text,
            make=partial(Comparison, setup.wiring, ladder, seeds, after),
            steps=cells,
            weight=about,
            show=lambda found, state: _compared(found, state, setup.unit),
            problem=setup.problem,
        )
    )


def _compared(found: Compared, state: State, unit: str) -> None:
    names, middle = found.names, found.middle()
    default = [AS_IT_IS, *(name for name in FIRST if name in names)][:AT_ONCE]
    drawn = controls.several("Drawn against depth", names, "drawn", default, AT_ONCE)
    order = [names.index(name) for name in dict.fromkeys([*drawn])]
    left, right = st.columns([6, 6], gap="large")
    curves = [
        figures.Curve(
            names[i], _positive(middle[i]), _positive(found.ratio[i].min(-1)), _positive(found.ratio[i].max(-1))
        )
        for i in order
    ]
    told = "; ".join(f"{names[i]} {_at_depths(middle[i], found.depths)}" for i in order)
    with left:
        st.markdown("**Against depth**: geometric mean, and from the least to the largest seed")
        plot(
            figures.against_depth(found.depths, curves, len(found.seeds), unit),
            key="against_depth",
            alt=f"First over last {unit}'s gradient: {told}.",
            height=440,
        )
    with right:
        st.markdown("**Every remedy**: 1 is pale, blue vanishes, orange explodes")
        hover = [
            [
                f"<b>{name}</b>, {depth} {unit}s<br>first over last gradient {said(float(middle[i, j]))}"
                f"<br>seeds: {', '.join(said(float(value)) for value in found.ratio[i, j])}"
                for j, depth in enumerate(found.depths)
            ]
            for i, name in enumerate(names)
        ]
        every = "; ".join(f"{name} {_at_depths(middle[i], found.depths)}" for i, name in enumerate(names))
        plot(
            figures.beside(names, found.depths, middle, np.array(hover), unit),
            key="beside",
            alt=f"First over last {unit}'s gradient of every remedy: {every}.",
            height=110 + 27 * len(names),
        )
    when = f"after {found.after} steps of training" if found.after else "at the first weights"
    st.caption(
        f"Measured {when}, N = {plural(len(found.seeds), 'seed')}. A bare cell is still to come, or a net that "
        "diverged, had no gradient left at an end, or cannot be built."
    )
    if not state.going:
        table(found.columns(), key="compared", file="gradient-flow-remedies", height=260)


def _positive(values: np.ndarray) -> np.ndarray:
    return np.where(values > 0, values, np.nan)


def _at_depths(values: np.ndarray, depths: tuple[int, ...]) -> str:
    known = [(depth, value) for depth, value in zip(depths, values, strict=True) if np.isfinite(value)]
    return f"{known[-1][1]:.2g} at {known[-1][0]}" if known else "not measured"


def cells_and_rates() -> None:
    """Layer norm in the recurrent cell against none, over learning rates."""
    with st.container(horizontal=True):
        cell = controls.choose("Cell", [name.upper() for name in CELLS], "cell").lower()
        optimizer = controls.choose("Trained by", list(RATES), "by")
    live(
        Experiment(
            name="rates",
            text=json.dumps([cell, optimizer]),
            make=partial(rates, cell, optimizer),
            steps=len(RATES[optimizer]) * STEPS,
            weight=f"{len(RATES[optimizer])} learning rates × 3 cells × {SEEDS} seeds × {STEPS} steps on the adding "
            "problem",
            show=lambda found, state: _rates(found, state, optimizer),
        )
    )


def _rates(found: StripResults, state: State, optimizer: str) -> None:
    race_strip.show(found, state)
    if found.done:
        for sentence in flow_words.stable(stability(found), found.values[: found.done], optimizer):
            st.markdown(f"- {sentence}")
        st.caption(flow_words.stable_means(naive("adding")))

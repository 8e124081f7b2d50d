"""What the Race page shows of a race: curves, differences, held-out examples, layers, and all of it as numbers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import streamlit as st

from explorer import controls
from explorer.plot import plot
from explorer.race_numbers import Drawing, numbers
from explorer.runner import State
from normcore import NormcoreError
from normcore.figures import theme
from normcore.figures.race import DASHES, Line, curves, layers
from normcore.lab import curves as drawn
from normcore.lab.results import Results

POINTS, GROWING = 12_000, 2_500
"""Points of a whole figure that stands, and of one that grows and is sent four times a second."""
AXES = {"linear": "", "loss logarithmic": "y", "both logarithmic": "xy"}
HEIGHT = 440


@dataclass(frozen=True)
class Look:
    """What one look at a race shows: its results if there are any yet, and the races kept behind it."""

    results: Results | None
    labels: tuple[str, ...]
    keys: tuple[str, ...]
    state: State
    kept: Sequence[tuple[str, Results]]


def show(look: Look, how: Drawing, baseline: int) -> None:
    """What was chosen to be seen."""
    try:
        VIEWS[how.view](look, how, baseline)
    except NormcoreError as error:
        st.caption(f"{error}.")


def colors(keys: Sequence[str]) -> list[str]:
    """A color for each contestant: its method's own, unless a method races twice."""
    if len(set(keys)) < len(keys):
        order = (1, 0, 2, 4, 6)
        return [theme.REGION_COLORS[order[i % len(order)]] for i in range(len(keys))]
    chosen = theme.method_colors(keys)
    return [chosen[key] for key in keys]


def drawing() -> Drawing:
    """Asks how curves are to be drawn."""
    with st.popover("How it is drawn", icon=":material/tune:"):
        across = controls.choose("Over", list(drawn.ACROSS), "over")
        band = controls.pick("Band over the seeds", list(drawn.BANDS), "band", drawn.BANDS[0])
        smoothing = controls.select("Smoothing", (0.0, 0.5, 0.8, 0.9, 0.95, 0.98), "smooth", 0.9, lambda x: f"{x:g}")
        log = controls.pick("Axes", list(AXES), "axes", "linear")
        singles = controls.choose("Single seeds", ("faint", "hidden"), "single") == "faint"
    return Drawing("Curves", across, band, smoothing, AXES[log], singles)


def view() -> str:
    """Asks what is to be seen.

    These are no tabs: a browser takes a third of the time of a look at a running race for those, and a second click on
    them before a slow server has answered the first one is lost.
    """
    return str(controls.choose("Show", list(VIEWS), "show", label_visibility="collapsed"))


def points(look: Look, how: Drawing) -> int:
    """How many points a curve may have."""
    seeds = 1 if look.results is None else len(look.results.seeds)
    most = (GROWING if look.state.going else POINTS) // (len(look.labels) * (3 + how.singles * seeds))
    return max(60, min(drawn.MOST, most))


def _lines(look: Look, found: Sequence[drawn.Curve], how: Drawing) -> list[Line]:
    paints = dict(zip(look.labels, zip(colors(look.keys), DASHES, strict=False), strict=True))
    return [
        Line(
            curve.label,
            *paints[curve.label],
            curve.x,
            curve.mean,
            curve.low,
            curve.high,
            curve.seeds,
            curve.singles if how.singles else None,
            curve.lost,
        )
        for curve in found
    ]


def _ghosts(look: Look, how: Drawing) -> dict[str, list[Line]]:
    """The curves of kept races, gray; a loss on another task has nothing to do with this one."""
    found: dict[str, list[Line]] = {}
    for place, (name, results) in enumerate(look.kept):
        if results is look.results or _strange(look, results):
            continue
        dash = DASHES[1 + place % 3]
        found[name] = [
            Line(curve.label, "", dash, curve.x, curve.mean, curve.low, curve.high, curve.seeds)
            for curve in drawn.losses(results, how.across, "none", how.smoothing, 200)
        ]
    return found


def _strange(look: Look, kept: Results) -> bool:
    """Whether a kept race was on another task than the race at hand, or than the newest one while there is none."""
    mine = look.results or look.kept[-1][1]
    return (kept.race["task"], kept.examples, kept.classes) != (mine.race["task"], mine.examples, mine.classes)


def _limits(results: Results, how: Drawing) -> tuple[float, float] | None:
    """The whole length of the race, so that the axis stands still; time is only known as it passes."""
    if how.across == "time":
        return None
    factors = {
        "step": 1.0,
        "epoch": max(results.batch_sizes) / results.examples,
        "examples": float(max(results.batch_sizes)),
    }
    return 0.0, results.race["steps"] * factors[how.across]


def _titles(results: Results | None, how: Drawing, what: str = "") -> tuple[str, str]:
    unit = "" if results is None else ", nats" if results.classes else ", mean squared error"
    past = f", smoothed {how.smoothing:g}" if how.smoothing else ""
    return drawn.ACROSS[how.across], what or f"training loss{unit}{past}"


def training(look: Look, how: Drawing, baseline: int) -> None:
    """The curves of the training losses."""
    results = look.results
    found = () if results is None else drawn.losses(results, how.across, how.band, how.smoothing, points(look, how))
    limits = (0.0, float(look.state.steps)) if results is None else _limits(results, how)
    figure = curves(
        _lines(look, found, how), _titles(results, how), ghosts=_ghosts(look, how), log=how.log, limits=limits
    )
    if results is None:
        figure.update_yaxes(range=[0, 1])
    plot(figure, key="curves", alt=_alt(look, found, "Training loss"), height=HEIGHT)
    hidden = sum(_strange(look, kept) for _, kept in look.kept)
    elsewhere = f" Kept races on other tasks are not drawn: {hidden}." if hidden else ""
    st.caption(f"{_words(results, how)}{elsewhere}")


def _difference(look: Look, how: Drawing, baseline: int) -> None:
    results, name = look.results, look.labels[baseline]
    if results is None or len(look.labels) < 2:
        st.caption("A difference takes two contestants and a first step.")
        return
    found = drawn.differences(results, baseline, how.across, how.band, how.smoothing, points(look, how))
    titles = _titles(results, how, f"loss less that of {name}, seed by seed")
    log = how.log.replace("y", "")
    figure = curves(_lines(look, found, how), titles, zero=name, log=log, limits=_limits(results, how))
    plot(figure, key="difference", alt=_alt(look, found, f"Loss less that of {name}"), height=HEIGHT)
    st.caption(f"Below the line is better than {name}. {_words(results, how)}")


def _held(look: Look, how: Drawing, baseline: int) -> None:
    results = look.results
    if results is None or not results.held:
        often = "now and then" if results is None else f"every {_times(results.race['evaluate_every'])}"
        st.caption(f"The held-out examples are looked at {often}; the first time is yet to come.")
        return
    for what in ("loss", "accuracy") if results.classes else ("loss",):
        found = drawn.held(results, what, how.across, how.band)
        share = what == "accuracy"
        titles = _titles(results, how, f"{what} on held-out examples")
        log = how.log.replace("y", "") if share else how.log
        figure = curves(_lines(look, found, how), titles, log=log, limits=_limits(results, how), percent=share)
        plot(figure, key=f"held_{what}", alt=_alt(look, found, f"Held-out {what}"), height=300)
    st.caption(f"In evaluation mode, on the same held-out examples. {_words(results, how, False)}")


def _times(steps: int) -> str:
    return "step" if steps == 1 else f"{steps:,} steps"


def _gradients(look: Look, how: Drawing, baseline: int) -> None:
    if look.results is None:
        st.caption("Gradients come with the first step.")
        return
    found = drawn.gradients(look.results)
    figure = layers(found.rows, found.step, found.values, "gradient norm")
    plot(figure, key="gradients", alt=_layers_alt("Norm of the gradient of each weight", found), height=_tall(found))
    st.caption("The norm of the gradient of each weight before clipping, the mean over seeds; one scale for all.")


def _activations(look: Look, how: Drawing, baseline: int) -> None:
    if look.results is None:
        st.caption("Activations are measured with the held-out examples.")
        return
    for what, name in (("deviation", "standard deviation"), ("mean", "mean")):
        found = drawn.activations(look.results, what)
        figure = layers(found.rows, found.step, found.values, name, diverging=what == "mean")
        alt = _layers_alt(f"{name.capitalize()} after each activation function", found)
        plot(figure, key=f"activations_{what}", alt=alt, height=_tall(found))
    st.caption("After each activation function, over the held-out examples; the mean over seeds.")


def _numbers(look: Look, how: Drawing, baseline: int) -> None:
    numbers(look.results, look.state, look.kept, baseline, how, points(look, how))


VIEWS: dict[str, Callable[[Look, Drawing, int], None]] = {
    "Curves": training,
    "Difference": _difference,
    "Held out": _held,
    "Gradients": _gradients,
    "Activations": _activations,
    "Numbers": _numbers,
}


def _tall(found: drawn.Layers) -> int:
    return int(np.clip(110 + 26 * len(found.rows), 220, 640))


def _alt(look: Look, found: Sequence[drawn.Curve], what: str) -> str:
    """The figure in words."""
    if not found or not len(found[0].x):
        return f"{what} of {', '.join(look.labels)}: nothing yet, for the race has not begun."
    ends = "; ".join(f"{curve.label} {curve.mean[-1]:.4g}" for curve in found)
    lost = sum(len(curve.lost) for curve in found)
    gone = f" {lost} diverged, marked with a cross." if lost else ""
    return f"{what} up to step {found[0].step[-1]:,}, mean over {len(found[0].singles)} seeds at the end: {ends}.{gone}"


def _layers_alt(what: str, found: drawn.Layers) -> str:
    known = found.values[np.isfinite(found.values)]
    ends = f"from {known.min():.3g} to {known.max():.3g}" if known.size else "nowhere defined"
    return f"{what}, {len(found.rows)} layers over {len(found.step)} steps up to {found.step[-1]:,}: {ends}."


def _words(results: Results | None, how: Drawing, smooth: bool = True) -> str:
    """How the figure is to be read."""
    count = 0 if results is None else len(results.seeds)
    parts = ["Thick: mean over seeds" + (f", N = {count}" if count else "")]
    if how.band != "none" and count > 1:
        parts.append(f"shaded: {how.band}")
    if how.singles and count > 1:
        parts.append("thin: single seeds")
    if smooth and how.smoothing:
        parts.append(f"moving average in which the past weighs {how.smoothing:g}")
    return "; ".join(parts) + "."

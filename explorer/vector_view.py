"""The Clipping page's first tab: a gradient of two numbers, every variant's answer to it, and where others go."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import streamlit as st

from explorer import controls
from explorer.clipping_setup import THRESHOLDS, Setup, setup
from explorer.plot import picked, plot
from explorer.table import table
from normcore import METHODS, NormcoreError
from normcore.figures import theme
from normcore.figures.arrows import FULL, Arrow, cells, close, field, plane, trail
from normcore.lab import vectors
from normcore.lab.vectors import Answer, Variant

FARTHEST = 12.0
STEP = 0.25
NUMBERS = tuple(round(STEP * i, 2) for i in range(-int(FARTHEST / STEP), int(FARTHEST / STEP) + 1))
BROKEN = {"infinite": math.inf, "not a number": math.nan}
PRESETS: dict[str, dict[str, Any]] = {
    "One large, one small": {"first": 10.0, "second": 1.0, "clip_at": 1.0, "second_is": "a number"},
    "Both large": {"first": 8.0, "second": 6.0, "clip_at": 1.0, "second_is": "a number"},
    "Short enough": {"first": 0.5, "second": -0.5, "clip_at": 1.0, "second_is": "a number"},
    "Nothing at all": {"first": 0.0, "second": 0.0, "clip_at": 1.0, "second_is": "a number"},
    "An infinite one": {"first": 10.0, "second": 1.0, "clip_at": 1.0, "second_is": "infinite"},
}
AXES = ("first number", "second number")
ACROSS = 3
RAW = theme.REGION_COLORS[6]
"""The color of a descent without clipping."""


def two_numbers() -> None:
    """One gradient as an arrow, the answers beside it, and where every other gradient would go."""
    here = setup(alone=True)
    controls.presets(PRESETS)
    places = st.columns(4, gap="medium")
    with places[0]:
        first = controls.select("First number", NUMBERS, "first", 10.0, "{:g}".format)
    with places[1]:
        second = controls.select("Second number", NUMBERS, "second", 1.0, "{:g}".format)
    with places[2]:
        kind = controls.choose("The second is", ("a number", *BROKEN), "second_is")
    with places[3]:
        threshold = controls.select("Threshold", THRESHOLDS, "clip_at", 1.0, "{:g}".format)
    gradient = (float(first), float(BROKEN.get(kind, second)))
    variants = here.variants(threshold)
    answers = _answers(variants, gradient, here)
    paints = colors([variant.key for variant in variants])
    _arrows(gradient, answers, paints)
    _said(gradient, answers)
    if len(here.past):
        _trail(here, gradient)
    _numbers(gradient, answers)
    st.subheader("Where every gradient goes")
    _fields(variants, here, 4 * threshold)


def colors(keys: Sequence[str]) -> dict[str, str]:
    """A color for each variant, none of them that of a descent without clipping."""
    chosen = theme.method_colors(keys)
    free = [color for color in theme.REGION_COLORS if color not in {*chosen.values(), RAW}]
    return {key: free.pop(0) if color == RAW else color for key, color in chosen.items()}


def _answers(variants: list[Variant], gradient: tuple[float, float], here: Setup) -> list[Answer]:
    """What every variant says; one that refuses gets its sentence."""
    found = []
    for variant in variants:
        try:
            found.append(vectors.answer(variant, gradient, here.past, here.parts, here.weights))
        except NormcoreError as error:
            st.warning(f"{error}.", icon=":material/block:")
    return found


def _arrows(gradient: tuple[float, float], answers: list[Answer], paints: dict[str, str]) -> None:
    raw = Arrow("the gradient", gradient, theme.NEUTRAL["$ink"], f"the gradient {point(gradient)}")
    drawn = [
        Arrow(one.variant.name, (float(one.after[0]), float(one.after[1])), paints[one.variant.key], _one(one))
        for one in answers
    ]
    left, right = st.columns(2, gap="medium")
    with left:
        plot(
            plane(raw, drawn, FARTHEST, AXES),
            key="plane",
            alt=f"The gradient {point(gradient)} as an arrow. " + " ".join(map(_one, answers)),
            height=440,
            on_pick=_pick,
        )
        st.caption("Click anywhere to move the gradient there.")
    with right:
        plot(
            close(raw, drawn, AXES),
            key="close",
            alt="The answers alone, enlarged; the dashed ray is the gradient's direction. "
            + " ".join(map(_one, answers)),
            height=440,
        )
        st.caption("The answers alone, enlarged. The dashed ray is the direction of the gradient.")


def _pick() -> None:
    """After a click into the plane: the gradient points there."""
    click = picked("plane")
    if click and click.cell:
        line = cells(FARTHEST)
        row, column = (min(index, len(line) - 1) for index in click.cell[:2])
        controls.put(first=nearest(NUMBERS, line[column]), second=nearest(NUMBERS, line[row]), second_is="a number")


def _said(gradient: tuple[float, float], answers: list[Answer]) -> None:
    """What happened, in sentences made from the numbers."""
    st.markdown(f"The gradient {point(gradient)} is **{number(math.hypot(*gradient), 4)}** long.")
    st.markdown("\n".join(f"- {_one(answer, bold=True)}" for answer in answers))


def _one(answer: Answer, bold: bool = False) -> str:
    name = f"**{answer.variant.name}**" if bold else answer.variant.name
    start = f"{name} makes it {point(answer.after)}"
    if not np.isfinite(answer.after).all():
        return f"{start}: what is not finite is still there, {_beside(answer)}; a step with it ruins the net."
    if not np.isfinite(answer.before).all():
        return f"{start}: finite again."
    if np.allclose(answer.after, answer.before, rtol=1e-5, atol=0):
        return f"{start}: unchanged."
    if not answer.length:
        return f"{start}: nothing is left."
    if not answer.length_before:
        return f"{start}: out of nothing, {number(answer.length)} long."
    how = "in the same direction" if answer.turned < 0.05 else f"turned by **{answer.turned:.0f}°**"
    how = how if bold else how.replace("*", "")
    return f"{start}: {number(answer.length)} long, {number(answer.scale)} of what it was, {how}."


def _beside(answer: Answer) -> str:
    """What became of the numbers beside one that is not finite."""
    fine = np.isfinite(answer.before)
    before, after = answer.before[fine], answer.after[fine]
    if (after == before).all():
        return "as it was"
    if not (np.isfinite(after) & (after != 0)).any():
        return "and what was finite is lost with it"
    told, was = (", ".join(number(float(value)) for value in values) for values in (after, before))
    return f"and what was finite is {told} (was {was})"


def _trail(here: Setup, gradient: tuple[float, float]) -> None:
    lengths = np.linalg.norm(here.past, axis=1)
    now = math.hypot(*gradient)
    plot(
        trail(lengths, now),
        key="trail",
        alt=f"{len(lengths)} gradients came before, {lengths.min():.3g} to {lengths.max():.3g} long; then this one.",
        height=190,
    )
    verb = "remembers" if len(here.remembering) == 1 else "remember"
    st.caption(f"{' and '.join(here.remembering)} {verb} what came before: these gradients, and then the one above.")


def _numbers(gradient: tuple[float, float], answers: list[Answer]) -> None:
    length = math.hypot(*gradient)
    table(
        {
            "vector": ["the gradient", *(answer.variant.name for answer in answers)],
            "first number": [float(gradient[0]), *(float(answer.after[0]) for answer in answers)],
            "second number": [float(gradient[1]), *(float(answer.after[1]) for answer in answers)],
            "length": [length, *(answer.length for answer in answers)],
            "scale": [1.0, *(answer.scale for answer in answers)],
            "turned (degrees)": [0.0, *(answer.turned for answer in answers)],
            "settings": ["", *(_settings(answer.variant) for answer in answers)],
        },
        key="answers",
        file="clipped_gradient",
    )


def _settings(variant: Variant) -> str:
    complete = variant.method.settings(variant.settings, {})
    return ", ".join(f"{name}={controls.words(value)}" for name, value in complete.items())


@st.cache_data(max_entries=256, show_spinner=False)
def _field(
    key: str, settings: tuple[Any, ...], reach: float, past: np.ndarray, parts: str, weights: tuple[float, float]
) -> np.ndarray:
    return vectors.answers_to(Variant(key, dict(settings)), vectors.grid(reach), past, parts, weights)


def _fields(variants: list[Variant], here: Setup, reach: float) -> None:
    starts = vectors.grid(reach)
    rows: dict[str, list[Any]] = {
        name: [] for name in ("method", *AXES, "first after", "second after", "turned (degrees)")
    }
    across = min(ACROSS, max(2, len(variants)))
    for first in range(0, len(variants), across):
        for variant, place in zip(variants[first : first + across], st.columns(across, gap="medium"), strict=False):
            with place:
                try:
                    asked = (variant.key, tuple(variant.settings.items()), reach, here.past, here.parts, here.weights)
                    ends = _field(*asked)
                except NormcoreError as error:
                    st.warning(f"{error}.", icon=":material/block:")
                    continue
                degrees = np.array([vectors.turned(*pair) for pair in zip(starts, ends, strict=True)])
                _panel(variant, starts, ends, degrees, reach)
                columns = [[METHODS[variant.key].name] * len(starts), *starts.T, *ends.T, degrees]
                for name, values in zip(rows, columns, strict=True):
                    rows[name].extend(list(values))
    st.caption(
        "Each line leads from a gradient to its answer, the dot. Blue dots keep the direction, orange ones turn it "
        f"(by {FULL:g}° or more where they are brightest); open dots did not move."
    )
    every = st.expander("These fields as a table", key="field", on_change="rerun", bind="query-params")
    if every.open:
        with every:
            table(rows, key="fields", file="clipped_fields", height=300)


def _panel(variant: Variant, starts: np.ndarray, ends: np.ndarray, degrees: np.ndarray, reach: float) -> None:
    st.markdown(f"**{variant.name}**")
    known = degrees[np.isfinite(degrees)]
    most = float(known.max()) if known.size else 0.0
    kept = np.isclose(starts, ends, rtol=1e-5).all(axis=1).sum()
    longest = float(np.linalg.norm(ends, axis=1).max())
    said = f"{kept} of {len(starts)} stay; the longest answer is {longest:.3g}; the most turned, by {most:.0f}°"
    plot(
        field(starts, ends, degrees, reach, AXES),
        key=f"field_{variant.key}",
        alt=f"Where {variant.name} sends {len(starts)} gradients: {said}.",
        height=330,
    )
    st.caption(f"{said}.")


def nearest(options: Sequence[float], value: float) -> float:
    """The option that is nearest to a value."""
    return min(options, key=lambda option: abs(option - value))


def point(numbers: Any) -> str:
    """Two numbers as a place: (10, 1)."""
    return f"({', '.join(number(float(value)) for value in numbers)})"


def number(value: float, digits: int = 3) -> str:
    """A number with a few digits, infinity as its sign."""
    return ("∞" if value > 0 else "−∞") if math.isinf(value) else f"{value:.{digits}g}".replace("-", "−")

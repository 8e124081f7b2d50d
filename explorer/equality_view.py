"""The Equality page's first question: which methods are equal here, and which nearly."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import streamlit as st

from explorer import controls
from explorer.equality_pair import one_pair
from explorer.equality_setup import MOST, Setup, names, notes, power
from explorer.plot import picked, plot
from explorer.table import table
from normcore import METHODS, describe
from normcore.core import plural
from normcore.figures.heat import number
from normcore.figures.sameness import ALIKE, NEARLY, NONE, SAME, marked_heat, ring
from normcore.lab.equality import EQUAL, Comparison, Output, compare, made_of

WRITTEN = 14
"""Up to how many methods the differences are written into the cells."""
LIMITS = (0.01, 10.0)
"""The ends of the color scale: most outputs lie between -3 and 3."""
OUTPUTS, REGIONS, LEARNED = "the outputs", "who shares", "what is learned"


@st.cache_data(max_entries=512, show_spinner=False)
def _made_of(key: str, shape: tuple[int, ...], layout: str, training: bool, settings: tuple[Any, ...]) -> Output:
    return made_of(key, shape, layout, training, **dict(settings))


def which_are_equal(here: Setup) -> None:
    """The matrix of all pairs, the ring of equal ones, and one pair in detail."""
    outputs = [_made_of(key, *here.asked(key)) for key in here.keys]
    with st.container(horizontal=True, key="view"):
        what = controls.choose("Cells", (OUTPUTS, REGIONS, LEARNED), "compare")
        order = controls.choose("Order", ("as listed", "equal ones together"), "order")
    if order != "as listed":
        places = compare(outputs).groups()
        first = {i: min(group) for group in places for i in group}
        outputs = [outputs[i] for i in sorted(range(len(outputs)), key=lambda i: (first.get(i, i), i))]
    found = compare(outputs)
    hover = _hover(here, found)
    few = len(outputs) <= MOST
    matrix, circle = st.columns([7, 5], gap="medium") if few else (st.container(), None)
    with matrix:
        _matrix(found, what, hover)
    if circle is not None:
        with circle:
            _ring(found, hover)
    groups = [" = ".join(f"**{name}**" for name in names([found.keys[i] for i in group])) for group in found.groups()]
    together = "; ".join(groups) if groups else "no two of these"
    st.markdown(f":blue[:material/equal:] Equal here: {together}.")
    st.caption(
        f"Equal means: the largest difference is at most {power(EQUAL)} of the largest value. **=** the same output, "
        "from layers that learn the same; **(=)** the same output, but other learned parameters."
    )
    notes(here, outputs[0].shape)
    one_pair(here, {made.key: made for made in outputs}, found)
    every = st.expander("All pairs as a table", key="pairs", on_change="rerun", bind="query-params")
    if every.open:
        with every:
            _table(found)


def _matrix(found: Comparison, what: str, hover: np.ndarray) -> None:
    shown, crowd = names(found.keys), len(found.keys)
    itself = np.eye(crowd, dtype=bool)
    marks = {
        OUTPUTS: np.where(found.equal, np.where(found.same_learned, 1, 2), 0),
        REGIONS: found.same_regions.astype(int),
        LEARNED: found.same_learned.astype(int),
    }[what]
    marks = np.where(itself, 0, marks)
    values = np.where(itself, np.nan, found.difference if what == OUTPUTS else LIMITS[0])
    text = np.array([["", "=", "(=)"][mark] for mark in marks.ravel()], dtype=object).reshape(marks.shape)
    if what == OUTPUTS and crowd <= WRITTEN:
        text = np.where((marks == 0) & ~itself, _short(found.difference), text)
    figure = marked_heat(
        values,
        marks,
        shown,
        shown,
        title="Largest |difference|" if what == OUTPUTS else "",
        text=text,
        hover=hover,
        limits=LIMITS,
        bar=what == OUTPUTS,
    )
    equal = int(np.triu(marks > 0, 1).sum())
    plot(
        figure,
        key="matrix",
        alt=f"{crowd} methods compared in pairs by {what}: {equal} of {plural(crowd * (crowd - 1) // 2, 'pair')} "
        f"{'is' if equal == 1 else 'are'} the same.",
        height=max(420, min(20 * crowd, 900) + 6 * max(map(len, shown)) + 90),
        on_pick=partial(_pick, found.keys),
    )


def _ring(found: Comparison, hover: np.ndarray) -> None:
    joined = np.where(found.same_regions, ALIKE, NONE)
    joined = np.where(found.equal, np.where(found.same_learned, SAME, NEARLY), joined)
    count = [int(np.triu(joined == kind, 1).sum()) for kind in (SAME, NEARLY, ALIKE)]
    said = ("the same output, the same learned", "the same output, other learned", "same sharing, other output")
    plot(
        ring(names(found.keys), joined, hover, said),
        key="ring",
        alt=f"The methods on a circle. Lines join {plural(count[0] + count[1], 'pair')} with the same output, of which "
        f"{count[1]} learn other parameters, and {plural(count[2], 'pair')} that only share over the same elements.",
        height=420,
    )


def _pick(keys: Sequence[str]) -> None:
    """After a click on a cell: its two methods are looked at closely."""
    click = picked("matrix")
    if click and click.cell and max(click.cell[:2]) < len(keys):
        controls.put(one=keys[click.cell[0]], other=keys[click.cell[1]])


def _hover(here: Setup, found: Comparison) -> np.ndarray:
    """For each two methods what the pointer says."""
    learned = [describe.learned(METHODS[k], here.shape, here.layout, **here.settings[k]) for k in found.keys]
    title = names(found.keys)
    words = np.empty(found.equal.shape, dtype=object)
    for i, j in np.ndindex(*words.shape):
        differs = f"largest difference {number(float(found.difference[i, j]))}"
        shares = "the same elements share" if found.same_regions[i, j] else "other elements share"
        learns = "the same is learned" if found.same_learned[i, j] else f"learned: {learned[i]}, and {learned[j]}"
        equal = "equal: " if found.equal[i, j] else ""
        words[i, j] = f"<b>{title[i]}, {title[j]}</b><br>{equal}{differs}"
        # Of very many pairs the page says the rest when one of them is clicked.
        words[i, j] += f"<br>{shares}<br>{learns}" if len(title) <= MOST else ""
    return words


def _short(values: np.ndarray) -> np.ndarray:
    """Numbers of few letters, for cells."""

    def written(value: float) -> str:
        return f"{value:.1f}" if 0.095 <= value < 9.95 else f"{value:.0f}" if 9.95 <= value < 1000 else power(value)

    return np.array([written(float(value)) for value in values.ravel()], dtype=object).reshape(values.shape)


def _table(found: Comparison) -> None:
    first, second = np.array(found.pairs).reshape(-1, 2).T
    called = np.array(found.keys)
    table(
        {
            "method": called[first],
            "other method": called[second],
            "largest |difference|": found.difference[first, second],
            "as a share of the largest value": found.share[first, second],
            "equal": found.equal[first, second],
            "same elements share": found.same_regions[first, second],
            "same learned shapes": found.same_learned[first, second],
        },
        key="all_pairs",
        file="equality",
        height=320,
    )

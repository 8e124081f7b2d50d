"""The Equality page's second question: what moves a method's output, measured and declared."""

from typing import Any

import numpy as np
import streamlit as st

from explorer.equality_setup import Setup, names, notes, power
from explorer.plot import plot
from explorer.table import table
from normcore import METHODS
from normcore.core import plural
from normcore.figures.heat import number
from normcore.figures.sameness import marked_heat, shrinking
from normcore.lab import invariance
from normcore.lab.invariance import Change, changes
from normcore.lab.probe import stand_in
from normcore.lab.weights import FACTORS, STAYS, WeightScale, weight_scale

SHORT = {
    invariance.SCALED: "input × 3",
    invariance.SHIFTED: "input + 3",
    invariance.WEIGHTS_SCALED: "weights × 3",
    invariance.WEIGHTS_SHIFTED: "weights + a vector",
    invariance.ORDER: "another order",
    invariance.OTHERS: "other samples",
}
WRITTEN = 24
"""Up to how many methods the numbers are written into the cells."""


@st.cache_data(max_entries=512, show_spinner=False)
def _changes(
    key: str, shape: tuple[int, ...], layout: str, training: bool, settings: tuple[Any, ...]
) -> tuple[Change, ...]:
    return changes(key, layout, shape=shape, training=training, **dict(settings))


@st.cache_data(max_entries=512, show_spinner=False)
def _weight_scale(
    key: str, shape: tuple[int, ...], layout: str, training: bool, settings: tuple[Any, ...]
) -> WeightScale | None:
    return weight_scale(key, layout, shape, training, **dict(settings))


def what_moves_it(here: Setup) -> None:
    """Every method against everything that can be done to its input, and the law of the scaled weight."""
    found = {key: {change.what: change for change in _changes(key, *here.asked(key))} for key in here.keys}
    what = list(dict.fromkeys(what for changed in found.values() for what in changed))
    _matrix(found, what)
    _sentences(found)
    first = METHODS[here.keys[0]]
    small = stand_in(first, here.shape, here.layout, [0] * len(here.shape), here.settings[first.key])[0]
    notes(here, small)
    numbers = st.expander("The numbers as a table", key="changes", on_change="rerun", bind="query-params")
    if numbers.open:
        with numbers:
            _table(found, what)
    scales = {key: scale for key in here.keys if (scale := _weight_scale(key, *here.asked(key))) is not None}
    if scales:
        _weights(here, scales)


def _matrix(found: dict[str, dict[str, Change]], what: list[str]) -> None:
    rows = names(list(found))
    grid = [[changed.get(name) for name in what] for changed in found.values()]
    values = np.array([[change.difference if change else np.nan for change in row] for row in grid])
    marks = np.array([[int(change is not None and change.nothing) for change in row] for row in grid])
    text = np.array([[_cell(change, len(rows) <= WRITTEN) for change in row] for row in grid], dtype=object)
    hover = np.array(
        [[_hover(row, change) for change in changed] for row, changed in zip(rows, grid, strict=True)], dtype=object
    )
    figure = marked_heat(
        values,
        marks,
        rows,
        [_heading(name) for name in what],
        title="Largest change, of the largest value",
        text=text,
        hover=hover,
        limits=(STAYS, 10.0),
    )
    plot(
        figure,
        key="invariances",
        alt=f"{plural(len(rows), 'method')} against {len(what)} changes of the input. In {int(marks.sum())} of "
        f"{int(np.isfinite(values).sum())} cells the output stays where it was.",
        height=max(360, min(24 * len(rows), 1100) + 150),
    )


def _heading(what: str) -> str:
    """What is done to the input, in few words."""
    return SHORT.get(what) or what.replace(" a factor of", "").replace(" a constant of", "")


def _cell(change: Change | None, written: bool) -> str:
    if change is None:
        return ""
    tick = "✓" if change.declared else ""
    if not written:
        return tick
    if change.difference < 1e-12:
        return f"{tick} 0".strip()
    size = power(change.difference) if change.nothing else f"{change.difference:.2g}"
    return f"{tick} {size}".strip()


def _hover(name: str, change: Change | None) -> str:
    if change is None:
        return ""
    moves = "the output stays" if change.nothing else "the output moves"
    declared = "follows from what it declares" if change.declared else "not declared"
    return f"<b>{name}</b>, {change.what}<br>{moves}: by {number(change.difference)} of its largest value<br>{declared}"


def _sentences(found: dict[str, dict[str, Change]]) -> None:
    """What the colors and marks mean, and where measurement and declaration part."""
    every = [(key, change) for key, changed in found.items() for change in changed.values()]
    st.caption(
        f"Measured by doing it. Teal: the output stays, within {STAYS:g} of its largest value, which is put down to ε. "
        "**✓** follows from what the method's file declares: its invariances, and the regions on which they hold; on a "
        "narrow screen it stands in the table alone, as “declared”. "
        "“Its own”: factors between 0.3 and 3, constants between 0 and 3. The weights are those of the layer before; "
        "the vector is the same for all channels. Another order counts as nothing when the outputs come in that order "
        "too. Other samples: all but the first are replaced, and the first one's output is looked at."
    )
    lost = [(key, change) for key, change in every if change.declared and not change.nothing]
    if lost:
        key, change = max(lost, key=lambda pair: pair[1].difference)
        st.caption(
            f"Declared, and yet moving by more than that: {plural(len(lost), 'cell')}, the most {METHODS[key].name} "
            f"({change.what}) by {change.difference:.2g}. That is ε, against regions whose values lie close together."
        )


def _table(found: dict[str, dict[str, Change]], what: list[str]) -> None:
    every = [(key, change) for key, changed in found.items() for change in changed.values()]
    table(
        {
            "method": [key for key, _ in every],
            "what is done": [change.what for _, change in every],
            "largest change, of the largest value": [change.difference for _, change in every],
            "stays": [change.nothing for _, change in every],
            "declared": [change.declared for _, change in every],
        },
        key="invariances",
        file="invariances",
        height=320,
    )


def _weights(here: Setup, scales: dict[str, WeightScale]) -> None:
    """The gradient of a scaled weight."""
    lawful = [key for key, scale in scales.items() if scale.shrinks]
    three = FACTORS.index(3.0)
    st.subheader("A weight times c, its gradient times 1/c")
    if lawful:
        moved = max(scales[key].outputs[three] for key in lawful)
        shrunk = _span([scales[key].gradients[three] for key in lawful])
        st.markdown(
            "Where a larger weight leaves the output alone, its gradient must shrink in return: a large weight learns "
            f"slowly. {len(lawful)} of {plural(len(scales), 'method')} here do so: three times the weight moves the "
            f"output by at most {power(moved)} of its largest value, and the gradient is {shrunk} of what it was."
        )
    else:
        st.markdown("None of these methods keeps its output when the weight is scaled.")
    figure, numbers = st.columns([3, 2], gap="large")
    with figure:
        plot(
            shrinking(
                FACTORS,
                [scale.gradients for scale in scales.values()],
                names(list(scales)),
                [key in lawful for key in scales],
            ),
            key="shrinking",
            alt=f"The length of a weight's gradient over the factor c on the weight. {len(lawful)} of {len(scales)} "
            "methods follow 1/c.",
            height=380,
        )
    with numbers:
        table(
            {
                "method": list(scales),
                "output moves, weight × 3": [scale.outputs[three] for scale in scales.values()],
                "gradient ×, weight × 3": [scale.gradients[three] for scale in scales.values()],
                "gradient ×, weight × 10": [scale.gradients[FACTORS.index(10.0)] for scale in scales.values()],
            },
            key="weight_scale",
            file="weight_scale",
            height=330,
        )
    kind = "a linear layer" if here.layout in ("vector", "tokens") else "a convolution"
    weights = METHODS[next(iter(scales))].family == "weight"
    whose = "the method's own input" if weights else f"that of {kind} without a bias before it"
    st.caption(f"The weight is {whose}; the loss is a random linear function of the output.")


def _span(values: list[float]) -> str:
    low, high = f"{min(values):.4g}", f"{max(values):.4g}"
    return low if low == high else f"{low} to {high}"

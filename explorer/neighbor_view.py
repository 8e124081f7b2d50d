"""The Batch page, who else counts: another sample that is replaced, and positions that hold nothing."""

import streamlit as st

from explorer import controls, detector
from explorer.plot import plot
from explorer.table import table
from normcore import METHODS
from normcore.core import LAYOUTS, LETTERS, Method
from normcore.describe import KINDS, kind
from normcore.figures.bars import Bar, bars, height
from normcore.lab import neighbors, padding

SIZES = {"c": 8, "t": 6, "l": 8, "d": 3, "h": 4, "w": 4}
EVERY, CHOSEN = "every method", "chosen ones"
# What padding moves: the field that says so, and the title of its axis.
QUANTITIES = {
    "output": ("output", "move of the outputs of real tokens,<br>share of their size"),
    "mean": ("mean_shift", "move of the mean,<br>in standard deviations"),
    "standard deviation": ("std_ratio", "standard deviation with padding,<br>over that without"),
}


@st.cache_data(max_entries=4096, show_spinner=False)
def _swap(
    key: str, shape: tuple[int, ...], layout: str, neighbor: int, newcomer: str, training: bool, ghost: int
) -> neighbors.Swap:
    settings = neighbors.fitting(METHODS[key], shape, layout, {"ghost_batch_size": ghost})
    return neighbors.swap(key, shape, layout, neighbor, newcomer, training, **settings)


@st.cache_data(max_entries=2048, show_spinner=False)
def _padded(key: str, lengths: tuple[int, ...], fill: float) -> padding.Padded:
    return padding.compare(key, lengths, fill)


def swap() -> None:
    """Which methods feel that another sample was replaced."""
    asked, shown = st.columns([2, 5], gap="large")
    with asked:
        layout = controls.pick("Layout", list(LAYOUTS["activation"]), "tensor", "image")
        batch = controls.select("Samples in the batch", (2, 4, 8, 16, 32), "among", 8)
        neighbor = controls.select("Sample that is replaced (yours is 0)", range(1, batch), "neighbor", 1)
        newcomer = controls.choose("By", list(neighbors.NEWCOMERS), "newcomer")
        training = controls.choose("Mode", ("training", "evaluation"), "mode") == "training"
        sizes = [n for n in (1, 2, 4, 8, 16, 32) if n <= batch]
        ghost = controls.select("Ghost batch size", sizes, "ghost_size", 2)
        fitting = _defined(layout)
        keys = list(fitting)
        chosen = controls.choose("Methods", (EVERY, CHOSEN), "which") == CHOSEN
        if chosen:
            keys = controls.several("Chosen", keys, "chosen", ("batch_norm", "ghost_batch_norm", "layer_norm"), 12)
    shape = (batch, *(SIZES[letter] for letter in LETTERS[layout][1:]))
    found = {key: _swap(key, shape, layout, neighbor, newcomer, training, ghost) for key in keys}
    settings = {key: neighbors.fitting(fitting[key], shape, layout, {"ghost_batch_size": ghost}) for key in keys}
    degenerate = [(key, detector.at_shape(key, shape, layout, training, tuple(settings[key].items()))) for key in keys]
    keys.sort(key=lambda key: -found[key].change)
    moved = [key for key in keys if found[key].noticed]
    # Those that meet the batch stay in the picture when they do not feel it; all others would be a wall of zeros.
    drawn = [key for key in keys if key in moved or len(keys) <= 12 or kind(fitting[key]) == KINDS[0]]
    entries = [
        Bar(
            fitting[key].name,
            found[key].change if found[key].noticed else 0.0,
            _percent(found[key].change) if found[key].noticed else "0",
            kind(fitting[key]),
            f"<b>{fitting[key].name}</b><br>your output moved by {_percent(found[key].change)} of its size,"
            f"<br>one value by up to {found[key].largest:.3g}",
        )
        for key in drawn
    ]
    words = (
        f"Of {len(keys)} methods, {len(moved)} changed your output when sample {neighbor} was replaced; "
        f"{len(keys) - len(moved)} did not."
    )
    if moved:
        words += f" The most: {fitting[moved[0]].name}, by {_percent(found[moved[0]].change)} of its size."
    with shown:
        st.markdown(f"**{words}**")
        detector.tell(degenerate, folded=not chosen)
        figure = bars(entries, KINDS, "move of your output,<br>share of its size")
        figure.update_xaxes(tickformat=".0%")
        plot(figure, key="swap", alt=words, height=height(entries))
        mode = "training" if training else "evaluation"
        st.caption(
            f"A batch ({' '.join(LETTERS[layout])}) = {shape} in {mode}, in float64; gain 1, bias 0. Running states "
            f"have seen {neighbors.SEEN} other samples. Share: root mean square of the move over that of the output; "
            f"below {neighbors.ROUNDING:g} it is rounding and drawn as 0."
        )
    table(
        {
            "method": [fitting[key].name for key in keys],
            "kind": [kind(fitting[key]) for key in keys],
            "changed": ["yes" if found[key].noticed else "no" for key in keys],
            "move, share of the output": [found[key].change for key in keys],
            "largest move of a value": [found[key].largest for key in keys],
        },
        key="swap",
        file="normcore-swap",
        height=260,
    )


def pads() -> None:
    """What padding does to statistics and outputs."""
    asked, shown = st.columns([2, 5], gap="large")
    with asked:
        mix = controls.choose("Lengths of the sentences", list(padding.MIXES), "lengths", "spread evenly")
        longest = controls.select("Tokens in the longest", (4, 8, 16, 32, 64), "longest", 16)
        fill = controls.choose("Padding holds", (0, 1, -5), "holds")
        quantity = controls.choose("Show how padding moves the", list(QUANTITIES), "moves")
        lengths = padding.MIXES[mix](longest)
        share = 1 - sum(lengths) / (len(lengths) * longest)
        st.caption(f"{len(lengths)} sentences of {', '.join(map(str, lengths))} tokens.")
    fitting = _defined("tokens")
    found = {key: _padded(key, lengths, float(fill)) for key in fitting}
    base = 1.0 if quantity == "standard deviation" else 0.0
    field, title = QUANTITIES[quantity]
    known = {key: getattr(seen, field) for key, seen in found.items()}
    keys = sorted(fitting, key=lambda key: 1.0 if known[key] is None else -abs(known[key] - base))
    # A method whose statistics belong to single positions cannot meet padding.
    drawn = [key for key in keys if found[key].shared or found[key].masked]
    entries = []
    for key in drawn:
        name = fitting[key].name
        said = _said(known[key], quantity)
        drawn_at = base if said == "0" else known[key]
        entries.append(Bar(name, drawn_at, said, kind(fitting[key]), f"<b>{name}</b><br>{_meaning(said, quantity)}"))
    moved = [key for key in fitting if (found[key].output or 0.0) > neighbors.ROUNDING]
    words = (
        f"{share:.0%} of the positions are padding. It changes the outputs of real tokens in {len(moved)} of "
        f"{len(fitting)} methods."
    )
    alone = [fitting[key].name for key in drawn if found[key].output is None]
    with shown:
        st.markdown(f"**{words}**")
        figure = bars(entries, KINDS, title, base)
        if quantity == "output":
            figure.update_xaxes(tickformat=".0%")
        plot(figure, key="padding", alt=f"{words} Shown: {title.replace('<br>', ' ')}.", height=height(entries))
        st.caption(
            "Mean and standard deviation are those of the values that share a statistic, with the padding counted and "
            "without it; a method given the mask does not count it. The outputs are compared with those of the same "
            "tokens, one behind the other, without padding"
            + (f"; for {', '.join(alone)} there is no such batch." if alone else ".")
            + f" {len(fitting) - len(drawn)} methods whose statistics belong to single tokens, or that have none, are "
            "in the table alone."
        )
    table(
        {
            "method": [fitting[key].name for key in keys],
            "mask given": ["yes" if found[key].masked else "no" for key in keys],
            "lengths": [mix] * len(keys),
            "share of padding": [share] * len(keys),
            "mean moves by, in standard deviations": [found[key].mean_shift for key in keys],
            "standard deviation is multiplied by": [found[key].std_ratio for key in keys],
            "outputs of real tokens move by, share": [found[key].output for key in keys],
        },
        key="padding",
        file="normcore-padding",
        height=260,
    )


def _defined(layout: str) -> dict[str, Method]:
    """The activation methods that are defined for a layout."""
    return {
        key: method for key, method in METHODS.items() if method.family == "activation" and layout in method.layouts
    }


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


def _said(value: float | None, quantity: str) -> str:
    if value is None:
        return "not comparable"
    if quantity == "standard deviation":
        return f"× {value:.2g}"
    if value <= neighbors.ROUNDING:
        return "0"
    return _percent(value) if quantity == "output" else f"{value:.2g}"


def _meaning(said: str, quantity: str) -> str:
    if said == "not comparable":
        return "nothing to compare with here"
    if quantity == "output":
        return f"outputs of real tokens move by {said} of their size"
    moves = "is multiplied by" if quantity == "standard deviation" else "moves by"
    return f"the {quantity} {moves} {said.removeprefix('× ')}"

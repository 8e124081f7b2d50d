"""One method's column on the Regions page: its picture, its counts, its warnings, its arithmetic, its code."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import streamlit as st

from explorer import controls
from explorer.compute import probed
from explorer.flat import flat
from explorer.plot import picked, plot
from normcore import describe, formula, snippet
from normcore.core import LETTERS, Method, NormcoreError, Window, axis_sizes
from normcore.figures.blocks import Blocks
from normcore.figures.regions import element, region_blocks
from normcore.lab.probe import Probe


@dataclass(frozen=True)
class View:
    """What all columns have in common: the tensor, the picked element, and how they are drawn."""

    shape: tuple[int, ...]
    layout: str
    training: bool
    index: tuple[int, ...] | None
    apart: bool
    measured: bool

    @property
    def letters(self) -> tuple[str, ...]:
        return LETTERS[self.layout]

    @property
    def at(self) -> tuple[int, ...]:
        """The element whose numbers are shown, whether or not it is lit."""
        return self.index or (0,) * len(self.shape)


def column(method: Method, settings: dict[str, Any], view: View, height: int) -> None:
    """The picture of one method, with what it counts, what coincides here and what degenerates."""
    st.markdown(f"#### {method.name} <small>{method.paper.year}</small>", unsafe_allow_html=True)
    try:
        bounds = method.bound(view.shape, view.layout, view.training, **settings)
    except NormcoreError as error:
        sentence = str(error).partition(": ")[2]
        st.warning(f"{sentence[:1].upper()}{sentence[1:]}.", icon=":material/block:")
        return
    picture = st.container()
    statistic = _statistic(method, bounds)
    shown, probe = _blocks(method, settings, view, bounds, statistic)
    words = describe.headline(method, view.shape, view.layout, view.training, **settings)
    drawn = view if probe is None else _small(view, probe)
    with picture:
        plot(
            shown,
            key=f"plot_{method.key}",
            alt=f"{method.name} on ({' '.join(view.letters)}) = {view.shape}. {words}.",
            height=height,
            camera_group="regions",
            on_pick=partial(_pick, f"plot_{method.key}", drawn, bounds, view.shape),
        )
    st.markdown(f"**{words.partition('; ')[0]}**  \n{words.partition('; ')[2]}")
    if shown.note:
        st.caption(f"{shown.note[:1].upper()}{shown.note[1:]}.")
    if probe and probe.shape != view.shape:
        st.caption(f"Measured on a small tensor of the same structure, {_sizes(probe.shape)}.")
    for finding in describe.diagnose(method.key, view.shape, view.layout, view.training, **settings):
        st.warning(f"{finding.sentence} {finding.remedy}", icon=":material/warning:")
    for sentence in describe.coincidences(method, view.shape, view.layout, view.training, **settings):
        st.markdown(f":blue[:material/equal:] {sentence}")


def hero(method: Method, view: View) -> None:
    """The picture alone, large, with its counts as the caption."""
    bounds = method.bound(view.shape, view.layout)
    words = describe.headline(method, view.shape, view.layout)
    plot(
        region_blocks(view.shape, view.letters, bounds),
        key="hero",
        alt=f"{method.name} on ({' '.join(view.letters)}) = {view.shape}. {words}.",
        height=520,
    )
    st.caption(f"{_sizes(view.shape)} values: {words}.")


def numbers(method: Method, settings: dict[str, Any], view: View) -> None:
    """The formula, in symbols and with the numbers of the picked element, from input to output."""
    probe = probed(method.key, view.shape, view.layout, view.at, view.training, tuple(settings.items()))
    complete = method.settings(dict(probe.settings), axis_sizes(probe.shape, view.layout))
    result = formula.number(probe.numbers["y"])
    filled = formula.with_numbers(method, complete, probe.numbers)
    st.latex(rf"y = {formula.symbolic(method, complete, tuple(probe.numbers))} = {filled} = {result}")
    known = [name for name in probe.numbers if name in formula.MEANINGS]
    legend = "; ".join(f"${formula.symbol(method, name)}$ is the {formula.MEANINGS[name]}" for name in known)
    where = f"element {probe.index}" + (
        "" if probe.shape == view.shape else f" of a small stand-in {_sizes(probe.shape)}"
    )
    state = "" if view.training or not method.state else " The running state has seen 20 batches."
    st.caption(f"At {where}, with γ = 1 and β = 0. {legend[:1].upper()}{legend[1:]}{'.' if legend else ''}{state}")


def flat_views(methods: Sequence[Method], settings: dict[str, dict[str, Any]], view: View) -> None:
    """The same pictures as tables, all of them cut at the same place: at the picked element, or at one to choose."""
    drawn = []
    for method in methods:
        bounds = method.bound(view.shape, view.layout, view.training, **settings[method.key])
        drawn.append(_blocks(method, settings[method.key], view, bounds, 0, apart=False)[0])
    depth = max((len(shown.axes[2].names) for shown in drawn), default=1)
    level = controls.select("Slice", range(depth), "slice", 0) if view.index is None else None
    for method, shown in zip(methods, drawn, strict=True):
        what = "share of the strongest influence on it" if view.measured else "number of its region"
        at = min(level, len(shown.axes[2].names) - 1) if level is not None else shown.picked[2] if shown.picked else 0
        flat(shown, f"{method.name}: for each element the {what}", at)


def code(method: Method, settings: dict[str, Any], view: View) -> None:
    """The configuration as code, ready to copy."""
    arguments = (method, view.shape, view.layout, view.training)
    ours, plain = st.columns(2)
    with ours:
        st.caption("normcore")
        st.code(snippet.in_normcore(*arguments, **settings), language="python")
    with plain:
        st.caption("plain PyTorch")
        st.code(snippet.in_pytorch(*arguments, **settings), language="python")


def _statistic(method: Method, bounds: Sequence[Any]) -> int:
    """Which of several statistics the colors speak of."""
    if len(bounds) < 2:
        return 0
    names = ["per " + (" and ".join(formula_words(bound)) or "tensor") for bound in bounds]
    return names.index(controls.pick("Colors show the statistic", names, f"statistic_{method.key}", names[0]))


def formula_words(bound: Any) -> list[str]:
    return [] if isinstance(bound, Window) else [describe.AXIS_WORDS[letter] for letter in bound.letters]


def _blocks(
    method: Method,
    settings: dict[str, Any],
    view: View,
    bounds: Sequence[Any],
    statistic: int,
    apart: bool | None = None,
) -> tuple[Blocks, Probe | None]:
    apart = view.apart if apart is None else apart
    if not view.measured:
        shown = region_blocks(view.shape, view.letters, bounds, index=view.index, statistic=statistic, apart=apart)
        return shown, None
    probe = probed(method.key, view.shape, view.layout, view.at, view.training, tuple(settings.items()))
    small = method.bound(probe.shape, view.layout, view.training, **probe.settings)
    strengths = probe.influence.numpy()
    shown = region_blocks(
        probe.shape, view.letters, small, index=probe.index, statistic=statistic, apart=apart, influence=strengths
    )
    return shown, probe


def _small(view: View, probe: Probe) -> View:
    return View(probe.shape, view.layout, view.training, probe.index, view.apart, view.measured)


def _pick(key: str, view: View, bounds: Sequence[Any], shape: tuple[int, ...]) -> None:
    """After a click: the element under the pointer is the picked one, and its region is lit."""
    click = picked(key)
    if click is None or click.cell is None:
        return
    index = element(click.cell, view.shape, view.letters, view.apart, bounds, view.index)
    within = [min(i, size - 1) for i, size in zip(index, shape, strict=True)]
    controls.put(light=controls.ONE, **dict(zip(view.letters, within, strict=True)))


def _sizes(shape: Sequence[int]) -> str:
    return " × ".join(f"{size:,}" for size in shape)

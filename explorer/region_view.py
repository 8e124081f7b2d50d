"""One method's column on the Regions page: its picture, its counts, its warnings, its arithmetic, its code."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import streamlit as st

from explorer import controls
from explorer.compute import Settings, probed
from explorer.flat import flat
from explorer.plot import picked, plot
from normcore import METHODS, describe, diagnose, formula, snippet
from normcore.core import LETTERS, Method, Window, axis_sizes
from normcore.figures.blocks import Blocks
from normcore.figures.regions import element, region_blocks
from normcore.lab.probe import BATCHES, Probe


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
        """The element whose numbers are shown, whether or not it is lit: one in the middle unless one was picked."""
        return self.index or tuple(size // 2 for size in self.shape)


def picture(method: Method, settings: dict[str, Any], view: View, height: int) -> Callable[[], None]:
    """The picture of one method; what is answered writes below it, once all pictures are on their way."""
    st.markdown(f"## {method.name}")
    if view.layout not in method.layouts:
        known = ", ".join(method.layouts)
        st.warning(f"{method.name} is not defined for {view.layout} tensors; try {known}.", icon=":material/block:")
        return lambda: None
    bounds = method.bound(view.shape, view.layout, view.training, **settings)
    drawing = st.container()
    statistic = _statistic(method, bounds)
    shown, drawn, probe = _blocks(method, settings, view, statistic)
    words = describe.headline(method, view.shape, view.layout, view.training, **settings)
    with drawing:
        plot(
            shown,
            key=f"plot_{method.key}",
            alt=f"{method.name} on ({' '.join(view.letters)}) = {view.shape}. {words}. {_lit_words(view)}",
            height=height,
            camera_group="regions",
            on_pick=partial(_pick, method, drawn, view.shape),
        )
    below = st.container()

    def write() -> None:
        with below:
            st.markdown(f"**{words.partition('; ')[0]}**  \n{words.partition('; ')[2]}")
            for note in _notes(method, bounds, view, shown, probe):
                st.caption(note)
            for finding in diagnose(method.key, view.shape, view.layout, view.training, **settings):
                st.warning(f"{finding.sentence} {finding.remedy}", icon=":material/warning:")
            for sentence in describe.coincidences(method, view.shape, view.layout, view.training, **settings):
                st.markdown(f":blue[:material/equal:] {sentence}")

    return write


def _lit_words(view: View) -> str:
    if view.measured:
        return f"Shaded by the measured influence of each element on element {view.index}."
    return f"Lit: the region of element {view.index}." if view.index else "Each region has a color."


def _notes(method: Method, bounds: Sequence[Any], view: View, shown: Blocks, probe: Probe | None) -> list[str]:
    """What a visitor must know to read the picture."""
    notes = [f"{shown.note[:1].upper()}{shown.note[1:]}."] if shown.note else []
    if probe and probe.shape != view.shape:
        notes.append(f"Measured on a small tensor of the same structure, {_sizes(probe.shape)}.")
    if probe and not bool(probe.influence.any()):
        notes.append("No input moves this output here.")
    if view.index is None and any(isinstance(bound, Window) for bound in bounds):
        notes.append(f"The windows of neighbors overlap; shown is the one of element {view.at}.")
    if method.family == "gradient" and bounds:
        notes.append("The tensor is the gradient of one parameter; the norm is taken over all parameters together.")
    return notes


def hero(method: Method, view: View, settings: dict[str, Any] | None = None) -> None:
    """The picture alone, large, with its counts as the caption."""
    settings = settings or {}
    bounds = method.bound(view.shape, view.layout, **settings)
    words = describe.headline(method, view.shape, view.layout, **settings)
    blocks = region_blocks(view.shape, view.letters, bounds, stored=bool(method.state))
    plot(blocks, key="hero", alt=f"{method.name} on ({' '.join(view.letters)}) = {view.shape}. {words}.", height=520)
    st.caption(f"{_sizes(view.shape)} values: {words}.")


def numbers(method: Method, settings: dict[str, Any], view: View) -> None:
    """The formula, in symbols and with the numbers of the picked element, from input to output."""
    equation, caption = _filled(method.key, tuple(settings.items()), view)
    st.latex(equation)
    st.caption(caption)


@lru_cache(maxsize=512)
def _filled(key: str, settings: Settings, view: View) -> tuple[str, str]:
    """The formula with its numbers, and what they are."""
    method = METHODS[key]
    probe = probed(key, view.shape, view.layout, view.at, view.training, settings)
    complete = method.settings(dict(probe.settings), axis_sizes(probe.shape, view.layout))
    result = formula.number(probe.numbers["y"], digits=4)
    filled = formula.with_numbers(method, complete, probe.numbers)
    known = [name for name in probe.numbers if name in formula.MEANINGS]
    legend = "; ".join(f"${formula.symbol(method, name)}$ is the {formula.MEANINGS[name]}" for name in known)
    element = f"At element {view.at}"
    if probe.shape != view.shape:
        element += (
            f", for which element {probe.index} of a small tensor of the same structure, {_sizes(probe.shape)}, stands"
        )
        given = dict(settings)
        element += "".join(
            f" (there {name}={value})" for name, value in complete.items() if given.get(name, value) != value
        )
    learned = f", with {_plain_parameters(method, complete)}" if method.affine else ""
    state = (
        f" The running state has seen {BATCHES} batches."
        if complete.get("track_running_stats") and not view.training
        else ""
    )
    return (
        rf"y = {formula.symbolic(method, complete, tuple(probe.numbers))} = {filled} \approx {result}",
        f"{element}{learned}. {legend[:1].upper()}{legend[1:]}{'.' if legend else ''}{state}",
    )


def _plain_parameters(method: Method, settings: Mapping[str, Any]) -> str:
    """The values of what is learned in the numbers shown."""
    names = {"weight": "γ = 1", "bias": "β = 0", "gain": "a gain of 1"}
    said = [names[name] for name in method.affine if name in names]
    for name, slot in method.affine.items():
        if name not in names and not name.endswith("_weight"):
            said.append(f"{name} = {settings[slot.init] if isinstance(slot.init, str) else slot.init}")
    return " and ".join(said + (["equal shares"] if any(name.endswith("_weight") for name in method.affine) else []))


def flat_views(methods: Sequence[Method], settings: dict[str, dict[str, Any]], view: View) -> None:
    """The same pictures as tables, all of them cut at the same place: at the picked element, or at one to choose."""
    drawn = []
    for method in methods:
        drawn.append(_blocks(method, settings[method.key], replace(view, apart=False), 0)[0])
    depth = max((len(shown.axes[2].names) for shown in drawn), default=1)
    level = controls.select("Slice", range(depth), "slice", 0) if view.index is None else None
    for method, shown in zip(methods, drawn, strict=True):
        itself = "influence on the picked one, in percent of the strongest other"
        what = itself if view.measured else "number of its region"
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
    names = ["per " + (" and ".join(_kept_words(bound)) or "tensor") for bound in bounds]
    return names.index(controls.pick("Colors show the statistic", names, f"statistic_{method.key}", names[0]))


def _kept_words(bound: Any) -> list[str]:
    """What tells the regions apart, in words: their axes, or that each element has a window of its own."""
    if isinstance(bound, Window):
        return ["window" if bound.times == 1 else "window of windows"]
    return [describe.AXIS_WORDS[letter] for letter in bound.letters]


@dataclass(frozen=True)
class Drawn:
    """What a picture was drawn from: the tensor on the page, or the small one that was measured."""

    view: View
    bounds: Sequence[Any]


def _blocks(method: Method, settings: dict[str, Any], view: View, statistic: int) -> tuple[Blocks, Drawn, Probe | None]:
    """The picture, declared or measured."""
    return _drawn(method.key, tuple(settings.items()), view, statistic)


@lru_cache(maxsize=256)
def _drawn(key: str, chosen: Settings, view: View, statistic: int) -> tuple[Blocks, Drawn, Probe | None]:
    method, probe, influence = METHODS[key], None, None
    if view.measured:
        probe = probed(key, view.shape, view.layout, view.at, view.training, chosen)
        view, chosen = replace(view, shape=probe.shape, index=probe.index), tuple(dict(probe.settings).items())
        influence = probe.influence.numpy()
    bounds = method.bound(view.shape, view.layout, view.training, **dict(chosen))
    shown = region_blocks(
        view.shape,
        view.letters,
        bounds,
        index=view.index,
        statistic=statistic,
        stored=bool(method.state),
        apart=view.apart,
        influence=influence,
    )
    return shown, Drawn(view, bounds), probe


def _pick(method: Method, drawn: Drawn, shape: tuple[int, ...]) -> None:
    """After a click: the element under the pointer is the picked one, and its region is lit."""
    click, view = picked(f"plot_{method.key}"), drawn.view
    if click is None or click.cell is None:
        return
    index = element(click.cell, view.shape, view.letters, view.apart, drawn.bounds, view.index)
    within = [i * size // small for i, size, small in zip(index, shape, view.shape, strict=True)]
    controls.put(light=controls.ONE, **dict(zip(view.letters, within, strict=True)))


def _sizes(shape: Sequence[int]) -> str:
    return " × ".join(f"{size:,}" for size in shape)

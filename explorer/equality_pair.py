"""Two methods side by side: what is the same, what is declared about them, and their numbers."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import streamlit as st

from explorer import controls
from explorer.equality_setup import Setup
from explorer.table import table
from normcore import METHODS, describe
from normcore.core import LETTERS, axis_sizes
from normcore.lab.equality import Comparison, Output, given
from normcore.lab.identities import Claim, chain, claims

FIRST = 24
"""How many values are shown side by side."""
SAME, DIFFERENT = ":blue[:material/equal: the same]", ":orange[:material/close: not the same]"


def one_pair(here: Setup, outputs: Mapping[str, Output], found: Comparison) -> None:
    """Two methods, chosen in lists: output, regions, what is learned, the declared identity, and their first values."""
    st.subheader("One pair")
    if len(outputs) < 2:
        st.info("One method alone has nothing to be compared with: choose another one beside it.")
        return
    classics = [key for key in ("layer_norm", "group_norm") if key in outputs]
    default = classics if len(classics) == 2 else list(outputs)[:2]
    left, right = st.columns(2)
    with left:
        one = controls.pick("One method", list(here.keys), "one", default[0])
    with right:
        other = controls.pick("The other", list(here.keys), "other", default[1])
    if one == other:
        st.info(f"{METHODS[one].name} equals itself. Choose another method, or click a cell above.")
        return
    i, j = (found.keys.index(key) for key in (one, other))
    same = [bool(matrix[i, j]) for matrix in (found.equal, found.same_regions, found.same_learned)]
    st.markdown(f"**{METHODS[one].name} and {METHODS[other].name}.** {_verdict(*same)}")
    keys = (one, other)
    said = (
        f"Largest difference **{found.difference[i, j]:.3g}**, {found.share[i, j]:.2g} of the largest value.",
        _each(keys, [_shares(here, key) for key in keys]),
        _each(keys, [_learns(here, key) for key in keys]),
    )
    titles = ("Output", "Who shares a statistic", "What is learned")
    for place, title, alike, words in zip(st.columns(3, gap="small"), titles, same, said, strict=True):
        with place, st.container(border=True, height="stretch"):
            st.markdown(f"**{title}**: {SAME if alike else DIFFERENT}")
            st.markdown(words)
    _declared(here, one, other, same[0])
    _values(here, outputs[one], outputs[other])


def _verdict(equal: bool, regions: bool, learned: bool) -> str:
    """What the three comparisons come to."""
    if equal:
        if not learned:
            return "The same numbers, but not the same layer: they learn parameters of other shapes."
        if regions:
            return "Here they are one method under two names."
        return "The outputs are equal here, although statistics are shared by other elements."
    if regions:
        return "The same elements share a statistic, but something else is done with it."
    return "They are two different methods here."


def _each(keys: tuple[str, str], words: list[str]) -> str:
    """What holds for both once, what differs for each."""
    if words[0] == words[1]:
        return f"Both: {words[0]}."
    return "  \n".join(f"{METHODS[key].name}: {said}." for key, said in zip(keys, words, strict=True))


def _shares(here: Setup, key: str) -> str:
    return describe.statistics(METHODS[key].bound(here.shape, here.layout, here.training, **here.settings[key]))


def _learns(here: Setup, key: str) -> str:
    """How many parameters, and of which shape."""
    norm = METHODS[key]
    sizes = axis_sizes(here.shape, here.layout)
    slots = {name: slot for name, slot in norm.affine.items() if not callable(slot.init)}
    axes = [f"{name} ({' '.join(slot.letters(sizes))})" for name, slot in slots.items()]
    return ", ".join([describe.learned(norm, here.shape, here.layout, **here.settings[key]), *axes])


def _declared(here: Setup, one: str, other: str, equal: bool) -> None:
    """The identities that either declares, with their conditions, and a way to meet them."""
    arguments: tuple[Any, ...] = (here.shape, here.layout, here.training, here.settings)
    # Two methods may declare the same of each other: one of the two sentences is enough.
    declared = list({claim.missing: claim for claim in reversed(claims(one, other, *arguments))}.values())
    for number, claim in enumerate(declared):
        state = "The condition is met." if claim.met else f"Not met here: {'; '.join(claim.missing)}."
        words, button = st.columns([5, 1], vertical_alignment="center")
        words.markdown(f":blue[:material/function:] Declared: {claim.condition} {state}")
        wanted = _wanted(here, claim)
        if wanted:
            button.button("Make it so", on_click=controls.put, kwargs=wanted, key=f"make_{number}", width="stretch")
    if declared:
        return
    way = chain(one, other, here.keys, *arguments) if equal else []
    if way:
        st.markdown(f":blue[:material/function:] Declared, step by step: {' '.join(claim.condition for claim in way)}")
    else:
        st.caption("Neither declares to be the other one under some condition; what is said here is measured.")


def _wanted(here: Setup, claim: Claim) -> dict[str, Any]:
    """What to put so that the condition is met; nothing where that is met already, or no control can do it."""
    sizes = {**axis_sizes(here.shape, here.layout), **claim.sizes}
    wanted: dict[str, Any] = {axis.upper(): size for axis, size in claim.sizes.items()}
    for name, (key, value) in claim.settings.items():
        param = next(param for param in METHODS[key].params if param.name == name)
        put = controls.reach(param, value, sizes)
        if not put:
            return {}
        wanted |= put
    return wanted if claim.possible else {}


def _values(here: Setup, one: Output, other: Output) -> None:
    """The first values, and the one where the two differ most, which proves the number above."""
    x = given(one.shape, here.layout)
    difference = np.abs(one.y - other.y)
    most = int(np.nanargmax(difference)) if np.isfinite(difference).any() else 0
    rows = list(range(min(FIRST, x.size)))
    rows += [] if most in rows else [most]
    places = np.unravel_index(rows, x.shape)
    first, second = METHODS[one.key].name, METHODS[other.key].name
    columns: dict[str, Any] = dict(zip(LETTERS[here.layout], places, strict=True))
    columns |= {
        "input": x.ravel()[rows],
        f"{first}": one.y.ravel()[rows],
        f"{second}": other.y.ravel()[rows],
        "|difference|": difference.ravel()[rows],
    }
    st.caption(f"The first {min(FIRST, x.size)} of {x.size} values, and at the end the one where they differ most.")
    table(columns, key="values", file=f"{one.key}_and_{other.key}", height=300)

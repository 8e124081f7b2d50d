"""What the Equality page compares: the methods, their settings, the tensor, the mode."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st

from explorer import controls
from normcore import METHODS, NormcoreError, describe
from normcore.core import LAYOUTS, LETTERS, axis_sizes, plural
from normcore.lab.probe import BATCHES

STARTERS = "a dozen to start with"
EVERY = "every method that fits"
SELECTION = "a selection"
DOZEN = (
    *("batch_norm", "ghost_batch_norm", "instance_norm", "group_norm", "layer_norm", "layer_norm_2d"),
    *(
        "positional_norm",
        "bert_layer_norm",
        "rms_norm",
        "rms_norm_2d",
        "pixel_norm",
        "scale_norm",
        "l2_norm",
        "dynamic_tanh",
    ),
)
MOST = 20
"""How many methods a selection holds."""


@dataclass(frozen=True)
class Setup:
    """What is compared: the methods, each with its settings, on one shape, in one mode."""

    keys: tuple[str, ...]
    shape: tuple[int, ...]
    layout: str
    training: bool
    settings: Mapping[str, Mapping[str, Any]]
    left_out: tuple[str, ...]

    def asked(self, key: str) -> tuple[tuple[int, ...], str, bool, tuple[Any, ...]]:
        """What one method is measured with, in a form that a cache understands."""
        return self.shape, self.layout, self.training, tuple(self.settings[key].items())


def setup() -> Setup:
    """Asks, in the sidebar, what is to be compared."""
    layouts = {layout: family for family in ("activation", "weight") for layout in LAYOUTS[family]}
    layout = controls.pick("Layout", list(layouts), "layout", "image")
    st.caption(f"axes ({' '.join(LETTERS[layout])})")
    family = [m for m in METHODS.values() if (m.family == "activation") == (layouts[layout] == "activation")]
    fitting = [method.key for method in family if layout in method.layouts]
    kinds = [kind for kind in describe.KINDS if sum(describe.kind(METHODS[key]) == kind for key in fitting) > 1]
    wanted = controls.pick("Methods", [STARTERS, EVERY, *kinds, SELECTION], "set", STARTERS)
    missing = [m.name for m in family if layout not in m.layouts and wanted in (EVERY, describe.kind(m))]
    if wanted == SELECTION:
        default = [key for key in DOZEN if key in fitting][:4] or fitting[:4]
        keys = controls.several("Selection", fitting, "among", default, MOST)
    elif wanted == STARTERS:
        keys = [key for key in DOZEN if key in fitting] or fitting
    else:
        keys = [key for key in fitting if wanted in (EVERY, describe.kind(METHODS[key]))]
    mode = controls.choose("Mode", ("training", "evaluation"), "mode")
    shape = controls.sizes(layout)
    settings = controls.settings([METHODS[key] for key in keys], axis_sizes(shape, layout), agreed=False)
    left_out = [f"Not defined for {layout} tensors, and left out: {', '.join(missing)}."] if missing else []
    for key in keys:
        try:
            METHODS[key].bound(shape, layout, mode == "training", **settings[key])
        except NormcoreError as error:
            left_out.append(f"{METHODS[key].name} is left out. {error}.")
            del settings[key]
    return Setup(tuple(settings), shape, layout, mode == "training", settings, tuple(left_out))


def names(keys: Sequence[str]) -> list[str]:
    """What people call the methods."""
    return [METHODS[key].name for key in keys]


def power(value: float) -> str:
    """A number of one figure, as short as it gets."""
    return f"{value:.0e}".replace("e-0", "e−").replace("e-", "e−").replace("e+00", "").replace("e+0", "e")


def notes(here: Setup, small: Sequence[int]) -> None:
    """What a visitor must know about the numbers."""
    said = list(here.left_out)
    if tuple(small) != here.shape:
        sizes = " × ".join(map(str, small))
        said.append(f"Computed on a small tensor of the same structure, {sizes}.")
    context = sorted({name for key in here.keys for name in METHODS[key].context})
    if context:
        said.append(f"What may come with the input ({', '.join(context)}) is left out; that is the method without it.")
    remembering = sum(bool(METHODS[key].state) for key in here.keys)
    if remembering and not here.training:
        said.append(f"{plural(remembering, 'method')} of these may remember; they have seen {BATCHES} batches.")
    st.caption(" ".join(["In float64, with gain 1 and bias 0.", *said]))

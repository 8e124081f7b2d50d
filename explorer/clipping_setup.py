"""What the first two tabs of the Clipping page are asked: which variants, with which settings, after which past."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st

from explorer import controls
from explorer.controls import SHARED
from normcore import METHODS
from normcore.lab import vectors
from normcore.lab.vectors import PARTS, Variant

MOST = 6
FIRST = ("clip_by_value", "clip_by_global_norm")
THRESHOLDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
NOTHING = np.empty((0, 2))


@dataclass(frozen=True)
class Setup:
    """The chosen variants, each with what was set of its own, how the two numbers are held, and the past."""

    own: dict[str, dict[str, Any]]
    parts: str
    past: np.ndarray
    weights: tuple[float, float] = vectors.WEIGHTS

    def variants(self, threshold: float) -> list[Variant]:
        """The variants with the common threshold, where they have one and no other was set for them."""
        return [Variant(key, self._common(key, threshold) | own) for key, own in self.own.items()]

    @property
    def remembering(self) -> list[str]:
        """The names of the chosen methods whose answer depends on the past."""
        return [METHODS[key].name for key in self.own if Variant(key).remembers]

    @staticmethod
    def _common(key: str, threshold: float) -> dict[str, Any]:
        name = vectors.threshold(key)
        return {name: threshold} if name else {}


def setup(alone: bool) -> Setup:
    """Asks, in the sidebar, for the variants and their settings.

    Where the gradient stands `alone`, also for a past and for parameters, if a variant has a use for them.
    """
    refusals = vectors.refusals()
    offered = [key for key, reason in refusals.items() if not reason]
    with st.sidebar:
        keys = controls.several("Variants", offered, "variant", FIRST, MOST)
        parts = controls.pick("The two numbers are", list(PARTS), "held_as", next(iter(PARTS)))
        own = {key: _own(key) for key in keys}
        remembering = any(Variant(key).remembers for key in keys)
        past = _past() if alone and remembering else NOTHING
        weighing = any("parameters" in METHODS[key].inputs for key in keys)
        length = _length() if alone and weighing else 5.0
        if any(METHODS[key].per_example for key in keys):
            st.caption("Methods for single examples get the gradient as that of the only example of a batch.")
        left_out = {key: reason for key, reason in refusals.items() if reason}
        if left_out:
            with st.expander("Left out here", icon=":material/block:"):
                for reason in left_out.values():
                    st.caption(f"{reason}.")
    return Setup(own, parts, past, (0.6 * length, 0.8 * length))


def _own(key: str) -> dict[str, Any]:
    method = METHODS[key]
    if not method.params:
        return {}
    common = vectors.threshold(key)
    with st.expander(method.name, icon=":material/tune:"):
        return controls.own_settings(method, {common: SHARED} if common else {})


def _past() -> np.ndarray:
    with st.expander("The gradients before", icon=":material/history:", expanded=True):
        steps = controls.select("How many", (0, 1, 2, 5, 10, 20, 30, 50), "past_steps", 30)
        length = controls.select(
            "About how long", (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0), "past_length", 1.0, "{:g}".format
        )
        seed = controls.select("Which past", range(10), "past_seed", 0)
    return vectors.past(steps, length, seed)


def _length() -> float:
    lengths = (0.0, 0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 100.0)
    return float(controls.select("How long the parameters are", lengths, "parameter_length", 5.0, "{:g}".format))

"""What the Gradient flow page is asked to measure: every remedy of the classic list as a control, checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import streamlit as st

from explorer import controls
from normcore import METHODS, NormcoreError
from normcore.lab.flow_nets import KINDS, SKIPS, Wiring, check, clips, fitting, functions
from normcore.lab.flow_remedies import Remedy
from normcore.lab.teams import OPTIMIZERS
from normcore.penalties import KINDS as PENALTIES

NONE = "none"
NETS = {name: kind for kind, name in KINDS.items()}
STARTS = {
    "Xavier": "xavier",
    "He": "he",
    "LeCun": "lecun",
    "orthogonal": "orthogonal",
    "PyTorch": "pytorch",
    "small": "small",
    "large": "large",
}
VARIANCES = {
    "Xavier": "variance 2 / (inputs + outputs)",
    "He": "variance 2 / inputs",
    "LeCun": "variance 1 / inputs",
    "orthogonal": "orthonormal rows or columns",
    "PyTorch": "uniform, variance 1 / (3 inputs), the default of nn.Linear",
    "small": "a tenth of LeCun's deviation",
    "large": "three times LeCun's deviation",
}
DEPTHS = (2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 16, 20, 24, 25, 30, 32, 40, 50, 64, 80, 100)
WIDTHS = (4, 8, 12, 16, 24, 32, 48, 64)
BATCHES = (2, 4, 8, 16, 32, 64, 128, 256, 512)
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0)
FORGETS = (0.0, 1.0, 2.0, 4.0)
STRENGTHS = (1e-4, 1e-3, 1e-2, 0.1, 1.0)
OFF, ON = "off", "on"
PENALTY = {NONE: None} | {kind: kind for kind in PENALTIES}
KEYS: Mapping[str, tuple[str, Mapping[Any, str]]] = {
    "kind": ("net", KINDS),
    "start": ("start", {value: name for name, value in STARTS.items()}),
    "residual": ("residual", {True: ON, False: OFF}),
}
"""The controls whose names or words differ from those of the engine."""


@dataclass(frozen=True)
class Setup:
    """A net as it is set up, the seed of its first weights, how long it learns, and what stands in the way."""

    wiring: Wiring
    seed: int
    steps: int
    problem: str

    @property
    def unit(self) -> str:
        """What a layer is here."""
        return "time step" if self.wiring.recurrent else "layer"


def setup() -> Setup:
    """Asks, in the sidebar, for a net."""
    kind = NETS[controls.pick("Net", list(NETS), "net", "MLP")]
    recurrent = kind != "mlp"
    depth = controls.select("Time steps" if recurrent else "Layers", DEPTHS, "depth", 20)
    width = controls.select("Width", WIDTHS, "width", 32)
    offered = functions(kind)
    activation = Wiring.activation
    if offered:
        default = "sigmoid" if "sigmoid" in offered else offered[0]
        activation = controls.pick("Activation", offered, "activation", default)
    start = controls.pick("Initialization", list(STARTS), "start", "Xavier")
    st.caption(VARIANCES[start])
    forget = 0.0
    if kind == "lstm":
        forget = controls.select("First bias of the forget gate", FORGETS, "forget", 0.0, controls.words)
    norms = [NONE, *fitting(kind)]
    norm = controls.pick("Normalization in the cell" if recurrent else "Normalization", norms, "norm", NONE)
    if norm != NONE and SKIPS in METHODS[norm].context:
        st.caption("It brings a skip connection of its own, from the second layer on.")
    weights = [NONE, *(key for key, method in METHODS.items() if method.family == "weight")]
    weight = controls.pick("Normalization of the weights", weights, "weights", NONE)
    residual = not recurrent and controls.choose("Residual connections", (OFF, ON), "residual") == ON
    with st.expander("How it learns", icon=":material/school:"):
        batch = controls.select("Batch size", BATCHES, "batch", 32)
        rate = controls.select("Learning rate", RATES, "rate", 0.1, controls.words)
        optimizer = controls.pick("Optimizer", list(OPTIMIZERS), "optimizer", "sgd")
        clip = controls.pick("Clipping", [NONE, *clips()], "clip", NONE)
        penalty = controls.pick("Orthogonal regularization", list(PENALTY), "penalty", NONE)
        strength = Wiring.strength
        if penalty != NONE:
            strength = controls.select("Its strength", STRENGTHS, "strength", 0.01, controls.words)
        steps = controls.select("Steps", (20, 50, 100, 200, 400), "steps", 100)
        seed = controls.select("Seed", range(0, 100), "seed", 0)
    chosen = [METHODS[key] for key in (norm, weight, clip) if key != NONE]
    sizes = dict.fromkeys("ctlhwdoi", width) | {"n": batch}
    settings = controls.settings(chosen, sizes)
    wiring = Wiring(
        kind=kind,
        depth=depth,
        width=width,
        activation=activation,
        start=STARTS[start],
        norm=_key(norm),
        norm_settings=_changed(norm, settings),
        weights=_key(weight),
        weight_settings=_changed(weight, settings),
        residual=residual,
        forget=forget,
        batch=batch,
        learning_rate=rate,
        optimizer=optimizer,
        penalty=PENALTY[penalty],
        strength=strength,
        clip=_key(clip),
        clip_settings=_changed(clip, settings),
    )
    try:
        check(wiring)
    except NormcoreError as error:
        return Setup(wiring, seed, steps, f"{error}.")
    return Setup(wiring, seed, steps, "")


def _key(word: str) -> str | None:
    return None if word == NONE else word


def _changed(key: str, settings: Mapping[str, Mapping[str, Any]]) -> tuple[tuple[str, Any], ...]:
    """The settings of a method that differ from its published ones."""
    if key == NONE:
        return ()
    return tuple((name, value) for name, value in settings[key].items() if value != METHODS[key].default(name))


def flip(remedy: Remedy, wiring: Wiring) -> None:
    """Sets the controls to what a remedy changes in a wiring, as a click on its button does."""
    values: dict[str, Any] = {}
    for name in remedy.emptied(wiring):
        values |= controls.published(METHODS[dict(remedy.changes)[name]])
    for name, value in remedy.changes:
        key, words = KEYS.get(name, (name, {}))
        values[key] = words.get(value, NONE if value is None else value)
    controls.put(**values)


def called(wiring: Wiring) -> str:
    """A net in a few words."""
    parts = [f"{KINDS[wiring.kind]}, {wiring.depth} {'time steps' if wiring.recurrent else 'layers'} of {wiring.width}"]
    parts += [wiring.function, next(name for name, start in STARTS.items() if start == wiring.start)]
    parts += [METHODS[key].name for key in (wiring.norm, wiring.weights) if key is not None]
    forgets = [f"forget bias {wiring.forget:g}"] if wiring.forget else []
    return ", ".join(parts + (["residual"] if wiring.residual else []) + forgets)

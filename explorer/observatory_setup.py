"""What the observatory trains: a scene, its bad batches, the clipping variants that are raced, and their thresholds."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import streamlit as st

from explorer import controls
from explorer.controls import SHARED
from explorer.race_setup import HEAVIEST, MOST, NONE, RATES, parameters
from normcore import METHODS, NormcoreError
from normcore.lab import vectors
from normcore.lab.observatory import SCENES, refusal
from normcore.lab.race import Race
from normcore.lab.tasks import SPOILS

FIRST = (NONE, "clip_by_global_norm", "clip_by_value")
RACED = "clip_by_global_norm"
"""The method that the what-if speaks of."""
THRESHOLDS = tuple(float(f"{10 ** (k / 20):.2g}") for k in range(-60, 81))
"""Twenty a decade, from 0.001 to 10,000."""
NO_BAD = "no bad batches"


@dataclass(frozen=True)
class Setup:
    """A watched race as it is set up: what `Race` takes, as text, and what it weighs or why it cannot be."""

    text: str
    labels: tuple[str, ...]
    keys: tuple[str, ...]
    steps: int
    scene: str
    threshold: float
    weight: str
    problem: str

    @property
    def make(self) -> Callable[[], Race]:
        """Makes the race itself."""
        return partial(Race, **json.loads(self.text))


def setup() -> Setup:
    """Asks, in the sidebar, what is to be trained and which clippings are raced."""
    names = {scene.name: key for key, scene in SCENES.items()}
    with st.sidebar:
        scene = names[controls.choose("Net in training", list(names), "scene")]
        st.caption(SCENES[scene].about)
        options: dict[str, Any] = dict(SCENES[scene].race)
        options["watch"] = True
        if scene == "digits":
            options |= _bad()
        keys = controls.several("Raced variants", [NONE, *_offered()], "raced", FIRST, MOST)
        common = {key: _threshold(key) for key in keys if key != NONE}
        threshold = SCENES[scene].threshold
        if any(common.values()):
            threshold = controls.select("Shared threshold", THRESHOLDS, f"limit_{scene}", threshold, controls.words)
        own = {key: _own(key, name) for key, name in common.items()}
        options["learning_rate"] = controls.select(
            "Learning rate",
            tuple(sorted({*RATES, options["learning_rate"], 0.05})),
            f"rate_{scene}",
            options["learning_rate"],
            controls.words,
        )
        options["steps"] = controls.select("Steps", (50, 100, 200, 400, 800, 1600), f"steps_{scene}", 200)
        count = controls.select("Seeds", (1, 2, 3, 4, 6, 8), "seeds", 4)
        first = controls.select("First seed", range(0, 100), "seed", 0)
        _left_out()
    options |= {"seeds": list(range(first, first + count)), "evaluate_every": max(1, options["steps"] // 20)}
    contestants = [_contestant(key, common.get(key), own.get(key, {}), threshold) for key in keys]
    text = json.dumps(options | {"contestants": contestants})
    weight, problem = _weigh(text, options["steps"], count, len(keys))
    labels = tuple(str(one["name"]) for one in contestants)
    return Setup(text, labels, tuple(keys), options["steps"], scene, threshold, weight, problem)


def real(setup: Setup, threshold: float) -> None:
    """Puts the controls so that norm clipping at this threshold, as published else, races against none."""
    common = _threshold(RACED)
    own = {f"{RACED}_{p.name}": SHARED if p.name == common else controls.PUBLISHED for p in METHODS[RACED].params}
    controls.put(**own, **{"raced": [NONE, RACED], f"limit_{setup.scene}": threshold})


def _bad() -> dict[str, Any]:
    kinds = {spoil.name: key for key, spoil in SPOILS.items()}
    kind = controls.pick("Bad batches have", [*kinds, NO_BAD], "bad", next(iter(kinds)))
    if kind == NO_BAD:
        return {}
    st.caption(SPOILS[kinds[kind]].about)
    every = controls.select("One batch is bad in", (10, 20, 40, 80, 160), "bad_every", 40)
    return {"spoil": kinds[kind], "spoil_every": every}


def _offered() -> list[str]:
    return [key for key, method in METHODS.items() if method.family == "gradient" and not refusal(key)]


def _left_out() -> None:
    """Which methods are not raced here, and why."""
    reasons = [refusal(key) for key, method in METHODS.items() if method.family == "gradient" and refusal(key)]
    if reasons:
        with st.expander("Not raced here", icon=":material/block:"):
            for reason in reasons:
                st.caption(f"{reason}.")


@cache
def _threshold(key: str) -> str | None:
    """The setting of a method that is its threshold."""
    return vectors.threshold(key)


def _own(key: str, common: str | None) -> dict[str, Any]:
    method = METHODS[key]
    if not method.params:
        return {}
    with st.expander(method.name, icon=":material/tune:"):
        return controls.own_settings(method, {common: SHARED} if common else {})


def _contestant(key: str, common: str | None, own: dict[str, Any], threshold: float) -> dict[str, Any]:
    if key == NONE:
        return {"name": "no clipping"}
    settings = ({common: threshold} if common else {}) | own
    name = METHODS[key].name + (f" at {settings[common]:g}" if common else "")
    return {"overrides": {"clip": key, "clip_settings": settings}, "name": name}


def _weigh(text: str, steps: int, seeds: int, count: int) -> tuple[str, str]:
    """How much there is to compute, or why it cannot be."""
    try:
        learned, _ = parameters(text)
    except NormcoreError as error:
        return "", f"{error}."
    work = steps * seeds * sum(learned)
    told = f"{count} {'variant' if count == 1 else 'variants'} × {seeds} {'seed' if seeds == 1 else 'seeds'} "
    told += f"× {steps:,} steps × {max(learned):,} parameters"
    if work > HEAVIEST:
        return "", f"{told} is {work / HEAVIEST:.1f} times as much as fits; fewer steps or seeds would do."
    return f"{told}; all start from the same weights and see the same batches.", ""

"""What the Race page is asked to race: tasks, models and methods from the engine's own tables, checked and weighed."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import streamlit as st

from explorer import controls
from explorer.race_data import OWN, Own, own
from explorer.race_words import differ, fair, spoken
from explorer.runner import WALL
from normcore import METHODS, NormcoreError
from normcore.core import Divides
from normcore.lab import teams
from normcore.lab.load import Load, load
from normcore.lab.nets import ACTIVATIONS, MODELS, PLACEMENTS, fitting
from normcore.lab.race import Race
from normcore.lab.starts import STARTS
from normcore.lab.strips import Strip
from normcore.lab.tasks import TASKS

NONE = "none"
MOST = 5
"""Contestants that one figure can tell apart by color and dash."""
HEAVIEST = 1_000_000_000
"""The most steps × seeds × contestants × parameters."""
LONGEST = 5_000_000_000
"""The most multiplications of one step on the way forward: two seconds on a slow server."""
FULLEST = 250_000_000
"""The most bytes that one step keeps."""
FIRST = ("batch_norm", "layer_norm", "group_norm")
RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
CLIPS = (NONE, *(key for key, method in METHODS.items() if method.family == "gradient"))
NOTHING = "methods alone"
VARIED: Mapping[str, tuple[str, tuple[Any, ...], tuple[str, ...]]] = {
    "batch sizes": ("batch_size", BATCHES, ("64", "512")),
    "learning rates": ("learning_rate", RATES, ("0.001", "0.01")),
    "optimizers": ("optimizer", tuple(teams.OPTIMIZERS), ("sgd", "adam")),
    "schedules": ("schedule", tuple(teams.SCHEDULES), ("constant", "cosine")),
    "activations": ("activation", tuple(ACTIVATIONS), ("relu", "tanh")),
    "depths": ("depth", tuple(range(1, 9)), ("1", "4")),
    "clipping": ("clip", CLIPS, (NONE, "clip_by_global_norm")),
    "first weights": ("init", tuple(STARTS), ("pytorch", "he")),
    "places of the norms": ("placement", PLACEMENTS, PLACEMENTS),
}
"""In what else contestants may differ: the engine's word, the values, and those to begin with."""
PLACED = "transformer"
"""The model whose norms have a place to choose."""
STRIPS: Mapping[str, tuple[str, tuple[Any, ...]]] = {
    "strip of learning rates": ("learning_rate", (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 10.0)),
    "strip of batch sizes": ("batch_size", (2, 4, 8, 16, 32, 64, 128, 256, 512)),
}
"""Races one after the other, each with another value for all: the engine's word and the values."""
KNOBS = {
    "activation": "Activation",
    "optimizer": "Optimizer",
    "schedule": "Schedule of the learning rate",
    "clip": "Clipping",
    "init": "First weights",
    "placement": "Norms stand before or after",
}
"""What is picked from one of the engine's lists, and how it is called here."""


@dataclass(frozen=True)
class Setup:
    """A race as it is set up: all that `Race` takes, as text, with what was left out, and what it weighs or why not."""

    text: str
    labels: tuple[str, ...]
    keys: tuple[str, ...]
    steps: int
    about: str
    notes: tuple[str, ...]
    weight: str
    problem: str
    strip: bool
    own: Own | None
    fair: str

    @property
    def make(self) -> Callable[[], Race | Strip]:
        """Makes the race itself."""
        told = _with(json.loads(self.text), self.own)
        return partial(Strip, **told) if self.strip else partial(Race, **told)


def setup() -> Setup:
    """Asks, in the sidebar, what is to be raced."""
    tasks = {task.name: task for task in (*TASKS.values(), OWN)}
    task = tasks[controls.pick("Task", list(tasks), "task", "Threshold of a sum")]
    st.caption(task.about)
    mine = own() if task is OWN else None
    kind = mine.data.kind if mine else task.kind
    models = {model.name: key for key, model in MODELS.items() if kind in model.kinds}
    model = models[controls.pick("Model", list(models), "model", next(iter(models)))]
    fit = [NONE, *fitting(model)]
    default = [key for key in FIRST if key in fit]
    keys = controls.several("Contestants", fit, "racer", default if len(default) > 1 else [NONE, "layer_norm"], MOST)
    ways = [way for way, (name, _, _) in VARIED.items() if name != "placement" or model == PLACED]
    vary = controls.pick("They differ in", [NOTHING, *ways, *STRIPS], "vary", NOTHING)
    name, values, usual = VARIED.get(vary, ("", (), ()))
    knob, along = STRIPS.get(vary, ("", ()))
    chosen: list[Any] = []
    if name:
        words = {controls.words(value): value for value in values}
        chosen = [
            words[word]
            for word in controls.several(vary.capitalize(), list(words), vary.replace(" ", "_"), usual, MOST)
        ]
    options: dict[str, Any] = {"task": f"own {mine.digest}" if mine else task.key, "model": model}
    if chosen:  # what contestants differ in has no value for all of them; the least one fits wherever another does
        options[name] = min(chosen) if isinstance(chosen[0], int | float) else chosen[0]
    if knob:
        options[knob] = along[0]
    if "batch_size" not in (name, knob):
        options["batch_size"] = controls.select("Batch size", BATCHES, "batch", 64)
    if "learning_rate" not in (name, knob):
        options["learning_rate"] = controls.select("Learning rate", RATES, "rate", 1e-3, controls.words)
    options["steps"] = controls.select("Steps", (50, 100, 200, 400, 800, 1600, 3200), "steps", 800)
    count = controls.select("Seeds", (1, 2, 3, 4, 6, 8, 12, 16), "seeds", 4)
    first = _net_and_optimizer(model, name, options)
    clip = options["clip"]
    options["clip"] = None if clip == NONE else clip
    options |= {"seeds": list(range(first, first + count)), "evaluate_every": max(1, options["steps"] // 40)}
    settings = _settings(keys, clip, chosen if name == "clip" else [], options)
    if clip != NONE and name != "clip":
        options["clip_settings"] = settings[clip]
    contestants, notes = _contestants(keys, settings, name, chosen)
    told = options | {"contestants": contestants}
    text = json.dumps({"knob": knob, "values": along, "race": told} if knob else told)
    steps = options["steps"] * max(1, len(along))
    labels = tuple(str(one["name"]) for one in contestants)
    raced = tuple(str(one["norm"] or NONE) for one in contestants)
    about = f"{task.name}, {MODELS[model].name}"
    weight, problem = "", mine.problem if mine else ""
    if not problem:
        heaviest = told | {knob: max(along)} if knob else told
        weight, problem = _weigh(json.dumps(heaviest), mine, steps, count, len(contestants))
    return Setup(
        text,
        labels,
        raced,
        steps,
        about,
        notes,
        weight,
        problem,
        bool(knob),
        mine,
        f"{fair(contestants)}; what differs is {differ(contestants)}",
    )


def _with(told: dict[str, Any], mine: Own | None) -> dict[str, Any]:
    """What a race is made from, with a visitor's own data in the place of their name."""
    if mine is not None:
        told.get("race", told)["task"] = mine.data
    return told


def _net_and_optimizer(model: str, varied: str, options: dict[str, Any]) -> int:
    """What stays folded at first, but for what contestants differ in; the first seed."""
    with st.expander("Net and optimizer", icon=":material/tune:"):
        widths = (4, 8, 12, 16, 20, 32, 48, 64, 128) if model == "transformer" else (5, 8, 12, 16, 20, 32, 50, 64, 128)
        options["width"] = controls.select("Width", widths, "width", {"mlp": 50, "transformer": 32}.get(model, 16))
        if varied != "depth":
            options["depth"] = controls.select("Depth", range(1, 9), "depth", 1)
        usual = teams.Setup()
        lists = {"activation": [*ACTIVATIONS], "init": [*STARTS], "optimizer": [*teams.OPTIMIZERS]}
        lists |= {"schedule": [*teams.SCHEDULES], "clip": [*CLIPS]}
        lists |= {"placement": [*PLACEMENTS]} if model == PLACED else {}
        for one, values in lists.items():
            if varied != one:
                options[one] = controls.pick(KNOBS[one], values, one, getattr(usual, one) or NONE)
        decays = (0.0, 1e-5, 1e-4, 1e-3, 1e-2, 0.1)
        options["weight_decay"] = controls.select("Weight decay", decays, "decay", 0.0, controls.words)
        return int(controls.select("First seed", range(0, 1000), "seed", 0))


def _settings(keys: list[str], clip: str, clips: list[str], options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What differs from the published settings, by method."""
    methods = [METHODS[key] for key in dict.fromkeys([*keys, clip, *clips]) if key != NONE]
    sizes = dict.fromkeys("ctlhwdoi", options["width"]) | {"n": options["batch_size"]}
    asked = controls.settings(methods, sizes)
    return {
        method.key: {
            param.name: asked[method.key][param.name]
            for param in method.params
            if asked[method.key][param.name] != param.default or isinstance(param.domain, Divides)
        }
        for method in methods
    }


def _contestants(
    keys: list[str], settings: Mapping[str, Any], name: str, values: list[Any]
) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Every method with every value of what else differs, as many as fit."""
    sides = list(product(keys, values or [None]))
    found = []
    for key, value in sides[:MOST]:
        overrides = {name: None if value == NONE else value} if values else {}
        if overrides.get("clip"):
            overrides["clip_settings"] = settings[value]
        label = METHODS[key].name if key != NONE else "no norm"
        said = f"{label}, {spoken(name)} {controls.words(value)}" if values else label
        found.append(
            {
                "norm": None if key == NONE else key,
                "settings": settings.get(key, {}),
                "overrides": overrides,
                "name": said,
            }
        )
    left = len(sides) - len(found)
    note = f"{len(sides)} combinations were asked for; the first {MOST} race, for more do not fit into one figure."
    return found, (note,) if left > 0 else ()


def _weigh(text: str, mine: Own | None, steps: int, seeds: int, count: int) -> tuple[str, str]:
    """How much there is to compute, or why it cannot be."""
    try:
        learned, step = parameters(text, mine)
    except NormcoreError as error:
        return "", f"{error}."
    work = steps * seeds * sum(learned)
    size = f"{count} {'contestant' if count == 1 else 'contestants'} × {seeds} {'seed' if seeds == 1 else 'seeds'}"
    most = max(learned)
    told = f"{size} × {steps:,} steps × {'up to ' if len(set(learned)) > 1 else ''}{most:,} parameters"
    if work > HEAVIEST:
        over = f"{told} is {work / HEAVIEST:.1f} times as much as fits"
        return "", f"{over}; fewer steps, seeds or a narrower net would do."
    if step.multiplications > LONGEST:
        over = f"One step takes {step.multiplications / LONGEST:.1f} times as much computing as fits"
        return "", f"{over}; a smaller batch, fewer seeds or contestants, or a narrower net would do."
    if step.memory > FULLEST:
        over = f"One step takes {step.memory / FULLEST:.1f} times as much memory as fits"
        return "", f"{over}; a smaller batch, fewer seeds, or a smaller net would do."
    share = f"{work / HEAVIEST:.1%}" if work >= 0.001 * HEAVIEST else "under 0.1%"
    return f"{told}: {share} of the most that one race gets, and at most {WALL:g} s of computing.", ""


@st.cache_data(max_entries=512, show_spinner=False)
def parameters(text: str, _mine: Own | None = None) -> tuple[tuple[int, ...], Load]:
    """How many numbers each contestant learns, and what a step takes; refuses what cannot be raced."""
    options = _with(json.loads(text), _mine)
    race = Race(**options | {"seeds": options["seeds"][:1], "steps": 1})
    return tuple(team.parameters_each for team in race.teams), load(race, len(options["seeds"]))

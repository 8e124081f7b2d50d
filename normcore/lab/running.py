"""What a layer remembers, step by step: batches from a population that may move, and the state that follows it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from normcore.core import NormcoreError
from normcore.registry import METHODS, method

STEPS = 100
BATCH_NORM = METHODS["batch_norm"]

# What the population's mean and standard deviation are when a share of the run has passed.
POPULATIONS: Mapping[str, Callable[[float], tuple[float, float]]] = {
    "stays": lambda passed: (2.0, 1.5),
    "drifts": lambda passed: (2.0 + 3.0 * passed, 1.5 - 0.75 * passed),
    "jumps": lambda passed: (2.0, 1.5) if passed < 0.5 else (-1.0, 0.75),
}


@dataclass(frozen=True)
class Timeline:
    """One channel of one layer over the steps; every array has an entry for each step, counted from 1.

    The running values are those after the step. `gap` is the root mean square difference between the outputs that
    training and evaluation give for the same batch; `output_mean` and `output_std` are those of the mode in force.
    """

    step: np.ndarray
    training: np.ndarray
    population_mean: np.ndarray
    population_var: np.ndarray
    batch_mean: np.ndarray
    batch_var: np.ndarray
    batch_var_unbiased: np.ndarray
    running_mean: np.ndarray
    running_var: np.ndarray
    gap: np.ndarray
    output_mean: np.ndarray
    output_std: np.ndarray


@dataclass(frozen=True)
class Habit:
    """What one step of training does with a batch, as found by measuring.

    `updates` is how often the running values move in a step, each time with the next of as many equal parts.
    `normalizes` is whether each part is normalized with its own mean and variance ÷ size and with nothing else,
    `past` whether the output depends on what is remembered. `divisor` is what the variance that is remembered divides
    by, where running ← (1 - momentum) · running + momentum · part holds, else None; `first` is whether it holds from
    the first batch on. Where it does not, `full` is whether the first batch counts in full.
    """

    updates: int
    normalizes: bool
    past: bool
    divisor: int | None
    first: bool
    full: bool

    def role(self, divisor: int, batch: int) -> str:
        """The name of a variance of the whole batch, with what it does where it does something."""
        normalizes = self.normalizes and divisor == batch
        does = (
            [*["normalizes"] * normalizes, *["is remembered"] * (self.divisor == divisor)] if self.updates == 1 else []
        )
        return f"Variance ÷ {divisor}" + (f": {' and '.join(does)}" if does else "")

    def words(self, batch: int) -> str:
        """What is different where the batch is taken in parts, and where the past takes part."""
        size, words = batch // self.updates, []
        if self.updates > 1 and self.normalizes:
            words.append(
                f"Each batch is taken in {self.updates} parts, and each normalized with its variance ÷ {size}."
            )
        if self.updates > 1 and self.divisor is not None:
            words.append(f"What is remembered is the variance of each part ÷ {self.divisor}.")
        if self.past:
            words.append("In training, too, the output depends on what is remembered, not on the batch at hand alone.")
        return " ".join(words)

    def conventions(self, momentum: float | None) -> str:
        """One step in the two conventions of momentum."""
        rule = self.rule(momentum)
        if momentum is None:
            return f"PyTorch and here `momentum=None`: {rule}. Keras and Flax have no such setting."
        here, there = f"`momentum={momentum:g}`", f"`momentum={round(1 - momentum, 12):g}`"
        said = [*[rule] * bool(rule), f"PyTorch and here: {here}", f"Keras, TensorFlow, Flax: {there}"]
        return "  \n".join(said)

    def rule(self, momentum: float | None) -> str:
        """How the running values move, empty where no such rule is found."""
        new = "batch" if self.updates == 1 else "part"
        if momentum is None:
            return f"every {new} counts the same" if self.divisor and self.first else "a cumulative average"
        if self.divisor is None:
            return ""
        start = "" if self.first else "; the first counts in full" if self.full else ", from the second on"
        times = f", {self.updates} times a step, for the batch is taken in parts" if self.updates > 1 else ""
        return f"running ← {round(1 - momentum, 12):g} · running + {momentum:g} · {new}{times}{start}"


def remembering() -> list[str]:
    """The methods that keep a running mean and variance of single channels and move them by `momentum`."""
    return [
        key
        for key, norm in METHODS.items()
        if {"running_mean", "running_var"} <= set(norm.state)
        and "vector" in norm.layouts
        and any(param.name == "momentum" for param in norm.params)
    ]


def timeline(
    key: str,
    momentum: float | None,
    batch_size: int,
    population: str = "drifts",
    switch: int = STEPS,
    steps: int = STEPS,
    seed: int = 0,
    **settings: Any,
) -> Timeline:
    """Feeds a layer one batch a step, in training for the first `switch` steps and in evaluation after them.

    All running values are the engine's own state. `batch_var` divides by the batch size, `batch_var_unbiased` by one
    less: it is what a running variance moves to when BatchNorm's momentum is 1. The same seed draws the same noise for
    every method, momentum and population.

    Raises:
        NormcoreError: No such method, population or setting, a value outside its domain, or fewer than two samples.
    """
    norm = method(key, "activation")
    if key not in remembering():
        raise NormcoreError(f"{key}: it keeps no running mean and variance; try one of {', '.join(remembering())}")
    if population not in POPULATIONS:
        raise NormcoreError(f"population={population!r} is not known; try one of {', '.join(POPULATIONS)}")
    if batch_size < 2:
        raise NormcoreError(f"batch_size={batch_size} leaves no variance; it must be at least 2")
    truth = np.array([POPULATIONS[population](step / max(1, steps - 1)) for step in range(steps)])
    batches = _batches(truth, batch_size, seed)
    arguments = {**settings, "momentum": momentum}
    state = norm(batches[0], "vector", training=False, **arguments).state
    seen: list[list[float]] = []
    for step, x in enumerate(batches):
        learns = step < switch
        trained = norm(x, "vector", state=state, training=True, **arguments)
        state = trained.state if learns else state
        evaluated = norm(x, "vector", state=state, training=False, **arguments)
        used = trained.y if learns else evaluated.y
        seen.append(
            [
                *(float(state[name]) for name in ("running_mean", "running_var")),
                math.sqrt(float((trained.y - evaluated.y).square().mean())),
                float(used.mean()),
                float(used.std(correction=0)),
            ]
        )
    # All batches at once, a channel each: a momentum of 1 remembers nothing but the batch itself.
    own = BATCH_NORM(batches[..., 0].T, "vector", momentum=1.0)
    after = np.array(seen).T
    return Timeline(
        np.arange(1, steps + 1),
        np.arange(steps) < switch,
        truth[:, 0],
        truth[:, 1] ** 2,
        own.stats["mean"].flatten().numpy(),
        own.stats["var"].flatten().numpy(),
        own.state["running_var"].numpy(),
        *after,
    )


def habit(key: str, momentum: float | None, batch_size: int, **settings: Any) -> Habit:
    """Feeds a method three batches from different populations and tells its habit from the engine's own states.

    Raises:
        NormcoreError: No such method or setting, or a value outside its domain.
    """
    norm = method(key, "activation")
    arguments = {**settings, "momentum": momentum}
    batches = _batches(np.array([[2.0, 1.5], [5.0, 3.0], [-1.0, 0.75]]), batch_size, 0)
    states = [norm(batches[0], "vector", training=False, **arguments).state]
    for x in batches:
        states.append(norm(x, "vector", state=states[-1], training=True, **arguments).state)
    counts = [int(state.get("num_batches_tracked", place)) for place, state in enumerate(states)]
    updates = max(1, counts[1] - counts[0])
    size = batch_size // updates
    parts = [x.split(size) for x in batches]

    def follows(step: int, divisor: int, weight: float | None) -> bool:
        found = [float(states[step][name]) for name in ("running_mean", "running_var")]
        for place, part in enumerate(parts[step], 1):
            new = 1 / (counts[step] + place) if weight is None else weight
            seen = float(part.mean()), float(part.var(correction=0)) * size / divisor
            found = [(1 - new) * old + new * value for old, value in zip(found, seen, strict=True)]
        after = [float(states[step + 1][name]) for name in ("running_mean", "running_var")]
        return bool(np.allclose(found, after, rtol=1e-9, atol=1e-12))

    divisors = [n for n in (size - 1, size) if n and all(follows(step, n, momentum) for step in (1, 2))]
    divisor = divisors[0] if divisors else None
    late, early = (norm(batches[2], "vector", state=states[n], training=True, **arguments).y for n in (2, 0))
    epsilon = settings.get("eps", norm.default("eps"))
    own = torch.cat([(part - part.mean()) / (part.var(correction=0) + epsilon).sqrt() for part in parts[2]])
    return Habit(
        updates,
        torch.allclose(late, own),
        not torch.allclose(late, early),
        divisor,
        divisor is not None and follows(0, divisor, momentum),
        divisor is not None and follows(0, divisor, 1.0),
    )


def _batches(truth: np.ndarray, batch_size: int, seed: int) -> Tensor:
    """One batch a step, of one channel: shape (steps, n, 1)."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(truth), batch_size, 1, generator=generator, dtype=torch.float64)
    mean, std = torch.from_numpy(truth.T.copy())[..., None, None]
    return mean + std * noise

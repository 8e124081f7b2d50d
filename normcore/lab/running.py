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


def _batches(truth: np.ndarray, batch_size: int, seed: int) -> Tensor:
    """One batch a step, of one channel: shape (steps, n, 1)."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(truth), batch_size, 1, generator=generator, dtype=torch.float64)
    mean, std = torch.from_numpy(truth.T.copy())[..., None, None]
    return mean + std * noise

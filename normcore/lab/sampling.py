"""How wrong the statistic of a batch is, and what splitting the batch does to it: measured over many draws."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from normcore.core import NormcoreError
from normcore.lab.neighbors import SEEN, fitting, relative, remembered, samples
from normcore.registry import METHODS, method

DRAWS = 500
SIZES = (2, 4, 8, 16, 32, 64, 128, 256, 512)
MOST = 1024
"""The most values that share a statistic on the curve of errors."""
POSITIONS = 16
STATISTICS = ("mean", "standard deviation")


def _normal(size: Sequence[int], generator: torch.Generator) -> Tensor:
    return torch.randn(*size, generator=generator, dtype=torch.float64)


def _heavy(size: Sequence[int], generator: torch.Generator) -> Tensor:
    """One value in ten has four times the spread of the others."""
    wide = torch.rand(*size, generator=generator, dtype=torch.float64) < 0.1
    return _normal(size, generator) * torch.where(wide, 4.0, 1.0) / math.sqrt(2.5)


def _skewed(size: Sequence[int], generator: torch.Generator) -> Tensor:
    """Exponential, moved to mean 0."""
    return -torch.log1p(-torch.rand(*size, generator=generator, dtype=torch.float64)) - 1


def _alike(size: Sequence[int], generator: torch.Generator) -> Tensor:
    """Positions of one sample that correlate by one half with each other."""
    return (_normal((*size[:-1], 1), generator) + _normal(size, generator)) * math.sqrt(0.5)


# All have mean 0 and standard deviation 1, so that an error is a share of the population's standard deviation.
SOURCES: Mapping[str, Callable[[Sequence[int], torch.Generator], Tensor]] = {
    "normal": _normal,
    "skewed": _skewed,
    "heavy tails": _heavy,
    "images": _alike,
}

WORDS: Mapping[str, str] = {
    "normal": "One normal value a sample.",
    "skewed": "One exponential value a sample: a long tail to one side.",
    "heavy tails": "One value a sample; one in ten has four times the spread.",
    "images": f"{POSITIONS} values a sample, correlated by one half: many values, few independent ones.",
}


@dataclass(frozen=True)
class Errors:
    """How far statistics lie from the population's, an entry a size: root mean square, and what 19 of 20 stay below.

    `samples` share a statistic, `values` of them in all, and `expected` is 1/√values.
    """

    samples: np.ndarray
    values: np.ndarray
    error: np.ndarray
    most: np.ndarray
    expected: np.ndarray


def errors(source: str, statistic: str, sizes: Sequence[int] = SIZES, draws: int = DRAWS, seed: int = 0) -> Errors:
    """Measures the batch statistic of BatchNorm against the population's, in many batches of each size.

    Sizes of more than 1,024 values are left out.

    Raises:
        NormcoreError: No such source or statistic.
    """
    positions = _positions(source)
    sizes = [n for n in sizes if n * positions <= MOST]
    found = [_error(_statistics(_drawn(source, n, draws, seed), None, statistic), statistic) for n in sizes]
    many = np.array(sizes) * positions
    error, most = np.array(found).T
    return Errors(np.array(sizes), many, error, most, many**-0.5)


@dataclass(frozen=True)
class Ways:
    """What a sample's statistic is worth when the same batch is taken whole, as ghost batches, and in micro-batches.

    Every array has an entry for each of the three, as in `Errors`.
    `averaged` is the error of the average of the micro-batches' statistics, with which no sample is normalized.
    """

    samples: np.ndarray
    values: np.ndarray
    error: np.ndarray
    most: np.ndarray
    averaged: float


def ways(source: str, statistic: str, batch: int, ghost: int, micro: int, draws: int = DRAWS, seed: int = 1) -> Ways:
    """Measures what each sample's statistic is worth in one batch, taken three ways: the values are the same.

    Args:
        source: Where the values come from, one of `SOURCES`.
        statistic: "mean" or "standard deviation".
        batch: The number of samples.
        ghost: How many of them are in a ghost batch.
        micro: How many micro-batches the batch is fed in.
        draws: How many batches are drawn.
        seed: Of the draws.

    Raises:
        NormcoreError: No such source or statistic, or a size that does not divide the batch.
    """
    if micro < 1 or batch % micro:
        raise NormcoreError(f"micro={micro} must divide batch={batch}")
    x = _drawn(source, batch, draws, seed)
    whole = _statistics(x, None, statistic)
    ghosts = _statistics(x, ghost, statistic)
    parts = torch.stack([_statistics(part, None, statistic)[0] for part in x.split(batch // micro)])
    error, most = np.array([_error(seen, statistic) for seen in (whole, ghosts, parts)]).T
    count = np.array([batch, ghost, batch // micro])
    averaged = _error(parts.mean(0), statistic)[0]
    return Ways(count, count * _positions(source), error, most, averaged)


@dataclass(frozen=True)
class Accumulated:
    """What accumulating gradients over micro-batches changes, an entry a number of micro-batches.

    `gradient` is the difference to the gradient of the whole batch, `output` that of the outputs, both as a share of
    the root mean square that the whole batch gives.
    """

    parts: np.ndarray
    gradient: np.ndarray
    output: np.ndarray


def accumulated(key: str, batch: int, channels: int = 8, seed: int = 0, **wished: Any) -> Accumulated:
    """Feeds a linear map, a norm and a squared loss one batch, whole and in 2, 4, ... micro-batches.

    The loss is a mean over samples, so that the mean of the micro-batches' gradients is the gradient of the whole batch
    wherever samples do not meet. A running state has seen 64 other samples. A setting that has to divide a micro-batch
    and does not moves below its size.

    Raises:
        NormcoreError: No such method, or it is not defined for vectors.
    """
    norm = method(key, "activation")
    drawn = samples((2 * batch, channels), "vector", seed)
    x, target = drawn.split(batch)
    mix = torch.randn(channels, channels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    settings = fitting(norm, (batch, channels), "vector", wished)
    state = remembered(norm, samples((SEEN, channels), "vector", seed + 1) @ mix, "vector", settings)
    counts = [2**power for power in range(int(math.log2(batch)) + 1)]
    found = []
    for count in counts:
        weight = mix.clone().requires_grad_()
        parts = (x @ weight).split(batch // count)
        fitted = fitting(norm, tuple(parts[0].shape), "vector", wished)
        y = torch.cat([norm(part, "vector", **state, **fitted).y for part in parts])
        # Parts of equal size: the mean of their mean losses is the mean over all, and its gradient what they add up to.
        (gradient,) = torch.autograd.grad(functional.mse_loss(y, target), weight)
        found.append((gradient, y.detach()))
    whole, output = found[0]
    differences = [(relative(g - whole, whole), relative(y - output, output)) for g, y in found]
    return Accumulated(np.array(counts), *np.array(differences).T)


def _positions(source: str) -> int:
    if source not in SOURCES:
        raise NormcoreError(f"source={source!r} is not known; try one of {', '.join(SOURCES)}")
    return POSITIONS if source == "images" else 1


def _drawn(source: str, count: int, draws: int, seed: int) -> Tensor:
    """Many batches at once, a channel each, for channels share no statistic: shape (n, draws, positions)."""
    positions = _positions(source)
    return SOURCES[source]((count, draws, positions), torch.Generator().manual_seed(seed + 1000 * count))


def _statistics(x: Tensor, ghost: int | None, statistic: str) -> Tensor:
    """The statistic that BatchNorm, or Ghost BatchNorm, uses for each sample and draw: shape (n or 1, draws)."""
    if statistic not in STATISTICS:
        raise NormcoreError(f"statistic={statistic!r} is not known; try one of {', '.join(STATISTICS)}")
    if ghost is None:
        stats = METHODS["batch_norm"](x, "signal").stats
    else:
        stats = METHODS["ghost_batch_norm"](x, "signal", ghost_batch_size=ghost).stats
    found = stats["mean"] if statistic == "mean" else stats["var"].sqrt()
    return found[..., 0]


def _error(found: Tensor, statistic: str) -> tuple[float, float]:
    off = (found - (0.0 if statistic == "mean" else 1.0)).abs().flatten()
    return math.sqrt(float(off.square().mean())), float(off.quantile(0.95))

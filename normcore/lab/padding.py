"""Sentences of unlike length in one tensor: what the padding does to statistics and to outputs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from normcore.core import Bound, Method, NormcoreError, Part, standardize_counted
from normcore.lab.neighbors import fitting, relative
from normcore.registry import method

SENTENCES, CHANNELS = 8, 8

# The length of each sentence, from that of the longest.
MIXES: Mapping[str, Callable[[int], tuple[int, ...]]] = {
    "all alike": lambda longest: (longest,) * SENTENCES,
    "spread evenly": lambda longest: tuple(max(1, longest * (i + 1) // SENTENCES) for i in range(SENTENCES)),
    "one long": lambda longest: (longest, *(max(1, longest // 8),) * (SENTENCES - 1)),
}


@dataclass(frozen=True)
class Padded:
    """What padding did to one method.

    `shared` says whether any statistic belongs to several positions, and `masked` whether it was told which are real.
    `mean_shift` is how far the mean of the values that share a statistic moves, in their standard deviations without
    the padding, and `std_ratio` what the standard deviation is multiplied by: the root mean square and the mean over
    all regions in which several real values differ, of the statistic that moves most; None without such a region.
    `output` is how far the outputs at real positions move, as a share of their size; None where a batch without padding
    does not exist.
    """

    shared: bool
    masked: bool
    mean_shift: float | None
    std_ratio: float | None
    output: float | None


def padded_sentences(
    lengths: Sequence[int], channels: int, generator: torch.Generator, fill: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Random sentences of these lengths in one tensor, each channel with a mean and a spread of its own.

    Returns:
        The tensor (n t c) in float64, padded with `fill` to the longest, and a mask (n t) that is True where a token is
        real.

    Raises:
        NormcoreError: No sentence, or one without a token.
    """
    if not lengths or min(lengths) < 1:
        raise NormcoreError(f"lengths={tuple(lengths)} must be whole numbers of at least 1, one for each sentence")
    options: dict[str, Any] = {"generator": generator, "dtype": torch.float64}
    mean = torch.randn(channels, **options)
    spread = torch.rand(channels, **options) + 0.5
    tokens = torch.randn(len(lengths), max(lengths), channels, **options) * spread + mean
    mask = torch.arange(max(lengths)) < torch.tensor(list(lengths))[:, None]
    return torch.where(mask[..., None], tokens, fill), mask


def compare(key: str, lengths: Sequence[int], fill: float = 0.0, seed: int = 0, **wished: Any) -> Padded:
    """Applies a method to padded sentences and to the same sentences without padding, in training.

    A method that takes a mask is given it. Without padding means: the tokens of all sentences that share a statistic,
    one behind the other. A method whose statistics differ in who shares them, or belong to single time steps over
    several sentences, has no such batch.

    Raises:
        NormcoreError: No such method, it is not defined for tokens, or lengths below 1.
    """
    norm = method(key, "activation")
    norm.layout("tokens", 3)
    x, mask = padded_sentences(lengths, CHANNELS, torch.Generator().manual_seed(seed), fill)
    settings = fitting(norm, tuple(x.shape), "tokens", wished)
    masked = "mask" in norm.context
    context = {"mask": mask} if masked else {}
    y = norm(x, "tokens", **settings, **context).y[mask]
    bounds = norm.bound(tuple(x.shape), "tokens", **settings)
    shift, ratio = _moved(x, mask, bounds, masked)
    groups = _together(bounds, len(x))
    alone = None if groups is None else _without(norm, x, mask, groups, wished)
    shared = any(isinstance(bound, Bound | Part) and not {"n", "t"} <= set(bound.letters) for bound in bounds)
    return Padded(shared, masked, shift, ratio, None if alone is None else relative(y - alone, alone))


def _moved(x: Tensor, mask: Tensor, bounds: Sequence[Any], masked: bool) -> tuple[float | None, float | None]:
    """How far the padding moves the mean, and by what it multiplies the standard deviation."""
    found = []
    for bound in bounds:
        if isinstance(bound, Part) and bound.count:
            found.append(_moments(bound.take(x), mask, bound.inner, masked))
        elif isinstance(bound, Bound):
            found.append(_moments(x, mask, bound, masked))
    known = [moments for moments in found if moments]
    return max(known, key=lambda pair: pair[0]) if known else (None, None)


def _moments(x: Tensor, mask: Tensor, bound: Bound, masked: bool) -> tuple[float, float] | None:
    """The same for one statistic."""
    _, real, count = standardize_counted(x, bound, mask, 0.0, None, None)
    _, used, _ = standardize_counted(x, bound, mask if masked else torch.ones_like(mask), 0.0, None, None)
    several = (count > 1).expand(x.shape)
    mean, var, used_mean, used_var = (
        s[name].expand(x.shape)[several] for s in (real, used) for name in ("mean", "var")
    )
    # Rounding leaves values that are all alike a variance next to nothing.
    varies = var > 1e-20 * x.square().mean()
    if not bool(varies.any()):
        return None
    shifts = (used_mean - mean)[varies] / var[varies].sqrt()
    return float(shifts.square().mean().sqrt()), float((used_var[varies] / var[varies]).sqrt().mean())


def _together(bounds: Sequence[Any], sentences: int) -> list[list[int]] | None:
    """Which sentences share statistics with each other; None where no batch without padding has the same ones."""
    alone = [[i] for i in range(sentences)]
    grouped = []
    for bound in (bound for bound in bounds if bound.count):
        labels = bound.parts[0].tolist()
        groups = [[i for i, label in enumerate(labels) if label == wanted] for wanted in dict.fromkeys(labels)]
        if groups != alone and "t" in bound.letters:
            return None
        grouped.append(groups)
    if not grouped:
        return alone
    return grouped[0] if all(groups == grouped[0] for groups in grouped) else None


def _without(
    norm: Method, x: Tensor, mask: Tensor, groups: Sequence[Sequence[int]], wished: Mapping[str, Any]
) -> Tensor:
    """The outputs at real positions, of batches that hold nothing else."""
    found = []
    for group in groups:
        tokens = x[list(group)][mask[list(group)]][None]
        found.append(norm(tokens, "tokens", **fitting(norm, tuple(tokens.shape), "tokens", wished)).y[0])
    return torch.cat(found)

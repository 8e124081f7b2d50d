"""Trust ratios: gradients that are given a length in proportion to that of their weights."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from normcore.core.gradients import multiply, multiply_in_turn, norms_of, replace_once
from normcore.core.statistics import widen


@dataclass
class Trusted:
    """Gradients that were multiplied by ratios to their weights: norms of both, the ratios, and what came out."""

    lengths: Tensor
    norms: Tensor
    ratios: Tensor
    y: list[Tensor]


def multiply_by_trust(
    gradients: list[Tensor],
    weights: list[Tensor],
    coefficient: float = 1.0,
    most: float = math.inf,
    weight_decay: float = 0.0,
    added: bool = False,
) -> Trusted:
    """Each gradient plus its decayed weights, times ``coefficient * ‖w‖ / (‖gradient‖ + weight_decay * ‖w‖)``.

    The ratio is at most so much, and 1 where a norm is 0 or nan. With `added` the norm is that of the sum.
    """
    if not weight_decay and (done := multiply_in_turn("trust", gradients, weights, [coefficient, most])):
        norms, ratios, lengths = done
        return Trusted(lengths, norms, ratios, gradients)
    sums = gradients
    if weight_decay and added:
        pairs = zip(map(widen, gradients), weights, strict=True)
        sums = [torch.add(gradient, weight.to(gradient), alpha=weight_decay) for gradient, weight in pairs]
    lengths, norms = norms_of(weights), norms_of(sums)
    there = (norms > 0) & (lengths.to(norms) > 0)
    below = norms if added or not weight_decay else norms + weight_decay * lengths.to(norms)
    ratios = torch.where(there, coefficient * lengths.to(norms) / torch.where(there, below, 1.0), 1.0).clamp(max=most)
    if weight_decay:
        return Trusted(lengths, norms, ratios, _decayed(gradients, weights, weight_decay, ratios))
    return Trusted(lengths, norms, ratios, multiply(gradients, ratios, norms))


def _decayed(gradients: list[Tensor], weights: list[Tensor], weight_decay: float, factors: Tensor) -> list[Tensor]:
    """Each gradient plus its decayed weights, times its own factor."""

    def decayed(gradient: Tensor, weight: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
        return (gradient + weight_decay * weight.to(gradient)) * factor.to(gradient), factor

    return replace_once(gradients, decayed, weights, list(factors))[0]

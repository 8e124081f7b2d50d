"""Centered weight normalization: each unit's weights lose their mean, get length 1, and then a learned length."""

import torch
from torch import Tensor

from normcore.core import Bound, Later, Method, Normed, Paper, Region, Slot, normalize, widen


def _ones(weight: Tensor, unit: Bound) -> Tensor:
    return torch.ones_like(unit.spread(unit.mean(widen(weight))))


def centered_weight_norm(weight: Tensor, unit: Bound, *, gain: Tensor | None = None) -> Normed:
    """Subtracts the mean of each output unit's weights, divides by the L2 norm that is left and multiplies by a gain.

    ``w = gain * (v - mean) / ‖v - mean‖`` without ε; a unit whose weights are all the same gives 0. The gain starts
    at 1. A gain of the root of the fan-in makes it weight standardization with population variance and no ε.

    Shapes: weight (o i ...); gain (o 1 ...).
    Source: Huang, Liu, Liu, Lang and Tao 2017, ICCV.
    """
    y, stats = normalize(weight, unit, 0.0, gain, centered=True)
    return Normed(y, Later({"mean": lambda: stats["mean"], "centered_norm": lambda: stats["norm"]}))


METHOD = Method(
    fn=centered_weight_norm,
    name="Centered WeightNorm",
    regions=(Region("o i ... -> o"),),
    paper=Paper(
        "Lei Huang, Xianglong Liu, Yang Liu, Bo Lang, Dacheng Tao",
        "Centered Weight Normalization in Accelerating Training of Deep Neural Networks",
        2017,
    ),
    why="WeightNorm fixes the length of a unit's weights, but inputs with a common mean still shift its output. "
    "Weights that sum to 0 do not see that mean.",
    formula=r"\frac{<x> - <mean>}{<centered_norm>}",
    pytorch="weight = module.weight\n"
    "centered = weight - weight.mean(dim={reduced}, keepdim=True)\n"
    "y = centered / torch.linalg.vector_norm(centered, dim={reduced}, keepdim=True)",
    affine={"gain": Slot("o", _ones)},
    invariant_to=frozenset({"scale", "shift"}),
    builds_on=("weight_norm",),
)

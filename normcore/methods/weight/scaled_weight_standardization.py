"""Scaled weight standardization: each output unit gets weights that hand on the variance of its inputs.

Longer than most: three places where ε stands, each with its formula and its PyTorch code.
"""

import math
from typing import Annotated

import torch
from torch import Tensor

from normcore.core import (
    Bound,
    Epsilon,
    Identity,
    Later,
    Method,
    Normed,
    OneOf,
    Paper,
    Range,
    Region,
    Slot,
    normalize,
    or_number,
    widen,
)


def _ones(weight: Tensor, unit: Bound) -> Tensor:
    return unit.spread(torch.ones_like(unit.mean(widen(weight))))


def scaled_weight_standardization(
    weight: Tensor,
    unit: Bound,
    *,
    gain: Tensor | None = None,
    gamma: Annotated[float, Range(0.0, usual=(0.5, 4.0))] = 1.0,
    eps: Epsilon = 1e-4,
    eps_place: Annotated[str, OneOf(("inside", "variance", "floor"))] = "inside",
    unbiased: bool = True,
) -> Normed:
    """Standardizes the weights of each output unit and divides them by the root of how many they are (the fan-in).

    With N weights a unit: ``gain * gamma * (w - mean) / sqrt(N * var + eps)``. The defaults are a form common in
    PyTorch code, with n - 1 variance. The authors' JAX code takes ``eps_place="floor", unbiased=False``, that is
    ``sqrt(max(N * var, eps))``; timm ``eps_place="variance", unbiased=False``, that is ``sqrt(N) * sqrt(var + eps)``,
    with ε = 1e-6. γ makes up for the nonlinearity: 1.7139 for ReLU, 1.7881 for SiLU. The gain starts at 1.

    Shapes: weight (o i ...); gain (o 1 ...).
    Source: Brock, De and Smith 2021, arXiv:2101.08692.
    """
    total = unit.size - 1 or 1 if unbiased else unit.size
    share = total / unit.size  # N * var is norm² / share, so that share comes to the gain and to ε
    added = share * (unit.size * eps if eps_place == "variance" else eps)
    place, added = ("maximum", math.sqrt(added)) if eps_place == "floor" else ("inside", added)
    factor = gamma * math.sqrt(share) * or_number(gain, 1.0, widen(weight))
    y, stats = normalize(weight, unit, added, factor, place, centered=True)
    ways = {
        "mean": lambda: stats["mean"],
        "var_unbiased" if unbiased else "var": lambda: stats["norm"].square() / total,
        "fan_in": lambda: torch.full_like(stats["norm"], unit.size),
    }
    return Normed(y, Later(ways))


LENGTHS = {
    "inside": (r"\sqrt{<fan_in> \cdot <var> + <eps>}", "torch.sqrt(fan_in * var + {eps})"),
    "variance": (r"\sqrt{<fan_in>} \cdot \sqrt{<var> + <eps>}", "fan_in**0.5 * torch.sqrt(var + {eps})"),
    "floor": (r"\sqrt{\max(<fan_in> \cdot <var>, <eps>)}", "torch.sqrt(torch.clamp(fan_in * var, min={eps}))"),
}

METHOD = Method(
    fn=scaled_weight_standardization,
    name="Scaled Weight Standardization",
    regions=(Region("o i ... -> o"),),
    paper=Paper(
        "Andrew Brock, Soham De, Samuel L. Smith",
        "Characterizing Signal Propagation to Close the Performance Gap in Unnormalized ResNets",
        2021,
        "2101.08692",
    ),
    why="A residual network without BatchNorm lets the mean of its signals drift and their variance grow. Weights of "
    "mean 0 and variance 1 / fan-in, times a factor for the nonlinearity, keep both in place without any statistic "
    "of the batch.",
    formula=lambda settings: rf"<gamma> \cdot \frac{{<x> - <mean>}}{{{LENGTHS[settings['eps_place']][0]}}}",
    pytorch=lambda settings: (
        "weight, fan_in = module.weight, module.weight[0].numel()\n"
        "mean = weight.mean(dim={reduced}, keepdim=True)\n"
        "var = weight.var(dim={reduced}, unbiased={unbiased}, keepdim=True)\n"
        f"y = {{gamma}} * (weight - mean) / ({LENGTHS[settings['eps_place']][1]})"
    ),
    affine={"gain": Slot("o", _ones)},
    invariant_to=frozenset({"scale", "shift"}),
    equals=(Identity("centered_weight_norm", {"eps": 0.0, "unbiased": False, "gamma": 1.0}),),
    builds_on=("weight_standardization",),
)

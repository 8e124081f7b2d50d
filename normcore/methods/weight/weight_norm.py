"""Weight normalization: the length and the direction of each unit's weights become separate parameters."""

from typing import Annotated

import torch
from torch import Tensor

from normcore.core import Bound, Method, Normed, OneOf, Paper, Region, Slot, widen


def _norm(weight: Tensor, unit: Bound) -> Tensor:
    return torch.linalg.vector_norm(weight, dim=unit.reduced, keepdim=True)


def weight_norm(
    weight: Tensor, unit: Bound, *, gain: Tensor | None = None, dim: Annotated[int | None, OneOf((0, None))] = 0
) -> Normed:
    """Divides the weights of each output unit by their L2 norm and multiplies by a learned gain.

    ``w = gain * v / ‖v‖`` without ε: a unit of zeros gives nan, as in PyTorch. The gain starts as the norm, so that
    nothing changes at first. With ``dim=None`` the whole tensor shares one norm and one gain.

    Shapes: weight (o i ...); gain (o 1 ...), or all ones with ``dim=None``.
    Source: Salimans and Kingma 2016, arXiv:1602.07868.
    """
    wide = widen(weight)
    norm = _norm(wide, unit)
    y = wide / norm if gain is None else wide * (gain.to(wide.dtype) / norm)
    return Normed(y.to(weight.dtype), {"norm": norm.detach()})


METHOD = Method(
    fn=weight_norm,
    name="WeightNorm",
    regions=(Region("o i ... -> o", when={"dim": 0}), Region("o i ... ->", when={"dim": None})),
    paper=Paper(
        "Tim Salimans, Diederik P. Kingma",
        "Weight Normalization: A Simple Reparameterization to Accelerate Training of Deep Neural Networks",
        2016,
        "1602.07868",
    ),
    why="The length and the direction of a weight vector want different step sizes. Separating them conditions the "
    "problem better, without any dependence on the batch.",
    formula=r"\frac{<x>}{<norm>}",
    pytorch="module = torch.nn.utils.parametrizations.weight_norm(module, dim={dim})\ny = module.weight",
    affine={"gain": Slot("o", _norm)},
    invariant_to=frozenset({"scale"}),
    builds_on=("batch_norm",),
)

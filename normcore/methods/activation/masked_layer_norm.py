"""Masked layer normalization: LayerNorm whose statistics leave out the elements that do not count."""

import torch
from torch import Tensor

from normcore.core import (
    Bound,
    Epsilon,
    Identity,
    Method,
    Normed,
    Paper,
    Region,
    Slot,
    standardize,
    standardize_counted,
)


def masked_layer_norm(
    x: Tensor,
    features: Bound,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    eps: Epsilon = 1e-5,
) -> Normed:
    """LayerNorm with the mean and the variance of those elements alone where the mask is True, such as no padding.

    What is masked is transformed all the same, with the statistics of the others. A sample (or token) in which nothing
    counts has no statistics and becomes the bias. The variance is the population's (divided by the count), ε stands
    inside the root. Without a mask it is LayerNorm.

    Shapes: x (n c ...) or (n t c); mask (n ...), (n t) or shaped like x; weight and bias as the features.
    Source: Ba, Kiros and Hinton 2016, arXiv:1607.06450; the mask as in flax.
    """
    if mask is None:
        return Normed(*standardize(x, features, eps, weight, bias))
    y, stats, _ = standardize_counted(x, features, mask, eps, weight, bias)
    return Normed(y, stats)


METHOD = Method(
    fn=masked_layer_norm,
    name="Masked LayerNorm",
    regions=(Region("n c ... -> n"), Region("n t c -> n t")),
    paper=Paper("Jimmy Lei Ba, Jamie Ryan Kiros, Geoffrey E. Hinton", "Layer Normalization", 2016, "1607.06450"),
    why="Samples of unlike size are padded to stand in one tensor. Padding would pull the mean toward itself; with a "
    "mask a sample's output no longer depends on how much of it was added.",
    formula=r"\frac{<x> - <mean>}{\sqrt{<var> + <eps>}}",
    pytorch="mask = torch.ones_like(x)  # 0 where an element does not count\n"
    "count = mask.sum(dim={reduced}, keepdim=True)\n"
    "mean = (mask * x).sum(dim={reduced}, keepdim=True) / count\n"
    "var = (mask * (x - mean).square()).sum(dim={reduced}, keepdim=True) / count\n"
    "y = (x - mean) / torch.sqrt(var + {eps})",
    affine={"weight": Slot("c ...", 1.0), "bias": Slot("c ...", 0.0)},
    context={"mask": Slot("positions or x", dtype=torch.bool)},
    invariant_to=frozenset({"scale", "shift"}),
    equals=(Identity("layer_norm"),),
    builds_on=("layer_norm",),
)

"""EvoNorm-S0: a swish over the standard deviation of its group of channels."""

import torch
from torch import Tensor

from normcore.core import (
    GAIN_AND_BIAS,
    Bound,
    Epsilon,
    Groups,
    Method,
    Normed,
    Paper,
    Region,
    Slot,
    affine,
    along_channels,
    cast,
    own_variance,
    widen,
)


def evo_norm_s0(
    x: Tensor,
    groups: Bound,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    v: Tensor | None = None,
    num_groups: Groups = 2,
    eps: Epsilon = 1e-5,
) -> Normed:
    """Divides ``x * sigmoid(v * x)`` by the standard deviation of its group of channels; no mean is subtracted.

    The variance is the population's (divided by n), ε stands inside the root. A `v` that is left out is 1. Activation
    and normalization are one: no ReLU follows. The paper uses 32 groups.

    Shapes: x (n c l), (n c h w) or (n c d h w); weight, bias and v (c).
    Source: Liu, Brock, Simonyan and Le 2020, arXiv:2004.02967.
    """
    wide = widen(x)
    var = groups.spread(own_variance(wide, groups))
    swish = wide * torch.sigmoid(wide if v is None else wide * along_channels(cast(v, wide.dtype), groups))
    y = affine(swish, groups, weight, bias, (var + eps).rsqrt())
    return Normed(cast(y, x.dtype), {"var": var.detach()})


METHOD = Method(
    fn=evo_norm_s0,
    name="EvoNorm-S0",
    regions=(Region("n (g k) l -> n g"), Region("n (g k) h w -> n g"), Region("n (g k) d h w -> n g")),
    paper=Paper(
        "Hanxiao Liu, Andrew Brock, Karen Simonyan, Quoc V. Le",
        "Evolving Normalization-Activation Layers",
        2020,
        "2004.02967",
    ),
    why="Normalization and activation are designed apart and placed one after the other. A search over formulas that "
    "mix both found layers as good as BatchNorm with ReLU; this one needs no batch.",
    formula=r"\frac{<x>}{(1 + e^{-<x>}) \cdot \sqrt{<var> + <eps>}}",
    pytorch=(
        "v = torch.ones({column})  # learned\n"
        "std = torch.sqrt(x.reshape({n}, {num_groups}, -1).var(-1, unbiased=False, keepdim=True) + {eps})\n"
        "y = ((x * torch.sigmoid(v * x)).reshape({n}, {num_groups}, -1) / std).reshape(x.shape)"
    ),
    sizes={"g": "num_groups"},
    affine={**GAIN_AND_BIAS, "v": Slot("c", 1.0)},
    builds_on=("group_norm",),
)

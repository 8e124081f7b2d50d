"""Conditional instance normalization: InstanceNorm with a gain and a bias of its own for each style."""

import torch
from torch import Tensor

from normcore.core import (
    WITH_POSITIONS,
    Bound,
    Classes,
    Epsilon,
    Method,
    Normed,
    Paper,
    Region,
    Slot,
    chosen_rows,
    standardize,
)


def conditional_instance_norm(
    x: Tensor,
    instance: Bound,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    labels: Tensor | None = None,
    eps: Epsilon = 1e-5,
    num_classes: Classes = 10,
) -> Normed:
    """Standardizes each channel of each sample, then applies the gain and the bias of the sample's style.

    The gains are rows of a table, and the label of a sample names its row; without labels all take the first. The
    variance is the population's (divided by n), ε stands inside the root. With one style it is InstanceNorm.

    Shapes: x (n c l), (n c h w), (n c d h w) or (n t c); labels (n), whole numbers; weight and bias (num_classes c).
    Source: Dumoulin, Shlens and Kudlur 2016, arXiv:1610.07629.
    """
    key = "conditional_instance_norm"
    gain, shift = (None if t is None else chosen_rows(key, t, labels, instance) for t in (weight, bias))
    return Normed(*standardize(x, instance, eps, gain, shift))


METHOD = Method(
    fn=conditional_instance_norm,
    name="Conditional InstanceNorm",
    regions=tuple(Region(f"{axes} -> n c") for axes in WITH_POSITIONS),
    paper=Paper(
        "Vincent Dumoulin, Jonathon Shlens, Manjunath Kudlur",
        "A Learned Representation For Artistic Style",
        2016,
        "1610.07629",
    ),
    why="A network for style transfer had to be trained for each painting. Nearly all of it can be shared: a gain and "
    "a bias for each channel are enough to tell one style from another.",
    formula=r"\frac{<x> - <mean>}{\sqrt{<var> + <eps>}}",
    pytorch="weight, bias = torch.ones({num_classes}, {c}), torch.zeros({num_classes}, {c})  # learned\n"
    "labels = torch.zeros({n}, dtype=torch.long)\n"
    "y = torch.nn.InstanceNorm{nd}({c}, eps={eps})({x})\n"
    "rows = y.shape[:2] + (1,) * (y.ndim - 2)\n"
    "y = (y * weight[labels].reshape(rows) + bias[labels].reshape(rows)){back}",
    affine={"weight": Slot("num_classes c", 1.0), "bias": Slot("num_classes c", 0.0)},
    context={"labels": Slot("n", dtype=torch.long)},
    invariant_to=frozenset({"scale", "shift"}),
    builds_on=("instance_norm",),
)

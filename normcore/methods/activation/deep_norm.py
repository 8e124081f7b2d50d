"""DeepNorm: LayerNorm after a residual addition in which the skip connection is weighted up."""

from typing import Annotated

import torch
from torch import Tensor

from normcore.core import (
    Bound,
    Epsilon,
    Identity,
    Method,
    Normed,
    Paper,
    Range,
    Region,
    Slot,
    beside,
    cast,
    or_number,
    standardize,
    widen,
)


def deep_norm(
    x: Tensor,
    features: Bound,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    alpha: Annotated[float, Range(0.0, usual=(1.0, 10.0))] = 2.0,
    eps: Epsilon = 1e-5,
) -> Normed:
    """``LayerNorm(alpha * residual + x)`` for a branch x and what it was computed from; alpha 1 is a post-norm block.

    With N layers, all of one kind, the paper takes alpha = (2N)^(1/4), 2 for 8 layers, and starts the weights of the
    values, the outputs and the feed-forward part with gain (8N)^(-1/4). ε stands inside the root, the variance is the
    population's. Without a residual it is LayerNorm; with one, x may not be scaled alone.

    Shapes: x (n c ...) or (n t c); residual as x; weight and bias as the features, (c h w) for images, (c) for tokens.
    Source: Wang et al. 2022, arXiv:2203.00555.
    """
    wide = widen(x)
    base = or_number(residual, 0.0, wide)
    whole = wide if residual is None else torch.add(wide, base, alpha=alpha)
    y, stats = standardize(whole, features, eps, weight, bias)
    return Normed(cast(y, x.dtype), beside(stats, residual=lambda: base))


METHOD = Method(
    fn=deep_norm,
    name="DeepNorm",
    regions=(Region("n c ... -> n"), Region("n t c -> n t")),
    paper=Paper(
        "Hongyu Wang, Shuming Ma, Li Dong, Shaohan Huang, Dongdong Zhang, Furu Wei",
        "DeepNet: Scaling Transformers to 1,000 Layers",
        2022,
        "2203.00555",
    ),
    why="Post-norm transformers are good but unstable when deep, pre-norm ones stable but worse. Bounding how far one "
    "update can move the model, by a weightier skip connection and smaller weights, gives both.",
    formula=r"\frac{<alpha> \cdot <residual> + <x> - <mean>}{\sqrt{<var> + <eps>}}",
    pytorch="residual = torch.zeros_like(x)  # what the branch was computed from\n"
    "norm = torch.nn.LayerNorm({features}, eps={eps})\n"
    "y = norm({alpha} * residual + x)",
    affine={"weight": Slot("c ...", 1.0), "bias": Slot("c ...", 0.0)},
    context={"residual": Slot("x")},
    invariant_to=frozenset({"scale", "shift"}),
    equals=(Identity("layer_norm"),),
    builds_on=("layer_norm",),
)

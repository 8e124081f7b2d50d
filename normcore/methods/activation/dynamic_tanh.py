"""Dynamic Tanh (DyT): a learned squashing of each value in place of a normalization."""

from typing import Annotated

import torch
from torch import Tensor

from normcore.core import GAIN_AND_BIAS, Method, Normed, Paper, Range, Slot, affine, cast, widen


def dynamic_tanh(
    x: Tensor,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    alpha: Tensor | None = None,
    layout: str = "image",
    init_alpha: Annotated[float, Range(0.0, usual=(0.1, 2.0))] = 0.5,
) -> Normed:
    """Squashes each value by itself: ``y = weight * tanh(alpha * x) + bias``, without any statistic.

    One learned number `alpha` for the whole layer says how wide the nearly straight part is; it starts at
    `init_alpha`, and is that where it is left out. Language models start it lower the wider they are, with a higher
    value before attention (0.8) than elsewhere (0.2).

    Shapes: x (n c ...) or (n t c); weight and bias (c); alpha ().
    Source: Zhu, Chen, He, LeCun and Liu 2025, arXiv:2503.10622.
    """
    wide = widen(x)
    steepness = init_alpha if alpha is None else cast(alpha, wide.dtype)
    y = affine(torch.tanh(steepness * wide), layout, weight, bias)
    return Normed(cast(y, x.dtype), {})


METHOD = Method(
    fn=dynamic_tanh,
    name="Dynamic Tanh",
    regions=(),
    paper=Paper(
        "Jiachen Zhu, Xinlei Chen, Kaiming He, Yann LeCun, Zhuang Liu",
        "Transformers without Normalization",
        2025,
        "2503.10622",
    ),
    why="Plotted, what trained LayerNorms in Transformers do to their inputs looks like a tanh. Using the curve itself "
    "needs no statistics, and trained as well in the paper.",
    formula=r"\tanh(<init_alpha> \cdot <x>)",
    pytorch="weight, bias = torch.ones({column}), torch.zeros({column})  # learned\n"
    "alpha = torch.tensor({init_alpha})  # learned\n"
    "y = weight * torch.tanh(alpha * x) + bias",
    affine={**GAIN_AND_BIAS, "alpha": Slot("", "init_alpha")},
    builds_on=("layer_norm",),
)

"""Dynamic erf (Derf): Dynamic Tanh with the Gaussian's integral as its curve, and a shift."""

from typing import Annotated

import torch
from torch import Tensor

from normcore.core import GAIN_AND_BIAS, Method, Normed, Paper, Range, Slot, affine, cast, widen


def dynamic_erf(
    x: Tensor,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    alpha: Tensor | None = None,
    shift: Tensor | None = None,
    layout: str = "image",
    init_alpha: Annotated[float, Range(0.0, usual=(0.1, 2.0))] = 0.5,
    init_shift: Annotated[float, Range(-4.0, 4.0, usual=(-1.0, 1.0))] = 0.0,
) -> Normed:
    """Squashes each value by itself: ``y = weight * erf(alpha * x + shift) + bias``, without any statistic.

    `alpha` and `shift` are one learned number each for the whole layer; they start at `init_alpha` and `init_shift`,
    and are those where they are left out.

    Shapes: x (n c ...) or (n t c); weight and bias (c); alpha and shift ().
    Source: Chen, Lu, Zhu, Sun and Liu 2025, arXiv:2512.10938.
    """
    wide = widen(x)
    steepness, middle = (
        start if learned is None else cast(learned, wide.dtype)
        for start, learned in ((init_alpha, alpha), (init_shift, shift))
    )
    y = affine(torch.erf(steepness * wide + middle), layout, weight, bias)
    return Normed(cast(y, x.dtype), {})


METHOD = Method(
    fn=dynamic_erf,
    name="Dynamic erf",
    regions=(),
    paper=Paper(
        "Mingzhi Chen, Taiming Lu, Jiachen Zhu, Mingjie Sun, Zhuang Liu",
        "Stronger Normalization-Free Transformers",
        2025,
        "2512.10938",
    ),
    why="If a fixed curve can replace LayerNorm, which one is best? Of the many that were tried, the integral of the "
    "Gaussian with a learned shift did better than the tanh and than the norms.",
    formula=r"\operatorname{erf}(<init_alpha> \cdot <x> + <init_shift>)",
    pytorch="weight, bias = torch.ones({column}), torch.zeros({column})  # learned\n"
    "alpha, shift = torch.tensor({init_alpha}), torch.tensor({init_shift})  # learned\n"
    "y = weight * torch.erf(alpha * x + shift) + bias",
    affine={**GAIN_AND_BIAS, "alpha": Slot("", "init_alpha"), "shift": Slot("", "init_shift")},
    builds_on=("dynamic_tanh",),
)

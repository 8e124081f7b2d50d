"""Switchable normalization: a learned mixture of instance, layer and batch statistics.

Longer than most: three kinds of statistics, and two sets of learned shares besides gain and bias.
"""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from normcore.core import (
    EMPTY,
    GAIN_AND_BIAS,
    RUNNING,
    Bound,
    Epsilon,
    Method,
    Momentum,
    Normed,
    Paper,
    Region,
    Slot,
    switch,
    switching_code,
)

LAYOUTS = ("n c l", "n c h w", "n c d h w")


def switchable_norm(
    x: Tensor,
    instance: Bound,
    layer: Bound,
    batch: Bound,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    mean_weight: Tensor | None = None,
    var_weight: Tensor | None = None,
    state: Mapping[str, Tensor] = EMPTY,
    training: bool = True,
    eps: Epsilon = 1e-5,
    momentum: Momentum = 0.1,
    unbiased: bool = False,
    track_running_stats: bool = True,
) -> Normed:
    """Mixes the means and the variances of InstanceNorm, LayerNorm and BatchNorm, and normalizes once with them.

    The mixing shares are ``softmax(mean_weight)`` and ``softmax(var_weight)``, in the order instance, layer, batch.
    Layer and batch variances are built from the instance statistics by the law of total variance, as in the authors'
    code, where the instance variance is the n - 1 estimate (`unbiased`); the paper divides by n. ε stands inside the
    root. In evaluation the batch part comes from running averages, kept as BatchNorm keeps them.

    Shapes: x (n c ...); weight and bias (c); mean_weight and var_weight (3); running_mean and running_var (c).
    Source: Luo, Ren, Peng, Zhang and Li 2018, arXiv:1806.10779.
    """
    logits, share = (mean_weight, var_weight), partial(torch.softmax, dim=0)
    return switch(
        x, instance, batch, logits, share, weight, bias, state, training, eps, momentum, unbiased, track_running_stats
    )


SHARES = "share = torch.softmax(torch.ones(3), 0)  # learned, one set for the means and one for the variances"

METHOD = Method(
    fn=switchable_norm,
    name="SwitchableNorm",
    regions=(
        *(Region(f"{axes} -> n c") for axes in LAYOUTS),
        *(Region(f"{axes} -> n") for axes in LAYOUTS),
        *(Region(f"{axes} -> c", running=True) for axes in LAYOUTS),
    ),
    paper=Paper(
        "Ping Luo, Jiamin Ren, Zhanglin Peng, Ruimao Zhang, Jingyu Li",
        "Differentiable Learning-to-Normalize via Switchable Normalization",
        2018,
        "1806.10779",
    ),
    why="No normalizer is best for every layer and batch size. Let each layer learn how much of instance, layer and "
    "batch statistics it wants.",
    formula=r"\frac{<x> - <mean>}{\sqrt{<var> + <eps>}}",
    pytorch=partial(switching_code, shares=SHARES),
    affine={**GAIN_AND_BIAS, "mean_weight": Slot("3", 1.0), "var_weight": Slot("3", 1.0)},
    state=RUNNING,
    invariant_to=frozenset({"scale", "shift"}),
    builds_on=("batch_norm", "instance_norm", "layer_norm"),
)

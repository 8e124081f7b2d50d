"""L1 batch normalization: the mean distance from the mean takes the place of the standard deviation.

Longer than most: training and evaluation have different formulas, and each is given in PyTorch too.
"""

import math
from collections.abc import Mapping
from typing import Any

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
    affine,
    along_channels,
    average,
    cast,
    subtract_mean,
    widen,
)

FACTOR = math.sqrt(math.pi / 2)
"""The standard deviation of normal values, in units of their mean distance from the mean."""


def l1_batch_norm(
    x: Tensor,
    batch: Bound,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    state: Mapping[str, Tensor] = EMPTY,
    training: bool = True,
    scale: bool = True,
    eps: Epsilon = 1e-5,
    momentum: Momentum = 0.1,
    track_running_stats: bool = True,
) -> Normed:
    """Subtracts each channel's mean over the batch and divides by the mean distance from it: no square, no root.

    With `scale` the distance is first multiplied by √(π/2), which makes it a standard deviation for normal values, as
    Hoffer's code does; Wu leaves that factor to the gain. ε is added to the distance. Running: mean and distance.

    Shapes: x (n c ...) or (n t c); weight and bias (c); running_mean and running_deviation (c).
    Source: Wu, Li, Deng, Liu, Xie and Shi 2018, arXiv:1802.09769; Hoffer et al. 2018, arXiv:1803.01814.
    """
    wide = widen(x)
    if track_running_stats and not training:
        used = {k: along_channels(cast(state[k], wide.dtype), batch) for k in ("running_mean", "running_deviation")}
        centered, deviation = wide - used["running_mean"], used["running_deviation"]
    else:
        centered, mean = subtract_mean(wide, batch)
        by_channel = batch.mean(centered.abs())
        deviation = batch.spread(by_channel)
        used = {"mean": batch.spread(mean), "mean_deviation": deviation.detach()}
        if track_running_stats:
            state = average(state, {"running_mean": mean, "running_deviation": by_channel}, momentum)
    y = affine(centered / ((FACTOR if scale else 1.0) * deviation + eps), batch, weight, bias)
    return Normed(cast(y, x.dtype), used, state)


def _pytorch(settings: Mapping[str, Any]) -> str:
    if settings["track_running_stats"] and not settings["training"]:
        lines = ["mean, deviation = 0.0, (2 / torch.pi) ** 0.5  # those of a new layer"]
    else:
        lines = ["mean = x.mean(dim={reduced}, keepdim=True)"]
        lines += ["deviation = (x - mean).abs().mean(dim={reduced}, keepdim=True)"]
    factor = "(torch.pi / 2) ** 0.5 * " if settings["scale"] else ""
    return "\n".join([*lines, f"y = (x - mean) / ({factor}deviation + {{eps}})"])


METHOD = Method(
    fn=l1_batch_norm,
    name="L1 BatchNorm",
    regions=(Region("n c ... -> c", running=True), Region("n t c -> c", running=True)),
    paper=Paper(
        "Shuang Wu, Guoqi Li, Lei Deng, Liu Liu, Yuan Xie, Luping Shi",
        "L1-Norm Batch Normalization for Efficient Training of Deep Neural Networks",
        2018,
        "1802.09769",
    ),
    why="Squares and roots are slow in simple hardware and overflow in half precision. Absolute values do nearly the "
    "same work.",
    formula=lambda settings: (
        r"\frac{<x> - <mean>}{"
        + (r"\sqrt{\frac{\pi}{2}} \cdot " if settings["scale"] else "")
        + "<mean_deviation> + <eps>}"
    ),
    pytorch=_pytorch,
    affine=GAIN_AND_BIAS,
    state={
        "running_mean": RUNNING["running_mean"],
        "running_deviation": Slot("c", 1 / FACTOR),
        "num_batches_tracked": RUNNING["num_batches_tracked"],
    },
    invariant_to=frozenset({"scale", "shift"}),
    builds_on=("batch_norm",),
)

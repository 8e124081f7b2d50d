"""Moving-average batch normalization: the running statistics, the present batch included, already in training.

Longer than most: training and evaluation have different formulas, and each is given in PyTorch too.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from normcore.core import (
    EMPTY,
    GAIN_AND_BIAS,
    RUNNING,
    Bound,
    Epsilon,
    Identity,
    Method,
    Momentum,
    Normed,
    Paper,
    Region,
    affine,
    along_channels,
    as_it_was,
    cast,
    center,
    variance,
    widen,
)


def moving_average_batch_norm(
    x: Tensor,
    batch: Bound,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    state: Mapping[str, Tensor] = EMPTY,
    training: bool = True,
    eps: Epsilon = 1e-5,
    momentum: Momentum = 0.1,
) -> Normed:
    """Moves running mean and variance toward the batch's by the share `momentum`, and normalizes with what comes out.

    The gradient flows through the batch's share of them. The first batch counts in full, and with momentum None every
    batch counts the same. The variance, the running one too, divides by n; ε stands inside the root. This is the plain
    form, equinox's. The paper's divides by a running root mean square without centering, in whose place it centers
    the weights, and averages statistics of the backward pass too, over several batches.

    Shapes: x (n c ...) or (n t c); weight and bias (c); running_mean and running_var (c).
    Source: ``equinox.nn.BatchNorm(mode="ema")``; the idea is that of Yan et al. 2020, arXiv:2001.06838.
    """
    wide = widen(x)
    state = as_it_was(state) if training else state
    mean, var = (along_channels(cast(state[name], wide.dtype), batch) for name in ("running_mean", "running_var"))
    if training:
        seen = state["num_batches_tracked"] + 1
        share = cast(seen, wide.dtype).reciprocal()
        if momentum is not None:
            share = torch.where(seen == 1, share, momentum)
        centered, new_mean = center(wide, batch)
        mean = (1 - share) * mean + share * batch.spread(new_mean)
        var = (1 - share) * var + share * batch.spread(variance(centered, batch))
        moved = {"running_mean": mean, "running_var": var}
        state = {name: batch.gather(new).detach().to(state[name].dtype) for name, new in moved.items()}
        state["num_batches_tracked"] = seen
    y = affine(wide - mean, batch, weight, bias, (var + eps).rsqrt())
    return Normed(cast(y, x.dtype), {"average_mean": mean.detach(), "average_var": var.detach()}, state)


def _pytorch(settings: Mapping[str, Any]) -> str:
    statistics = "mean, var = torch.zeros({column}), torch.ones({column})  # running averages of a new layer"
    if settings["training"]:
        share = "1 / batches seen" if settings["momentum"] is None else "{momentum}"
        statistics = f"""mean, var = x.mean({{reduced}}, keepdim=True), x.var({{reduced}}, unbiased=False, keepdim=True)
# The first batch counts in full. From the second on, these are averages with the running ones:
# mean = (1 - share) * running_mean + share * mean, and var alike; share is {share}."""
    return f"{statistics}\ny = (x - mean) / torch.sqrt(var + {{eps}})"


METHOD = Method(
    fn=moving_average_batch_norm,
    name="Moving-average BatchNorm",
    regions=(Region("n c ... -> c", running=True), Region("n t c -> c", running=True)),
    paper=Paper(
        "Junjie Yan, Ruosi Wan, Xiangyu Zhang, Wei Zhang, Yichen Wei, Jian Sun",
        "Towards Stabilizing Batch Statistics in Backward Propagation of Batch Normalization",
        2020,
        "2001.06838",
    ),
    why="The statistics of a small batch are noisy. Averaging them over many batches calms them, and training meets "
    "the statistics that evaluation will use.",
    formula=r"\frac{<x> - <mean>}{\sqrt{<var> + <eps>}}",
    pytorch=_pytorch,
    affine=GAIN_AND_BIAS,
    state=RUNNING,
    equals=(Identity("batch_norm", {"momentum": 1.0}),),
    builds_on=("batch_renorm",),
)

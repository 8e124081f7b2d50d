"""Synchronized batch normalization: each channel shares its statistics across the batches of all processes.

Longer than most: sums over all processes need a function of their own, since their gradients are sums too.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, distributed

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
    apply_running,
    cast,
    center,
    standardize,
    track,
    variance,
    widen,
)


def sync_batch_norm(
    x: Tensor,
    batch: Bound,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    state: Mapping[str, Tensor] = EMPTY,
    training: bool = True,
    eps: Epsilon = 1e-5,
    momentum: Momentum = 0.1,
    track_running_stats: bool = True,
) -> Normed:
    """BatchNorm over the batches of all processes together, as if they were one large batch.

    In training, where torch.distributed is initialized, every process gives its count, means and variances; counts are
    the weights, so that the batches may differ in size, and gradients of the shared statistics are summed over the
    processes too (gradients of weight and bias stay local: DistributedDataParallel reduces those). Elsewhere this is
    BatchNorm: population variance, ε inside the root, running n - 1 variance, `momentum` the weight of the new value.

    Shapes: x (n c ...) or (n t c), n as each process has it; weight and bias (c); running_mean and running_var (c).
    Source: Peng et al. 2017 (MegDet), arXiv:1711.07240.
    """
    if track_running_stats and not training:
        return Normed(*apply_running(x, batch, state, eps, weight, bias), state)
    if not (training and distributed.is_available() and distributed.is_initialized()):
        y, stats = standardize(x, batch, eps, weight, bias)
        return Normed(y, stats, track(state, batch, stats, momentum) if track_running_stats else state)
    centered, local = center(widen(x), batch)
    size = local.new_tensor(batch.size)
    count = _Total.apply(size)
    mean = _Total.apply(local * size) / count
    apart = local - mean
    var = _Total.apply((variance(centered, batch) + apart.square()) * size) / count
    y = affine(centered + batch.spread(apart), batch, weight, bias, batch.spread((var + eps).rsqrt()))
    stats = {"mean": batch.spread(mean).detach(), "var": batch.spread(var).detach()}
    if track_running_stats:
        unbiased = stats["var"] * (count / (count - 1).clamp_min(1))
        state = track(state, batch, {"mean": stats["mean"], "var_unbiased": unbiased}, momentum)
    return Normed(cast(y, x.dtype), stats, state)


class _Total(torch.autograd.Function):
    """The sum over all processes; its gradient is the sum of the gradients of all processes."""

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        total = part.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return _Total.apply(*gradients)


METHOD = Method(
    fn=sync_batch_norm,
    name="SyncBatchNorm",
    regions=(Region("n c ... -> c", running=True), Region("n t c -> c", running=True)),
    paper=Paper(
        "Chao Peng, Tete Xiao, Zeming Li, Yuning Jiang, Xiangyu Zhang, Kai Jia, Gang Yu, Jian Sun",
        "MegDet: A Large Mini-Batch Object Detector",
        2017,
        "1711.07240",
    ),
    why="A batch spread over many devices leaves each with a few samples, and BatchNorm with poor statistics. Summing "
    "them over the devices gives back those of the whole batch.",
    formula=r"\frac{<x> - <mean>}{\sqrt{<var> + <eps>}}",
    pytorch="norm = torch.nn.SyncBatchNorm({c}, eps={eps}, momentum={momentum}, "
    "track_running_stats={track_running_stats}).train({training})\n"
    "y = norm({x}){back}",
    affine=GAIN_AND_BIAS,
    state=RUNNING,
    invariant_to=frozenset({"scale", "shift"}),
    equals=(
        Identity("batch_norm"),
        Identity("instance_norm", sizes={"n": 1}, layouts=("signal", "image", "volume", "tokens")),
    ),
    builds_on=("batch_norm",),
)

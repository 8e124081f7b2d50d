"""Instance-batch normalization (IBN-a): instance norm for the first channels, batch norm for the others.

Longer than most: two norms divide the channels, and only one of them has running statistics.
"""

from collections.abc import Mapping
from typing import Annotated

import torch
from torch import Tensor

from normcore.core import (
    EMPTY,
    GAIN_AND_BIAS,
    RUNNING,
    WITH_POSITIONS,
    Epsilon,
    Method,
    Momentum,
    Normed,
    Paper,
    Part,
    Range,
    affine,
    apply_running,
    cast,
    standardize,
    track,
    widen,
)

TRACKED = ("running_mean", "running_var")


def ibn(
    x: Tensor,
    instance: Part,
    batch: Part,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    state: Mapping[str, Tensor] = EMPTY,
    training: bool = True,
    ratio: Annotated[float, Range(0.0, 1.0)] = 0.5,
    eps: Epsilon = 1e-5,
    momentum: Momentum = 0.1,
    track_running_stats: bool = True,
) -> Normed:
    """Instance-normalizes the first ``int(ratio * c)`` channels and batch-normalizes the others.

    Ratio 0 is BatchNorm, 1 is InstanceNorm. Both variances divide by n, ε stands inside the root. Only the batch's
    channels keep running averages (the variance with n - 1); the entries of the first channels stay as they were.

    Shapes: x (n c l), (n c h w), (n c d h w) or (n t c); weight, bias, running_mean and running_var (c).
    Source: Pan, Luo, Shi and Tang 2018, arXiv:1807.09441, with the authors' setting `ratio`.
    """
    wide, first = widen(x), instance.span[1]
    pieces = []
    if instance.count:
        y, stats = standardize(instance.take(wide), instance.inner, eps)
        pieces.append((y, stats["mean"], stats["var"]))
    if batch.count:
        own = {name: value[first:] if name in TRACKED else value for name, value in state.items()}
        if track_running_stats and not training:
            y, stats = apply_running(batch.take(wide), batch.inner, own, eps, None, None)
            mean, var = (stats[name] for name in TRACKED)
        else:
            y, stats = standardize(batch.take(wide), batch.inner, eps)
            mean, var = stats["mean"], stats["var"]
            if track_running_stats:
                moved = track(own, batch.inner, stats, momentum)
                state = {**moved, **{name: torch.cat([state[name][:first], moved[name]]) for name in TRACKED}}
        shape = [size if axis in (0, batch.axis) else 1 for axis, size in enumerate(y.shape)]
        pieces.append((y, mean.expand(shape), var.expand(shape)))
    y, mean, var = (torch.cat(both, instance.axis) for both in zip(*pieces, strict=True))
    y = affine(y, instance.whole, weight, bias)
    return Normed(cast(y, x.dtype), {"channel_mean": mean, "channel_var": var}, state)


METHOD = Method(
    fn=ibn,
    name="IBN-a",
    regions=(
        *(Part(f"{axes} -> n c", "ratio") for axes in WITH_POSITIONS),
        *(Part(f"{axes} -> c", "ratio", rest=True, running=True) for axes in WITH_POSITIONS),
    ),
    paper=Paper(
        "Xingang Pan, Ping Luo, Jianping Shi, Xiaoou Tang",
        "Two at Once: Enhancing Learning and Generalization Capacities via IBN-Net",
        2018,
        "1807.09441",
    ),
    why="InstanceNorm forgets the look of an image, which helps on images of another kind, and BatchNorm keeps what "
    "tells things apart. Early layers get some channels of each.",
    formula=r"\frac{<x> - <channel_mean>}{\sqrt{<channel_var> + <eps>}}",
    pytorch="parts = {x}.tensor_split([int({ratio} * {c})], dim=1)\n"
    "norms = [\n"
    "    torch.nn.InstanceNorm{nd}(parts[0].shape[1], eps={eps}),\n"
    "    torch.nn.BatchNorm{nd}(parts[1].shape[1], eps={eps}, momentum={momentum}, "
    "track_running_stats={track_running_stats}).train({training}),\n"
    "]\n"
    "y = torch.cat([norm(part) for norm, part in zip(norms, parts) if part.shape[1]], dim=1){back}",
    affine=GAIN_AND_BIAS,
    state=RUNNING,
    invariant_to=frozenset({"scale", "shift"}),
    builds_on=("batch_norm", "instance_norm"),
)

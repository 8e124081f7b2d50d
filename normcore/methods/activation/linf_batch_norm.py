"""Top-k batch normalization: the largest distances from the mean take the place of the standard deviation.

Longer than most: training and evaluation have different formulas, and each is given in PyTorch too.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any

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
    Range,
    Region,
    Slot,
    affine,
    along_channels,
    average,
    cast,
    subtract_mean,
    widen,
)


def linf_batch_norm(
    x: Tensor,
    batch: Bound,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    state: Mapping[str, Tensor] = EMPTY,
    training: bool = True,
    k: Annotated[int, Range(1, usual=(1, 32), integer=True)] = 10,
    eps: Epsilon = 1e-5,
    momentum: Momentum = 0.1,
    track_running_stats: bool = True,
) -> Normed:
    """Subtracts each channel's mean over the batch and divides by the mean of the k largest distances from it.

    The distances (all of them where there are fewer than k) are first multiplied by
    ``C(n) = (1 + √(π ln 4)) / √(8 ln n)``, which makes the largest of n normal values about a standard deviation (for
    one value, whose distance is 0, n counts as 2). ε is added to the result. k = 1 is the maximum norm. Running: mean
    and scaled distance (the authors' code averages its reciprocal).

    Shapes: x (n c ...) or (n t c); weight and bias (c); running_mean and running_deviation (c).
    Source: Hoffer, Banner, Golan and Soudry 2018, arXiv:1803.01814.
    """
    wide = widen(x)
    if track_running_stats and not training:
        known = ("running_mean", "running_deviation")
        used = {name: along_channels(cast(state[name], wide.dtype), batch) for name in known}
        centered, deviation = wide - used["running_mean"], used["running_deviation"]
    else:
        centered, mean = subtract_mean(wide, batch)
        last = tuple(range(-len(batch.reduced), 0))
        distances = batch.split(centered.abs()).movedim(batch.reduced, last).flatten(last[0])
        by_channel = _factor(batch.size) * distances.topk(min(k, batch.size)).values.mean(-1)
        deviation = batch.spread(by_channel)
        used = {"mean": batch.spread(mean), "top_deviation": deviation.detach()}
        if track_running_stats:
            state = average(state, {"running_mean": mean, "running_deviation": by_channel}, momentum)
    return Normed(cast(affine(centered / (deviation + eps), batch, weight, bias), x.dtype), used, state)


def _factor(size: int) -> float:
    return (1 + math.sqrt(math.pi * math.log(4))) / math.sqrt(8 * math.log(max(size, 2)))


def _pytorch(settings: Mapping[str, Any]) -> str:
    if settings["track_running_stats"] and not settings["training"]:
        return "running_mean, running_deviation = 0.0, 1.0  # those of a new layer\ny = x / (running_deviation + {eps})"
    return """import math

centered = x - x.mean(dim={reduced}, keepdim=True)
distances = centered.abs().movedim({channel}, 0).flatten(1)  # (channels, values)
n = distances.shape[1]
factor = (1 + math.sqrt(math.pi * math.log(4))) / math.sqrt(8 * math.log(n))
deviation = factor * distances.topk(min({k}, n)).values.mean(1)
y = centered / (deviation.reshape({column}) + {eps})"""


METHOD = Method(
    fn=linf_batch_norm,
    name="Top-k BatchNorm",
    regions=(Region("n c ... -> c", running=True), Region("n t c -> c", running=True)),
    paper=Paper(
        "Elad Hoffer, Ron Banner, Itay Golan, Daniel Soudry",
        "Norm matters: efficient and accurate normalization schemes in deep networks",
        2018,
        "1803.01814",
    ),
    why="A sum of squares loses digits in half precision. The largest distances need no sum over the batch at all, and "
    "a few of them are steadier than the single largest.",
    formula=r"\frac{<x> - <mean>}{<top_deviation> + <eps>}",
    pytorch=_pytorch,
    affine=GAIN_AND_BIAS,
    state={
        "running_mean": RUNNING["running_mean"],
        "running_deviation": Slot("c", 1.0),
        "num_batches_tracked": RUNNING["num_batches_tracked"],
    },
    invariant_to=frozenset({"scale", "shift"}),
    builds_on=("batch_norm",),
)

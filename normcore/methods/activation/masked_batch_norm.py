"""Masked batch normalization: BatchNorm whose statistics leave out the positions that do not count.

Longer than most: running statistics that a mask with nothing in it must leave alone, and PyTorch code for both modes.
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
    Slot,
    apply_running,
    average,
    standardize,
    standardize_counted,
    track,
)


def masked_batch_norm(
    x: Tensor,
    batch: Bound,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    state: Mapping[str, Tensor] = EMPTY,
    training: bool = True,
    eps: Epsilon = 1e-5,
    momentum: Momentum = 0.1,
    track_running_stats: bool = True,
) -> Normed:
    """BatchNorm with the mean and the variance of those positions alone where the mask is True, such as no padding.

    What is masked is transformed all the same; the running state sees only what counts, its variance with the n - 1
    estimator, and stays as it is where nothing counts. In evaluation the mask plays no part. ε stands inside the root.
    Without a mask it is BatchNorm.

    Shapes: x (n c ...) or (n t c); mask (n ...), (n t) or shaped like x; weight, bias and running state (c).
    Source: Laurent et al. 2015, arXiv:1510.01378, who leave the padded frames out.
    """
    if track_running_stats and not training:
        return Normed(*apply_running(x, batch, state, eps, weight, bias), state)
    if mask is None:
        y, stats = standardize(x, batch, eps, weight, bias)
        return Normed(y, stats, track(state, batch, stats, momentum) if track_running_stats else state)
    y, stats, count = standardize_counted(x, batch, mask, eps, weight, bias)
    return Normed(y, stats, _track(state, batch, stats, count, momentum) if track_running_stats else state)


def _track(
    state: Mapping[str, Tensor], batch: Bound, stats: Mapping[str, Tensor], count: Tensor, momentum: float | None
) -> Mapping[str, Tensor]:
    unbiased = stats["var"] * count / (count - 1).clamp_min(1.0)
    news = {"running_mean": batch.gather(stats["mean"]), "running_var": batch.gather(unbiased)}
    counted = batch.gather(count) > 0
    moved = average(state, news, momentum)
    return {k: torch.where(counted if v.ndim else counted.any(), moved[k], v) for k, v in state.items()}


def _pytorch(settings: Mapping[str, Any]) -> str:
    if settings["track_running_stats"] and not settings["training"]:
        mean = "mean, var = torch.zeros({column}), torch.ones({column})  # running averages of a new layer\n"
    else:
        mean = (
            "mask = torch.ones_like(x)  # 0 where an element does not count\ncount = mask.sum(dim={reduced}, "
            "keepdim=True)\nmean = (mask * x).sum(dim={reduced}, keepdim=True) / count\n"
            "var = (mask * (x - mean).square()).sum(dim={reduced}, keepdim=True) / count\n"
        )
    return mean + "y = (x - mean) / torch.sqrt(var + {eps})"


METHOD = Method(
    fn=masked_batch_norm,
    name="Masked BatchNorm",
    regions=(Region("n c ... -> c", running=True), Region("n t c -> c", running=True)),
    paper=Paper(
        "César Laurent, Gabriel Pereyra, Philémon Brakel, Ying Zhang, Yoshua Bengio",
        "Batch Normalized Recurrent Neural Networks",
        2015,
        "1510.01378",
    ),
    why="Sequences of unlike length are padded to stand in one batch. Padding would pull every channel's statistics "
    "toward itself, the more the longer the longest sequence is; with a mask it does not count.",
    formula=r"\frac{<x> - <mean>}{\sqrt{<var> + <eps>}}",
    pytorch=_pytorch,
    affine=GAIN_AND_BIAS,
    state=RUNNING,
    context={"mask": Slot("positions or x", dtype=torch.bool)},
    invariant_to=frozenset({"scale", "shift"}),
    equals=(Identity("batch_norm"),),
    builds_on=("batch_norm",),
)

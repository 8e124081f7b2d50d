"""Mean-only batch normalization: each channel loses its mean over the batch, and keeps its scale."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from normcore.core import (
    EMPTY,
    RUNNING,
    Bound,
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


def mean_only_batch_norm(
    x: Tensor,
    batch: Bound,
    *,
    bias: Tensor | None = None,
    state: Mapping[str, Tensor] = EMPTY,
    training: bool = True,
    momentum: Momentum = 0.1,
    track_running_stats: bool = True,
) -> Normed:
    """Subtracts each channel's mean over the batch and divides by nothing: the scale is left to weight normalization.

    In evaluation the running mean is subtracted. There is no variance, no ε and no gain.

    Shapes: x (n c ...) or (n t c); bias (c); running_mean (c).
    Source: Salimans and Kingma 2016, arXiv:1602.07868.
    """
    wide = widen(x)
    if track_running_stats and not training:
        mean = along_channels(cast(state["running_mean"], wide.dtype), batch)
        return Normed(cast(affine(wide - mean, batch, None, bias), x.dtype), {"running_mean": mean}, state)
    y, mean = subtract_mean(wide, batch, bias)
    if track_running_stats:
        state = average(state, {"running_mean": mean}, momentum)
    return Normed(cast(y, x.dtype), {"mean": batch.spread(mean)}, state)


def _pytorch(settings: Mapping[str, Any]) -> str:
    if settings["track_running_stats"] and not settings["training"]:
        return "running_mean = torch.zeros({column})  # that of a new layer\ny = x - running_mean"
    return "y = x - x.mean(dim={reduced}, keepdim=True)"


METHOD = Method(
    fn=mean_only_batch_norm,
    name="Mean-only BatchNorm",
    regions=(Region("n c ... -> c", running=True), Region("n t c -> c", running=True)),
    paper=Paper(
        "Tim Salimans, Diederik P. Kingma",
        "Weight Normalization: A Simple Reparameterization to Accelerate Training of Deep Neural Networks",
        2016,
        "1602.07868",
    ),
    why="Weight normalization fixes the scale of a unit but lets its mean wander. Subtracting the batch's mean mends "
    "that, with less noise in the gradient than full BatchNorm.",
    formula="<x> - <mean>",
    pytorch=_pytorch,
    affine={"bias": Slot("c", 0.0)},
    state={name: slot for name, slot in RUNNING.items() if name != "running_var"},
    invariant_to=frozenset({"shift"}),
    builds_on=("weight_norm", "batch_norm"),
)

"""Recurrent batch normalization: each step of a sequence has batch statistics of its own.

Longer than most: running statistics for each step, of which later steps must take the last known one.
"""

from collections.abc import Mapping
from typing import Annotated

import torch
from torch import Tensor

from normcore.core import (
    EMPTY,
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
    average,
    cast,
    standardize,
    widen,
)


def recurrent_batch_norm(
    x: Tensor,
    batch: Bound,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    state: Mapping[str, Tensor] = EMPTY,
    training: bool = True,
    max_length: Annotated[int, Range(1, usual=(1, 8), integer=True)] = 100,
    eps: Epsilon = 1e-5,
    momentum: Momentum = 0.1,
    track_running_stats: bool = True,
) -> Normed:
    """Normalizes each unit at each time step over the batch; gain and bias are the same at all steps.

    The variance is the population's (divided by n), ε stands inside the root. The first `max_length` steps have running
    statistics of their own, the variance with the n - 1 estimate; evaluation uses those of the last step that training
    has seen for all later steps. A layer's gain starts at 0.1, so that the gates of a recurrent cell do not saturate.

    Shapes: x (n t c); weight and bias (c); running_mean and running_var (max_length c).
    Source: Cooijmans, Ballas, Laurent, Gülçehre and Courville 2016, arXiv:1603.09025.
    """
    if track_running_stats and not training:
        seen = (state["num_batches_tracked"] > 0).sum()
        last = torch.where(seen > 0, seen, max_length) - 1
        at = torch.minimum(torch.arange(x.shape[1], device=x.device), last)
        wide = widen(x)
        mean, var = (cast(state[name], wide.dtype)[None, at] for name in ("running_mean", "running_var"))
        y = affine(wide - mean, batch, weight, bias, (var + eps).rsqrt())
        return Normed(cast(y, x.dtype), {"running_mean": mean, "running_var": var}, state)
    y, stats = standardize(x, batch, eps, weight, bias)
    if not track_running_stats:
        return Normed(y, stats, state)
    known = min(x.shape[1], max_length)
    unbiased = stats["var"] * (batch.size / (batch.size - 1 or 1))
    news = {"running_mean": stats["mean"][0, :known], "running_var": unbiased[0, :known]}
    moved = average({name: rows[:known] for name, rows in state.items()}, news, momentum)
    return Normed(y, stats, {name: torch.cat([moved[name], rows[known:]]) for name, rows in state.items()})


METHOD = Method(
    fn=recurrent_batch_norm,
    name="Recurrent BatchNorm",
    regions=(Region("n t c -> t c", running=True),),
    paper=Paper(
        "Tim Cooijmans, Nicolas Ballas, César Laurent, Çağlar Gülçehre, Aaron Courville",
        "Recurrent Batch Normalization",
        2016,
        "1603.09025",
    ),
    why="The first steps of a recurrent network differ from the later ones, so that statistics over all steps fit none "
    "of them. Statistics for each step do, and a small gain keeps gradients from vanishing.",
    formula=r"\frac{<x> - <mean>}{\sqrt{<var> + <eps>}}",
    pytorch="norms = [torch.nn.BatchNorm1d({c}, eps={eps}, momentum={momentum}, "
    "track_running_stats={track_running_stats}).train({training}) for step in range({t})]\n"
    "y = torch.stack([0.1 * norm(x[:, step]) for step, norm in enumerate(norms)], 1)",
    affine={"weight": Slot("c", 0.1), "bias": Slot("c", 0.0)},
    state={
        "running_mean": Slot("max_length c", 0.0),
        "running_var": Slot("max_length c", 1.0),
        "num_batches_tracked": Slot("max_length 1", 0, torch.long),
    },
    invariant_to=frozenset({"scale", "shift"}),
    builds_on=("batch_norm",),
)

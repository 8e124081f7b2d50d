"""Running averages: what a method remembers of the batches it has seen. Nothing is changed in place."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from normcore.core.region import Bound
from normcore.core.statistics import Later, Statistics, along_channels, cast, own_variance, widen

State = Mapping[str, Tensor]
RUNNING = "running_mean", "running_var"


@torch.library.custom_op("normcore::as_it_was", mutates_args=())
def _copied(remembered: Tensor) -> Tensor:
    return remembered.clone()


@_copied.register_fake
def _(remembered: Tensor) -> Tensor:
    return torch.empty_like(remembered)


def as_it_was(state: State) -> State:
    """A state that a gradient depends on: compiled code (of torch 2.13) would work it out again from the next one."""
    return {name: _copied(entry) for name, entry in state.items()} if torch.compiler.is_compiling() else state


def track(state: State, region: Bound, stats: Statistics, momentum: float | None, pooled: bool = False) -> State:
    """The state after more batches: ``running = (1 - momentum) * running + momentum * new``, for each batch in turn.

    The regions are one a channel, or one a channel for each of several batches (or samples), those first; `pooled`
    averages them into a single step. A variance counts with the n - 1 estimator, as in PyTorch (TensorFlow, Keras and
    the ONNX operator use n). With momentum None every batch counts the same: ``momentum = 1 / batches seen``.
    """
    channels, dtype = state["running_mean"].shape[-1], state["running_mean"].dtype
    moments = stats.moments if isinstance(stats, Later) else None
    if moments is None:
        unbiased = (
            stats["var_unbiased"] if "var_unbiased" in stats else stats["var"] * (region.size / (region.size - 1 or 1))
        )
        found = tuple(map(region.gather, (stats["mean"], unbiased)))
    else:
        found = moments()
        if found[0].ndim == 1:  # one a channel
            return average(state, dict(zip(RUNNING, found, strict=True)), momentum)
    news = [cast(moment, dtype).reshape(-1, channels) for moment in found]
    if pooled or len(news[0]) == 1:
        means = [new.mean(0) if pooled else new[0] for new in news]
        return average(state, dict(zip(RUNNING, means, strict=True)), momentum)
    return _average_in_turn(state, dict(zip(RUNNING, news, strict=True)), momentum)


def average(state: State, news: Statistics, momentum: float | None) -> State:
    """The state after one more batch: each running average in `news` moves to its new value by the share `momentum`."""
    seen = state["num_batches_tracked"] + 1
    moved = {"num_batches_tracked": seen}
    for name, new in news.items():
        old = state[name]
        share = cast(seen, old.dtype).reciprocal() if momentum is None else momentum
        moved[name] = old.lerp(cast(new.detach() if new.requires_grad else new, old.dtype), share)
    return {**state, **moved}


def _average_in_turn(state: State, news: Statistics, momentum: float | None) -> State:
    """`average` for several new values (batches c) at once: the older ones have faded by as much as came after them."""
    old = state[RUNNING[0]]
    count = len(news[RUNNING[0]])
    seen = state["num_batches_tracked"] + count
    if momentum is None:
        share: Any = cast(seen, old.dtype).reciprocal()
        kept, shares = (seen - count) * share, share.expand(count, 1)
    else:
        faded = [(1 - momentum) ** after for after in range(count, -1, -1)]
        kept, shares = faded[0], old.new_tensor([[momentum * fading] for fading in faded[1:]])
    moved = {name: (shares * new.detach()).sum(0).add_(kept * state[name]) for name, new in news.items()}
    return {**state, **moved, "num_batches_tracked": seen}


def remembered_variance(
    x: Tensor, region: Bound, state: State, training: bool, tracks: bool, momentum: float | None
) -> tuple[Statistics, State]:
    """The variance of each channel for a method that keeps no mean: the batch's, or in evaluation the running one.

    Returns:
        One statistic, `var` or `running_var`, and the state after this batch.
    """
    if tracks and not training:
        return {"running_var": along_channels(cast(state["running_var"], x.dtype), region)}, state
    var = own_variance(x, region)
    if tracks:
        state = average(state, {"running_var": var * (region.size / (region.size - 1 or 1))}, momentum)
    return {"var": region.spread(var)}, state


def apply_running(
    x: Tensor, region: Bound, state: State, eps: float, weight: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, Statistics]:
    """Evaluation: ``(x - running_mean) / sqrt(running_var + eps) * weight + bias``, one fixed line for each channel."""
    wide = widen(x)
    mean, var = cast(state["running_mean"], wide.dtype), cast(state["running_var"], wide.dtype)
    fixed = (mean, var, cast(weight, wide.dtype), cast(bias, wide.dtype), False, 0.0, eps)
    if region.channel_axis == 1:
        y = functional.batch_norm(wide, *fixed)
    else:
        y = functional.batch_norm(wide.flatten(0, -2), *fixed).reshape(x.shape)
    ways = {"running_mean": partial(along_channels, mean, region), "running_var": partial(along_channels, var, region)}
    return cast(y, x.dtype), Later(ways)

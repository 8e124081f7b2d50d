"""Switching: one normalization with a mixture of the statistics of InstanceNorm, LayerNorm and BatchNorm."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from normcore.core.facts import Normed
from normcore.core.region import Bound
from normcore.core.running import State, track
from normcore.core.statistics import affine, along_channels, cast, center, variance, widen


def switch(
    x: Tensor,
    instance: Bound,
    batch: Bound,
    logits: tuple[Tensor | None, Tensor | None],
    share: Callable[[Tensor], Tensor],
    weight: Tensor | None,
    bias: Tensor | None,
    state: State,
    training: bool,
    eps: float,
    momentum: float | None,
    unbiased: bool,
    tracks: bool,
) -> Normed:
    """``(x - mean) / sqrt(var + eps) * weight + bias`` with mixed statistics, in evaluation partly running ones.

    `share` turns three logits, for the means and for the variances, into shares of instance, layer and batch
    statistics; logits that are left out are equal. Layer and batch variances are built from the instance statistics by
    the law of total variance.
    """
    wide = widen(x)
    centered, by_instance = center(wide, instance)
    instance_mean = instance.spread(by_instance)
    instance_var = instance.spread(variance(centered, instance, unbiased))
    means, variances = [instance_mean], [instance_var]
    for axis in (1, 0):
        mean = instance_mean.mean(axis, keepdim=True)
        between = (instance_mean - mean).square()
        means.append(mean)
        variances.append((instance_var + between).mean(axis, keepdim=True))
    if tracks and training:
        estimate = "var_unbiased" if unbiased else "var"  # what is n - 1 already is not corrected again
        state = track(state, batch, {"mean": means[2], estimate: variances[2]}, momentum)
    elif tracks:
        means[2], variances[2] = (
            along_channels(cast(state[k], wide.dtype), batch) for k in ("running_mean", "running_var")
        )
    shares = [share(wide.new_ones(3) if given is None else cast(given, wide.dtype)) for given in logits]
    mean, var = _mix(means, shares[0]), _mix(variances, shares[1])
    y = affine(centered + (instance_mean - mean), batch, weight, bias, (var + eps).rsqrt())
    return Normed(cast(y, x.dtype), {"mixed_mean": mean.detach(), "mixed_var": var.detach()}, state)


def _mix(parts: list[Tensor], shares: Tensor) -> Tensor:
    first, second, third = parts
    return shares[0] * first + shares[1] * second + shares[2] * third


def switching_code(settings: Mapping[str, Any], shares: str) -> str:
    """The same in plain PyTorch, given the lines that define the three shares of a new layer."""
    from_state = settings["track_running_stats"] and not settings["training"]
    return "\n".join(
        [
            "mean_in, var_in = x.mean({space}, keepdim=True), x.var({space}, unbiased={unbiased}, keepdim=True)",
            "mean_ln, mean_bn = mean_in.mean(1, keepdim=True), mean_in.mean(0, keepdim=True)",
            "square = var_in + mean_in.square()",
            "var_ln = square.mean(1, keepdim=True) - mean_ln.square()",
            "mean_bn, var_bn = torch.zeros_like(mean_bn), torch.ones_like(mean_bn)  # running averages of a new layer"
            if from_state
            else "var_bn = square.mean(0, keepdim=True) - mean_bn.square()",
            shares,
            "mean = share[0] * mean_in + share[1] * mean_ln + share[2] * mean_bn",
            "var = share[0] * var_in + share[1] * var_ln + share[2] * var_bn",
            "y = (x - mean) / torch.sqrt(var + {eps})",
        ]
    )

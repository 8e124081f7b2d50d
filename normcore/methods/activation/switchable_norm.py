"""Switchable normalization: a learned mixture of instance, layer and batch statistics."""

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
    center,
    track,
    variance,
    widen,
)

LAYOUTS = ("n c l", "n c h w", "n c d h w")


def switchable_norm(
    x: Tensor,
    instance: Bound,
    layer: Bound,
    batch: Bound,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    mean_weight: Tensor | None = None,
    var_weight: Tensor | None = None,
    state: Mapping[str, Tensor] = EMPTY,
    training: bool = True,
    eps: Epsilon = 1e-5,
    momentum: Momentum = 0.1,
    unbiased: bool = False,
    track_running_stats: bool = True,
) -> Normed:
    """Mixes the means and the variances of InstanceNorm, LayerNorm and BatchNorm, and normalizes once with them.

    The mixing shares are ``softmax(mean_weight)`` and ``softmax(var_weight)``, in the order instance, layer, batch.
    Layer and batch variances are built from the instance statistics by the law of total variance, as in the authors'
    code, where the instance variance is the n - 1 estimate (`unbiased`); the paper divides by n. ε stands inside the
    root. In evaluation the batch part comes from running averages, kept as BatchNorm keeps them.

    Shapes: x (n c ...); weight and bias (c); mean_weight and var_weight (3); running_mean and running_var (c).
    Source: Luo, Ren, Peng, Zhang and Li 2018, arXiv:1806.10779.
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
    if track_running_stats and training:
        estimate = "var_unbiased" if unbiased else "var"  # what is n - 1 already is not corrected again
        state = track(state, batch, {"mean": means[2], estimate: variances[2]}, momentum)
    elif track_running_stats:
        means[2], variances[2] = (
            along_channels(state[k].to(wide.dtype), batch) for k in ("running_mean", "running_var")
        )
    mean, var = _mix(means, mean_weight), _mix(variances, var_weight)
    y = affine((centered + (instance_mean - mean)) * (var + eps).rsqrt(), batch, weight, bias)
    return Normed(y.to(x.dtype), {"mixed_mean": mean.detach(), "mixed_var": var.detach()}, state)


def _mix(parts: list[Tensor], logits: Tensor | None) -> Tensor:
    shares = parts[0].new_full((3,), 1 / 3) if logits is None else logits.to(parts[0].dtype).softmax(0)
    first, second, third = parts
    return shares[0] * first + shares[1] * second + shares[2] * third


def _pytorch(settings: Mapping[str, Any]) -> str:
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
            "share = torch.softmax(torch.ones(3), 0)  # learned, one set for the means and one for the variances",
            "mean = share[0] * mean_in + share[1] * mean_ln + share[2] * mean_bn",
            "var = share[0] * var_in + share[1] * var_ln + share[2] * var_bn",
            "y = (x - mean) / torch.sqrt(var + {eps})",
        ]
    )


METHOD = Method(
    fn=switchable_norm,
    name="SwitchableNorm",
    regions=(
        *(Region(f"{axes} -> n c") for axes in LAYOUTS),
        *(Region(f"{axes} -> n") for axes in LAYOUTS),
        *(Region(f"{axes} -> c", running=True) for axes in LAYOUTS),
    ),
    paper=Paper(
        "Ping Luo, Jiamin Ren, Zhanglin Peng, Ruimao Zhang, Jingyu Li",
        "Differentiable Learning-to-Normalize via Switchable Normalization",
        2018,
        "1806.10779",
    ),
    why="No normalizer is best for every layer and batch size. Let each layer learn how much of instance, layer and "
    "batch statistics it wants.",
    formula=r"\frac{<x> - <mean>}{\sqrt{<var> + <eps>}}",
    pytorch=_pytorch,
    affine={**GAIN_AND_BIAS, "mean_weight": Slot("3", 1.0), "var_weight": Slot("3", 1.0)},
    state=RUNNING,
    invariant_to=frozenset({"scale", "shift"}),
)

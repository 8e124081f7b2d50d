"""Filter response normalization: each channel of each sample by its root mean square, then a learned threshold.

Longer than most: an ε that can be learned, and an activation that belongs to the method.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from normcore.core import (
    GAIN_AND_BIAS,
    Bound,
    Epsilon,
    Method,
    Normed,
    Paper,
    Region,
    Slot,
    affine,
    along_channels,
    cast,
    rescale,
    widen,
)


def filter_response_norm(
    x: Tensor,
    channel: Bound,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    tau: Tensor | None = None,
    learned_eps: Tensor | None = None,
    eps: Epsilon = 1e-6,
    learnable_eps: bool = False,
    tlu: bool = True,
) -> Normed:
    """Divides each channel of each sample by the root of its mean square, and cuts off what lies below a threshold.

    ``y = max(weight * x / sqrt(mean(x²) + eps) + bias, tau)``; nothing is subtracted. `tlu` is the thresholded linear
    unit, the activation that belongs to the method; a `tau` that is left out is 0, which is ReLU. With `learnable_eps`
    ``|learned_eps|`` is added to ε, which keeps maps of a single pixel from becoming mere signs.

    Shapes: x (n c l), (n c h w) or (n c d h w); weight, bias and tau (c); learned_eps (1).
    Source: Singh and Krishnan 2019, arXiv:1911.09737.
    """
    wide = widen(x)
    threshold = None if tau is None or not tlu else cast(tau, wide.dtype)
    if threshold is not None:  # max(y, tau) is max(y - tau, 0) + tau, with a cheaper gradient
        bias = -threshold if bias is None else bias - threshold
    if learnable_eps and learned_eps is not None:
        mean_square = channel.spread(channel.mean(wide.square()))
        added = cast(learned_eps, wide.dtype).abs()
        y = affine(wide, channel, weight, bias, (mean_square + (eps + added)).rsqrt())
        stats: Mapping[str, Tensor] = {"mean_square": mean_square.detach()}
    else:
        y, stats = rescale(wide, channel, eps, weight, bias)
    if tlu:  # in place, unless that has to be differentiated
        y = y.clamp_min(0.0) if y.requires_grad else y.clamp_min_(0.0)
    if threshold is not None:
        threshold = along_channels(threshold, channel)
        y = y + threshold if y.requires_grad else y.add_(threshold)
    return Normed(cast(y, x.dtype), stats)


def _pytorch(settings: Mapping[str, Any]) -> str:
    added = " + torch.full((1,), 1e-4).abs()  # learned" if settings["learnable_eps"] else ""
    unit = "\ny = torch.maximum(y, torch.zeros({column}))  # the threshold is learned" if settings["tlu"] else ""
    return f"eps = {{eps}}{added}\ny = x * torch.rsqrt(x.square().mean(dim={{reduced}}, keepdim=True) + eps){unit}"


DIVIDED = r"\frac{<x>}{\sqrt{<mean_square> + <eps>}}"

METHOD = Method(
    fn=filter_response_norm,
    name="FRN",
    regions=(Region("n c l -> n c"), Region("n c h w -> n c"), Region("n c d h w -> n c")),
    paper=Paper(
        "Saurabh Singh, Shankar Krishnan",
        "Filter Response Normalization Layer: Eliminating Batch Dependence in the Training of Deep Neural Networks",
        2019,
        "1911.09737",
    ),
    why="GroupNorm freed training from the batch but stayed behind BatchNorm. Dropping the mean, and learning where "
    "the activation cuts off instead, catches up at every batch size.",
    formula=lambda settings: rf"\max({DIVIDED}, 0)" if settings["tlu"] else DIVIDED,
    pytorch=_pytorch,
    affine={**GAIN_AND_BIAS, "tau": Slot("c", 0.0), "learned_eps": Slot("1", 1e-4)},
    invariant_to=frozenset({"scale"}),
    builds_on=("instance_norm", "group_norm"),
)

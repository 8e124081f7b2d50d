"""SimpleNorm: divided by the n - 1 standard deviation, but not centered."""

from torch import Tensor

from normcore.core import GAIN, Bound, Epsilon, Method, Normed, Paper, Region, affine, cast, own_variance, widen


def simple_norm(x: Tensor, channels: Bound, *, weight: Tensor | None = None, eps: Epsilon = 1e-6) -> Normed:
    """Divides a token's channels by their standard deviation; the mean only enters the variance.

    ``y = weight * x / sqrt(var + eps)``, where the variance divides by n - 1 (Restormer's bias-free LayerNorm is the
    same with n). ε stands inside the root. A token of one channel is given variance 0 (in timm it becomes nan).

    Shapes: x (n c) or (n t c); weight (c).
    Source: Wightman 2024, timm, https://github.com/huggingface/pytorch-image-models/issues/2380.
    """
    wide = widen(x)
    var = channels.spread(own_variance(wide, channels, unbiased=True))
    y = affine(wide, channels, weight, None, (var + eps).rsqrt())
    return Normed(cast(y, x.dtype), {"var_unbiased": var.detach()})


METHOD = Method(
    fn=simple_norm,
    name="SimpleNorm",
    regions=(Region("n c -> n"), Region("n t c -> n t")),
    paper=Paper("Ross Wightman", "SimpleNorm, in PyTorch Image Models (timm)", 2024),
    why="A library's RMSNorm turned out to divide by the standard deviation instead of the root mean square. Networks "
    "had been trained with it and worked, so that it was kept under a name of its own.",
    formula=r"\frac{<x>}{\sqrt{<var_unbiased> + <eps>}}",
    pytorch="y = x * torch.rsqrt(x.var(dim={reduced}, keepdim=True) + {eps})",
    affine=GAIN,
    invariant_to=frozenset({"scale"}),
    builds_on=("rms_norm",),
)

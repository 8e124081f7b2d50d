"""SimpleNorm of feature maps: divided by the n - 1 standard deviation of a position's channels, but not centered."""

from torch import Tensor

from normcore.core import GAIN, Bound, Epsilon, Method, Normed, Paper, Region, affine, cast, own_variance, widen


def simple_norm_2d(x: Tensor, position: Bound, *, weight: Tensor | None = None, eps: Epsilon = 1e-6) -> Normed:
    """Divides the channels of each pixel by their standard deviation; the mean only enters the variance.

    It is SimpleNorm with channels first: the variance divides by n - 1, ε stands inside the root, and a pixel of one
    channel is given variance 0 (in timm it becomes nan).

    Shapes: x (n c h w); weight (c).
    Source: Wightman 2024, timm, https://github.com/huggingface/pytorch-image-models/issues/2380.
    """
    wide = widen(x)
    var = position.spread(own_variance(wide, position, unbiased=True))
    y = affine(wide, position, weight, None, (var + eps).rsqrt())
    return Normed(cast(y, x.dtype), {"var_unbiased": var.detach()})


METHOD = Method(
    fn=simple_norm_2d,
    name="SimpleNorm2d",
    regions=(Region("n c h w -> n h w"),),
    paper=Paper("Ross Wightman", "SimpleNorm, in PyTorch Image Models (timm)", 2024),
    why="SimpleNorm is written for tokens. Image networks keep their channels first, and want the same for each pixel.",
    formula=r"\frac{<x>}{\sqrt{<var_unbiased> + <eps>}}",
    pytorch="y = x * torch.rsqrt(x.var(dim=1, keepdim=True) + {eps})",
    affine=GAIN,
    invariant_to=frozenset({"scale"}),
    builds_on=("simple_norm",),
)

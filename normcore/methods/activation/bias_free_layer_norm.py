"""Bias-free layer normalization: divided by the standard deviation, but not centered."""

from torch import Tensor

from normcore.core import GAIN, Bound, Epsilon, Method, Normed, Paper, Region, affine, cast, own_variance, widen


def bias_free_layer_norm(x: Tensor, channels: Bound, *, weight: Tensor | None = None, eps: Epsilon = 1e-5) -> Normed:
    """Divides the channels of each position by their standard deviation; the mean only enters the variance.

    ``y = weight * x / sqrt(var + eps)``: the variance is the population's (divided by n), taken around the mean, but
    the mean stays in x. ε stands inside the root. Restormer's other form, "WithBias", centers and has a bias: that is
    layer_norm_2d with ε = 1e-5. A position of one channel has variance 0, and is divided by the root of ε.

    Shapes: x (n c ...) or (n t c); weight (c).
    Source: Zamir et al. 2021 (Restormer), arXiv:2111.09881, and its code.
    """
    wide = widen(x)
    var = channels.spread(own_variance(wide, channels))
    y = affine(wide, channels, weight, None, (var + eps).rsqrt())
    return Normed(cast(y, x.dtype), {"var": var.detach()})


METHOD = Method(
    fn=bias_free_layer_norm,
    name="Bias-Free LayerNorm",
    regions=(Region("n c ... -> n ..."), Region("n t c -> n t")),
    paper=Paper(
        "Syed Waqas Zamir, Aditya Arora, Salman Khan, Munawar Hayat, Fahad Shahbaz Khan, Ming-Hsuan Yang",
        "Restormer: Efficient Transformer for High-Resolution Image Restoration",
        2021,
        "2111.09881",
    ),
    why="A denoiser without any bias treats noise of a strength that it never saw in training as it treats the rest. "
    "LayerNorm without bias and without centering keeps a network free of them.",
    formula=r"\frac{<x>}{\sqrt{<var> + <eps>}}",
    pytorch="y = x * torch.rsqrt(x.var(dim={reduced}, unbiased=False, keepdim=True) + {eps})",
    affine=GAIN,
    invariant_to=frozenset({"scale"}),
    builds_on=("layer_norm",),
)

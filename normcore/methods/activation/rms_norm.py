"""Root-mean-square normalization: scale without centering, over the channels of one position."""

from torch import Tensor

from normcore.core import GAIN, Bound, Epsilon, Method, Normed, Paper, Region, rescale


def rms_norm(x: Tensor, channels: Bound, *, weight: Tensor | None = None, eps: Epsilon = 1e-6) -> Normed:
    """Divides the channels of each position by the root of their mean square; nothing is subtracted.

    ε stands inside the root, as in T5, Llama and PyTorch (the authors' code adds 1e-8 to the root instead).

    Shapes: x (n c ...) or (n t c); weight (c).
    Source: Zhang and Sennrich 2019, arXiv:1910.07467.
    """
    return Normed(*rescale(x, channels, eps, weight))


METHOD = Method(
    fn=rms_norm,
    name="RMSNorm",
    regions=(Region("n c ... -> n ..."), Region("n t c -> n t")),
    paper=Paper("Biao Zhang, Rico Sennrich", "Root Mean Square Layer Normalization", 2019, "1910.07467"),
    why="LayerNorm helps mostly because it fixes the scale; leaving out the mean saves work and changes little. "
    "Most large language models use it.",
    formula=r"\frac{<x>}{\sqrt{<mean_square> + <eps>}}",
    pytorch="y = x * torch.rsqrt(x.square().mean(dim={reduced}, keepdim=True) + {eps})",
    elsewhere={
        "keras": "norm = keras.layers.RMSNormalization(epsilon={eps})  # on the last axis\n"
        "y = numpy.moveaxis(norm(numpy.moveaxis(x, {channel}, -1)), -1, {channel})",
        "flax": "norm = flax.linen.RMSNorm(epsilon={eps}, reduction_axes={channel}, feature_axes={channel})\n"
        "y, state = norm.init_with_output(jax.random.key(0), x)",
    },
    affine=GAIN,
    invariant_to=frozenset({"scale"}),
)

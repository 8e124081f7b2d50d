"""RMSNorm of feature maps: scale without centering, over the channels of one pixel."""

from torch import Tensor

from normcore.core import GAIN, Bound, Epsilon, Identity, Method, Normed, Paper, Region, rescale


def rms_norm_2d(x: Tensor, position: Bound, *, weight: Tensor | None = None, eps: Epsilon = 1e-6) -> Normed:
    """Divides the channels of each pixel by the root of their mean square; nothing is subtracted.

    It is what rms_norm does to images, under the name that timm has for it. ε stands inside the root.

    Shapes: x (n c h w); weight (c).
    Source: Zhang and Sennrich 2019, arXiv:1910.07467; with channels first Wightman, timm.
    """
    return Normed(*rescale(x, position, eps, weight))


METHOD = Method(
    fn=rms_norm_2d,
    name="RMSNorm2d",
    regions=(Region("n c h w -> n h w"),),
    paper=Paper("Biao Zhang, Rico Sennrich", "Root Mean Square Layer Normalization", 2019, "1910.07467"),
    why="RMSNorm is written for tokens. Image networks keep their channels first, and want the same for each pixel.",
    formula=r"\frac{<x>}{\sqrt{<mean_square> + <eps>}}",
    pytorch="norm = torch.nn.RMSNorm({c}, eps={eps})\ny = norm(x.movedim(1, -1)).movedim(-1, 1)",
    elsewhere={
        "keras": "norm = keras.layers.RMSNormalization(epsilon={eps})  # on the last axis\n"
        "y = keras.ops.moveaxis(norm(keras.ops.moveaxis(x, {channel}, -1)), -1, {channel})",
        "flax": "norm = flax.linen.RMSNorm(epsilon={eps}, reduction_axes={channel}, feature_axes={channel})\n"
        "y, state = norm.init_with_output(jax.random.key(0), x)",
    },
    affine=GAIN,
    invariant_to=frozenset({"scale"}),
    equals=(Identity("rms_norm"),),
    builds_on=("rms_norm",),
)

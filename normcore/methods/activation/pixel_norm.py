"""PixelNorm: every pixel's feature vector gets the same length."""

from torch import Tensor

from normcore.core import Bound, Epsilon, Identity, Method, Normed, Paper, Region, rescale


def pixel_norm(x: Tensor, channels: Bound, *, eps: Epsilon = 1e-8) -> Normed:
    """Divides the channels of each position by the root of their mean square; nothing is learned.

    It is RMSNorm over the channels without a gain. ε stands inside the root.

    Shapes: x (n c ...).
    Source: Karras, Aila, Laine and Lehtinen 2017 (progressive GAN), arXiv:1710.10196.
    """
    return Normed(*rescale(x, channels, eps))


METHOD = Method(
    fn=pixel_norm,
    name="PixelNorm",
    regions=(Region("n c ... -> n ..."),),
    paper=Paper(
        "Tero Karras, Timo Aila, Samuli Laine, Jaakko Lehtinen",
        "Progressive Growing of GANs for Improved Quality, Stability, and Variation",
        2017,
        "1710.10196",
    ),
    why="In a GAN, generator and discriminator can drive each other's values up without end. A fixed length of every "
    "pixel's feature vector in the generator stops that, and does little harm.",
    formula=r"\frac{<x>}{\sqrt{<mean_square> + <eps>}}",
    pytorch="y = x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + {eps})",
    invariant_to=frozenset({"scale"}),
    equals=(Identity("rms_norm"),),
    builds_on=("local_response_norm",),
)

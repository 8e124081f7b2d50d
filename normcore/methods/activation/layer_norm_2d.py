"""Layer normalization of feature maps: the channels of one position share their statistics."""

from torch import Tensor

from normcore.core import GAIN_AND_BIAS, Bound, Epsilon, Identity, Method, Normed, Paper, Region, standardize


def layer_norm_2d(
    x: Tensor, position: Bound, *, weight: Tensor | None = None, bias: Tensor | None = None, eps: Epsilon = 1e-6
) -> Normed:
    """Subtracts the mean of the channels at each position and divides by their standard deviation.

    This is what LayerNorm does to tokens, done to the pixels of an image whose channels come first: the positions of
    one image do not meet. The variance is the population's (divided by n), ε stands inside the root. Restormer's
    "WithBias" normalization is the same, with an ε of 1e-5.

    Shapes: x (n c h w); weight and bias (c).
    Source: Liu, Mao, Wu, Feichtenhofer, Darrell and Xie 2022 (ConvNeXt), arXiv:2201.03545.
    """
    return Normed(*standardize(x, position, eps, weight, bias))


METHOD = Method(
    fn=layer_norm_2d,
    name="LayerNorm2d",
    regions=(Region("n c h w -> n h w"),),
    paper=Paper(
        "Zhuang Liu, Hanzi Mao, Chao-Yuan Wu, Christoph Feichtenhofer, Trevor Darrell, Saining Xie",
        "A ConvNet for the 2020s",
        2022,
        "2201.03545",
    ),
    why="Transformers do well with a LayerNorm for each token. A convolutional network gets the same by taking every "
    "pixel for a token, where LayerNorm on images would pool all of them.",
    formula=r"\frac{<x> - <mean>}{\sqrt{<var> + <eps>}}",
    pytorch="norm = torch.nn.LayerNorm({c}, eps={eps})\ny = norm(x.movedim(1, -1)).movedim(-1, 1)",
    elsewhere={
        "keras": "norm = keras.layers.LayerNormalization(epsilon={eps})  # on the last axis\n"
        "y = keras.ops.moveaxis(norm(keras.ops.moveaxis(x, {channel}, -1)), -1, {channel})",
        "flax": "norm = flax.linen.LayerNorm(epsilon={eps}, reduction_axes={channel}, feature_axes={channel},\n"
        "    use_fast_variance=False)\n"
        "y, state = norm.init_with_output(jax.random.key(0), x)",
    },
    affine=GAIN_AND_BIAS,
    invariant_to=frozenset({"scale", "shift"}),
    equals=(Identity("positional_norm", other_settings={"unbiased": False}),),
    builds_on=("layer_norm",),
)

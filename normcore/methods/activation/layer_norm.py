"""Layer normalization: all features of one sample (of one token, in sequences) share their statistics."""

from typing import Annotated

from torch import Tensor

from normcore.core import Bound, Epsilon, Identity, Method, Normed, Paper, Range, Region, Slot, standardize, widen


def layer_norm(
    x: Tensor,
    features: Bound,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: Epsilon = 1e-5,
    weight_offset: Annotated[float, Range(0.0, 1.0)] = 0.0,
) -> Normed:
    """Subtracts the mean of a sample's features and divides by their standard deviation, the batch playing no part.

    The variance is the population's (divided by n), ε stands inside the root. In channel-first layouts the features
    are all channels and positions; in token layouts they are the channels of one token. The gain is
    ``weight_offset + weight``: Nemotron has an offset of 1 and weights that start at 0.

    Shapes: x (n c ...) or (n t c); weight and bias as the features, (c h w) for images, (c) for tokens.
    Source: Ba, Kiros and Hinton 2016, arXiv:1607.06450.
    """
    gain = widen(weight) + weight_offset if weight is not None and weight_offset else weight
    return Normed(*standardize(x, features, eps, gain, bias))


METHOD = Method(
    fn=layer_norm,
    name="LayerNorm",
    regions=(Region("n c ... -> n"), Region("n t c -> n t")),
    paper=Paper("Jimmy Lei Ba, Jamie Ryan Kiros, Geoffrey E. Hinton", "Layer Normalization", 2016, "1607.06450"),
    why="BatchNorm needs a batch, and a different statistic for every step of a sequence. Statistics of one sample's "
    "own features need neither, and are the same in training and evaluation.",
    formula=r"\frac{<x> - <mean>}{\sqrt{<var> + <eps>}}",
    pytorch="norm = torch.nn.LayerNorm({features}, eps={eps})\ny = norm(x)",
    elsewhere={
        "keras": "norm = keras.layers.LayerNormalization(axis={reduced}, epsilon={eps})\ny = norm(x)",
        "flax": "norm = flax.linen.LayerNorm(epsilon={eps}, reduction_axes={reduced}, feature_axes={reduced},\n"
        "    use_fast_variance=False)\n"
        "y, state = norm.init_with_output(jax.random.key(0), x)",
    },
    affine={"weight": Slot("c ...", "1-weight_offset"), "bias": Slot("c ...", 0.0)},
    invariant_to=frozenset({"scale", "shift"}),
    equals=(
        Identity("group_norm", other_settings={"num_groups": 1}, layouts=("vector", "signal", "image", "volume")),
        Identity("positional_norm", other_settings={"unbiased": False}, layouts=("vector", "tokens")),
    ),
    builds_on=("batch_norm",),
)

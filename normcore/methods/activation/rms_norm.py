"""Root-mean-square normalization: scale without centering, over the channels of one position."""

from typing import Annotated

from torch import Tensor

from normcore.core import (
    Bound,
    Epsilon,
    EpsilonPlace,
    Method,
    Normed,
    Paper,
    Range,
    Region,
    Slot,
    rescale,
    widen,
)


def rms_norm(
    x: Tensor,
    channels: Bound,
    *,
    weight: Tensor | None = None,
    eps: Epsilon = 1e-6,
    eps_place: EpsilonPlace = "inside",
    weight_offset: Annotated[float, Range(0.0, 1.0)] = 0.0,
) -> Normed:
    """Divides the channels of each position by the root of their mean square; nothing is subtracted.

    ε stands inside the root, as in T5, Llama and PyTorch; the authors' code adds 1e-8 to the root ("outside"). The gain
    is ``weight_offset + weight``: Gemma has an offset of 1 and weights that start at 0. Half-precision results are
    rounded once, after the gain, as in Gemma (Llama rounds before it too).

    Shapes: x (n c ...) or (n t c); weight (c).
    Source: Zhang and Sennrich 2019, arXiv:1910.07467.
    """
    gain = widen(weight) + weight_offset if weight is not None and weight_offset else weight
    return Normed(*rescale(x, channels, eps, gain, eps_place=eps_place))


METHOD = Method(
    fn=rms_norm,
    name="RMSNorm",
    regions=(Region("n c ... -> n ..."), Region("n t c -> n t")),
    paper=Paper("Biao Zhang, Rico Sennrich", "Root Mean Square Layer Normalization", 2019, "1910.07467"),
    why="LayerNorm helps mostly because it fixes the scale; leaving out the mean saves work and changes little. "
    "Most large language models use it.",
    formula=lambda settings: (
        r"\frac{<x>}{\sqrt{<mean_square> + <eps>}}"
        if settings["eps_place"] == "inside"
        else r"\frac{<x>}{\sqrt{<mean_square>} + <eps>}"
    ),
    pytorch=lambda settings: (
        "y = x * torch.rsqrt(x.square().mean(dim={reduced}, keepdim=True) + {eps})"
        if settings["eps_place"] == "inside"
        else "y = x / (x.square().mean(dim={reduced}, keepdim=True).sqrt() + {eps})"
    ),
    elsewhere={
        "keras": "norm = keras.layers.RMSNormalization(epsilon={eps})  # on the last axis\n"
        "y = keras.ops.moveaxis(norm(keras.ops.moveaxis(x, {channel}, -1)), -1, {channel})",
        "flax": "norm = flax.linen.RMSNorm(epsilon={eps}, reduction_axes={channel}, feature_axes={channel})\n"
        "y, state = norm.init_with_output(jax.random.key(0), x)",
    },
    affine={"weight": Slot("c", "1-weight_offset")},
    invariant_to=frozenset({"scale"}),
    builds_on=("layer_norm",),
)

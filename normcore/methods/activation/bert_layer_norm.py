"""Layer normalization as in the Annotated Transformer: ε is added to the root, and the variance divides by n - 1."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from normcore.core import (
    GAIN_AND_BIAS,
    Bound,
    Epsilon,
    EpsilonPlace,
    Identity,
    Method,
    Normed,
    Paper,
    Region,
    standardize,
)


def bert_layer_norm(
    x: Tensor,
    channels: Bound,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: Epsilon = 1e-6,
    unbiased: bool = True,
    eps_place: EpsilonPlace = "outside",
) -> Normed:
    """Subtracts the mean of a token's channels and divides by their standard deviation plus ε.

    ``y = weight * (x - mean) / (sqrt(var) + eps) + bias``, ε outside the root and the variance divided by n - 1, as in
    the Annotated Transformer and in many a BERT in PyTorch. Google's own BERT is the plain LayerNorm with ε = 1e-12.
    The root has slope 0 at 0, so that a constant token gives the bias and finite gradients, where that code gives nan.

    Shapes: x (n c) or (n t c); weight and bias (c).
    Source: Rush 2018, The Annotated Transformer.
    """
    return Normed(*standardize(x, channels, eps, weight, bias, unbiased, eps_place))


def _formula(settings: Mapping[str, Any]) -> str:
    inside = settings["eps_place"] == "inside"
    return r"\frac{<x> - <mean>}{" + (r"\sqrt{<var> + <eps>}" if inside else r"\sqrt{<var>} + <eps>") + "}"


METHOD = Method(
    fn=bert_layer_norm,
    name="LayerNorm of the Annotated Transformer",
    regions=(Region("n c -> n"), Region("n t c -> n t")),
    paper=Paper("Alexander M. Rush", "The Annotated Transformer", 2018),
    why="The tutorial that many learned the Transformer from wrote LayerNorm with PyTorch's std, which divides by "
    "n - 1, and added ε to it. Weights trained with it want exactly that.",
    formula=_formula,
    pytorch=lambda settings: (
        "mean = x.mean(-1, keepdim=True)\nvar = x.var(-1, unbiased={unbiased}, keepdim=True)\n"
        + (
            "y = (x - mean) / "
            + ("(var + {eps}).sqrt()" if settings["eps_place"] == "inside" else "(var.sqrt() + {eps})")
        )
    ),
    affine=GAIN_AND_BIAS,
    invariant_to=frozenset({"scale", "shift"}),
    equals=(Identity("layer_norm", {"unbiased": False, "eps_place": "inside"}),),
    builds_on=("layer_norm",),
)

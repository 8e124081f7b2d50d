"""Weight standardization: the weights of each output unit get mean 0 and standard deviation 1."""

from torch import Tensor

from normcore.core import (
    Bound,
    Epsilon,
    EpsilonPlace,
    Method,
    Normed,
    Paper,
    Region,
    standardize,
)


def weight_standardization(
    weight: Tensor,
    unit: Bound,
    *,
    eps: Epsilon = 1e-5,
    eps_place: EpsilonPlace = "outside",
    unbiased: bool = True,
) -> Normed:
    """Subtracts the mean of each output unit's weights and divides by their standard deviation.

    The defaults are the authors' code: n - 1 variance and ε added to the standard deviation. With
    ``eps_place="inside", unbiased=False`` it is the form of timm and of the paper's text.

    Shapes: weight (o i ...).
    Source: Qiao, Wang, Liu, Shen and Yuille 2019, arXiv:1903.10520.
    """
    return Normed(*standardize(weight, unit, eps, unbiased=unbiased, eps_place=eps_place))


METHOD = Method(
    fn=weight_standardization,
    name="Weight Standardization",
    regions=(Region("o i ... -> o"),),
    paper=Paper(
        "Siyuan Qiao, Huiyu Wang, Chenxi Liu, Wei Shen, Alan Yuille",
        "Micro-Batch Training with Batch-Channel Normalization and Weight Standardization",
        2019,
        "1903.10520",
    ),
    why="With one or two images on a device BatchNorm fails and GroupNorm lags behind. Standardizing weights instead "
    "of activations smooths the loss in the same way and needs no batch.",
    formula=lambda settings: (
        r"\frac{<x> - <mean>}{\sqrt{<var> + <eps>}}"
        if settings["eps_place"] == "inside"
        else r"\frac{<x> - <mean>}{\sqrt{<var>} + <eps>}"
    ),
    pytorch=lambda settings: (
        "weight = module.weight\n"
        "mean = weight.mean(dim={reduced}, keepdim=True)\n"
        "var = weight.var(dim={reduced}, unbiased={unbiased}, keepdim=True)\n"
        + (
            "y = (weight - mean) / torch.sqrt(var + {eps})"
            if settings["eps_place"] == "inside"
            else "y = (weight - mean) / (torch.sqrt(var) + {eps})"
        )
    ),
    invariant_to=frozenset({"scale", "shift"}),
    builds_on=("weight_norm", "group_norm"),
)

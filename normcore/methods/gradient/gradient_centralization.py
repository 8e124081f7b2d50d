"""Gradient centralization: the mean of each unit's gradient is taken out."""

import torch
from torch import Tensor

from normcore.core import Method, Normed, Paper, Region, replace


def gradient_centralization(gradients: list[Tensor]) -> Normed:
    """Subtracts from each unit's gradient its mean, over all axes but the first.

    A projection: the mean of the weights that lead into a unit then stays where it is. Tensors of one axis are left
    alone; the paper also tries it on convolutions only. The output units lie on the first axis, as PyTorch's weights
    have them (optax keeps the first axis too, which is the input's in weights of Flax). A nan makes its unit nan, and
    an infinite value becomes nan and the rest of its unit infinite, with the other sign; other units stay sound.

    Shapes: any list of tensors. Units: those of the gradient.
    Source: Yong, Huang, Hua and Zhang 2020, arXiv:2004.01461.
    """
    y, means = replace(gradients, _centered)
    return Normed(y, {"mean": [m if m is not None else torch.zeros_like(g) for m, g in zip(means, y, strict=True)]})


def _centered(gradient: Tensor) -> tuple[Tensor, Tensor]:
    if gradient.ndim < 2:
        return gradient, torch.zeros_like(gradient)
    mean = gradient.mean(tuple(range(1, gradient.ndim)), keepdim=True)
    return gradient - mean, mean.detach()


METHOD = Method(
    fn=gradient_centralization,
    name="Gradient Centralization",
    regions=(Region("o i ... -> o"),),
    paper=Paper(
        "Hongwei Yong, Jianqiang Huang, Xiansheng Hua, Lei Zhang",
        "Gradient Centralization: A New Optimization Technique for Deep Neural Networks",
        2020,
        "2004.01461",
    ),
    why="Weight standardization keeps weights centered by changing the net. Centering the gradient instead keeps their "
    "mean where it began, in one line, and smooths the loss in much the same way.",
    formula=r"<x> - <mean>",
    pytorch="for parameter in parameters:\n"
    "    if parameter.ndim > 1:\n"
    "        parameter.grad.sub_(parameter.grad.mean(dim=tuple(range(1, parameter.ndim)), keepdim=True))",
    invariant_to=frozenset({"shift"}),
    builds_on=("weight_standardization",),
    keeps=frozenset({"clipped"}),
)

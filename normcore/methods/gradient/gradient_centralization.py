"""Gradient centralization: the mean of each unit's gradient is taken out."""

import torch
from torch import Tensor

from normcore.core import (
    Method,
    Normed,
    Owned,
    Paper,
    Region,
    in_turn,
    loops_for,
    replace,
    replaced,
    unit_counts,
    widen,
)


def gradient_centralization(gradients: list[Tensor]) -> Normed:
    """Subtracts from each unit's gradient its mean, over all axes but the first.

    A projection: the mean of the weights that lead into a unit then stays where it is. Tensors of one axis are left
    alone; the paper also tries it on convolutions only. The output units lie on the first axis, as PyTorch's weights
    have them (optax keeps the first axis too, which is the input's in weights of Flax). A nan makes its unit nan, and
    an infinite value becomes nan and the rest of its unit infinite, with the other sign; other units stay sound.

    Shapes: any list of tensors. Units: those of the gradient.
    Source: Yong, Huang, Hua and Zhang 2020, arXiv:2004.01461.
    """
    if not isinstance(gradients, Owned):
        means = [_mean(widen(gradient)).detach() for gradient in gradients]
        return Normed(replace(gradients, _centered), {"mean": means})
    counts = unit_counts(gradients)
    if loops := loops_for(gradients, units=sum(counts)):
        alone = torch.tensor([gradient.ndim < 2 for gradient in gradients]).numpy()
        sums = in_turn(loops.centralize, 5, gradients, numbers=[alone], counts=counts)
        gradients.change = replaced(sums[: len(gradients)])
        return Normed(gradients, {"mean": []})
    return Normed(replace(gradients, _centered), {"mean": []})


def _centered(gradient: Tensor, out: Tensor | None) -> Tensor:
    return torch.sub(gradient, _mean(gradient), out=out)


def _mean(gradient: Tensor) -> Tensor:
    if gradient.ndim < 2 or not gradient.numel():
        return torch.zeros_like(gradient)
    return gradient.mean(tuple(range(1, gradient.ndim)), keepdim=True)


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

"""Soft clipping: every element goes through a tanh that ends at the threshold."""

from functools import partial
from typing import Annotated

import torch
from torch import Tensor

from normcore.core import Method, Normed, Paper, Range, in_parts, loops_for, replace


def soft_clip(
    gradients: list[Tensor],
    *,
    threshold: Annotated[float, Range(1e-9, usual=(0.1, 5.0))] = 1.0,
) -> Normed:
    """Replaces every element by ``threshold * tanh(element / threshold)``.

    Small elements stay almost as they are (the slope at 0 is 1), and none gets beyond the threshold. As the threshold
    grows nothing changes any more; as it falls to 0 the result, divided by it, becomes the sign. Clipping by value is
    the same with a corner. The cited paper writes clipping as a function of each element, of which this is a smooth
    one.

    Shapes: any list of tensors. Units: those of the gradient.
    Source: folklore; the tanh is LeCun's, Bottou's, Orr's and Müller's squashing function of 1998 (Efficient BackProp).
    """

    def squashed(gradient: Tensor, out: Tensor | None) -> Tensor:
        bent = torch.tanh(torch.div(gradient, threshold, out=out), out=out)
        return torch.mul(bent, threshold, out=out)

    plain = {gradient.dtype for gradient in gradients} == {torch.float32} and threshold < 1e30
    loops = loops_for(gradients) if plain else None
    loop = partial(in_parts, loops.squash, 0, numbers=[threshold]) if loops else None
    return Normed(replace(gradients, squashed, loop=loop), {})


METHOD = Method(
    fn=soft_clip,
    name="Soft Clip",
    regions=(),
    paper=Paper("Yann LeCun, Léon Bottou, Genevieve B. Orr, Klaus-Robert Müller", "Efficient BackProp", 1998),
    why="Clipping by value makes all elements beyond the threshold alike. A tanh keeps their order, and has no corner "
    "at which a tiny change of the gradient changes the rule.",
    formula=r"<threshold> \cdot \tanh\left(\frac{<x>}{<threshold>}\right)",
    pytorch="for parameter in parameters:\n"
    "    parameter.grad.copy_({threshold} * torch.tanh(parameter.grad / {threshold}))",
    limits={"value": "threshold"},
)

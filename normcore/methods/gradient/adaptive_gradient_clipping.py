"""Adaptive gradient clipping: each unit's gradient may be only so long beside the unit's weights."""

from typing import Annotated

import torch
from torch import Tensor

from normcore.core import Epsilon, Method, Normed, Paper, Range, Region, Slot, multiply, parameters_or_zeros, unit_norms


def adaptive_gradient_clipping(
    gradients: list[Tensor],
    *,
    parameters: list[Tensor] | None = None,
    clip_factor: Annotated[float, Range(0.0, usual=(0.001, 0.1), logarithmic=True)] = 0.01,
    eps: Epsilon = 1e-3,
    exclude: Annotated[int, Range(0, usual=(0, 4), integer=True)] = 0,
) -> Normed:
    """Multiplies each unit's gradient by ``min(1, clip_factor * max(weight norm, eps) / gradient norm)``.

    A unit is what belongs to one output: a row of the weight as (o, i ...), all axes but the first reduced (optax and
    pytorch_optimizer reduce only one axis of a one-dimensional convolution); a tensor of one axis is one unit (in optax
    also one of several, if all but one have size 1). The gradient's norm counts as at least 1e-6. `exclude` leaves the
    last tensors alone: the paper clips all layers but the last, whose weight and bias are 2. Parameters that are left
    out count as zeros, so that ε stands for their norms.
    An infinite value becomes nan and the rest of its unit 0, a nan makes its unit nan; other units stay sound.

    Shapes: any list of tensors, the parameters alike. Units: those of the gradient.
    Source: Brock, De, Smith and Simonyan 2021, arXiv:2102.06171.
    """
    weights = unit_norms(parameters_or_zeros(parameters, gradients))
    norms = unit_norms(gradients)
    scales: list[Tensor] = []
    if gradients:  # one call for all: operations on so few numbers take longer to call than to do
        lengths = [weight.to(norm) for weight, norm in zip(weights, norms, strict=True)]
        limits = torch._foreach_mul(torch._foreach_clamp_min(lengths, eps), clip_factor)
        ratios = torch._foreach_div(limits, torch._foreach_clamp_min(norms, 1e-6))
        scales += torch._foreach_clamp_max(ratios, 1.0)
    for last in range(max(0, len(scales) - exclude), len(scales)):
        scales[last] = torch.ones_like(scales[last])
    stats = {"norm": norms, "parameter_norm": weights, "scale": scales}
    y = multiply(gradients, scales, norms)
    return Normed(y, {name: [value.detach() for value in values] for name, values in stats.items()})


METHOD = Method(
    fn=adaptive_gradient_clipping,
    name="Adaptive Gradient Clipping",
    regions=(Region("o ->"), Region("o i ... -> o")),
    paper=Paper(
        "Andrew Brock, Soham De, Samuel L. Smith, Karen Simonyan",
        "High-Performance Large-Scale Image Recognition Without Normalization",
        2021,
        "2102.06171",
    ),
    why="How long a step may be depends on the weights that it changes. Clipping relative to them needs no threshold "
    "that goes with depth or batch size, and makes large batches trainable without batch norm.",
    formula=lambda settings: (
        r"<x> \cdot \min\left(1, \frac{<clip_factor> \cdot \max(<parameter_norm>, <eps>)}{\max(<norm>, 10^{-6})}\right)"
        if settings["exclude"] == 0
        else "<x>"
    ),
    pytorch="def unit_norm(x):\n"
    "    return x.norm(2.0, tuple(range(1, x.ndim)), keepdim=True) if x.ndim > 1 else x.norm()\n"
    "\n"
    "for parameter in parameters[: len(parameters) - {exclude}]:\n"
    "    limit = {clip_factor} * unit_norm(parameter.detach()).clamp(min={eps})\n"
    "    parameter.grad.mul_(torch.clamp(limit / unit_norm(parameter.grad).clamp(min=1e-6), max=1.0))",
    context={"parameters": Slot("x")},
    builds_on=("clip_by_norm_per_parameter",),
    keeps=frozenset({"direction of each unit", "clipped", "small"}),
)

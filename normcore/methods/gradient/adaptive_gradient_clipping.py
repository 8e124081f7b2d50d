"""Adaptive gradient clipping: each unit's gradient may be only so long beside the unit's weights.

Longer than most: units are found in tensors of any shape, and large gradients go through a compiled loop.
"""

from typing import Annotated

import torch
from torch import Tensor

from normcore.core import (
    Epsilon,
    Method,
    Normed,
    Paper,
    Range,
    Region,
    Slot,
    multiply,
    multiply_in_turn,
    parameters_or_zeros,
    unit_counts,
    unit_norms,
)


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
    weights = parameters_or_zeros(parameters, gradients)
    counts = unit_counts(gradients)
    last = sum(counts[: max(0, len(gradients) - exclude)])
    if done := multiply_in_turn("adapt", gradients, weights, [clip_factor, eps, last], counts):
        y, (norms, scales, lengths) = gradients, (_laid(found, gradients, counts) for found in done)
    else:
        lengths, norms = unit_norms(weights), unit_norms(gradients)
        scales = _scales(lengths, norms, clip_factor, eps)
        for excluded in range(max(0, len(scales) - exclude), len(scales)):
            scales[excluded] = torch.ones_like(scales[excluded])
        y = multiply(gradients, scales, norms)
    stats = {"norm": norms, "parameter_norm": lengths, "scale": scales}
    return Normed(y, {name: [value.detach() for value in values] for name, values in stats.items()})


def _scales(lengths: list[Tensor], norms: list[Tensor], clip_factor: float, eps: float) -> list[Tensor]:
    """The factors; in one call for all tensors, as operations on so few numbers take longer to call than to do."""
    if not norms:
        return []
    sizes = torch._foreach_clamp_min([length.to(norm) for length, norm in zip(lengths, norms, strict=True)], eps)
    ratios = torch._foreach_div(torch._foreach_mul(sizes, clip_factor), torch._foreach_clamp_min(norms, 1e-6))
    return list(torch._foreach_clamp_max(ratios, 1.0))


def _laid(found: Tensor, gradients: list[Tensor], counts: list[int]) -> list[Tensor]:
    """What was found in all units, as `unit_norms` shapes it."""
    parts = zip(found.split(counts), gradients, strict=True)
    return [part.reshape((-1, *(1,) * (g.ndim - 1)) if g.ndim > 1 else ()) for part, g in parts]


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

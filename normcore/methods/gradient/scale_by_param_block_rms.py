"""Relative step size: each update tensor is multiplied by the root mean square of its weights."""

from typing import Annotated

from torch import Tensor

from normcore.core import Method, Normed, Paper, Range, Slot, multiply, multiply_in_turn, norms_of, parameters_or_zeros


def scale_by_param_block_rms(
    gradients: list[Tensor],
    *,
    parameters: list[Tensor] | None = None,
    min_scale: Annotated[float, Range(0.0, usual=(1e-6, 1.0), logarithmic=True)] = 1e-3,
) -> Normed:
    """Multiplies each gradient by ``max(min_scale, rms)``, the root mean square of the weights that it belongs to.

    Adafactor does this to its update, whose own root mean square is about 1: call it with the updates. Parameters that
    are left out count as zeros, so that min_scale stands for their root mean square.

    Shapes: any list of tensors, the parameters alike. Units: those of the gradient times those of the weights.
    Source: Shazeer and Stern 2018, arXiv:1804.04235, section 8.
    """
    weights = parameters_or_zeros(parameters, gradients)
    if done := multiply_in_turn("by_weights", gradients, weights, [min_scale]):
        y, (_, scales, squares) = gradients, done
    else:
        lengths, norms = norms_of(weights), norms_of(gradients)
        squares = lengths.square() / lengths.new_tensor([max(1, gradient.numel()) for gradient in gradients])
        scales = squares.sqrt().clamp(min=min_scale).to(norms)
        y = multiply(gradients, scales, norms)
    return Normed(y, {"parameter_mean_square": list(squares.detach()), "scale": list(scales.detach())})


METHOD = Method(
    fn=scale_by_param_block_rms,
    name="Scale by Parameter RMS",
    regions=(),  # what is shared is the RMS of the parameter, not of its gradient
    paper=Paper(
        "Noam Shazeer, Mitchell Stern",
        "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost",
        2018,
        "1804.04235",
    ),
    why="A learning rate in absolute terms means a large step for small weights and a small one for large weights. "
    "Relative to the weights, one rate suits embeddings and layers of any initialization.",
    formula=r"<x> \cdot \max(<min_scale>, \sqrt{<parameter_mean_square>})",
    pytorch="for parameter in parameters:\n"
    "    parameter.grad.mul_(parameter.detach().square().mean().sqrt().clamp(min={min_scale}))",
    context={"parameters": Slot("x")},
    builds_on=("clip_by_block_rms",),
    keeps=frozenset({"direction of each tensor"}),
)

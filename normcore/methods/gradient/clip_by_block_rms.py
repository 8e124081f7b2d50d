"""Clipping by block RMS: each gradient tensor is scaled down when its root mean square is above a threshold."""

from typing import Annotated

from torch import Tensor

from normcore.core import Method, Normed, Paper, Range, Region, multiply, norms_of


def clip_by_block_rms(
    gradients: list[Tensor],
    *,
    threshold: Annotated[float, Range(1e-6, usual=(0.1, 5.0))] = 1.0,
) -> Normed:
    """Divides each gradient by ``max(1, rms / threshold)``, the root mean square being its own.

    The same as clipping each tensor at a norm of threshold times the root of its number of elements. Adafactor does
    this to its update, after dividing by the second moment: call it with the updates in place of the gradients.
    An infinite value becomes nan and the rest of its tensor 0, a nan makes all of its tensor nan; other tensors stay
    sound.

    Shapes: any list of tensors. Units: those of the gradient.
    Source: Shazeer and Stern 2018, arXiv:1804.04235, section 6.
    """
    norms = norms_of(gradients)
    squares = norms.square() / norms.new_tensor([max(1, gradient.numel()) for gradient in gradients])
    scales = 1 / (squares.sqrt() / threshold).clamp(min=1.0)
    stats = {"mean_square": list(squares.detach()), "scale": list(scales.detach())}
    return Normed(multiply(gradients, scales, norms), stats)


METHOD = Method(
    fn=clip_by_block_rms,
    name="Clip by Block RMS",
    regions=(Region("o ->"), Region("o i ... ->")),
    paper=Paper(
        "Noam Shazeer, Mitchell Stern",
        "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost",
        2018,
        "1804.04235",
    ),
    why="When the second moment lags behind, an adaptive optimizer takes steps that are far too long. The root mean "
    "square of an update is 1 when all is well, for a tensor of any size: what is above can be cut.",
    formula=r"\frac{<x>}{\max\left(1, \frac{\sqrt{<mean_square>}}{<threshold>}\right)}",
    pytorch="for parameter in parameters:\n"
    "    rms = parameter.grad.square().mean().sqrt()\n"
    "    parameter.grad.div_(torch.clamp(rms / {threshold}, min=1.0))",
    builds_on=("clip_by_norm_per_parameter",),
    keeps=frozenset({"direction of each tensor", "clipped", "small"}),
    limits={"rms of each tensor": "threshold"},
)

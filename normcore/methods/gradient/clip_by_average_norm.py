"""Clipping by average norm: each gradient tensor is scaled down when its norm per element is above a threshold."""

from typing import Annotated

from torch import Tensor

from normcore.core import Method, Normed, Paper, Range, Region, multiply, norms_of, shortening


def clip_by_average_norm(
    gradients: list[Tensor],
    *,
    max_norm: Annotated[float, Range(0.0, usual=(0.0, 5.0))] = 1.0,
) -> Normed:
    """Multiplies each gradient by ``min(1, max_norm / average)``, the average being its norm per element.

    The same as clipping each tensor at a norm of max_norm times its number of elements. That is no root mean square:
    the norm of values of one size grows with the root of their number, so that this average falls as tensors grow, and
    large ones are hardly ever clipped. TensorFlow 1 had it as ``tf.clip_by_average_norm``, without a default.

    Shapes: any list of tensors. Units: those of the gradient.
    Source: TensorFlow 1 (Abadi and others 2016, arXiv:1603.04467), ``tf.clip_by_average_norm``.
    """
    norms = norms_of(gradients)
    averages = norms / norms.new_tensor([max(1, gradient.numel()) for gradient in gradients])
    scales = shortening(max_norm, averages)
    stats = {"average_norm": list(averages.detach()), "scale": list(scales.detach())}
    return Normed(multiply(gradients, scales, norms), stats)


METHOD = Method(
    fn=clip_by_average_norm,
    name="Clip by Average Norm",
    regions=(Region("o ->"), Region("o i ... ->")),
    paper=Paper(
        "Martín Abadi, Ashish Agarwal, Paul Barham and others",
        "TensorFlow: Large-Scale Machine Learning on Heterogeneous Distributed Systems",
        2016,
        "1603.04467",
    ),
    why="A threshold on a tensor's norm means another thing for a bias than for an embedding. Dividing the norm by the "
    "number of elements was meant to let one threshold serve both.",
    formula=r"<x> \cdot \min\left(1, \frac{<max_norm>}{<average_norm>}\right)",
    pytorch="for parameter in parameters:\n"
    "    average = parameter.grad.norm() / parameter.grad.numel()\n"
    "    parameter.grad.mul_(torch.clamp({max_norm} / average, max=1.0))",
    builds_on=("clip_by_norm_per_parameter",),
    keeps=frozenset({"direction of each tensor", "clipped", "small"}),
    limits={"average norm of each tensor": "max_norm"},
)

"""Soft norm clipping: the longer the gradient, the more it is shortened, without a corner."""

from typing import Annotated

from torch import Tensor

from normcore.core import Method, Normed, Paper, Range, Region, multiply, norms_of, total


def soft_norm_clip(
    gradients: list[Tensor],
    *,
    max_norm: Annotated[float, Range(1e-9, usual=(0.1, 5.0))] = 1.0,
) -> Normed:
    """Multiplies all gradients by ``max_norm / (max_norm + norm)``, the norm being that of all of them together.

    The result is shorter than max_norm and than the gradient, and at least half as long as hard clipping would leave
    it. This is the step that a smoothness growing with the gradient's norm calls for. One infinite value becomes nan
    and everything else 0, one nan makes all of them nan.

    Shapes: any list of tensors. Units: those of the gradient.
    Source: Zhang, He, Sra and Jadbabaie 2019, arXiv:1905.11881, section 4.
    """
    norms = norms_of(gradients)
    norm = total(norms)
    scale = max_norm / (max_norm + norm)
    return Normed(multiply(gradients, scale, norms), {"norm": norm.detach(), "scale": scale.detach()})


METHOD = Method(
    fn=soft_norm_clip,
    name="Soft Norm Clip",
    regions=(Region("o ->"), Region("o i ... ->")),
    paper=Paper(
        "Jingzhao Zhang, Tianxing He, Suvrit Sra, Ali Jadbabaie",
        "Why gradient clipping accelerates training: A theoretical justification for adaptivity",
        2019,
        "1905.11881",
    ),
    why="Along a training path the loss is the more curved the longer the gradient is, so that the best step shrinks "
    "smoothly with it. A hard threshold is two straight lines where the theory draws a curve.",
    formula=r"<x> \cdot \frac{<max_norm>}{<max_norm> + <norm>}",
    pytorch="norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])\n"
    "for parameter in parameters:\n"
    "    parameter.grad.mul_({max_norm} / ({max_norm} + norm))",
    builds_on=("clip_by_global_norm",),
    keeps=frozenset({"direction"}),
    limits={"norm": "max_norm"},
)

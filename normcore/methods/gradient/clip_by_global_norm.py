"""Clipping by the global norm: the whole gradient is scaled down when it is longer than a threshold."""

from typing import Annotated

import torch
from torch import Tensor

from normcore.core import Method, Normed, Paper, Range, Region, widen


def clip_by_global_norm(
    gradients: list[Tensor],
    *,
    max_norm: Annotated[float, Range(0.0, usual=(0.0, 5.0))] = 1.0,
    norm_type: Annotated[float, Range(1e-6, usual=(1.0, 4.0), infinite=True)] = 2.0,
    eps: Annotated[float, Range(0.0, 1.0, usual=(1e-12, 1e-1), logarithmic=True)] = 1e-6,
) -> Normed:
    """Multiplies all gradients by ``min(1, max_norm / (norm + eps))``, the norm being that of all of them together.

    The direction stays. As in PyTorch ε is added to the norm, so that a norm just below the threshold shrinks by a
    millionth too (TensorFlow and optax have no ε). A norm that is not finite makes the result nan or 0, as there.
    The norm of half-precision gradients is taken in float32.

    Shapes: any list of tensors. Units: those of the gradient.
    Source: Pascanu, Mikolov and Bengio 2012, arXiv:1211.5063.
    """
    norms = [torch.linalg.vector_norm(widen(gradient), norm_type) for gradient in gradients if gradient.numel()]
    if not norms:
        return Normed(list(gradients), {})
    norm = torch.linalg.vector_norm(torch.stack([n.to(norms[0]) for n in norms]), norm_type)
    scale = (max_norm / (norm + eps)).clamp(max=1.0)
    clipped = [(widen(gradient) * scale.to(gradient.device)).to(gradient.dtype) for gradient in gradients]
    return Normed(clipped, {"norm": norm.detach(), "scale": scale.detach()})


METHOD = Method(
    fn=clip_by_global_norm,
    name="Clip by Global Norm",
    regions=(Region("o ->"), Region("o i ... ->")),
    paper=Paper(
        "Razvan Pascanu, Tomáš Mikolov, Yoshua Bengio",
        "On the difficulty of training Recurrent Neural Networks",
        2012,
        "1211.5063",
    ),
    why="Where the loss has a cliff, a full gradient step jumps off it. Shortening the gradient keeps its direction "
    "and bounds the step.",
    formula=r"<x> \cdot \min\left(1, \frac{<max_norm>}{<norm> + <eps>}\right)",
    pytorch=lambda settings: (
        "torch.nn.utils.clip_grad_norm_(parameters, {max_norm}, norm_type={norm_type})"
        if settings["eps"] == 1e-6
        else "norm = torch.nn.utils.get_total_norm([p.grad for p in parameters], norm_type={norm_type})\n"
        "parameters[0].grad.mul_(torch.clamp({max_norm} / (norm + {eps}), max=1.0))"
    ),
)

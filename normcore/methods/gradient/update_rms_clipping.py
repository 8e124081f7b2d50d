"""Update clipping: each gradient tensor is scaled down when it is large beside its own running second moment.

Longer than most: large gradients go through a compiled loop.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from torch import Tensor

from normcore.core import (
    EMPTY,
    Epsilon,
    Method,
    Normed,
    Paper,
    Range,
    Region,
    multiply,
    multiply_in_turn,
    norms_of,
    recalled,
    widen,
)


def update_rms_clipping(
    gradients: list[Tensor],
    *,
    state: Mapping[str, Any] = EMPTY,
    clip_threshold: Annotated[float, Range(1e-6, usual=(0.1, 5.0))] = 1.0,
    beta2: Annotated[float, Range(0.0, 1.0, usual=(0.9, 0.999))] = 0.99,
    eps: Epsilon = 1e-6,
) -> Normed:
    """Divides each gradient by ``max(1, rms / clip_threshold)``, rms being that of ``g / sqrt(max(v, eps²))``.

    v is Adam's second moment, which this method keeps for itself, debiased by a β₂ that grows from 0 (so that the
    first rms is 1), the current gradient included. StableAdamW divides its learning rate by that maximum, which is the
    same as dividing the gradient for an optimizer without momentum; with momentum, a spike is shortened here before it
    enters. The step that β₂ grows with is common to all gradients, as in the reference library: one that first comes
    later begins with a v of 0 in the β₂ of that step, and its first rms is above 1. A value that is not finite does not
    enter v. Adafactor's clipping is `clip_by_block_rms` of its update.

    Shapes: any list of tensors. Units: those of the gradient. State: `step`, and `v` like each gradient.
    Source: Wortsman, Dettmers, Zettlemoyer and others 2023, arXiv:2304.13013, algorithm 2.
    """
    step = state.get("step", 0) + 1
    beta = beta2 * (1 - beta2 ** (step - 1)) / (1 - beta2**step) if beta2 < 1 else (step - 1) / step
    known = recalled("update_rms_clipping", state, "v", gradients, lambda g: torch.zeros_like(widen(g)))
    least = max(eps**2, torch.finfo(torch.float32).tiny)
    y, squares, scales, kept = _shortened(gradients, known, beta, least, clip_threshold)
    stats = {"update_square": list(squares.detach()), "scale": list(scales.detach())}
    return Normed(y, stats, {"step": step, "v": kept})


def _shortened(
    gradients: list[Tensor], known: list[Tensor], beta: float, least: float, clip_threshold: float
) -> tuple[list[Tensor], Tensor, Tensor, list[Tensor]]:
    """The new gradients, their mean squares beside v, the factors, and v."""
    done = multiply_in_turn("updates", gradients, known, [1 - beta, least, clip_threshold])
    if done:  # a clipper's memory is its own
        _, scales, squares = done
        return gradients, squares, scales, known
    norms, ratios, kept = norms_of(gradients), [], []
    for gradient, old in zip(gradients, known, strict=True):
        square = widen(gradient).square()
        v = torch.lerp(square, old.to(square), beta)
        ratios.append((square / v.clamp(min=least)).sum().to(norms))
        kept.append(torch.where(v.isfinite(), v, old.to(v)).detach().to(old))
    sizes = norms.new_tensor([max(1, gradient.numel()) for gradient in gradients])
    squares = torch.stack(ratios) / sizes if ratios else norms
    scales = 1 / (squares.sqrt() / clip_threshold).clamp(min=1.0)
    return multiply(gradients, scales, norms), squares, scales, kept


METHOD = Method(
    fn=update_rms_clipping,
    name="Update RMS Clipping",
    regions=(Region("o ->"), Region("o i ... ->")),
    paper=Paper(
        "Mitchell Wortsman, Tim Dettmers, Luke Zettlemoyer, Ari Morcos, Ali Farhadi, Ludwig Schmidt",
        "Stable and low-precision training for large-scale vision-language models",
        2023,
        "2304.13013",
    ),
    why="Loss spikes follow a few steps after the second moment has fallen behind the gradients. Comparing the two "
    "shows it at once, tensor by tensor, and no threshold has to be tuned.",
    formula=r"\frac{<x>}{\max\left(1, \frac{\sqrt{<update_square>}}{<clip_threshold>}\right)}",
    pytorch="# v and step are kept from one step to the next\n"
    "step, v = 1, [torch.zeros_like(p) for p in parameters]\n"
    "beta = {beta2} * (1 - {beta2} ** (step - 1)) / (1 - {beta2} ** step) if {beta2} < 1 else (step - 1) / step\n"
    "for parameter, moment in zip(parameters, v):\n"
    "    moment.mul_(beta).addcmul_(parameter.grad, parameter.grad, value=1 - beta)\n"
    "    rms = (parameter.grad.square() / moment.clamp(min={eps} ** 2)).mean().sqrt()\n"
    "    parameter.grad.div_(torch.clamp(rms / {clip_threshold}, min=1.0))",
    builds_on=("clip_by_block_rms",),
    keeps=frozenset({"direction of each tensor"}),
    remembers={"step": "the number of steps", "v": "the second moment of each element"},
)

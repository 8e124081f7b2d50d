"""AutoClip: the threshold is a percentile of all gradient norms so far."""

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from torch import Tensor

from normcore.core import EMPTY, Method, Normed, Paper, Range, Region, multiply, norms_of, total


def auto_clip(
    gradients: list[Tensor],
    *,
    state: Mapping[str, Any] = EMPTY,
    percentile: Annotated[float, Range(0.0, 100.0)] = 10.0,
) -> Normed:
    """Multiplies all gradients by ``min(1, limit / (norm + 1e-6))``, the limit being a percentile of all norms so far.

    The current norm is one of them, as in the authors' code, and the percentile is linear between two of them: in the
    first step, and with a percentile of 100 at a new maximum, only the millionth in the denominator shortens anything.
    A norm that is not finite is left out of later percentiles. The history grows by one number a step.

    Shapes: any list of tensors. Units: those of the gradient. State: `norms`, a vector.
    Source: Seetharaman, Wichern, Pardo and Le Roux 2020, arXiv:2007.14469.
    """
    norms = norms_of(gradients)
    norm = total(norms)
    counted = torch.where(norm.isfinite(), norm, torch.nan).double().reshape(1)
    history = torch.cat([state["norms"].to(counted), counted]) if "norms" in state else counted
    limit = torch.nanquantile(history, percentile / 100).to(norm)
    scale = (limit / (norm + 1e-6)).clamp(max=1.0)
    stats = {"norm": norm.detach(), "limit": limit.detach(), "scale": scale.detach()}
    return Normed(multiply(gradients, scale, norms), stats, {"norms": history.detach()})


METHOD = Method(
    fn=auto_clip,
    name="AutoClip",
    regions=(Region("o ->"), Region("o i ... ->")),
    paper=Paper(
        "Prem Seetharaman, Gordon Wichern, Bryan Pardo, Jonathan Le Roux",
        "AutoClip: Adaptive Gradient Clipping for Source Separation Networks",
        2020,
        "2007.14469",
    ),
    why="A good threshold depends on the model, the loss and the stage of training, and has to be searched for. A "
    "percentile of the norms that training itself has shown follows all three.",
    formula=r"<x> \cdot \min\left(1, \frac{<limit>}{<norm> + 10^{-6}}\right)",
    pytorch="norms = []  # kept from one step to the next\n"
    "norms.append(torch.nn.utils.get_total_norm([p.grad for p in parameters]))\n"
    "limit = torch.quantile(torch.stack(norms), {percentile} / 100)\n"
    "torch.nn.utils.clip_grad_norm_(parameters, float(limit))",
    builds_on=("clip_by_global_norm",),
    keeps=frozenset({"direction"}),
    remembers={"norms": "the norms of all steps"},
)

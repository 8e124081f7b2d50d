"""Clipping at a moving average: the threshold is a multiple of the norm's own running average."""

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from torch import Tensor

from normcore.core import EMPTY, Method, Normed, Paper, Range, Region, moved_toward, multiply, norms_of, total


def moving_average_clipping(
    gradients: list[Tensor],
    *,
    state: Mapping[str, Any] = EMPTY,
    multiple: Annotated[float, Range(0.0, usual=(0.5, 10.0))] = 2.0,
    beta: Annotated[float, Range(0.0, 1.0, usual=(0.5, 1.0))] = 0.99,
) -> Normed:
    """Multiplies all gradients by ``min(1, multiple * average / norm)``, the average being that of earlier norms.

    Each step moves the average by 1 - beta toward the norm, which counts as at most twice the average, or `multiple`
    times where that is more: one spike hardly moves it, and with a multiple below 1 it does not run down to 0. The
    first norm above 0 is not clipped and begins it (before that it is nan). Pascanu and others advise a multiple from
    half to ten. A norm that is 0 or not finite moves nothing.

    Shapes: any list of tensors. Units: those of the gradient. State: `average`, a number.
    Source: Pascanu, Mikolov and Bengio 2012, arXiv:1211.5063, section 3.2, which names the average but no way to keep
    it.
    """
    norms = norms_of(gradients)
    norm = total(norms)
    now = norm.detach().double()
    average = state.get("average", now.new_full((), torch.nan)).to(now)
    limit = torch.where(average.isnan(), now, multiple * average).to(norm)
    scale = torch.where(norm > limit, limit / norm, 1.0)
    counted = torch.fmin(now, max(multiple, 2.0) * average)
    moved = torch.where(now.isfinite() & (now > 0), moved_toward(average, counted, beta), average)
    stats = {"norm": norm.detach(), "limit": limit.detach(), "scale": scale.detach()}
    return Normed(multiply(gradients, scale, norms), stats, {"average": moved})


METHOD = Method(
    fn=moving_average_clipping,
    name="Moving-Average Clipping",
    regions=(Region("o ->"), Region("o i ... ->")),
    paper=Paper(
        "Razvan Pascanu, Tomáš Mikolov, Yoshua Bengio",
        "On the difficulty of training Recurrent Neural Networks",
        2012,
        "1211.5063",
    ),
    why="The threshold of norm clipping is best chosen by looking at the average norm over many steps. A running "
    "average looks by itself, and follows as norms change.",
    formula=r"<x> \cdot \min\left(1, \frac{<limit>}{<norm>}\right)",
    pytorch="average = None  # kept from one step to the next\n"
    "norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])\n"
    "limit = norm if average is None else {multiple} * average\n"
    "if norm > limit:\n"
    "    for parameter in parameters:\n"
    "        parameter.grad.mul_(limit / norm)\n"
    "if average is None:\n"
    "    average = norm\n"
    "average = {beta} * average + (1 - {beta}) * torch.minimum(norm, max({multiple}, 2.0) * average)",
    builds_on=("clip_by_global_norm",),
    keeps=frozenset({"direction"}),
    remembers={"average": "the running average of the norm"},
)

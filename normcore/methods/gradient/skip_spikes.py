"""Skipping spikes: a step whose gradient norm is far above its history is left out altogether.

Longer than most: twelve authors, and four things to remember.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from torch import Tensor

from normcore.core import EMPTY, Method, Normed, Paper, Range, Region, drop, moved_toward, norms_of, total


def skip_spikes(
    gradients: list[Tensor],
    *,
    state: Mapping[str, Any] = EMPTY,
    deviations: Annotated[float, Range(0.0, usual=(2.0, 6.0))] = 4.0,
    beta: Annotated[float, Range(0.0, 1.0, usual=(0.5, 1.0))] = 0.99,
    warmup_steps: Annotated[int, Range(1, usual=(1, 50), integer=True)] = 25,
    max_consecutive_errors: Annotated[int, Range(0, usual=(0, 10), integer=True)] = 5,
) -> Normed:
    """Makes all gradients 0 when the logarithm of their norm is so many standard deviations above its running mean.

    Mean and variance are those of the logarithms of kept steps, moved by 1 - beta in each of them; the deviation counts
    as at least 0.01, which is one percent of the norm. In the first warmup_steps nothing is skipped, nor after
    max_consecutive_errors skipped ones, so that training goes on where norms have risen for good. A norm that is not
    finite is a spike, in the warm-up too; one of 0 is none, and neither moves anything: the mean begins with the first
    norm between (before that it is nan). With momentum or weight decay an optimizer moves even where the gradient is
    0: leave out its step where the report's `scale` is 0.

    Shapes: any list of tensors. Units: those of the gradient. State: `step`, `mean`, `var` and `skipped`.
    Source: Chen, Firat, Bapna and others 2018, arXiv:1804.09849, which gives 4 deviations, and no decay.
    """
    norms = norms_of(gradients)
    norm, step = total(norms), state.get("step", 0) + 1
    now = norm.double().log().detach()
    mean, var = state.get("mean", now.new_full((), torch.nan)).to(now), state.get("var", now.new_zeros(())).to(now)
    skipped = state.get("skipped", torch.zeros((), dtype=torch.long)).to(now.device)
    above = (now - mean) / var.sqrt().clamp(min=0.01)
    spike = (above > deviations) & torch.tensor(step > warmup_steps, device=now.device)
    keep = ~(spike | ~norm.isfinite()) | (skipped >= max_consecutive_errors)
    new = torch.where(keep, moved_toward(mean, now, beta), mean)
    spread = beta * var + (1 - beta) * (now - mean) * (now - new)
    moved = {
        "step": step,
        "mean": new,
        "var": torch.where(keep & spread.isfinite(), spread, var),
        "skipped": torch.where(keep, 0, skipped + 1),
    }
    return Normed(drop(gradients, keep, norms), {"kept": keep.to(norm)}, moved)


METHOD = Method(
    fn=skip_spikes,
    name="Skip Spikes",
    regions=(Region("o ->"), Region("o i ... ->")),
    paper=Paper(
        "Mia Xu Chen, Orhan Firat, Ankur Bapna, Melvin Johnson, Wolfgang Macherey, George Foster, Llion Jones, "
        "Niki Parmar, Mike Schuster, Zhifeng Chen, Yonghui Wu, Macduff Hughes",
        "The Best of Both Worlds: Combining Recent Advances in Neural Machine Translation",
        2018,
        "1804.09849",
    ),
    why="A gradient of a thousand times the usual length comes from a broken batch or a broken computation. Shortened, "
    "it still points somewhere that nobody wants to go; leaving it out costs one step.",
    formula=r"<x> \cdot <kept>",
    pytorch="# mean and var of the logarithms of the norms, step and skipped are kept from one step to the next\n"
    "norm = torch.nn.utils.get_total_norm([p.grad for p in parameters]).log()\n"
    "step, skipped, mean, var = 1, 0, norm, torch.tensor(0.0)\n"
    "spike = step > {warmup_steps} and norm - mean > {deviations} * var.sqrt().clamp(min=0.01)\n"
    "if (spike or not norm.isfinite()) and skipped < {max_consecutive_errors}:\n"
    "    skipped += 1\n"
    "    for parameter in parameters:\n"
    "        parameter.grad.zero_()\n"
    "else:\n"
    "    skipped, new = 0, {beta} * mean + (1 - {beta}) * norm\n"
    "    mean, var = new, {beta} * var + (1 - {beta}) * (norm - mean) * (norm - new)",
    builds_on=("clip_by_global_norm",),
    keeps=frozenset({"direction"}),
    remembers={
        "step": "the number of steps",
        "mean": "the running mean of the logarithm of the norm",
        "var": "its running variance",
        "skipped": "how many steps in a row were skipped",
    },
)

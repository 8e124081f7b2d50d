"""SPAM's spike clipping: an element that is huge beside its own second moment is cut to a multiple of that.

Longer than most: large gradients go through a compiled loop.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any

import torch
from torch import Tensor

from normcore.core import (
    EMPTY,
    Method,
    NormcoreError,
    Normed,
    Owned,
    Paper,
    Range,
    in_parts,
    loops_for,
    recalled,
    replace_once,
    replaced,
    widen,
)


def spam_clipping(
    gradients: list[Tensor],
    *,
    state: Mapping[str, Any] = EMPTY,
    threshold: Annotated[float, Range(0.0, usual=(100.0, 10000.0))] = 5000.0,
    beta2: Annotated[float, Range(0.0, 1.0, usual=(0.9, 0.999))] = 0.999,
    warmup_steps: Annotated[int, Range(2, usual=(2, 50), integer=True)] = 20,
    reset_every: Annotated[int, Range(1, usual=(100, 1000), integer=True)] = 500,
) -> Normed:
    """Cuts each element to ``±sqrt(threshold * v)``, v being its second moment before this step.

    v is Adam's, not debiased, of the clipped gradients, and this method's own. It is forgotten every `reset_every`
    steps, as SPAM does with the optimizer's moments too (which is left to the optimizer here, with its warm-up of the
    learning rate), and nothing is cut in the `warmup_steps` after that. An element that has been 0 since then stays 0,
    as in the authors' code. A value that is not finite does not enter v.

    Shapes: any list of tensors. Units: those of the gradient. State: `step`, and `v` like each gradient.
    Errors: `NormcoreError` where reset_every is not above warmup_steps.
    Source: Huang, Zhu, Jin and others 2025, arXiv:2501.06842.
    """
    if reset_every <= warmup_steps:
        raise NormcoreError(
            f"spam_clipping: reset_every={reset_every} is not above warmup_steps={warmup_steps}, so that nothing would "
            "ever be cut; make it larger"
        )
    step = state.get("step", 0) + 1
    known = recalled("spam_clipping", state, "v", gradients, lambda g: torch.zeros_like(widen(g)))
    active, fresh = step % reset_every >= warmup_steps and step >= warmup_steps, step % reset_every == 0

    def clip(gradient: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        usual = torch.zeros_like(v) if fresh else v
        y = gradient
        if active:
            most = threshold * usual
            y = torch.where(gradient.square() > most, most.sqrt().copysign(gradient), gradient)
        moved = torch.lerp(usual, y.detach().square().to(v), 1 - beta2)
        return y, torch.where(moved.isfinite(), moved, usual)

    if isinstance(gradients, Owned) and (loops := loops_for(gradients, known)):
        known = [torch.zeros_like(v) for v in known] if fresh else known
        numbers = threshold if active else math.inf, 1 - beta2
        gradients.change = replaced(in_parts(loops.spikes, 5, gradients, known, numbers=numbers).sum(0))
        return Normed(gradients, {}, {"step": step, "v": known})
    limits = [(threshold * v).sqrt() if active else torch.full_like(v, torch.inf) for v in known[:1]]
    y, v = replace_once(gradients, clip, known)
    return Normed(y, {"limit": limits}, {"step": step, "v": v})


METHOD = Method(
    fn=spam_clipping,
    name="SPAM Spike Clipping",
    regions=(),
    paper=Paper(
        "Tianjin Huang, Ziquan Zhu, Gaojie Jin, Lu Liu, Zhangyang Wang, Shiwei Liu",
        "SPAM: Spike-Aware Adam with Momentum Reset for Stable LLM Training",
        2025,
        "2501.06842",
    ),
    why="Some elements of a gradient are a thousand times their usual size for a step, and Adam's moments remember it "
    "for hundreds. A second moment tells, element by element, what is usual.",
    formula=r"\min(\max(<x>, -<limit>), <limit>)",
    pytorch="# v and step are kept from one step to the next\n"
    "step, v = 1, [torch.zeros_like(p) for p in parameters]\n"
    "for parameter, moment in zip(parameters, v):\n"
    "    if step % {reset_every} == 0:\n"
    "        moment.zero_()\n"
    "    if step % {reset_every} >= {warmup_steps} and step >= {warmup_steps}:\n"
    "        limit = ({threshold} * moment).sqrt()\n"
    "        parameter.grad.clamp_(-limit, limit)\n"
    "    moment.mul_({beta2}).addcmul_(parameter.grad, parameter.grad, value=1 - {beta2})",
    builds_on=("clip_by_value",),
    remembers={"step": "the number of steps", "v": "the second moment of each element"},
)

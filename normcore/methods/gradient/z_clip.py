"""ZClip: a norm that lies many standard deviations above its running mean is brought back to it.

Longer than most: a warm-up with rules of its own, in both forms.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any

import torch
from torch import Tensor

from normcore.core import EMPTY, Method, NormcoreError, Normed, Paper, Range, Region, multiply, norms_of, total


def z_clip(
    gradients: list[Tensor],
    *,
    state: Mapping[str, Any] = EMPTY,
    alpha: Annotated[float, Range(0.0, 1.0, usual=(0.5, 1.0))] = 0.97,
    z_threshold: Annotated[float, Range(0.0, usual=(1.0, 5.0))] = 2.5,
    max_norm: Annotated[float | None, Range(0.0, usual=(0.0, 5.0), none="no limit")] = 1.0,
    warmup_steps: Annotated[int, Range(1, usual=(1, 50), integer=True)] = 25,
) -> Normed:
    """Multiplies all gradients by ``min(1, limit / (norm + 1e-6))``, the limit being max_norm, or less at a spike.

    A spike is a norm whose z = (norm - mean) / (deviation + 1e-6) is above z_threshold; its limit is
    ``mean + z_threshold² * deviation / z``, which is the lower the larger z is. Mean and variance are those of the
    norms of the warm-up, and then move by 1 - alpha toward the limited norm (the variance with the new mean). In the
    warm-up, which ends when it has seen warmup_steps norms that are finite and not 0, max_norm alone counts. A norm
    that is not finite moves nothing.

    Shapes: any list of tensors. Units: those of the gradient. State: `step`; `norms` in the warm-up, `mean` and `var`
    after it.
    Source: Kumar, Owen, Chowdhury and Güra 2025, arXiv:2504.02507, and the authors' code.
    """
    norms = norms_of(gradients)
    norm, step = total(norms), state.get("step", 0) + 1
    now, cap = norm.double(), math.inf if max_norm is None else max_norm
    limit, moved = torch.full_like(now, cap), {"step": step}
    if "mean" not in state:
        seen = torch.where(now.isfinite() & (now > 0), now, torch.nan).detach().reshape(1)
        seen = torch.cat([state["norms"].to(seen), seen]) if "norms" in state else seen
        mean = seen.nanmean()
        done = step >= warmup_steps and int(seen.isfinite().sum()) >= warmup_steps  # a device is waited for at the end
        moved |= {"mean": mean, "var": (seen - mean).square().nanmean()} if done else {"norms": seen}
    else:
        if "var" not in state:
            raise NormcoreError("z_clip: the state has a 'mean' and no 'var'; start with an empty one")
        mean, var = state["mean"].to(now), state["var"].to(now)
        z = (now - mean) / (var.sqrt() + 1e-6)
        spike = z > z_threshold
        allowed = torch.where(spike, mean + z_threshold**2 * var.sqrt() / z, now)
        limit = torch.where(spike, allowed.clamp(max=cap), limit)
        new = alpha * mean + (1 - alpha) * allowed
        changed = {"mean": new, "var": alpha * var + (1 - alpha) * (allowed - new).square()}
        moved |= {name: torch.where(now.isfinite(), v, state[name].to(v)).detach() for name, v in changed.items()}
    scale = torch.where(now > limit, limit / (now + 1e-6), 1.0).to(norm)
    stats = {"norm": norm.detach(), "limit": limit.to(norm).detach(), "scale": scale.detach()}
    return Normed(multiply(gradients, scale, norms), stats, moved)


METHOD = Method(
    fn=z_clip,
    name="ZClip",
    regions=(Region("o ->"), Region("o i ... ->")),
    paper=Paper(
        "Abhay Kumar, Louis Owen, Nilabhra Roy Chowdhury, Fabian Güra",
        "ZClip: Adaptive Spike Mitigation for LLM Pre-Training",
        2025,
        "2504.02507",
    ),
    why="In the pre-training of large language models norms shrink over time, and a fixed threshold that once caught "
    "spikes lets them pass later. A z-score against a running mean and variance finds spikes at any level.",
    formula=r"<x> \cdot \min\left(1, \frac{<limit>}{<norm> + 10^{-6}}\right)",
    pytorch=lambda settings: (
        "# In the warm-up of {warmup_steps} steps; norms is kept\n"
        "norms = [torch.nn.utils.get_total_norm([p.grad for p in parameters])]\n"
        + ("" if settings["max_norm"] is None else "torch.nn.utils.clip_grad_norm_(parameters, {max_norm})\n")
        + "mean, var = torch.stack(norms).mean(), torch.stack(norms).var(correction=0)\n"
        "\n"
        "def limit(norm):  # in every later step\n"
        "    global mean, var\n"
        "    z = (norm - mean) / (var.sqrt() + 1e-6)\n"
        "    allowed = mean + {z_threshold} ** 2 * var.sqrt() / z if z > {z_threshold} else norm\n"
        "    mean = {alpha} * mean + (1 - {alpha}) * allowed\n"
        "    var = {alpha} * var + (1 - {alpha}) * (allowed - mean) ** 2\n"
        "    return allowed  # for clip_grad_norm_, if it is less than {max_norm}"
    ),
    builds_on=("auto_clip",),
    keeps=frozenset({"direction"}),
    limits=lambda settings: {} if settings["max_norm"] is None else {"norm": "max_norm"},
    remembers={
        "step": "the number of steps",
        "norms": "the norms of the warm-up",
        "mean": "the running mean of the norm",
        "var": "its running variance",
    },
)

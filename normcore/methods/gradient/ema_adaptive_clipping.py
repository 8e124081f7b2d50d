"""AdaGC: each gradient tensor may be only a little longer than its own running norm."""

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from torch import Tensor

from normcore.core import EMPTY, Method, Normed, Paper, Range, Region, multiply, norms_of, recalled, total


def ema_adaptive_clipping(
    gradients: list[Tensor],
    *,
    state: Mapping[str, Any] = EMPTY,
    beta: Annotated[float, Range(0.0, 1.0, usual=(0.5, 1.0))] = 0.98,
    lambda_rel: Annotated[float, Range(0.0, usual=(1.0, 2.0))] = 1.05,
    lambda_abs: Annotated[float, Range(0.0, usual=(0.0, 5.0))] = 1.0,
    warmup_steps: Annotated[int, Range(0, usual=(0, 200), integer=True)] = 100,
) -> Normed:
    """Multiplies each gradient by ``min(1, lambda_rel * average / norm)``, the average of its own past norms.

    Before step number warmup_steps all gradients are clipped together at a global norm of lambda_abs, and each average
    is the smallest norm that its gradient then had; a gradient that comes later begins so too. Norms and averages count
    as at least 1e-8, as in pytorch_optimizer. A norm that is 0 or not finite moves no average, and in the warm-up none
    does while the global norm is not finite.

    Shapes: any list of tensors. Units: those of the gradient. State: `step`, and `average`, a number for each gradient.
    Source: Wang, Li, Chen and others 2025, arXiv:2502.11034.
    """
    step = state.get("step", 0) + 1
    norms = norms_of(gradients)
    unseen = norms.new_full((), torch.inf)
    known = recalled("ema_adaptive_clipping", state, "average", gradients, lambda g: unseen)
    average = torch.stack([entry.to(norms) for entry in known]) if known else norms
    first = average.isinf() | (step < warmup_steps)
    globally = (lambda_abs / (total(norms) + 1e-8)).clamp(max=1.0)
    usual = torch.where(first, 1.0, average.clamp(min=1e-8))
    locally = (lambda_rel * usual / norms.clamp(min=1e-8)).clamp(max=1.0)
    scales = torch.where(first, globally, locally)
    clipped = (norms * scales).detach()
    moved = torch.where(first, torch.minimum(average, clipped), beta * average + (1 - beta) * clipped)
    sound = norms.isfinite() & (norms > 0) & (~first | total(norms).isfinite())
    moved = torch.where(sound.detach(), moved, average)
    stats = {"norm": norms, "limit": torch.where(first, globally * norms, lambda_rel * average), "scale": scales}
    return Normed(
        multiply(gradients, scales, norms),
        {name: list(values.detach()) for name, values in stats.items()},
        {"step": step, "average": list(moved)},
    )


METHOD = Method(
    fn=ema_adaptive_clipping,
    name="AdaGC",
    regions=(Region("o ->"), Region("o i ... ->")),
    paper=Paper(
        "Guoxia Wang, Shuai Li, Congliang Chen, Jinle Zeng, Jiabin Yang, Tao Sun, Yanjun Ma, Dianhai Yu, Li Shen",
        "AdaGC: Improving Training Stability for Large Language Model Pretraining",
        2025,
        "2502.11034",
    ),
    why="Spikes start in single tensors, and norms differ and shrink from tensor to tensor: one global threshold sees "
    "neither. A running norm of its own shows for each tensor what is usual there.",
    formula=r"<x> \cdot \min\left(1, \frac{<limit>}{<norm>}\right)",
    pytorch="# In the warm-up of {warmup_steps} steps; average is kept, and begins with the first of these norms\n"
    "step = 1\n"
    "torch.nn.utils.clip_grad_norm_(parameters, {lambda_abs})\n"
    "average = [p.grad.norm() for p in parameters]  # later the smallest of them so far\n"
    "\n"
    "def clip():  # in every later step\n"
    "    for i, parameter in enumerate(parameters):\n"
    "        parameter.grad.mul_(torch.clamp({lambda_rel} * average[i] / parameter.grad.norm(), max=1.0))\n"
    "        average[i] = {beta} * average[i] + (1 - {beta}) * parameter.grad.norm()",
    builds_on=("clip_by_norm_per_parameter", "auto_clip"),
    keeps=frozenset({"direction of each tensor"}),
    remembers={"step": "the number of steps", "average": "the running norm of each gradient"},
)

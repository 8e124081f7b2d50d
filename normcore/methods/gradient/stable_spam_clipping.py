"""Stable-SPAM: elements are cut to a running maximum, and each tensor is brought to a running norm.

Longer than most: three running averages, a compiled loop for large gradients, and eleven authors.
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
    Owned,
    Paper,
    Range,
    Region,
    in_turn,
    largest_of,
    loops_for,
    multiply,
    norms_of,
    numbers_of,
    recalled,
    replaced,
    widen,
)

Share = Annotated[float, Range(0.0, 0.9999, usual=(0.0, 0.999))]


def stable_spam_clipping(
    gradients: list[Tensor],
    *,
    state: Mapping[str, Any] = EMPTY,
    gamma1: Share = 0.7,
    gamma2: Share = 0.9,
    theta: Share = 0.999,
    eps: Epsilon = 1e-8,
) -> Normed:
    """Multiplies elements above a running maximum by ``maximum / largest``, and each tensor then to a steady norm.

    The running maximum (decay θ) is that of the largest absolute values, this step's included; the norm that a tensor
    is brought to is m / (sqrt(v) + ε), m and v being running averages of its norms (γ₁) and of their squares (γ₂):
    about 1. All three are debiased by the number of steps, which is common to all gradients, as in the reference
    library: the averages of one that first comes later begin too low, and its norm strays from 1 for a while. A tensor
    of zeros, or one that is not finite, is left alone and moves no norms. The resets of Adam's moments that belong to
    the method are left to the optimizer.

    Shapes: any list of tensors. Units: none after it. State: `step`, and `maximum`, `m`, `v`, a number for each
    gradient.
    Source: Huang, Hu, Zhang and others 2025, arXiv:2502.17055.
    """
    step, names = state.get("step", 0) + 1, ("maximum", "m", "v")
    zero = torch.zeros((), dtype=torch.float64)
    memories = [recalled("stable_spam_clipping", state, name, gradients, lambda _: zero) for name in names]
    if not gradients:
        return Normed(multiply(gradients, [], []), {"steady_scale": []}, {"step": step} | {name: [] for name in names})
    if isinstance(gradients, Owned) and (loops := loops_for(gradients)):
        memory = torch.stack([numbers_of(entries, zero.cpu()) for entries in memories], 1).numpy()
        found = in_turn(loops.steady, 8, gradients, numbers=[memory, step, gamma1, gamma2, theta, eps])
        gradients.change = replaced(found[:, :5])
        after = dict(zip(names, map(list, found[:, 5:].T), strict=True))
        return Normed(gradients, {"steady_scale": []}, {"step": step} | after)
    full = [widen(gradient) for gradient in gradients]
    largest = largest_of(full).to(torch.float64)
    maximum, m, v = (numbers_of(memory, largest) for memory in memories)
    maximum = torch.where(largest.isfinite(), theta * maximum + (1 - theta) * largest.detach(), maximum)
    limits = maximum / (1 - theta**step)
    ratios, sizes = limits / torch.where(largest == 0, 1.0, largest), [gradient.abs() for gradient in full]
    shares = [
        torch.where(size > limit.to(size), ratio.to(size), 1.0)
        for size, limit, ratio in zip(sizes, limits, ratios, strict=True)
    ]
    norms = norms_of([gradient * share for gradient, share in zip(full, shares, strict=True)]).to(largest)
    active = (norms > 0) & norms.isfinite()
    m = torch.where(active, gamma1 * m + (1 - gamma1) * norms.detach(), m)
    v = torch.where(active, gamma2 * v + (1 - gamma2) * norms.detach().square(), v)
    wanted = (m / (1 - gamma1**step)) / ((v / (1 - gamma2**step)).sqrt() + eps)
    scales = torch.where(active, wanted / torch.where(active, norms, 1.0), 1.0)
    factors = [
        torch.where(moves.to(share.device), share * scale.to(share), 1.0)
        for share, scale, moves in zip(shares, scales, active, strict=True)
    ]
    y = multiply(gradients, factors, sizes)
    after = {"maximum": list(maximum), "m": list(m), "v": list(v)}
    return Normed(y, {"steady_scale": [factor.detach() for factor in factors]}, {"step": step} | after)


METHOD = Method(
    fn=stable_spam_clipping,
    name="Stable-SPAM",
    regions=(Region("o ->"), Region("o i ... ->")),
    paper=Paper(
        "Tianjin Huang, Haotian Hu, Zhenyu Zhang, Gaojie Jin, Xiang Li, Li Shen, Tianlong Chen, Lu Liu, Qingsong Wen, "
        "Zhangyang Wang, Shiwei Liu",
        "Stable-SPAM: How to Train in 4-Bit More Stably than 16-Bit Adam",
        2025,
        "2502.17055",
    ),
    why="With weights of four bits the norm of a gradient jumps from step to step. Bringing each tensor to its own "
    "history, in its largest element and in its norm, leaves only the direction to vary.",
    formula=r"<x> \cdot <steady_scale>",
    pytorch="# In the first step, where all averages are those of this gradient: nothing is cut, each norm is 1\n"
    "for parameter in parameters:\n"
    "    norm = parameter.grad.norm()\n"
    "    parameter.grad.mul_(norm / (norm.square().sqrt() + {eps}) / norm)",
    invariant_to=frozenset({"scale"}),  # in the first step: later ones are held against the memory
    builds_on=("spam_clipping", "normalized_gradient"),
    remembers={
        "step": "the number of steps",
        "maximum": "the running largest value of each gradient",
        "m": "the running norm of each gradient",
        "v": "the running square of that norm",
    },
)

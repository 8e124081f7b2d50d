"""Quantile-adaptive clipping: the threshold of per-example clipping moves until a set share of examples is below it.

Longer than most: a threshold and two kinds of noise, in both forms.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from torch import Tensor

from normcore.core import EMPTY, Method, Normed, OneOf, Paper, Range, Region, Seed, example_norms, generator, multiply

Noise = Annotated[float, Range(0.0, usual=(0.0, 3.0))]


def quantile_adaptive_clipping(
    gradients: list[Tensor],
    *,
    state: Mapping[str, Any] = EMPTY,
    target_unclipped_quantile: Annotated[float, Range(0.0, 1.0)] = 0.5,
    learning_rate: Annotated[float, Range(0.0, usual=(0.0, 1.0))] = 0.2,
    init_threshold: Annotated[float, Range(1e-9, usual=(0.01, 5.0))] = 0.1,
    noise_multiplier: Noise = 0.0,
    count_noise: Noise = 0.0,
    reduction: Annotated[str, OneOf(("mean", "sum"))] = "mean",
    seed: Seed = 0,
) -> Normed:
    """Multiplies each example's gradient by ``min(1, threshold / (norm + 1e-6))``, and then moves the threshold.

    It is multiplied by ``exp(-learning_rate * (share - target_unclipped_quantile))``, the share being that of the
    examples that were not clipped. For privacy the number of these gets normal noise of deviation `count_noise`, and
    the noise on the sum of gradients, in thresholds, is then (noise_multiplier⁻² - (2 count_noise)⁻²)^(-1/2), where
    count_noise is more than half of noise_multiplier; with less, the count is not private, and the noise is
    noise_multiplier. Adding up is as in `per_example_clipping`, and so is what nan and inf do to their example, which
    counts as one that was clipped.

    Shapes: a list of tensors (n ...), with as many examples in each. Units: those of the gradient. State: `step`,
    `limit`.
    Source: Andrew, Thakkar, McMahan and Ramaswamy 2019, arXiv:1905.03871.
    """
    step = state.get("step", 0)
    norms = example_norms("quantile_adaptive_clipping", gradients)
    limit = state.get("limit", torch.tensor(init_threshold, dtype=torch.float64))
    moved = limit
    if norms:
        flat = torch.linalg.vector_norm(torch.stack([norm.reshape(-1).to(norms[0]) for norm in norms]), dim=0)
        norms = [flat.to(norm).reshape(norm.shape) for norm in norms]
        inside = (limit.to(flat) / (flat + 1e-6) >= 1).double().sum()
        if count_noise:
            noise = torch.randn((), generator=generator(seed + 1, step), dtype=torch.float64)
            inside = inside + count_noise * noise.to(inside.device)
        moved = limit.to(inside) * torch.exp(-learning_rate * (inside / len(flat) - target_unclipped_quantile))
    scales = [(limit.to(norm) / (norm + 1e-6)).clamp(max=1.0) for norm in norms]
    raised = noise_multiplier and noise_multiplier < 2 * count_noise
    noise_in_limits = (noise_multiplier**-2 - (2 * count_noise) ** -2) ** -0.5 if raised else noise_multiplier
    stats: dict[str, Any] = {"norm": [n.detach() for n in norms], "scale": [s.detach() for s in scales]}
    stats["limit"] = limit.detach()
    if noise_multiplier:
        stats["noise_deviation"] = noise_in_limits * limit.detach()
    return Normed(multiply(gradients, scales, norms), stats, {"step": step + 1, "limit": moved.detach()})


METHOD = Method(
    fn=quantile_adaptive_clipping,
    name="Quantile-Adaptive Clipping",
    regions=(Region("n o -> n"),),
    paper=Paper(
        "Galen Andrew, Om Thakkar, H. Brendan McMahan, Swaroop Ramaswamy",
        "Differentially Private Learning with Adaptive Clipping",
        2019,
        "1905.03871",
    ),
    why="Norms of single examples are not known before training, and looking at them costs privacy. Counting how many "
    "are below the threshold costs almost none, and is enough to bring it to their median.",
    formula=r"<x> \cdot \min\left(1, \frac{<limit>}{<norm> + 10^{-6}}\right)",
    pytorch="limit = torch.tensor({init_threshold})  # kept from one step to the next\n"
    "sample = parameters[0].grad_sample\n"
    "norms = sample.flatten(1).norm(dim=1)  # over all parameters together\n"
    "scales = torch.clamp(limit / (norms + 1e-6), max=1.0)\n"
    "total = torch.einsum('n,n...->...', scales, sample)\n"
    "if {noise_multiplier}:\n"
    "    raised = {noise_multiplier} < 2 * {count_noise}\n"
    "    noise = ({noise_multiplier} ** -2 - (2 * {count_noise}) ** -2) ** -0.5 if raised else {noise_multiplier}\n"
    "    random = torch.Generator().manual_seed({seed} * 1_000_003)\n"
    "    total = total + noise * limit * torch.randn(total.shape, generator=random)\n"
    "parameters[0].grad = total / (len(sample) if {reduction} == 'mean' else 1)\n"
    "inside = (scales == 1).sum() + {count_noise} * torch.randn(())\n"
    "limit = limit * torch.exp(-{learning_rate} * (inside / len(sample) - {target_unclipped_quantile}))",
    builds_on=("per_example_clipping",),
    keeps=frozenset({"direction of each example"}),
    remembers={"step": "the number of steps", "limit": "the threshold"},
)

"""Automatic clipping: each example's gradient is normalized, so that there is no threshold to choose."""

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from torch import Tensor

from normcore.core import EMPTY, Method, Normed, OneOf, Paper, Range, Region, Seed, example_norms, multiply


def automatic_per_example(
    gradients: list[Tensor],
    *,
    state: Mapping[str, Any] = EMPTY,
    gamma: Annotated[float, Range(1e-9, 1.0, usual=(1e-4, 1.0), logarithmic=True)] = 0.01,
    noise_multiplier: Annotated[float, Range(0.0, usual=(0.0, 3.0))] = 0.0,
    reduction: Annotated[str, OneOf(("mean", "sum"))] = "mean",
    seed: Seed = 0,
) -> Normed:
    """Divides each example's gradient by ``norm + gamma``, the norm being that of this example over all tensors.

    Every example then has a length below 1, short ones included; γ keeps the very short ones apart from each other, and
    is what makes it converge. The paper's threshold R only multiplies everything, and is 1 here. Adding up and noise,
    of noise_multiplier times 1, are as in `per_example_clipping`, and so is what nan and inf do to their example.

    Shapes: a list of tensors (n ...), with as many examples in each. Units: none after it. State: `step`.
    Source: Bu, Wang, Zha and Karypis 2022, arXiv:2206.07136.
    """
    norms = example_norms("automatic_per_example", gradients)
    if norms:
        flat = torch.linalg.vector_norm(torch.stack([norm.reshape(-1).to(norms[0]) for norm in norms]), dim=0)
        norms = [flat.to(norm).reshape(norm.shape) for norm in norms]
    scales = [1 / (norm + gamma) for norm in norms]
    stats: dict[str, Any] = {"norm": [n.detach() for n in norms], "scale": [s.detach() for s in scales]}
    if noise_multiplier:
        stats["noise_deviation"] = torch.tensor(noise_multiplier)
    return Normed(multiply(gradients, scales, norms), stats, {"step": state.get("step", 0) + 1})


METHOD = Method(
    fn=automatic_per_example,
    name="Automatic Per-Example Clipping",
    regions=(Region("n o -> n"),),
    paper=Paper(
        "Zhiqi Bu, Yu-Xiang Wang, Sheng Zha, George Karypis",
        "Automatic Clipping: Differentially Private Deep Learning Made Easier and Stronger",
        2022,
        "2206.07136",
    ),
    why="The threshold of private training has to be tuned together with the learning rate, and every attempt costs "
    "privacy. Small thresholds work best, and there clipping is normalizing: so normalize.",
    formula=r"\frac{<x>}{<norm> + <gamma>}",
    pytorch="sample = parameters[0].grad_sample\n"
    "norms = sample.flatten(1).norm(dim=1)  # over all parameters together\n"
    "total = torch.einsum('n,n...->...', 1 / (norms + {gamma}), sample)\n"
    "if {noise_multiplier}:\n"
    "    random = torch.Generator().manual_seed({seed} * 1_000_003)\n"
    "    total = total + {noise_multiplier} * torch.randn(total.shape, generator=random)\n"
    "parameters[0].grad = total / (len(sample) if {reduction} == 'mean' else 1)",
    builds_on=("per_example_clipping", "normalized_gradient"),
    keeps=frozenset({"direction of each example"}),
    limits={"norm of each example": 1.0},
    remembers={"step": "the number of steps"},
)

"""Per-example clipping: each example's gradient is clipped before they are added up, so that none can dominate.

Longer than most: two kinds of clipping, noise, and what the clipper does with the examples afterwards.
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
    OneOf,
    Paper,
    Range,
    Region,
    Seed,
    example_norms,
    multiply,
    shortening,
)

Noise = Annotated[float, Range(0.0, usual=(0.0, 3.0))]
Reduction = Annotated[str, OneOf(("mean", "sum"))]


def per_example_clipping(
    gradients: list[Tensor],
    *,
    state: Mapping[str, Any] = EMPTY,
    max_norm: Annotated[float, Range(0.0, usual=(0.0, 5.0))] = 1.0,
    clipping: Annotated[str, OneOf(("flat", "per_layer"))] = "flat",
    noise_multiplier: Noise = 0.0,
    reduction: Reduction = "mean",
    eps: Epsilon = 1e-6,
    seed: Seed = 0,
) -> Normed:
    """Multiplies each example's gradient by ``min(1, max_norm / (norm + eps))``, the norm being that of this example.

    With `clipping` "flat" the norm is taken over all tensors together, with "per_layer" each of L tensors has a norm of
    its own and a threshold of max_norm / √L. The function keeps the examples apart; a clipper, which finds them in
    ``p.grad_sample`` (see `normcore.per_example_gradients`), adds them up, adds normal noise with a standard deviation
    of noise_multiplier times max_norm to the sum, divides by their number (unless `reduction` is "sum"), and writes
    ``p.grad``. The noise depends on `seed` and the number of the step alone: good for experiments, not for secrets.
    opacus adds ε = 1e-6 as well, optax has none. An infinite value becomes nan and the rest of its example 0, a nan
    makes all of its example nan (only that tensor of it, per layer); the sums then have them, other examples do not.

    Shapes: a list of tensors (n ...), with as many examples in each. Units: those of the gradient. State: `step`.
    Source: Abadi, Chu, Goodfellow and others 2016, arXiv:1607.00133.
    """
    norms = example_norms("per_example_clipping", gradients)
    if clipping == "flat" and norms:
        flat = torch.linalg.vector_norm(torch.stack([norm.reshape(-1).to(norms[0]) for norm in norms]), dim=0)
        norms = [flat.to(norm).reshape(norm.shape) for norm in norms]
    limit = max_norm if clipping == "flat" else max_norm / max(1, len(norms)) ** 0.5
    scales = [shortening(limit, norm + eps) for norm in norms]
    stats: dict[str, Any] = {"norm": [n.detach() for n in norms], "scale": [s.detach() for s in scales]}
    if noise_multiplier:
        stats["noise_deviation"] = torch.tensor(noise_multiplier * max_norm)
    return Normed(multiply(gradients, scales, norms), stats, {"step": state.get("step", 0) + 1})


METHOD = Method(
    fn=per_example_clipping,
    name="Per-Example Clipping",
    regions=(Region("n o -> n"),),
    paper=Paper(
        "Martín Abadi, Andy Chu, Ian Goodfellow, H. Brendan McMahan, Ilya Mironov, Kunal Talwar, Li Zhang",
        "Deep Learning with Differential Privacy",
        2016,
        "1607.00133",
    ),
    why="If one example can move the weights as far as it likes, the weights can give it away. Bounding each one's "
    "share, and covering it with noise of that size, makes privacy a theorem.",
    formula=r"<x> \cdot \min\left(1, \frac{<max_norm>}{<norm> + <eps>}\right)",
    pytorch="# One parameter: flat and per layer are the same\n"
    "sample = parameters[0].grad_sample\n"
    "norms = sample.flatten(1).norm(dim=1)  # over all parameters together, for flat clipping\n"
    "scales = torch.clamp({max_norm} / (norms + {eps}), max=1.0)\n"
    "total = torch.einsum('n,n...->...', scales, sample)\n"
    "if {noise_multiplier}:\n"
    "    random = torch.Generator().manual_seed({seed} * 1_000_003)\n"
    "    total = total + {noise_multiplier} * {max_norm} * torch.randn(total.shape, generator=random)\n"
    "parameters[0].grad = total / (len(sample) if {reduction} == 'mean' else 1)",
    builds_on=("clip_by_global_norm",),
    keeps=frozenset({"direction of each example", "clipped", "small"}),
    limits={"norm of each example": "max_norm"},
    remembers={"step": "the number of steps"},
)

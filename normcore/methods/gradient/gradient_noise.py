"""Gradient noise: normal noise that fades from step to step is added to every element."""

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from torch import Tensor

from normcore.core import EMPTY, Method, Normed, Paper, Range, Seed, generator, replace


def gradient_noise(
    gradients: list[Tensor],
    *,
    state: Mapping[str, Any] = EMPTY,
    eta: Annotated[float, Range(0.0, usual=(0.01, 1.0))] = 0.01,
    gamma: Annotated[float, Range(0.0, usual=(0.0, 1.0))] = 0.55,
    seed: Seed = 0,
) -> Normed:
    """Adds to every element normal noise of variance ``eta / (1 + t)^gamma``, t being the number of earlier steps.

    It clips nothing; it is meant to go with clipping, after it. The draws depend on `seed` and t alone, never on
    PyTorch's global generator.

    Shapes: any list of tensors. Units: those of the gradient. State: `step`.
    Source: Neelakantan, Vilnis, Le and others 2015, arXiv:1511.06807.
    """
    step = state.get("step", 0)
    deviation = (eta / (1 + step) ** gamma) ** 0.5
    random = generator(seed, step)
    noise = [(deviation * torch.randn(g.shape, generator=random, dtype=torch.float32)).to(g.device) for g in gradients]
    y = replace(gradients, lambda gradient, drawn, out: torch.add(gradient, drawn.to(gradient), out=out), noise)
    return Normed(y, {"noise": noise}, {"step": step + 1})


METHOD = Method(
    fn=gradient_noise,
    name="Gradient Noise",
    regions=(),
    paper=Paper(
        "Arvind Neelakantan, Luke Vilnis, Quoc V. Le, Ilya Sutskever, Lukasz Kaiser, Karol Kurach, James Martens",
        "Adding Gradient Noise Improves Learning for Very Deep Networks",
        2015,
        "1511.06807",
    ),
    why="Very deep nets with a poor start get stuck where the gradient is tiny and says little. Noise that fades lets "
    "them wander off early, and settle later.",
    formula=r"<x> + <noise>",
    pytorch="step = 0  # kept from one step to the next\n"
    "random = torch.Generator().manual_seed({seed} * 1_000_003 + step)\n"
    "deviation = ({eta} / (1 + step) ** {gamma}) ** 0.5\n"
    "for parameter in parameters:\n"
    "    parameter.grad.add_(deviation * torch.randn(parameter.shape, generator=random))",
    remembers={"step": "the number of steps"},
)

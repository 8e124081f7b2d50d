"""Gradient noise: normal noise that fades from step to step is added to every element.

Longer than most: PyTorch would take ten times as long to draw the noise as to clip, so that a compiled loop does.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from torch import Tensor

from normcore.core import (
    EMPTY,
    Method,
    Normed,
    Owned,
    Paper,
    Range,
    Seed,
    generator,
    in_parts,
    large,
    loops_for,
    replace,
    replaced,
)


def gradient_noise(
    gradients: list[Tensor],
    *,
    state: Mapping[str, Any] = EMPTY,
    eta: Annotated[float, Range(0.0, usual=(0.01, 1.0))] = 0.01,
    gamma: Annotated[float, Range(0.0, usual=(0.0, 1.0))] = 0.55,
    seed: Seed = 0,
) -> Normed:
    """Adds to every element normal noise of variance ``eta / (1 + t)^gamma``, t being the number of earlier steps.

    It clips nothing; it is meant to go with clipping, after it. The draws depend on `seed`, t and the shapes alone,
    never on PyTorch's global generator, nor on the device or the number of threads. PyTorch draws them for fewer than
    2^18 elements together, and for more a compiled loop (SplitMix64, Box and Muller).

    Shapes: any list of tensors. Units: those of the gradient. State: `step`.
    Source: Neelakantan, Vilnis, Le and others 2015, arXiv:1511.06807.
    """
    step = state.get("step", 0)
    deviation = (eta / (1 + step) ** gamma) ** 0.5
    after = {"step": step + 1}
    if isinstance(gradients, Owned) and loops_for(gradients):  # a clipper asks for no noise
        gradients.change = replaced(_add(gradients, deviation, seed, step))
        return Normed(gradients, {"noise": []}, after)
    noise = _drawn(gradients, deviation, seed, step)
    y = replace(gradients, lambda gradient, drawn, out: torch.add(gradient, drawn.to(gradient), out=out), noise)
    return Normed(y, {"noise": noise}, after)


def _drawn(gradients: list[Tensor], deviation: float, seed: int, step: int) -> list[Tensor]:
    """Noise in the shapes of the gradients, in float32."""
    with torch.no_grad():
        noise = [torch.zeros(gradient.shape, dtype=torch.float32, device="cpu") for gradient in gradients]
        real = {type(drawn) for drawn in noise} == {Tensor} and not torch.compiler.is_compiling()
        if real and large(noise):
            _add(noise, deviation, seed, step)
        else:
            random = generator(seed, step)
            noise = [
                deviation * torch.randn(z.shape, generator=random, dtype=torch.float32, device="cpu") for z in noise
            ]
    return [drawn.to(gradient.device) for drawn, gradient in zip(noise, gradients, strict=True)]


def _add(values: list[Tensor], deviation: float, seed: int, step: int) -> Tensor:
    """Adds noise by compiled loops; what they find in each tensor."""
    from normcore.core import compiled_noise  # noqa: PLC0415 - a compiler takes a while to load

    keys = torch.tensor([seed, step], device="cpu").numpy()
    return in_parts(compiled_noise.add_noise, 5, values, numbers=[keys, deviation]).sum(0)


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

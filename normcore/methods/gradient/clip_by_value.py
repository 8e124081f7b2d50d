"""Clipping by value: every element of the gradient is cut to an interval."""

import math
from typing import Annotated

import torch
from torch import Tensor

from normcore.core import Method, Normed, Paper, Range, replace

Lower = Annotated[float | None, Range(-math.inf, 0.0, usual=(-5.0, 0.0), none="-clip_value", infinite=True)]
Upper = Annotated[float | None, Range(0.0, usual=(0.0, 5.0), none="clip_value", infinite=True)]


def clip_by_value(
    gradients: list[Tensor],
    *,
    clip_value: Annotated[float, Range(0.0, usual=(0.0, 5.0))] = 1.0,
    lower: Lower = None,
    upper: Upper = None,
) -> Normed:
    """Cuts every element to the interval from -clip_value to clip_value, or from `lower` to `upper`.

    Large elements shrink and small ones stay, so the direction of the whole gradient changes. An infinite element
    becomes the end of the interval; nan stays nan.

    Shapes: any list of tensors. Units: those of the gradient.
    Source: Mikolov 2012 (PhD thesis, Brno University of Technology).
    """
    low = -clip_value if lower is None else lower
    high = clip_value if upper is None else upper
    return Normed(replace(gradients, lambda g, out: torch.clamp(g, low, high, out=out)), {})


METHOD = Method(
    fn=clip_by_value,
    name="Clip by Value",
    regions=(),
    paper=Paper("Tomáš Mikolov", "Statistical Language Models Based on Neural Networks", 2012),
    why="A recurrent network's gradient sometimes explodes, and one step then undoes hours. Cutting each element "
    "to a small interval was the first cure.",
    formula=lambda settings: (
        r"\min(\max(<x>, "
        + ("-<clip_value>" if settings["lower"] is None else "<lower>")
        + "), "
        + ("<clip_value>" if settings["upper"] is None else "<upper>")
        + ")"
    ),
    pytorch=lambda settings: (
        "torch.nn.utils.clip_grad_value_(parameters, {clip_value})"
        if settings["lower"] is None and settings["upper"] is None
        else f"parameters[0].grad.clamp_({'-{clip_value}' if settings['lower'] is None else '{lower}'}, "
        f"{'{clip_value}' if settings['upper'] is None else '{upper}'})"
    ),
    keeps=frozenset({"clipped", "small"}),
    limits=lambda settings: {
        "value": max(
            settings["clip_value"] if settings["lower"] is None else -settings["lower"],
            settings["clip_value"] if settings["upper"] is None else settings["upper"],
        )
    },
)

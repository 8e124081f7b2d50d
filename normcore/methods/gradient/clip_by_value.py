"""Clipping by value: every element of the gradient is cut to an interval."""

from typing import Annotated

from torch import Tensor

from normcore.core import Method, NormcoreError, Normed, Paper, Range

Limit = Annotated[float | None, Range(float("-inf"), none="clip_value")]


def clip_by_value(
    gradients: list[Tensor],
    *,
    clip_value: Annotated[float, Range(0.0, usual=(0.0, 5.0))] = 1.0,
    lower: Limit = None,
    upper: Limit = None,
) -> Normed:
    """Cuts every element to the interval from -clip_value to clip_value, or from `lower` to `upper`.

    Large elements shrink and small ones stay, so the direction of the whole gradient changes.

    Shapes: any list of tensors. Units: those of the gradient.
    Source: Mikolov 2012 (PhD thesis, Brno University of Technology).
    """
    low = -clip_value if lower is None else lower
    high = clip_value if upper is None else upper
    if low > high:
        raise NormcoreError(f"clip_by_value: lower={low!r} must not exceed upper={high!r}; try swapping them")
    return Normed([gradient.clamp(low, high) for gradient in gradients], {})


METHOD = Method(
    fn=clip_by_value,
    name="Clip by Value",
    regions=(),
    paper=Paper("Tomáš Mikolov", "Statistical Language Models Based on Neural Networks", 2012),
    why="A recurrent network's gradient sometimes explodes, and one step then undoes hours. Cutting each element "
    "to a small interval was the first cure.",
    formula=r"\min(\max(<x>, -<clip_value>), <clip_value>)",
    pytorch="torch.nn.utils.clip_grad_value_(parameters, {clip_value})",
)

"""Residual scaling: each residual branch is multiplied by one small fixed number."""

from typing import Annotated

from torch import Tensor

from normcore.core import Method, Normed, Paper, Range, Slot, cast, or_number, widen


def residual_scaling(
    x: Tensor, *, residual: Tensor | None = None, alpha: Annotated[float, Range(0.0, 1.0, usual=(0.1, 1.0))] = 0.2
) -> Normed:
    """Adds the branch x, times a fixed number, to what the branch was computed from: ``residual + alpha * x``.

    Inception-ResNet takes 0.1 to 0.3. NF-ResNet takes 0.2 and divides the input of each branch by the standard
    deviation that this implies: the variance grows by alpha² a block. Without a residual the scaled branch is returned.

    Shapes: x any; residual as x.
    Source: Szegedy, Ioffe, Vanhoucke and Alemi 2016, arXiv:1602.07261; NF-ResNet: Brock, De and Smith 2021,
    arXiv:2101.08692.
    """
    wide = widen(x)
    base = or_number(residual, 0.0, wide)
    return Normed(cast(base + alpha * wide, x.dtype), {"residual": base.detach()})


METHOD = Method(
    fn=residual_scaling,
    name="Residual Scaling",
    regions=(),
    paper=Paper(
        "Christian Szegedy, Sergey Ioffe, Vincent Vanhoucke, Alex Alemi",
        "Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning",
        2016,
        "1602.07261",
    ),
    why="Residual networks with very many filters died early in training: their last layers gave nothing but zeros. "
    "Scaling each branch down before the addition kept them stable.",
    formula=r"<residual> + <alpha> \cdot <x>",
    pytorch="residual = torch.zeros_like(x)  # what the branch was computed from\ny = residual + {alpha} * x",
    context={"residual": Slot("x")},
    builds_on=("batch_norm",),
)

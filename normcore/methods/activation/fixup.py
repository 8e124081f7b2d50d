"""Fixup: residual branches that start at zero by their weights, with scalar biases and multipliers to learn."""

from torch import Tensor

from normcore.core import Method, NormcoreError, Normed, Paper, Slot, cast, or_number, widen


def fixup(
    x: Tensor, *, weight: Tensor | None = None, bias: Tensor | None = None, residual: Tensor | None = None
) -> Normed:
    """Ends a residual branch x with one multiplier and one bias: ``residual + weight * x + bias``.

    The larger half of the method is the first weights: `fixup_scale` for the layers of a branch, zero for its last one
    and for the classifier; one more scalar bias stands before each layer and each activation. Multipliers start at 1,
    biases at 0. Without a residual the branch alone is returned.

    Shapes: x any; residual as x; weight and bias (1).
    Source: Zhang, Dauphin and Ma 2019, arXiv:1901.09321.
    """
    wide = widen(x)
    gain = or_number(weight, 1.0, wide).reshape(())
    offset = or_number(bias, 0.0, wide).reshape(())
    base = or_number(residual, 0.0, wide)
    stats = {"residual": base.detach(), "gain": gain.detach(), "bias": offset.detach()}
    return Normed(cast(base + gain * wide + offset, x.dtype), stats)


def fixup_scale(layers: int, branches: int) -> float:
    """What to multiply the usual (He) first weights of a branch by: ``branches ** (-1 / (2 * layers - 2))``.

    Args:
        layers: The weight layers of one branch; its last one starts at zero instead.
        branches: The residual branches of the network.

    Raises:
        NormcoreError: Fewer than 2 layers, of which none is left to be scaled, or no branch.
    """
    if layers < 2 or branches < 1:
        raise NormcoreError(
            f"fixup_scale: layers={layers}, branches={branches} must be whole numbers of at least 2 and 1"
        )
    return float(branches ** (-1 / (2 * layers - 2)))


METHOD = Method(
    fn=fixup,
    name="Fixup",
    regions=(),
    paper=Paper(
        "Hongyi Zhang, Yann N. Dauphin, Tengyu Ma",
        "Fixup Initialization: Residual Learning Without Normalization",
        2019,
        "1901.09321",
    ),
    why="Was it normalization that made deep residual networks trainable? If every branch starts at zero and moves the "
    "output by the same small step whatever the depth, they train as fast without it.",
    formula=r"<residual> + <gain> \cdot <x> + <bias>",
    pytorch="multiplier, bias = torch.ones(1), torch.zeros(1)  # learned\n"
    "residual = torch.zeros_like(x)  # what the branch was computed from\n"
    "y = residual + multiplier * x + bias",
    affine={"weight": Slot("1", 1.0), "bias": Slot("1", 0.0)},
    context={"residual": Slot("x")},
    builds_on=("batch_norm",),
)

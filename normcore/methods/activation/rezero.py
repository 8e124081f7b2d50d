"""ReZero: each residual branch is multiplied by one learned number that starts at zero."""

from torch import Tensor

from normcore.core import Method, Normed, Paper, Slot, cast, or_number, widen


def rezero(x: Tensor, *, weight: Tensor | None = None, residual: Tensor | None = None) -> Normed:
    """Adds the branch x, times one learned number, to what the branch was computed from: ``residual + weight * x``.

    The number starts at 0, so that a new network of any depth is the identity; nothing is normalized. Without a
    residual the scaled branch is returned.

    Shapes: x any; residual as x; weight (1).
    Source: Bachlechner et al. 2020, arXiv:2003.04887.
    """
    wide = widen(x)
    gain = or_number(weight, 1.0, wide).reshape(())
    base = or_number(residual, 0.0, wide)
    return Normed(cast(base + gain * wide, x.dtype), {"residual": base.detach(), "gain": gain.detach()})


METHOD = Method(
    fn=rezero,
    name="ReZero",
    regions=(),
    paper=Paper(
        "Thomas Bachlechner, Bodhisattwa Prasad Majumder, Huanru Henry Mao, Garrison W. Cottrell, Julian McAuley",
        "ReZero is All You Need: Fast Convergence at Large Depth",
        2020,
        "2003.04887",
    ),
    why="Signals and gradients explode or die over many layers unless something holds them. If every branch starts at "
    "zero, a network of thousands of layers passes both on unchanged, and needs no normalization to begin to learn.",
    formula=r"<residual> + <gain> \cdot <x>",
    pytorch="alpha = torch.zeros(1)  # learned\n"
    "residual = torch.zeros_like(x)  # what the branch was computed from\n"
    "y = residual + alpha * x",
    affine={"weight": Slot("1", 0.0)},
    context={"residual": Slot("x")},
    builds_on=("layer_norm",),
)

"""SkipInit: a learned number that starts at zero, at the end of each residual branch, in place of BatchNorm."""

from torch import Tensor

from normcore.core import Identity, Method, Normed, Paper, Slot, cast, or_number, widen


def skip_init(x: Tensor, *, weight: Tensor | None = None, residual: Tensor | None = None) -> Normed:
    """Adds the branch x, times one learned number, to what the branch was computed from: ``residual + weight * x``.

    The number starts at 0, and stands at the end of the branch; the layers in it keep their biases. The mathematics is
    ReZero's; found at the same time, it came from what BatchNorm does to a branch. Without a residual the scaled
    branch is returned.

    Shapes: x any; residual as x; weight ().
    Source: De and Smith 2020, arXiv:2002.10444.
    """
    wide = widen(x)
    gain = or_number(weight, 1.0, wide)
    base = or_number(residual, 0.0, wide)
    return Normed(cast(base + gain * wide, x.dtype), {"residual": base.detach(), "gain": gain.detach()})


METHOD = Method(
    fn=skip_init,
    name="SkipInit",
    regions=(),
    paper=Paper(
        "Soham De, Samuel L. Smith",
        "Batch Normalization Biases Residual Blocks Towards the Identity Function in Deep Networks",
        2020,
        "2002.10444",
    ),
    why="At its start BatchNorm makes a branch small against the skip connection, the more the deeper it stands. One "
    "number that starts at zero does that alone, and very deep residual networks train without BatchNorm.",
    formula=r"<residual> + <gain> \cdot <x>",
    pytorch="gain = torch.zeros(())  # learned\n"
    "residual = torch.zeros_like(x)  # what the branch was computed from\n"
    "y = residual + gain * x",
    affine={"weight": Slot("", 0.0)},
    context={"residual": Slot("x")},
    equals=(Identity("rezero"),),
    builds_on=("batch_norm",),
)

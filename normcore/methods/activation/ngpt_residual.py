"""The normalized transformer's residual addition: a step of learned length along the unit sphere."""

from torch import Tensor

from normcore.core import (
    Bound,
    Epsilon,
    Identity,
    Method,
    Normed,
    Paper,
    Region,
    Slot,
    along_channels,
    beside,
    cast,
    normalize,
    or_number,
    widen,
)


def ngpt_residual(
    x: Tensor,
    channels: Bound,
    *,
    weight: Tensor | None = None,
    residual: Tensor | None = None,
    eps: Epsilon = 1e-12,
) -> Normed:
    """Moves what a branch x was computed from towards the branch's direction, and back to length 1.

    ``unit(residual + weight * (unit(x) - residual))`` where unit divides by ``max(norm, eps)``, the norm being taken
    over the channels of a position. The weight, one learned rate for each channel, starts at 0.05 (left out it is 1,
    which leaves nothing but the branch's direction). The authors' code stores it divided by 0.05 times the root of the
    number of channels, for Adam's sake, and takes its absolute value; here it is the rate itself. Without a residual,
    the direction of x times the weight is returned.

    Shapes: x (n c ...) or (n t c); residual as x; weight (c).
    Source: Loshchilov, Hsieh, Sun and Ginsburg 2024 (nGPT), arXiv:2410.01131.
    """
    wide = widen(x)
    direction, stats = normalize(wide, channels, eps, eps_place="maximum")
    base = or_number(residual, 0.0, wide)
    gain = along_channels(or_number(weight, 1.0, wide), channels)
    y, moved = normalize(base + gain * (direction - base), channels, eps, eps_place="maximum")
    ways = {"residual": lambda: base, "gain": lambda: gain, "moved_norm": lambda: moved["norm"]}
    return Normed(cast(y, x.dtype), beside(stats, **ways))


METHOD = Method(
    fn=ngpt_residual,
    name="nGPT Residual",
    regions=(Region("n c ... -> n ..."), Region("n t c -> n t")),
    paper=Paper(
        "Ilya Loshchilov, Cheng-Ping Hsieh, Simeng Sun, Boris Ginsburg",
        "nGPT: Normalized Transformer with Representation Learning on the Hypersphere",
        2024,
        "2410.01131",
    ),
    why="In a transformer the residual stream grows with every layer, and normalization has to undo it again. If all "
    "vectors stay on the unit sphere, every block is a step along it, and its length can be learned.",
    formula=r"\frac{<residual> + <gain> \cdot \left(\frac{<x>}{\max(<norm>, <eps>)} - <residual>\right)}"
    r"{\max(<moved_norm>, <eps>)}",
    pytorch="residual = torch.zeros_like(x)  # what the branch was computed from\n"
    "alpha = torch.full({column}, 0.05)  # learned\n"
    "unit = lambda v: torch.nn.functional.normalize(v, dim={channel}, eps={eps})\n"
    "y = unit(residual + alpha * (unit(x) - residual))",
    affine={"weight": Slot("c", 0.05)},
    context={"residual": Slot("x")},
    invariant_to=frozenset({"scale"}),
    equals=(Identity("l2_norm", other_settings={"eps_place": "maximum"}),),
    builds_on=("l2_norm", "rms_norm", "rezero"),
)

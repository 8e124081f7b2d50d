"""Partial root-mean-square normalization: the scale of all channels, estimated from the first few."""

from typing import Annotated

from torch import Tensor

from normcore.core import (
    GAIN,
    Epsilon,
    EpsilonPlace,
    Identity,
    Method,
    Normed,
    Paper,
    Part,
    Range,
    affine,
    cast,
    root,
    widen,
)


def p_rms_norm(
    x: Tensor,
    first: Part,
    *,
    weight: Tensor | None = None,
    p: Annotated[float, Range(0.0, 1.0, usual=(0.0, 1.0))] = 0.0625,
    eps: Epsilon = 1e-8,
    eps_place: EpsilonPlace = "outside",
) -> Normed:
    """Divides all channels of each position by the root mean square of the first ``int(p * c)`` of them.

    At least one channel counts. ε is added to the root ("outside") in the authors' code, which also rounds down where
    the paper rounds up; with ε inside the root and p = 1 this is RMSNorm.

    Shapes: x (n c ...) or (n t c); weight (c).
    Source: Zhang and Sennrich 2019, arXiv:1910.07467.
    """
    wide = widen(x)
    mean_square = first.inner.spread(first.inner.mean(first.take(wide).square()))
    scale = (mean_square + eps).rsqrt() if eps_place == "inside" else (root(mean_square) + eps).reciprocal()
    y = affine(wide, first.whole, weight, None, scale)
    return Normed(cast(y, x.dtype), {"part_mean_square": mean_square.detach()})


METHOD = Method(
    fn=p_rms_norm,
    name="pRMSNorm",
    regions=(Part("n c ... -> n ...", "p", lent=True), Part("n t c -> n t", "p", lent=True)),
    paper=Paper("Biao Zhang, Rico Sennrich", "Root Mean Square Layer Normalization", 2019, "1910.07467"),
    why="If the channels are alike, a few of them tell the scale of all: the paper tries 6.25 percent of them, which "
    "saves most of the sum.",
    formula=lambda settings: (
        r"\frac{<x>}{\sqrt{<part_mean_square>} + <eps>}"
        if settings["eps_place"] == "outside"
        else r"\frac{<x>}{\sqrt{<part_mean_square> + <eps>}}"
    ),
    pytorch=lambda settings: (
        "first = x.narrow({channel}, 0, max(1, int({p} * {c})))\n"
        "mean_square = first.square().mean(dim={channel}, keepdim=True)\n"
        + (
            "y = x / (mean_square.sqrt() + {eps})"
            if settings["eps_place"] == "outside"
            else "y = x / (mean_square + {eps}).sqrt()"
        )
    ),
    affine=GAIN,
    invariant_to=frozenset({"scale"}),
    equals=(Identity("rms_norm", {"p": 1.0, "eps_place": "inside"}),),
    builds_on=("rms_norm",),
)

"""Spatially-adaptive normalization: gain and bias are maps, made of a picture of what lies where.

Longer than most: the norm below is one of two, and only one of them has running statistics.
"""

from collections.abc import Mapping
from typing import Annotated

from torch import Tensor

from normcore.core import (
    EMPTY,
    RUNNING,
    WITH_POSITIONS,
    Bound,
    Epsilon,
    Identity,
    Method,
    Momentum,
    Normed,
    OneOf,
    Paper,
    Region,
    Slot,
    apply_running,
    beside,
    cast,
    multiply_add,
    or_number,
    standardize,
    track,
    widen,
)


def spade(
    x: Tensor,
    region: Bound,
    *,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    state: Mapping[str, Tensor] = EMPTY,
    training: bool = True,
    base: Annotated[str, OneOf(("batch", "instance"))] = "batch",
    eps: Epsilon = 1e-5,
    momentum: Momentum = 0.1,
    track_running_stats: bool = True,
) -> Normed:
    """BatchNorm (or InstanceNorm) without a gain of its own, times ``1 + gamma``, plus `beta`, maps shaped like x.

    A network of two convolutions makes the maps of a segmentation. Without them only the base is left: "batch", with
    running statistics in evaluation, or "instance". The variance is the population's, ε stands inside the root.

    Shapes: x (n c l), (n c h w), (n c d h w) or (n t c); gamma and beta shaped like x; running state (c).
    Source: Park, Liu, Wang and Zhu 2019, arXiv:1903.07291.
    """
    tracks = track_running_stats and base == "batch"
    if tracks and not training:
        y, stats = apply_running(widen(x), region, state, eps, None, None)
    else:
        y, stats = standardize(widen(x), region, eps)
        state = track(state, region, stats, momentum) if tracks else state
    gain, bias = (or_number(given, 0.0, y) for given in (gamma, beta))
    if gamma is not None or beta is not None:
        y = multiply_add(y, 1 + gain, bias)
    return Normed(cast(y, x.dtype), beside(stats, gamma=lambda: gain, beta=lambda: bias), state)


METHOD = Method(
    fn=spade,
    name="SPADE",
    regions=(
        *(Region(f"{axes} -> c", running=True, when={"base": "batch"}) for axes in WITH_POSITIONS),
        *(Region(f"{axes} -> n c", when={"base": "instance"}) for axes in WITH_POSITIONS),
    ),
    paper=Paper(
        "Taesung Park, Ming-Yu Liu, Ting-Chun Wang, Jun-Yan Zhu",
        "Semantic Image Synthesis with Spatially-Adaptive Normalization",
        2019,
        "1903.07291",
    ),
    why="Normalizing washes out a segmentation map that a generator was given: an area of one class is constant. Gains "
    "and biases that differ from place to place put it back in at every layer.",
    formula=r"(1 + <gamma>) \cdot \frac{<x> - <mean>}{\sqrt{<var> + <eps>}} + <beta>",
    pytorch=lambda settings: "\n".join(
        [
            "gamma, beta = torch.zeros_like(x), torch.zeros_like(x)  # made of the segmentation",
            "norm = torch.nn.BatchNorm{nd}({c}, eps={eps}, momentum={momentum}, affine=False, "
            "track_running_stats={track_running_stats}).train({training})"
            if settings["base"] == "batch"
            else "norm = torch.nn.InstanceNorm{nd}({c}, eps={eps})",
            "y = norm({x}){back} * (1 + gamma) + beta",
        ]
    ),
    state=RUNNING,
    context={"gamma": Slot("x"), "beta": Slot("x")},
    invariant_to=frozenset({"scale", "shift"}),
    equals=(Identity("batch_norm", {"base": "batch"}),),
    builds_on=("adain", "conditional_batch_norm"),
)

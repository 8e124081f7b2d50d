"""Local contrast normalization: edges stand out alike in the bright and the dark parts of an image."""

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from torch import Tensor

from normcore.core import Bound, Method, Normed, Paper, Range, Region, Window, cast, root, widen

LAYOUTS = ("n c l", "n c h w", "n c d h w")
OVER = {"c": None, "...": "window"}


def local_contrast_norm(
    x: Tensor,
    near: Window,
    around: Window,
    sample: Bound,
    *,
    window: Annotated[int, Range(3, usual=(3, 11), integer=True)] = 9,
    sigma: Annotated[float, Range(0.1, usual=(0.5, 4.0))] = 2.0,
    floor: Annotated[float, Range(0.0, usual=(1e-6, 1e-1), logarithmic=True)] = 1e-4,
) -> Normed:
    """Subtracts a Gaussian mean of all channels around each position and divides by the deviation around it.

    With ``v = x - mean`` and ``deviation = sqrt(Gaussian mean of v²)``, ``y = v / max(deviation, its mean over the
    sample, floor)``: no place is blown up beyond the sample's average contrast. Gaussian weights (width `sigma`) sum to
    1 over the part of the window that exists, so that a constant image gives 0 up to its borders, as in Torch7; other
    codes count zeros beyond. The paper has a 9×9 window; `sigma` and `floor` are those of Pylearn2.

    Shapes: x (n c l), (n c h w) or (n c d h w).
    Source: Jarrett, Kavukcuoglu, Ranzato and LeCun 2009 (ICCV).
    """
    centered, mean = near.center(widen(x), sigma)
    deviation = root(near.mean(centered.square(), sigma))
    usual = sample.spread(sample.mean(deviation.expand(x.shape)))
    y = centered / torch.maximum(deviation, usual).clamp_min(floor)
    stats = {"window_mean": mean, "window_deviation": deviation, "sample_deviation": usual}
    return Normed(cast(y, x.dtype), {name: statistic.detach() for name, statistic in stats.items()})


def _pytorch(settings: Mapping[str, Any]) -> str:
    back, ahead = settings["window"] // 2, (settings["window"] - 1) // 2
    return f"""steps = torch.arange({-back}, {ahead + 1})
tap = line = torch.exp(-0.5 * (steps / {{sigma}}).square())
for _ in range(x.ndim - 3):
    tap = tap[..., None] * line
def window_mean(v):
    inside, v = (torch.nn.functional.pad(p, ({back}, {ahead}) * (x.ndim - 2)) for p in (torch.ones_like(v), v))
    sums, counts = (torch.conv{{nd}}(p.mean(1, keepdim=True), tap[None, None]) for p in (v, inside))
    return sums / counts
v = x - window_mean(x)
deviation = window_mean(v.square()).sqrt()
y = v / torch.maximum(deviation, deviation.mean({{space}}, keepdim=True)).clamp_min({{floor}})"""


METHOD = Method(
    fn=local_contrast_norm,
    name="Local Contrast Norm",
    regions=(
        *(Window(axes, OVER) for axes in LAYOUTS),
        *(Window(axes, OVER, times=2) for axes in LAYOUTS),
        *(Region(f"{axes} -> n") for axes in LAYOUTS),
    ),
    paper=Paper(
        "Kevin Jarrett, Koray Kavukcuoglu, Marc'Aurelio Ranzato, Yann LeCun",
        "What is the Best Multi-Stage Architecture for Object Recognition?",
        2009,
    ),
    why="The light in a photograph changes from place to place and says little about the object. Neighboring features "
    "compete, so that an edge counts by its contrast.",
    formula=r"\frac{<x> - <window_mean>}{\max(<window_deviation>, <sample_deviation>, <floor>)}",
    pytorch=_pytorch,
    invariant_to=frozenset({"scale", "shift"}),
)

"""Divisive normalization: each value against its neighborhood in space, over all channels."""

from collections.abc import Mapping
from typing import Annotated, Any

from torch import Tensor

from normcore.core import Method, Normed, Paper, Range, Window, cast, widen

LAYOUTS = ("n c l", "n c h w", "n c d h w")
OVER = {"c": None, "...": "window"}


def divisive_norm(
    x: Tensor,
    near: Window,
    around: Window,
    *,
    window: Annotated[int, Range(1, usual=(1, 9), integer=True)] = 5,
    sigma: Annotated[float, Range(0.0, usual=(0.0, 2.0))] = 0.5,
) -> Normed:
    """Subtracts the mean of a window around each position, then divides by the root mean square of what that left.

    ``v = x - window mean of x`` and ``y = v / sqrt(sigma² + window mean of v²)``, both means over all channels and over
    `window` positions along each axis of space, so that the second sees twice as far (`around`). A window ends at the
    border and only what exists is averaged, as the paper's sets say; the authors' code counts zeros beyond it instead.
    They learn sigma in some networks; here it is a setting, which plays the part of ε.

    Shapes: x (n c l), (n c h w) or (n c d h w).
    Source: Ren, Liao, Urtasun, Sinz and Zemel 2016, arXiv:1611.04520.
    """
    centered, mean = near.center(widen(x))
    var = near.mean(centered.square())
    y = centered * (var + sigma**2).rsqrt()
    return Normed(cast(y, x.dtype), {"window_mean": mean.detach(), "window_var": var.detach()})


def _pytorch(settings: Mapping[str, Any]) -> str:
    back, ahead = settings["window"] // 2, (settings["window"] - 1) // 2
    return "\n".join(
        [
            "functional = torch.nn.functional",
            "def window_mean(v):",
            f"    sides = ({back}, {ahead}) * (x.ndim - 2)",
            "    inside = functional.pad(torch.ones_like(v[:, :1]), sides)",
            "    v = functional.pad(v.mean(1, keepdim=True), sides)",
            "    sums, counts = (functional.avg_pool{nd}(p, {window}, stride=1) for p in (v, inside))",
            "    return sums / counts",
            "v = x - window_mean(x)",
            "y = v / torch.sqrt({sigma} ** 2 + window_mean(v.square()))",
        ]
    )


METHOD = Method(
    fn=divisive_norm,
    name="Divisive Norm",
    regions=(
        *(Window(axes, OVER) for axes in LAYOUTS),
        *(Window(axes, OVER, times=2) for axes in LAYOUTS),
    ),
    paper=Paper(
        "Mengye Ren, Renjie Liao, Raquel Urtasun, Fabian H. Sinz, Richard S. Zemel",
        "Normalizing the Normalizers: Comparing and Extending Network Normalization Schemes",
        2016,
        "1611.04520",
    ),
    why="Neurons in the brain are divided by the activity around them. Seen that way, BatchNorm and LayerNorm differ "
    "only in who the neighbors are, and a window in space is a third choice, with a smoothing term that matters.",
    formula=r"\frac{<x> - <window_mean>}{\sqrt{<window_var> + \left(<sigma>\right)^{2}}}",
    pytorch=_pytorch,
    invariant_to=frozenset({"shift"}),
    builds_on=("local_response_norm", "layer_norm", "batch_norm"),
)

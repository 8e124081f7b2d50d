"""AdaNorm: LayerNorm whose gain is not learned, but falls where a value is large."""

from typing import Annotated

import torch
from torch import Tensor

from normcore.core import Bound, Epsilon, Identity, Method, Normed, Paper, Range, Region, cast, standardize, widen


def ada_norm(
    x: Tensor,
    channels: Bound,
    *,
    eps: Epsilon = 1e-5,
    scale: Annotated[float, Range(0.0, usual=(0.5, 2.0))] = 1.0,
    k: Annotated[float, Range(0.0, usual=(0.0, 0.5))] = 0.1,
    unbiased: bool = False,
) -> Normed:
    """Standardizes each token to z, and multiplies it by a gain that z itself sets: ``scale * (1 - k * z) * z``.

    The gain is a constant in the gradient, so that the gradient is not the derivative of the values (for k above 0).
    The paper divides the variance by n, with ε inside the root as here; the authors' code divides by n - 1
    (`unbiased`) and adds ε to the root. `scale` is the paper's C.

    Shapes: x (n c) or (n t c).
    Source: Xu, Sun, Zhang, Zhao and Lin 2019, arXiv:1911.07013.
    """
    z, stats = standardize(widen(x), channels, eps, unbiased=unbiased)
    return Normed(cast(scale * torch.addcmul(z, z.detach(), z, value=-k), x.dtype), stats)


METHOD = Method(
    fn=ada_norm,
    name="AdaNorm",
    regions=(Region("n c -> n"), Region("n t c -> n t")),
    paper=Paper(
        "Jingjing Xu, Xu Sun, Zhiyuan Zhang, Guangxiang Zhao, Junyang Lin",
        "Understanding and Improving Layer Normalization",
        2019,
        "1911.07013",
    ),
    why="LayerNorm's learned gain and bias were found to overfit. A gain that follows from the input keeps what they "
    "gave, the weighing of values, with nothing to learn.",
    formula=r"<scale> \cdot \left(1 - <k> \cdot \frac{<x> - <mean>}{\sqrt{<var> + <eps>}}\right)"
    r" \cdot \frac{<x> - <mean>}{\sqrt{<var> + <eps>}}",
    pytorch="z = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased={unbiased}, keepdim=True) + {eps}).sqrt()\n"
    "y = {scale} * (1 - {k} * z.detach()) * z",
    invariant_to=frozenset({"scale", "shift"}),
    equals=(Identity("layer_norm", {"scale": 1.0, "k": 0.0, "unbiased": False}),),
    builds_on=("layer_norm",),
)

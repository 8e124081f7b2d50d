"""LayerScale: each channel of a residual branch is multiplied by a learned number that starts close to zero."""

from typing import Annotated

from torch import Tensor

from normcore.core import LETTERS, Later, Method, Normed, Paper, Range, Slot, cast, multiply_add, widen


def layer_scale(
    x: Tensor,
    *,
    weight: Tensor | None = None,
    residual: Tensor | None = None,
    layout: str,
    init_value: Annotated[float, Range(0.0, 1.0, usual=(1e-6, 1e-1), logarithmic=True)] = 1e-5,
) -> Normed:
    """Adds the branch x, each channel times a learned gain, to what it was computed from: ``residual + weight * x``.

    A new layer's gains are all `init_value` (as are those of a call without gains); the paper takes 0.1 up to 18
    layers, 1e-5 up to 24 and 1e-6 beyond. Without a residual the scaled branch is returned.

    Shapes: x (n c ...) or (n t c); residual as x; weight (c).
    Source: Touvron et al. 2021 (CaiT), arXiv:2103.17239.
    """
    wide = widen(x)
    if weight is None:
        gain = wide.new_full((), init_value)
    else:
        after = len(LETTERS[layout]) - LETTERS[layout].index("c") - 1
        gain = cast(weight, wide.dtype).reshape(-1, *(1,) * after)
    base = None if residual is None else cast(residual, wide.dtype)
    y = wide * gain if base is None else multiply_add(wide, gain, base)
    ways = {"residual": lambda: wide.new_zeros(()) if base is None else base, "gain": lambda: gain}
    return Normed(cast(y, x.dtype), Later(ways))


METHOD = Method(
    fn=layer_scale,
    name="LayerScale",
    regions=(),
    paper=Paper(
        "Hugo Touvron, Matthieu Cord, Alexandre Sablayrolles, Gabriel Synnaeve, Hervé Jégou",
        "Going deeper with Image Transformers",
        2021,
        "2103.17239",
    ),
    why="Image transformers stopped improving beyond a dozen layers. Branches that start small, and grow channel by "
    "channel as they prove useful, let much deeper ones train.",
    formula=r"<residual> + <gain> \cdot <x>",
    pytorch="gain = torch.full({column}, {init_value})  # learned\n"
    "residual = torch.zeros_like(x)  # what the branch was computed from\n"
    "y = residual + gain * x",
    affine={"weight": Slot("c", "init_value")},
    context={"residual": Slot("x")},
    builds_on=("rezero",),
)

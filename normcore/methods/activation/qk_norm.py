"""Query-key normalization: in attention, every head's queries and keys get a fixed length.

Longer than most: three kinds of normalization, each with its formula and its PyTorch code.
"""

from typing import Annotated

from torch import Tensor

from normcore.core import (
    Bound,
    Divides,
    Epsilon,
    Identity,
    Method,
    Normed,
    OneOf,
    Paper,
    Range,
    Region,
    Slot,
    cast,
    normalize,
    or_number,
    rescale,
    standardize,
    widen,
)

DIVIDED = {
    "l2": (r"\frac{<x>}{\max(<norm>, <eps>)}", "h / h.norm(dim=-1, keepdim=True).clamp_min({eps})"),
    "layer": (r"\frac{<x> - <mean>}{\sqrt{<var> + <eps>}}", "torch.layer_norm(h, h.shape[-1:], eps={eps})"),
    "rms": (r"\frac{<x>}{\sqrt{<mean_square> + <eps>}}", "torch.rms_norm(h, h.shape[-1:], eps={eps})"),
}
"""What is done within a head, in LaTeX and in PyTorch."""


def qk_norm(
    x: Tensor,
    head: Bound,
    *,
    weight: Tensor | None = None,
    heads: Annotated[int, Divides("c", "head", "channel")] = 2,
    kind: Annotated[str, OneOf(("l2", "layer", "rms"))] = "l2",
    scale: Annotated[float, Range(0.0, usual=(1.0, 20.0))] = 1.0,
    eps: Epsilon = 1e-6,
) -> Normed:
    """Normalizes each head's part of a query (or of a key), so that no attention logit can grow without bound.

    `kind` says how: to length 1 ("l2", with max(norm, ε), the paper), as LayerNorm without bias ("layer", Dehghani et
    al. 2023) or as RMSNorm ("rms", Qwen3; with one head it is OLMo 2's, over all channels). The paper multiplies
    ``q · k`` by a learned number that starts at log2(L² - L) for sequences of L tokens, in place of the division by
    the root of the head's size: `scale` is a place for it, in the norm of the queries alone. The weight is one for
    each channel of a head, the same for all heads.

    Shapes: x (n t c), the queries or the keys of all heads side by side; weight (c/heads).
    Source: Henry, Dachapally, Pawar and Chen 2020, arXiv:2010.04245.
    """
    wide = widen(x)
    gain = None if weight is None else cast(weight, wide.dtype).repeat(heads)
    gain = gain if scale == 1 else scale * or_number(gain, 1.0, wide)
    if kind == "l2":
        return Normed(*normalize(x, head, eps, gain, "maximum"))
    return Normed(*(standardize if kind == "layer" else rescale)(x, head, eps, gain))


METHOD = Method(
    fn=qk_norm,
    name="QK Norm",
    regions=(Region("n t (g k) -> n t g"),),
    paper=Paper(
        "Alex Henry, Prudhvi Raj Dachapally, Shubham Pawar, Yuxuan Chen",
        "Query-Key Normalization for Transformers",
        2020,
        "2010.04245",
    ),
    why="Attention logits are dot products, and grow with the queries and keys until the softmax looks at one token "
    "only and learns no more. Vectors of a fixed length bound them.",
    formula=lambda settings: rf"<scale> \cdot {DIVIDED[settings['kind']][0]}",
    pytorch=lambda settings: (
        "h = x.unflatten(-1, ({heads}, -1))\n" + f"y = ({{scale}} * {DIVIDED[settings['kind']][1]}).flatten(-2)"
    ),
    sizes={"g": "heads"},
    affine={"weight": Slot("c/heads", 1.0)},
    invariant_to=lambda settings: frozenset({"scale", "shift"} if settings["kind"] == "layer" else {"scale"}),
    equals=tuple(
        Identity(other, {"heads": 1, "kind": kind, "scale": 1.0})
        for kind, other in (("rms", "rms_norm"), ("layer", "layer_norm"), ("l2", "l2_norm"))
    ),
    builds_on=("layer_norm",),
)

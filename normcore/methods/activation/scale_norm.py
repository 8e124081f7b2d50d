"""ScaleNorm: every token gets the same length, a single learned number."""

from torch import Tensor

from normcore.core import Bound, Epsilon, Identity, Method, Normed, Paper, Region, Slot, normalize


def scale_norm(x: Tensor, channels: Bound, *, weight: Tensor | None = None, eps: Epsilon = 1e-5) -> Normed:
    """Divides each token's channels by their L2 norm and multiplies by one learned number for all channels.

    ``y = weight * x / max(norm, eps)``; nothing is subtracted. A new layer's weight is the root of the number of
    channels, which makes it RMSNorm with a single gain.

    Shapes: x (n c) or (n t c); weight ().
    Source: Nguyen and Salazar 2019, arXiv:1910.05895.
    """
    return Normed(*normalize(x, channels, eps, weight, "maximum"))


METHOD = Method(
    fn=scale_norm,
    name="ScaleNorm",
    regions=(Region("n c -> n"), Region("n t c -> n t")),
    paper=Paper(
        "Toan Q. Nguyen, Julian Salazar",
        "Transformers without Tears: Improving the Normalization of Self-Attention",
        2019,
        "1910.05895",
    ),
    why="If LayerNorm helps by fixing the length of a token's vector, one learned length for all channels should do, "
    "and does: faster, and as good when little is to be learned from.",
    formula=r"\frac{<x>}{\max(<norm>, <eps>)}",
    pytorch="weight = torch.tensor({c} ** 0.5)  # learned\n"
    "y = weight * torch.nn.functional.normalize(x, dim=-1, eps={eps})",
    affine={"weight": Slot("", "sqrt(c)")},
    invariant_to=frozenset({"scale"}),
    equals=(Identity("l2_norm"),),
    builds_on=("layer_norm",),
)

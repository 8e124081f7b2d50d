"""L2 normalization: the channels of one position become a vector of length 1."""

from typing import Annotated

from torch import Tensor

from normcore.core import Bound, Epsilon, Method, Normed, OneOf, Paper, Region, normalize

GUARDS = {
    "maximum": (r"\max(<norm>, <eps>)", "norm.clamp_min({eps})"),
    "outside": (r"<norm> + <eps>", "(norm + {eps})"),
    "inside": (r"\sqrt{<norm>^{2} + <eps>}", "(norm.square() + {eps}).sqrt()"),
}
"""What the vector is divided by, in LaTeX and in PyTorch."""


def l2_norm(
    x: Tensor,
    channels: Bound,
    *,
    eps: Epsilon = 1e-12,
    eps_place: Annotated[str, OneOf(("maximum", "inside", "outside"))] = "maximum",
) -> Normed:
    """Divides the channels of each position by the root of the sum of their squares.

    Libraries guard against a norm of 0 in different ways: ``max(norm, eps)`` as in PyTorch ("maximum"),
    ``norm + eps`` as in Chainer ("outside"), ``sqrt(norm² + eps)`` as in Flax ("inside"). TensorFlow's
    ``sqrt(max(norm², eps))`` is the first with the root of its ε.

    Shapes: x (n c ...) or (n t c).
    Source: Liu, Rabinovich and Berg 2015 (ParseNet), arXiv:1506.04579.
    """
    return Normed(*normalize(x, channels, eps, eps_place=eps_place))


METHOD = Method(
    fn=l2_norm,
    name="L2 Normalization",
    regions=(Region("n c ... -> n ..."), Region("n t c -> n t")),
    paper=Paper(
        "Wei Liu, Andrew Rabinovich, Alexander C. Berg", "ParseNet: Looking Wider to See Better", 2015, "1506.04579"
    ),
    why="Features of different layers differ in size by orders of magnitude, and the largest drown the others when put "
    "side by side. As vectors of length 1 they are comparable, and a dot product is a cosine.",
    formula=lambda settings: rf"\frac{{<x>}}{{{GUARDS[settings['eps_place']][0]}}}",
    pytorch=lambda settings: "norm = x.norm(dim={channel}, keepdim=True)\ny = x / " + GUARDS[settings["eps_place"]][1],
    elsewhere={
        "keras": "y = keras.ops.normalize(x, axis={channel}, order=2, epsilon={eps})",
        "flax": "norm = jax.numpy.linalg.norm(x, axis={channel}, keepdims=True)\n"
        "y = x / jax.numpy.maximum(norm, {eps})",
    },
    invariant_to=frozenset({"scale"}),
)

"""Normalized gradient: every step has the same length, and only its direction is the gradient's."""

from torch import Tensor

from normcore.core import Epsilon, Method, Normed, Paper, Region, inverse, multiply, norms_of, total


def normalized_gradient(
    gradients: list[Tensor],
    *,
    eps: Epsilon = 1e-6,
    per_tensor: bool = False,
) -> Normed:
    """Divides all gradients by ``norm + eps``, the norm of all of them together, or with `per_tensor` each by its own.

    A short gradient is lengthened too: this is clipping at a threshold of c, divided by c, as c goes to 0. A gradient
    of zeros stays 0. One infinite value becomes nan and everything else that shares its norm 0, one nan makes all of it
    nan.

    Shapes: any list of tensors. Units: none after it.
    Source: Hazan, Levy and Shalev-Shwartz 2015, arXiv:1507.02030.
    """
    norms = norms_of(gradients)
    norm = norms if per_tensor else total(norms)
    scale = inverse(norm + eps)
    stats = {"norm": norm.detach(), "scale": scale.detach()}
    y = multiply(gradients, scale, norms)
    return Normed(y, {name: list(value) for name, value in stats.items()} if per_tensor else stats)


METHOD = Method(
    fn=normalized_gradient,
    name="Normalized Gradient",
    regions=(Region("o ->"), Region("o i ... ->")),
    paper=Paper(
        "Elad Hazan, Kfir Y. Levy, Shai Shalev-Shwartz",
        "Beyond Convexity: Stochastic Quasi-Convex Optimization",
        2015,
        "1507.02030",
    ),
    why="On a plateau the gradient is tiny, at a cliff it is huge, and neither says how far to go. With the length "
    "taken out, the learning rate alone sets the step.",
    formula=r"\frac{<x>}{<norm> + <eps>}",
    pytorch=lambda settings: (
        "for parameter in parameters:\n    parameter.grad.div_(parameter.grad.norm() + {eps})"
        if settings["per_tensor"]
        else "norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])\n"
        "for parameter in parameters:\n    parameter.grad.div_(norm + {eps})"
    ),
    invariant_to=frozenset({"scale"}),
    builds_on=("clip_by_global_norm",),
    keeps=lambda settings: frozenset(
        {"direction of each tensor" if settings["per_tensor"] else "direction", "clipped"}
    ),
    limits=lambda settings: {"norm of each tensor" if settings["per_tensor"] else "norm": 1.0},
)

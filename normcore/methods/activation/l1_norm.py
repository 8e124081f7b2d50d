"""L1 normalization: the channels of one position become shares of their absolute sum."""

from torch import Tensor

from normcore.core import Bound, Epsilon, Method, Normed, Paper, Region, cast, widen


def l1_norm(x: Tensor, channels: Bound, *, eps: Epsilon = 1e-12) -> Normed:
    """Divides the channels of each position by the sum of their absolute values.

    ``y = x / max(norm, eps)``, as in PyTorch (the paper adds ε to the norm instead). Nothing is squared,
    so that one large value weighs less than in the L2 norm.

    Shapes: x (n c ...) or (n t c).
    Source: Dalal and Triggs 2005 (HOG), where it is compared to other norms.
    """
    wide = widen(x)
    norm = channels.spread(channels.mean(wide.abs()) * channels.size)
    return Normed(cast(wide / norm.clamp_min(eps), x.dtype), {"absolute_norm": norm.detach()})


METHOD = Method(
    fn=l1_norm,
    name="L1 Normalization",
    regions=(Region("n c ... -> n ..."), Region("n t c -> n t")),
    paper=Paper("Navneet Dalal, Bill Triggs", "Histograms of Oriented Gradients for Human Detection", 2005),
    why="The brightness of a picture scales all of a place's features. Divided by their sum they are shares, which "
    "brightness does not change.",
    formula=r"\frac{<x>}{\max(<absolute_norm>, <eps>)}",
    pytorch="y = torch.nn.functional.normalize(x, p=1, dim={channel}, eps={eps})",
    elsewhere={
        "keras": "y = keras.ops.normalize(x, axis={channel}, order=1, epsilon={eps})",
        "flax": "norm = jax.numpy.linalg.norm(x, ord=1, axis={channel}, keepdims=True)\n"
        "y = x / jax.numpy.maximum(norm, {eps})",
    },
    invariant_to=frozenset({"scale"}),
)

"""Positional normalization: the channels of one position share their statistics."""

from torch import Tensor

from normcore.core import Bound, Epsilon, Identity, Method, Normed, Paper, Region, standardize


def positional_norm(x: Tensor, position: Bound, *, eps: Epsilon = 1e-5, unbiased: bool = True) -> Normed:
    """Subtracts the mean of the channels at each position and divides by their standard deviation.

    ε stands inside the root. The paper divides the variance by n, the authors' code by n - 1 (`unbiased`, the default).
    There is no gain and no bias: the statistics, returned in `stats`, are meant to be put back later in the network.

    Shapes: x (n c ...) or (n t c).
    Source: Li, Wu, Weinberger and Belongie 2019, arXiv:1907.04312.
    """
    return Normed(*standardize(x, position, eps, unbiased=unbiased))


METHOD = Method(
    fn=positional_norm,
    name="Positional Norm",
    regions=(Region("n c ... -> n ..."), Region("n t c -> n t")),
    paper=Paper(
        "Boyi Li, Felix Wu, Kilian Q. Weinberger, Serge Belongie", "Positional Normalization", 2019, "1907.04312"
    ),
    why="The mean and spread of the channels at a place say what is there, its structure. Taking them out and "
    "putting them back in later layers carries that structure past the bottleneck of a generator.",
    formula=r"\frac{<x> - <mean>}{\sqrt{<var> + <eps>}}",
    pytorch="mean = x.mean(dim={reduced}, keepdim=True)\n"
    "var = x.var(dim={reduced}, unbiased={unbiased}, keepdim=True)\n"
    "y = (x - mean) / torch.sqrt(var + {eps})",
    invariant_to=frozenset({"scale", "shift"}),
    equals=(Identity("layer_norm", {"unbiased": False}, layouts=("vector", "tokens")),),
    builds_on=("instance_norm",),
)

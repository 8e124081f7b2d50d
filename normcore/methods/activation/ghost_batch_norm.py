"""Ghost batch normalization: batch normalization on small pieces of a large batch."""

from collections.abc import Mapping

from torch import Tensor

from normcore.core import (
    EMPTY,
    GAIN_AND_BIAS,
    RUNNING,
    Bound,
    Epsilon,
    GhostBatchSize,
    Identity,
    Method,
    Momentum,
    Normed,
    Paper,
    Region,
    apply_running,
    standardize,
    track,
)


def ghost_batch_norm(
    x: Tensor,
    ghosts: Bound,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    state: Mapping[str, Tensor] = EMPTY,
    training: bool = True,
    ghost_batch_size: GhostBatchSize = 2,
    eps: Epsilon = 1e-5,
    momentum: Momentum = 0.1,
    track_running_stats: bool = True,
) -> Normed:
    """Cuts the batch into ghost batches of neighboring samples and normalizes each channel within each of them.

    The variance is the population's (divided by n), ε stands inside the root. The running statistics see the ghost
    batches one after the other; evaluation uses them as BatchNorm does. The paper's ghost batches hold 128 samples.

    Shapes: x (n c ...) or (n t c); weight, bias, running_mean and running_var (c).
    Source: Hoffer, Hubara and Soudry 2017, arXiv:1705.08741.
    """
    if track_running_stats and not training:
        return Normed(*apply_running(x, ghosts, state, eps, weight, bias), state)
    y, stats = standardize(x, ghosts, eps, weight, bias)
    return Normed(y, stats, track(state, ghosts, stats, momentum) if track_running_stats else state)


METHOD = Method(
    fn=ghost_batch_norm,
    name="Ghost BatchNorm",
    regions=(Region("(v m) c ... -> v c", running=True), Region("(v m) t c -> v c", running=True)),
    paper=Paper(
        "Elad Hoffer, Itay Hubara, Daniel Soudry",
        "Train longer, generalize better: closing the generalization gap in large batch training of neural networks",
        2017,
        "1705.08741",
    ),
    why="Very large batches generalize worse, partly because their statistics no longer fluctuate. Small ghost batches "
    "bring that noise back without making the steps smaller.",
    formula=r"\frac{<x> - <mean>}{\sqrt{<var> + <eps>}}",
    pytorch="norm = torch.nn.BatchNorm{nd}({c}, eps={eps}, momentum={momentum}, "
    "track_running_stats={track_running_stats}).train({training})\n"
    "y = torch.cat([norm(ghost) for ghost in {x}.split({ghost_batch_size})]){back}",
    sizes={"m": "ghost_batch_size"},
    affine=GAIN_AND_BIAS,
    state=RUNNING,
    invariant_to=frozenset({"scale", "shift"}),
    equals=(
        Identity("batch_norm", {"ghost_batch_size": "n"}),
        Identity("instance_norm", {"ghost_batch_size": 1}, layouts=("signal", "image", "volume", "tokens")),
    ),
    builds_on=("batch_norm",),
)

"""Instance normalization: each channel of each sample has statistics of its own.

Longer than most: like batch normalization it can remember its statistics for evaluation.
"""

from collections.abc import Mapping

from torch import Tensor

from normcore.core import (
    EMPTY,
    GAIN_AND_BIAS,
    RUNNING,
    WITH_POSITIONS,
    Bound,
    Epsilon,
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


def instance_norm(
    x: Tensor,
    instance: Bound,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    state: Mapping[str, Tensor] = EMPTY,
    training: bool = True,
    eps: Epsilon = 1e-5,
    momentum: Momentum = 0.1,
    track_running_stats: bool = False,
) -> Normed:
    """Subtracts the mean of each channel of each sample and divides by its standard deviation.

    The variance is the population's (divided by n), ε stands inside the root. With `track_running_stats`, evaluation
    uses running averages over the samples, the variance remembered with the n - 1 estimator.

    Shapes: x (n c l), (n c h w), (n c d h w) or (n t c); weight, bias, running_mean and running_var (c).
    Source: Ulyanov, Vedaldi and Lempitsky 2016, arXiv:1607.08022.
    """
    if track_running_stats and not training:
        return Normed(*apply_running(x, instance, state, eps, weight, bias), state)
    y, stats = standardize(x, instance, eps, weight, bias)
    return Normed(y, stats, track(state, instance, stats, momentum, pooled=True) if track_running_stats else state)


METHOD = Method(
    fn=instance_norm,
    name="InstanceNorm",
    regions=tuple(Region(f"{axes} -> n c", running=True) for axes in WITH_POSITIONS),
    paper=Paper(
        "Dmitry Ulyanov, Andrea Vedaldi, Victor Lempitsky",
        "Instance Normalization: The Missing Ingredient for Fast Stylization",
        2016,
        "1607.08022",
    ),
    why="In style transfer the contrast of the content image should not reach the result. Standardizing every channel "
    "of every image removes it, and no other image plays a part.",
    formula=r"\frac{<x> - <mean>}{\sqrt{<var> + <eps>}}",
    pytorch="norm = torch.nn.InstanceNorm{nd}({c}, eps={eps}, momentum={momentum}, affine=True, "
    "track_running_stats={track_running_stats}).train({training})\n"
    "y = norm({x}){back}",
    elsewhere={
        "keras": "norm = keras.layers.GroupNormalization(groups=-1, axis={channel}, epsilon={eps})\ny = norm(x)",
        "flax": "norm = flax.linen.InstanceNorm(epsilon={eps}, feature_axes={channel}, use_fast_variance=False)\n"
        "y, state = norm.init_with_output(jax.random.key(0), x)",
    },
    affine=GAIN_AND_BIAS,
    state=RUNNING,
    invariant_to=frozenset({"scale", "shift"}),
    equals=(
        Identity("group_norm", other_settings={"num_groups": "c"}),
        Identity("ghost_batch_norm", other_settings={"ghost_batch_size": 1}),
    ),
    builds_on=("batch_norm",),
)

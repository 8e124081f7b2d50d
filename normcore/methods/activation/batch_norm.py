"""Batch normalization: each channel shares its statistics across the whole batch."""

from collections.abc import Mapping

from torch import Tensor

from normcore.core import (
    EMPTY,
    GAIN_AND_BIAS,
    RUNNING,
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


def batch_norm(
    x: Tensor,
    batch: Bound,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    state: Mapping[str, Tensor] = EMPTY,
    training: bool = True,
    eps: Epsilon = 1e-5,
    momentum: Momentum = 0.1,
    track_running_stats: bool = True,
) -> Normed:
    """Subtracts each channel's mean over the batch and divides by its standard deviation.

    In training the batch's own statistics are used, with the population variance (divided by n); the running variance
    remembers the n - 1 estimate. In evaluation the running statistics are used, so that samples no longer meet.
    ε stands inside the root. `momentum` is the weight of the *new* value (Keras and TensorFlow: of the old one).

    Shapes: x (n c ...) or (n t c); weight and bias (c); running_mean and running_var (c).
    Source: Ioffe and Szegedy 2015, arXiv:1502.03167.
    """
    if track_running_stats and not training:
        return Normed(*apply_running(x, batch, state, eps, weight, bias), state)
    y, stats = standardize(x, batch, eps, weight, bias)
    return Normed(y, stats, track(state, batch, stats, momentum) if track_running_stats else state)


METHOD = Method(
    fn=batch_norm,
    name="BatchNorm",
    regions=(Region("n c ... -> c", running=True), Region("n t c -> c", running=True)),
    paper=Paper(
        "Sergey Ioffe, Christian Szegedy",
        "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift",
        2015,
        "1502.03167",
    ),
    why="Deep networks trained slowly because every layer's inputs kept moving; a fixed mean and scale per channel "
    "lets them take far larger steps. The price: the samples of a batch depend on each other.",
    formula=r"\frac{<x> - <mean>}{\sqrt{<var> + <eps>}}",
    pytorch="norm = torch.nn.BatchNorm{nd}({c}, eps={eps}, momentum={momentum}, "
    "track_running_stats={track_running_stats}).train({training})\n"
    "y = norm({x}){back}",
    elsewhere={
        "keras": "norm = keras.layers.BatchNormalization(axis={channel}, momentum={old_share}, epsilon={eps})\n"
        "y = norm(x, training={training})  # its running variance divides by n",
        "flax": "norm = flax.linen.BatchNorm(use_running_average=not {training}, axis={channel},\n"
        "    momentum={old_share}, epsilon={eps}, use_fast_variance=False)  # its running variance divides by n\n"
        "y, state = norm.init_with_output(jax.random.key(0), x)",
    },
    affine=GAIN_AND_BIAS,
    state=RUNNING,
    invariant_to=frozenset({"scale", "shift"}),
    equals=(Identity("instance_norm", sizes={"n": 1}, layouts=("signal", "image", "volume", "tokens")),),
)

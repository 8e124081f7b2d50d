"""Group normalization: the channels of one sample share their statistics in groups."""

from torch import Tensor

from normcore.core import GAIN_AND_BIAS, Bound, Epsilon, Groups, Identity, Method, Normed, Paper, Region, standardize


def group_norm(
    x: Tensor,
    groups: Bound,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    num_groups: Groups = 2,
    eps: Epsilon = 1e-5,
) -> Normed:
    """Splits each sample's channels into groups, subtracts each group's mean and divides by its standard deviation.

    The variance is the population's (divided by n), ε stands inside the root. The groups are blocks of neighboring
    channels; gain and bias belong to single channels. The paper uses 32 groups. On images in channels-last memory
    PyTorch's own takes the variance as a difference of squares, which loses digits to a large mean; this one does not.

    Shapes: x (n c ...) or (n t c); weight and bias (c).
    Source: Wu and He 2018, arXiv:1803.08494.
    """
    return Normed(*standardize(x, groups, eps, weight, bias))


METHOD = Method(
    fn=group_norm,
    name="GroupNorm",
    regions=(Region("n (g k) ... -> n g"), Region("n t (g k) -> n g")),
    paper=Paper("Yuxin Wu, Kaiming He", "Group Normalization", 2018, "1803.08494"),
    why="BatchNorm fails with few samples on a device, as in detection and video. Groups of channels of one sample "
    "hold enough values for a good statistic whatever the batch size.",
    formula=r"\frac{<x> - <mean>}{\sqrt{<var> + <eps>}}",
    pytorch="norm = torch.nn.GroupNorm({num_groups}, {c}, eps={eps})\ny = norm({x}){back}",
    sizes={"g": "num_groups"},
    elsewhere={
        "keras": "norm = keras.layers.GroupNormalization(groups={num_groups}, axis={channel}, epsilon={eps})\n"
        "y = norm(x)",
        "flax": "norm = flax.linen.GroupNorm(num_groups={num_groups}, epsilon={eps}, use_fast_variance=False)\n"
        "y, state = norm.init_with_output(jax.random.key(0), numpy.moveaxis(x, {channel}, -1))\n"
        "y = numpy.moveaxis(y, -1, {channel})",
    },
    affine=GAIN_AND_BIAS,
    invariant_to=frozenset({"scale", "shift"}),
    equals=(
        Identity("instance_norm", {"num_groups": "c"}, layouts=("signal", "image", "volume", "tokens")),
        Identity("layer_norm", {"num_groups": 1}, layouts=("vector", "signal", "image", "volume")),
    ),
    builds_on=("batch_norm", "layer_norm", "instance_norm"),
)

"""Global response normalization: each channel is weighed by its norm against the other channels' norms."""

from torch import Tensor

from normcore.core import (
    WITH_POSITIONS,
    Bound,
    Epsilon,
    Method,
    Normed,
    Paper,
    Region,
    Slot,
    affine,
    along_channels,
    cast,
    root,
    widen,
)


def global_response_norm(
    x: Tensor,
    channel: Bound,
    sample: Bound,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: Epsilon = 1e-6,
    residual: bool = True,
) -> Normed:
    """Multiplies each channel by the ratio of its L2 norm over all positions to the mean norm of all channels.

    ``y = weight * (x * norm / (mean norm + eps)) + bias + x``; ε is added to the mean norm, outside the root, and
    `residual` adds the input. A new layer starts with weight and bias 0, which makes it the identity.

    Shapes: x (n c l), (n c h w), (n c d h w) or (n t c); weight and bias (c).
    Source: Woo et al. 2023 (ConvNeXt V2), arXiv:2301.00808.
    """
    wide = widen(x)
    norm = root(wide.square().sum(channel.reduced, keepdim=True))
    mean_norm = norm.mean(sample.reduced, keepdim=True)
    factor = norm / (mean_norm + eps)
    if weight is not None:
        factor = factor * along_channels(cast(weight, factor.dtype), channel)
    factor = factor + 1 if residual else factor
    y = affine(wide, channel, None, bias, factor)
    return Normed(cast(y, x.dtype), {"norm": norm.detach(), "mean_norm": mean_norm.detach()})


METHOD = Method(
    fn=global_response_norm,
    name="Global Response Norm",
    regions=(
        *(Region(f"{axes} -> n c") for axes in WITH_POSITIONS),
        *(Region(f"{axes} -> n") for axes in WITH_POSITIONS),
    ),
    paper=Paper(
        "Sanghyun Woo, Shoubhik Debnath, Ronghang Hu, Xinlei Chen, Zhuang Liu, In So Kweon, Saining Xie",
        "ConvNeXt V2: Co-designing and Scaling ConvNets with Masked Autoencoders",
        2023,
        "2301.00808",
    ),
    why="Masked pre-training left many channels dead or saying the same. Letting channels compete by their norms keeps "
    "them different.",
    formula=lambda settings: (
        r"<x> \cdot \frac{<norm>}{<mean_norm> + <eps>}" + (" + <x>" if settings["residual"] else "")
    ),
    pytorch=lambda settings: (
        "weight, bias = torch.zeros({column}), torch.zeros({column})  # learned\n"
        "norm = x.norm(p=2, dim={space}, keepdim=True)\n"
        "y = weight * (x * norm / (norm.mean(dim={channel}, keepdim=True) + {eps})) + bias"
        + (" + x" if settings["residual"] else "")
    ),
    affine={"weight": Slot("c", 0.0), "bias": Slot("c", 0.0)},
    builds_on=("local_response_norm", "layer_norm"),
)

"""Frozen batch normalization: the line that a trained BatchNorm draws for each channel, never changed again."""

from collections.abc import Mapping

import torch
from torch import Tensor

from normcore.core import EMPTY, GAIN_AND_BIAS, RUNNING, Epsilon, Method, Normed, Paper, along_channels, cast, widen


def frozen_batch_norm(
    x: Tensor,
    *,
    layout: str,
    state: Mapping[str, Tensor] = EMPTY,
    training: bool = True,
    eps: Epsilon = 1e-5,
) -> Normed:
    """Applies stored statistics, gain and bias to each channel; nothing is computed from x, learned or updated.

    ``y = (x - running_mean) / sqrt(running_var + eps) * weight + bias``, alike in training and in evaluation: what a
    trained BatchNorm does in evaluation, with its four tensors. All four are state, named as in torchvision and
    Detectron2, so that no optimizer moves the gain and the bias either. ε stands inside the root.

    Shapes: x (n c ...) or (n t c); running_mean, running_var, weight and bias (c).
    Source: He, Zhang, Ren and Sun 2015, arXiv:1512.03385, who fixed BatchNorm to fine-tune ResNets for detection.
    """
    wide = widen(x)
    given = {name: along_channels(cast(value, wide.dtype), layout) for name, value in state.items()}
    mean, var = given["running_mean"], given["running_var"]
    scale = given["weight"] * (var + eps).rsqrt()
    y = torch.addcmul(given["bias"] - mean * scale, wide, scale)
    return Normed(cast(y, x.dtype), {"running_mean": mean, "running_var": var}, state)


METHOD = Method(
    fn=frozen_batch_norm,
    name="Frozen BatchNorm",
    regions=(),
    paper=Paper(
        "Kaiming He, Xiangyu Zhang, Shaoqing Ren, Jian Sun",
        "Deep Residual Learning for Image Recognition",
        2015,
        "1512.03385",
    ),
    why="Fine-tuning for detection sees one or two large images at a time, far too few for batch statistics. The "
    "statistics of pre-training serve instead, as a fixed line for each channel.",
    formula=r"\frac{<x> - <mean>}{\sqrt{<var> + <eps>}}",
    pytorch="norm = torch.nn.BatchNorm{nd}({c}, eps={eps}).eval().requires_grad_(False)  # with the loaded statistics\n"
    "y = norm({x}){back}",
    state={**GAIN_AND_BIAS, "running_mean": RUNNING["running_mean"], "running_var": RUNNING["running_var"]},
    builds_on=("batch_norm",),
)

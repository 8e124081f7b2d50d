"""Adaptive instance normalization: each channel of the content takes on the mean and the spread of the style's."""

from torch import Tensor

from normcore.core import (
    Bound,
    Epsilon,
    Identity,
    Method,
    Normed,
    Paper,
    Region,
    Slot,
    along_samples,
    beside,
    cast,
    root,
    standardize,
    widen,
)

LAYOUTS = ("n c l", "n c h w", "n c d h w")


def adain(
    x: Tensor, instance: Bound, *, style: Tensor | None = None, eps: Epsilon = 1e-5, unbiased: bool = False
) -> Normed:
    """Standardizes each channel of each sample, then gives it the style's standard deviation and mean there.

    ε stands inside both roots, so that a content that is its own style is left as it is. The variances divide by n, as
    in the authors' Lua code (which adds no ε to the style's); with `unbiased` by n - 1, as in the common PyTorch code.
    Without a style it is InstanceNorm without gain and bias.

    Shapes: x (n c l), (n c h w) or (n c d h w); style (n c ...), its positions as many as it likes.
    Source: Huang and Belongie 2017, arXiv:1703.06868.
    """
    wide = widen(x)
    mean, deviation = wide.new_zeros(()), wide.new_ones(())
    if style is not None:
        flat = cast(style, wide.dtype).reshape(*style.shape[:2], -1)
        fewer = 1 if unbiased and flat.shape[2] > 1 else 0
        mean = along_samples(flat.mean(2), instance)
        deviation = root(along_samples(flat.var(2, correction=fewer), instance) + eps)
    gain, shift = (None, None) if style is None else (deviation, mean)
    y, stats = standardize(x, instance, eps, gain, shift, unbiased)
    return Normed(y, beside(stats, style_mean=lambda: mean, style_deviation=lambda: deviation))


METHOD = Method(
    fn=adain,
    name="AdaIN",
    regions=tuple(Region(f"{axes} -> n c") for axes in LAYOUTS),
    paper=Paper(
        "Xun Huang, Serge Belongie",
        "Arbitrary Style Transfer in Real-time with Adaptive Instance Normalization",
        2017,
        "1703.06868",
    ),
    why="A network for style transfer had to be trained for each style. Mean and spread of the channels already carry "
    "a style, so that any image can lend its own, without training.",
    formula=r"<style_deviation> \cdot \frac{<x> - <mean>}{\sqrt{<var> + <eps>}} + <style_mean>",
    pytorch="style_mean, style_deviation = 0.0, 1.0  # those of the style, by sample and channel\n"
    "mean = x.mean(dim={reduced}, keepdim=True)\n"
    "var = x.var(dim={reduced}, unbiased={unbiased}, keepdim=True)\n"
    "y = style_deviation * (x - mean) / torch.sqrt(var + {eps}) + style_mean",
    context={"style": Slot("n c *")},
    invariant_to=frozenset({"scale", "shift"}),
    equals=(Identity("instance_norm", {"unbiased": False}),),
    builds_on=("instance_norm", "conditional_instance_norm"),
)

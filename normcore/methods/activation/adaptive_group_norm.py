"""Adaptive group normalization: GroupNorm scaled and shifted by a condition, such as a time step."""

from torch import Tensor

from normcore.core import (
    GAIN_AND_BIAS,
    Bound,
    Epsilon,
    Groups,
    Identity,
    Method,
    Normed,
    Paper,
    Region,
    Slot,
    along_channels,
    along_samples,
    beside,
    or_number,
    standardize,
    widen,
)


def adaptive_group_norm(
    x: Tensor,
    groups: Bound,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    num_groups: Groups = 2,
    eps: Epsilon = 1e-5,
) -> Normed:
    """GroupNorm with its gain and bias, times ``1 + scale``, plus `shift`, which a network makes of a condition.

    Without scale and shift it is GroupNorm. The variance is the population's (divided by n), ε stands inside the root.
    The authors use 32 groups and keep GroupNorm's own gain and bias.

    Shapes: x (n c ...) or (n t c); weight and bias (c); scale and shift (n c).
    Source: Dhariwal and Nichol 2021, arXiv:2105.05233.
    """
    wide = widen(x)
    gain, offset = (along_samples(or_number(part, 0.0, wide), groups) for part in (scale, shift))
    if scale is not None or shift is not None:  # (z * weight + bias) * (1 + scale) + shift, in one step
        weight = along_channels(or_number(weight, 1.0, wide), groups) * (1 + gain)
        bias = along_channels(or_number(bias, 0.0, wide), groups) * (1 + gain) + offset
    y, stats = standardize(x, groups, eps, weight, bias)
    return Normed(y, beside(stats, scale_given=lambda: gain, shift_given=lambda: offset))


METHOD = Method(
    fn=adaptive_group_norm,
    name="AdaGN",
    regions=(Region("n (g k) ... -> n g"), Region("n t (g k) -> n g")),
    paper=Paper("Prafulla Dhariwal, Alex Nichol", "Diffusion Models Beat GANs on Image Synthesis", 2021, "2105.05233"),
    why="A diffusion model must know the time step and the class in every block. Adding them to the features is weak; "
    "scaling and shifting what was just normalized gave better images.",
    formula=r"(1 + <scale_given>) \cdot \frac{<x> - <mean>}{\sqrt{<var> + <eps>}} + <shift_given>",
    pytorch="scale, shift = 0.0, 0.0  # made of the condition, by sample and channel\n"
    "norm = torch.nn.GroupNorm({num_groups}, {c}, eps={eps})\n"
    "y = (norm({x}) * (1 + scale) + shift){back}",
    sizes={"g": "num_groups"},
    affine=GAIN_AND_BIAS,
    context={"scale": Slot("n c"), "shift": Slot("n c")},
    invariant_to=frozenset({"scale", "shift"}),
    equals=(Identity("group_norm"),),
    builds_on=("group_norm", "adain"),
)

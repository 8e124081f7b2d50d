"""Adaptive layer normalization: LayerNorm whose gain and bias come from a condition, such as a time step."""

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
    or_number,
    standardize,
    widen,
)


def adaptive_layer_norm(
    x: Tensor, features: Bound, *, scale: Tensor | None = None, shift: Tensor | None = None, eps: Epsilon = 1e-6
) -> Normed:
    """LayerNorm without a gain of its own, times ``1 + scale``, plus `shift`, which a network makes of a condition.

    A new network gives 0 for both, which leaves LayerNorm (adaLN-Zero also multiplies the branch by a gate that starts
    at 0: see `layer_scale`). The variance is the population's (divided by n), ε stands inside the root.

    Shapes: x (n c ...) or (n t c); scale and shift (n c).
    Source: Peebles and Xie 2022 (DiT), arXiv:2212.09748.
    """
    wide = widen(x)
    gain, offset = (along_samples(or_number(part, 0.0, wide), features) for part in (scale, shift))
    gains = (None, None) if scale is None and shift is None else (1 + gain, offset)
    y, stats = standardize(x, features, eps, *gains)
    return Normed(y, beside(stats, scale_given=lambda: gain, shift_given=lambda: offset))


METHOD = Method(
    fn=adaptive_layer_norm,
    name="AdaLN",
    regions=(Region("n c ... -> n"), Region("n t c -> n t")),
    paper=Paper("William Peebles, Saining Xie", "Scalable Diffusion Models with Transformers", 2022, "2212.09748"),
    why="A diffusion model must know the time step and the class at every layer. Letting them set the gain and the "
    "bias of each normalization costs far less than attention to them, and works better.",
    formula=r"(1 + <scale_given>) \cdot \frac{<x> - <mean>}{\sqrt{<var> + <eps>}} + <shift_given>",
    pytorch="scale, shift = 0.0, 0.0  # made of the condition, by sample and channel\n"
    "norm = torch.nn.LayerNorm({features}, eps={eps}, elementwise_affine=False)\n"
    "y = norm(x) * (1 + scale) + shift",
    context={"scale": Slot("n c"), "shift": Slot("n c")},
    invariant_to=frozenset({"scale", "shift"}),
    equals=(Identity("layer_norm"),),
    builds_on=("layer_norm", "conditional_instance_norm"),
)

"""What goes wrong with a method at a shape, under settings, and on a tensor: said before it happens, with a remedy."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from normcore.core import AXIS_WORDS, LETTERS, Bound, Divides, Method, Part, Window, axis_sizes, plural
from normcore.core.axes import PARENT
from normcore.finding import Finding
from normcore.registry import method
from normcore.symptoms import on_tensor

Bounds = Sequence[Bound | Window | Part]

FORGETFUL = 0.9
"""From this momentum on, the running statistics hold little but the last batch."""


def diagnose(
    key: str,
    shape: Sequence[int],
    layout: str | None = None,
    training: bool = True,
    x: Tensor | None = None,
    **settings: Any,
) -> tuple[Finding, ...]:
    """What degenerates when a method meets this shape, each with a remedy; empty when nothing does.

    Args:
        key: The method, such as "batch_norm".
        shape: The shape of the input.
        layout: The axes of the shape.
        training: Whether running statistics are moved, or used.
        x: A tensor of that shape; what is found on it is measured by running the method.
        **settings: The settings of the method.

    Raises:
        NormcoreError: No such method, layout or setting, a value outside its domain, or x is no tensor of this shape.
    """
    norm = method(key)
    bounds = norm.bound(shape, layout, training, **settings)
    layout = norm.layout(layout, len(shape))
    found = [*_of_sizes(norm, bounds, layout, training, settings), *_of_momentum(norm, settings)]
    if x is not None:
        found += on_tensor(norm, x, tuple(shape), layout, training, settings)
    return tuple(found)


def _of_sizes(norm: Method, bounds: Bounds, layout: str, training: bool, settings: Mapping[str, Any]) -> list[Finding]:
    """What regions of too few values come to."""
    used = [bound for bound in bounds if bound.count]
    lent = [bound for bound in used if isinstance(bound, Part) and bound.lent and bound.size == 1 < bound.whole.size]
    if lent:
        return [_measured_on_one(lent[0])]
    if used and all(bound.size == 1 for bound in used):
        sentence = _of_one(norm, layout, training, settings)
        start = "Every region holds one value"
        return [Finding(f"{start}: {sentence}", _remedy(norm, used[0], layout, settings), "one value")] * bool(sentence)
    parts = [bound for bound in used if isinstance(bound, Part) and bound.size == 1]
    if parts:
        first, stop = parts[0].span
        start = f"In {'channel' if stop - first == 1 else 'channels'} {first}"
        start += f" to {stop - 1}" if stop - first > 1 else ""
        sentence = _of_one(norm, layout, training, settings)
        remedy = _more(parts[0])
        return [Finding(f"{start} every region holds one value: {sentence}", remedy, "one value")] * bool(sentence)
    if "running_whitening" in norm.state and used and isinstance(used[0], Bound) and len(used) > 1:
        return _of_covariance(norm, used[0], layout, settings)
    if len(used) == 1 and isinstance(used[0], Bound) and used[0].size == 2:
        ends = _ends(norm, used[0], layout, training, settings)
        if ends is not None:
            larger, smaller = map(_signed, ends)
            unless = "unless they differ by so little that ε counts, " if _has_epsilon(norm, settings) else ""
            sentence = f"Every region holds two values: {unless}they become {larger} and {smaller}."
            return [Finding(sentence, _remedy(norm, used[0], layout, settings), "two values")]
    return []


def _of_one(norm: Method, layout: str, training: bool, settings: Mapping[str, Any]) -> str | None:
    """What is left of a region of one value."""
    invariances = norm.invariances(**settings)
    beside = [name for name in norm.context if name not in ("mask", "labels", "residual")]
    if "shift" in invariances:
        left = "the output is the bias alone" if "bias" in norm.affine else "the output is 0"
        left = f"the output is what comes with the input ({' and '.join(beside)}) makes of 0" if beside else left
        return f"subtracting its mean erases it, and {left}."
    if "scale" in invariances:
        values = torch.tensor([-1e6, -1e3, 1e3, 1e6], dtype=torch.float64)
        alone = values.reshape(4, *(1,) * len(LETTERS[layout]))
        single = {**settings, **dict.fromkeys(norm.sizes.values(), 1)}
        y = torch.cat([_run(norm, x, layout, training, single).flatten() for x in alone])
        eps = settings.get("eps", norm.default("eps"))
        if eps and torch.allclose(y, values / math.sqrt(eps)):
            return "its variance is 0, and the value is divided by the root of ε alone."
        if not torch.allclose(y[[0, 2]], y[[1, 3]], rtol=1e-3):
            return None
        aside = " (ε aside)" if _has_epsilon(norm, settings) else ""
        return f"dividing it by its own size leaves only the sign{aside}."
    return None


def _measured_on_one(part: Part) -> Finding:
    total = plural(part.whole.size, "value")
    return Finding(
        f"The size of {total} is measured on one of them alone: where that one is near 0, the others come out huge.",
        f"Let a larger share take part ({part.share}), so that several values are measured.",
        "one value",
    )


def _of_covariance(norm: Method, group: Bound, layout: str, settings: Mapping[str, Any]) -> list[Finding]:
    """Whitening knows a covariance only from more values than channels."""
    channels = next(factor.size for axis in group.factors for factor in axis if factor.letter == "k")
    values = group.size // channels
    unseen = channels - (values - 1)
    if channels == 1 or unseen < 1:
        return []
    sizes = axis_sizes(group.shape, layout)
    fitting = [n for n in norm.domain("num_groups").samples(sizes) if sizes["c"] // n < values]
    remedy = (
        f"Try num_groups={fitting[0]}, with {plural(sizes['c'] // fitting[0], 'channel')} in each."
        if fitting
        else _more(group, but="c")
    )
    if values == 1:
        bias = "the bias alone" if "bias" in norm.affine else "0"
        sentence = f"Every channel holds one value: subtracting its mean erases it, and the output is {bias}."
        return [Finding(sentence, _more(group, but="c"), "one value")]
    return [
        Finding(
            f"Each covariance of {plural(channels, 'channel')} is taken from {values} values a channel, and is "
            f"singular: in at least {unseen} of its {channels} directions the batch says nothing, and ε decides.",
            remedy,
            "covariance",
        )
    ]


def _of_momentum(norm: Method, settings: Mapping[str, Any]) -> list[Finding]:
    """Momentum as other libraries and papers mean it: the weight of the old value."""
    momentum = settings.get("momentum", norm.default("momentum"))
    tracks = settings.get("track_running_stats", norm.default("track_running_stats"))
    if not norm.state or tracks is False or not isinstance(momentum, int | float) or 0 < momentum < FORGETFUL:
        return []
    if momentum == 0:
        return [
            Finding(
                "With momentum=0 the running statistics never move: evaluation goes by those of a new layer, whatever "
                "it was trained on.",
                "Momentum is the weight of the new value here and in PyTorch: write a larger one, such as 0.1.",
                "momentum",
            )
        ]
    forgets = "everything" if momentum == 1 else f"{100 * momentum:.4g} %"
    old = f", as in Keras, write momentum={1 - momentum:.4g}" if momentum < 1 else ", write a smaller one"
    return [
        Finding(
            f"With momentum={momentum:g} the running statistics forget {forgets} of what they held at every step: "
            "evaluation goes by little more than the last batch.",
            f"Momentum is the weight of the new value here and in PyTorch; for that of the old one{old}.",
            "momentum",
        )
    ]


def _ends(
    norm: Method, bound: Bound, layout: str, training: bool, settings: Mapping[str, Any]
) -> tuple[float, float] | None:
    """What the larger and the smaller of two far values become, measured; None where it depends on the values."""
    if not {"scale", "shift"} <= norm.invariances(**settings):
        return None
    factors = [factor for axis in bound.factors for factor in axis]
    small = [math.prod(factor.size for factor in axis if not factor.kept) for axis in bound.factors]
    counts = {norm.sizes[f.letter]: 1 if f.kept else f.size for f in factors if f.letter in norm.sizes}
    found = []
    for pair in ((-1000.0, 2000.0), (3000.0, -700.0)):
        x = torch.tensor(pair, dtype=torch.float64).reshape(small)
        y = _run(norm, x, layout, training, {**settings, **counts}).flatten()
        found.append(y if pair[0] < pair[1] else y.flip(0))
    if not torch.allclose(found[0], found[1], rtol=1e-3, atol=1e-6):
        return None
    return float(found[0][1]), float(found[0][0])


def _run(norm: Method, x: Tensor, layout: str, training: bool, settings: Mapping[str, Any]) -> Tensor:
    y: Tensor = norm(x, layout, **settings, **({"training": training} if norm.state else {})).y
    return y


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else '−'}{abs(value):.2g}" if value else "0"


def _has_epsilon(norm: Method, settings: Mapping[str, Any]) -> bool:
    return bool(settings.get("eps", norm.default("eps")))


def _remedy(norm: Method, bound: Bound | Window | Part, layout: str, settings: Mapping[str, Any]) -> str:
    for name in norm.sizes.values():
        domain = norm.domain(name)
        if not isinstance(domain, Divides):
            continue
        options = domain.samples(axis_sizes(bound.shape, layout))
        sizes = {v: norm.bound(bound.shape, layout, **(dict(settings) | {name: v}))[0].size for v in options}
        best = max(options, key=lambda value: sizes[value])
        if sizes[best] > bound.size:
            return f"Try {name}={best}, with {plural(sizes[best], 'value')} in each region."
    return _more(bound)


def _more(bound: Bound | Window | Part, but: Sequence[str] = ()) -> str:
    """What to give more of: the axes over which the region reaches."""
    if isinstance(bound, Window):
        return "Take a larger window."
    reduced = [PARENT.get(f.letter, f.letter) for axis in bound.factors for f in axis if not f.kept]
    words = [AXIS_WORDS[letter] + "s" for letter in dict.fromkeys(reduced) if letter not in but]
    return f"Give it more {' or '.join(words)}, or take a method that shares over other axes."

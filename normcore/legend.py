"""What the symbols of a formula stand for, and what a new layer is before it has learned anything."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from normcore import formula
from normcore.core import Method, Slot, axis_sizes, counts, new_tensor

VALUES = {
    "gain": "weight",
    "batch_share": "rho",
    "init_alpha": "alpha",
    "init_shift": "shift",
    "mixed_mean": "mean_weight",
    "mixed_var": "var_weight",
}
"""Which learned tensor a statistic is the value of, or comes of, or a setting the first value."""
EACH = {
    "c": "for each channel",
    "c ...": "for each feature",
    "num_classes c": "for each class and channel",
    "c/heads": "for each channel of a head",
    "o": "for each output unit",
}
NAMES = {"weight": "gain", "gain": "gain", "bias": "bias", "tau": "threshold", "v": "slope", "rho": "share"}
NEUTRAL = {"weight": 1, "gain": 1, "bias": 0}
"""The first values that leave everything as it is."""


def legend(method: Method, settings: Mapping[str, Any], statistics: Sequence[str] = ()) -> list[str]:
    """What each symbol of the formula with what is learned stands for; `settings` are complete."""
    shown = formula.names(method, settings, statistics)
    symbols = {name: f"${formula.symbol(method, name)}$" for name in shown}
    said = {name: words for name in shown if (words := _words(method, name, settings))}
    gain, bias = (method.affine.get(name) for name in ("weight", "bias"))
    if gain and bias and gain.axes == bias.axes and {"weight", "bias"} <= said.keys():
        symbols["weight"] += f" and {symbols['bias']}"
        learned = f"learned {many(gain)}".strip()
        said["weight"] = f"{learned}, {start(gain, settings)} and {start(bias, settings)} at first"
        del said["bias"]
    return [f"{symbols[name]}: {words}" for name, words in said.items()]


def _words(method: Method, name: str, settings: Mapping[str, Any]) -> str:
    learned = next((n for n in (name, VALUES.get(name, "")) if n in method.affine), None)
    about = _count(method.affine[learned], settings) if learned else ""
    if learned and name in settings:
        return f"learned, {about}, which is the setting `{name}`"
    if name in settings:
        return f"the setting `{name}`, {settings[name]!r}"
    if learned == name:
        return f"learned, {about}"
    if name in NEUTRAL and name in method.state:
        return f"remembered, {_count(method.state[name], settings)}"
    if name in formula.MEANINGS:
        return formula.MEANINGS[name] + (f" (`{learned}`, {about})" if learned else "")
    return ""


def _count(slot: Slot, settings: Mapping[str, Any]) -> str:
    """How many there are of a learned number, and with which value they start."""
    number = f"{slot.axes} numbers" if slot.axes.isdigit() and slot.axes != "1" else f"one {many(slot) or 'number'}"
    first = start(slot, settings)
    return f"{number}, {first} at first" if first else number


def many(slot: Slot) -> str:
    """For what there is one of a learned number each; nothing if it is alone."""
    return EACH.get(slot.axes, "")


def start(slot: Slot, settings: Mapping[str, Any]) -> str:
    """The first value of a slot, in words; nothing where it depends on the weight at hand."""
    if callable(slot.init):
        return ""
    if isinstance(slot.init, str):
        if slot.init.startswith("sqrt("):
            return f"√{slot.init[5:-1]}"
        left = slot.init.removeprefix("1-")
        return f"{settings[left] if left == slot.init else 1 - settings[left]:g}" if left in settings else slot.init
    return f"{slot.init:g}"


def learns(method: Method, settings: Mapping[str, Any]) -> str:
    """What a layer learns, in words: ``a gain and a bias for each channel``, ``a gain, √c at first``."""
    groups: dict[str, list[str]] = {}
    for name, slot in method.affine.items():
        first = start(slot, settings)
        unusual = f" ({first} at first)" if first and first != f"{NEUTRAL.get(name, first)}" else ""
        groups.setdefault(many(slot), []).append((f"a {NAMES[name]}" if name in NAMES else f"`{name}`") + unusual)
    return listed([f"{listed(names)} {each}".strip() for each, names in groups.items()]) or "nothing"


def listed(words: Sequence[str]) -> str:
    """Words with commas between them, and an "and" before the last."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def beginning(method: Method, shape: Sequence[int], layout: str, **settings: Any) -> str:
    """What a new layer is, where it is not the plain method: measured on random values; else nothing.

    Raises:
        NormcoreError: A layout or setting that the method does not have, or a value outside its domain.
    """
    sizes = axis_sizes(shape, layout)
    complete = method.settings(settings, sizes)
    shown = {VALUES.get(name, name): name for name in formula.names(method, complete)}
    unusual = [
        f"${formula.symbol(method, shown.get(name, name))} = {_latex(slot, complete)}$"
        for name, slot in method.affine.items()
        if name in NEUTRAL and start(slot, complete) not in ("", f"{NEUTRAL[name]}")
    ]
    said = [f"In a new layer {' and '.join(unusual)}."] if unusual else []
    said += [_measured(method, sizes, layout, complete)] if method.affine else []
    return " ".join(said).strip()


def _measured(method: Method, sizes: Mapping[str, int], layout: str, settings: Mapping[str, Any]) -> str:
    """What a new layer makes of values of any size: themselves, or what the branch was computed from; else nothing."""
    options: dict[str, Any] = {"generator": torch.Generator().manual_seed(0), "dtype": torch.float64}
    x, residual = (torch.randn(*sizes.values(), **options) for _ in range(2))
    bounds = method.bound(x.shape, layout, **settings)
    known = {**sizes, **counts(settings)}
    beside = {"residual": residual} if "residual" in method.context else {}
    same, skips = True, True
    for values in (x, 100 * x, x / 100):
        learned = {
            name: slot.init(values, *bounds) if callable(slot.init) else new_tensor(slot, known, values, settings)
            for name, slot in method.affine.items()
        }
        y = method(values, layout, **settings, **learned, **beside).y
        same, skips = same and torch.allclose(y, values), skips and torch.equal(y, residual)
    if skips:
        return "A new layer hands on what the branch was computed from, and nothing of the branch."
    what = "The weight is at first what it was." if method.family == "weight" else "A new layer is the identity."
    return what if same else ""


def _latex(slot: Slot, settings: Mapping[str, Any]) -> str:
    first = start(slot, settings)
    return rf"\sqrt{{{first[1:]}}}" if first.startswith("√") else formula.number(float(first))

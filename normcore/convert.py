"""Swaps the normalization layers of a model for those of another method, in place, and says what it did."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from normcore.core import Divides, Method, NormcoreError, plural
from normcore.layer import NormLayer
from normcore.registry import method
from normcore.successor import Shapes, kind, sizes_of, successor
from normcore.trial import places, refuse_lazy, run_once, tensors


@dataclass(frozen=True)
class Conversion:
    """What happened to one module. `name` is its place in the model; where it is shared, all its places."""

    name: str
    before: str
    after: str
    carried: tuple[str, ...]
    warning: str | None


@dataclass(frozen=True)
class ConversionReport:
    """What `convert` did, one entry a module; `module` is the model, a new one where the model itself was the norm."""

    source: str
    target: str
    entries: tuple[Conversion, ...]
    module: nn.Module = field(repr=False)

    def __str__(self) -> str:
        rows = [("layer", "before", "after", "carried over")]
        rows += [(e.name, e.before, e.after, ", ".join(e.carried) or "nothing") for e in self.entries]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        table = ["  ".join(t.ljust(w) for t, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        lines = [
            f"{self.source} → {self.target}: {plural(len(self.entries), 'layer')}",
            *table[: len(self.entries) and 1],
        ]
        for line, entry in zip(table[1:], self.entries, strict=True):
            lines += [line, f"    warning: {entry.warning}"] if entry.warning else [line]
        return "\n".join(lines)


def convert(
    model: nn.Module,
    source: str = "batch_norm",
    target: str = "group_norm",
    *,
    layout: str | None = None,
    example: Any = None,
    **settings: Any,
) -> ConversionReport:
    """Swaps, in place, every layer of one method in a model for a `layer` of another one.

    Gain, bias and running statistics move to the new layer where it has them in the same shape: the same tensors, so
    that an optimizer keeps its hold on them (copies where one layer learns what the other has frozen). A layer that
    stands in several places stays one layer. Settings are the new method's defaults where nothing is said, and the old
    layer's own where both methods are the same.

    Args:
        model: Any module tree; a single norm has its successor in the report's `module`.
        source: The method to replace: torch.nn's layers of it, and normcore's.
        target: The method to put in its place.
        layout: The axes of the input where a class leaves them open, as BatchNorm1d does.
        example: An input (a tuple of inputs, a dictionary by name) that shows which shapes the layers meet. The model
            runs on it once, in evaluation mode; its buffers and the random state stay as they are.
        **settings: Hyper-parameters of the new layers.

    Raises:
        NormcoreError: A setting does not fit a layer, a layer cannot be understood, or the swap would leave regions of
            one value, which erases the signal. Nothing has changed then.
    """
    norm, _ = method(target, "activation"), method(source, "activation")
    norm.settings(settings, {})
    if layout is not None:
        norm.layout(layout, 0)
    found = _places(model, source, layout)
    if example is not None:
        refuse_lazy(model.modules(), "convert")
    shapes = {} if example is None else _shapes(model, found, example)
    swaps: dict[nn.Module, NormLayer] = {}
    entries = []
    for module, names in found.items():
        like = next((t for m in (module, model) for t in tensors(m) if t.is_floating_point()), torch.empty(0))
        try:
            new, carried, warnings = successor(module, norm, layout, shapes.get(module, ()), settings, like)
        except NormcoreError as error:
            raise NormcoreError(f"convert: layer {names[0]!r}: {error}{_fitting_all(norm, found, settings)}") from None
        if example is not None and module not in shapes:
            warnings.append("The example did not reach it.")
        swaps[module] = new
        entries.append(Conversion(", ".join(names), repr(module), repr(new), carried, " ".join(warnings) or None))
    for parent in list(model.modules()):
        _swap(parent, swaps)
    return ConversionReport(source, target, tuple(entries), swaps.get(model, model))


def _places(model: nn.Module, source: str, layout: str | None) -> dict[nn.Module, list[str]]:
    """The layers of a method, each with its names."""
    found = places(model, lambda module: kind(module)[0] == source, "convert")
    if layout is not None and found and not any(layout in kind(module)[1] for module in found):
        known = ", ".join(dict.fromkeys(chain(*(kind(module)[1] for module in found))))
        raise NormcoreError(f"convert: layout={layout!r} is that of no {source} layer of this model; try {known}")
    return found


def _shapes(model: nn.Module, modules: Collection[nn.Module], example: Any) -> dict[nn.Module, Shapes]:
    """The shapes that modules meet when the model runs on an example."""
    seen: dict[nn.Module, Shapes] = {}

    def note(module: nn.Module, x: Tensor) -> None:
        seen[module] = (*seen.get(module, ()), tuple(x.shape))

    run_once(model, example, dict.fromkeys(modules, note))
    return seen


def _fitting_all(norm: Method, places: Collection[nn.Module], settings: Mapping[str, Any]) -> str:
    """Where a setting does not divide the channels of a layer, and these differ: the values that do for all layers."""
    channels = [{"c": sizes[0]} for sizes in (sizes_of(module) for module in places) if sizes]
    unlike = len({sizes["c"] for sizes in channels}) > 1
    for p in norm.params:
        value = settings.get(p.name, p.default)
        divides = unlike and isinstance(p.domain, Divides) and p.domain.axis == "c"
        if divides and any(p.domain.problem(value, sizes) for sizes in channels):
            common = set.intersection(*(set(p.domain.samples(sizes)) for sizes in channels))
            return f"; {', '.join(map(str, sorted(common)))} would do for {plural(len(channels), 'layer')}"
    return ""


def _swap(parent: nn.Module, swaps: Mapping[nn.Module, NormLayer]) -> None:
    """Puts successors in the places of a module's children."""
    for name, child in list(parent._modules.items()):
        if child is not None and child in swaps:
            setattr(parent, name, swaps[child])
            if isinstance(parent, nn.TransformerEncoderLayer):
                parent.activation_relu_or_gelu = 0  # or torch takes a fused kernel in which the norm is a LayerNorm
    if isinstance(parent, nn.TransformerEncoder) and set(swaps) & set(parent.modules()):
        parent.use_nested_tensor = False  # which only that kernel understands

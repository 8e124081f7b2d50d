"""The layer that takes the place of one norm of a model: its layout, its settings, and what it takes over."""

import math
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from normcore.core import GAIN_AND_BIAS, LAYOUTS, LETTERS, Divides, Method, NormcoreError
from normcore.diagnose import diagnose
from normcore.layer import NormLayer, layer
from normcore.registry import METHODS

Shapes = tuple[tuple[int, ...], ...]

ANY = ("image", "vector", "signal", "volume")
COUNTER = "num_batches_tracked"
TORCH: dict[type[nn.Module], tuple[str, tuple[str, ...]]] = {
    nn.BatchNorm1d: ("batch_norm", ("vector", "signal")),
    nn.BatchNorm2d: ("batch_norm", ("image",)),
    nn.BatchNorm3d: ("batch_norm", ("volume",)),
    nn.SyncBatchNorm: ("batch_norm", ANY),
    nn.InstanceNorm1d: ("instance_norm", ("signal",)),
    nn.InstanceNorm2d: ("instance_norm", ("image",)),
    nn.InstanceNorm3d: ("instance_norm", ("volume",)),
    nn.LayerNorm: ("layer_norm", ("tokens", "vector")),
    nn.RMSNorm: ("rms_norm", ("tokens", "vector")),
    nn.GroupNorm: ("group_norm", ANY),
    nn.LocalResponseNorm: ("local_response_norm", ("image", "signal", "volume")),
}
"""The method that each class is, and the layouts that it may work on, the likeliest first."""


def kind(module: nn.Module) -> tuple[str | None, tuple[str, ...]]:
    """The key of the method that a module is (None for others), and the layouts that it may work on."""
    if isinstance(module, NormLayer):
        return module.method.key, (module.layout,)
    base = _base(module)
    if base not in TORCH:
        return None, ()
    key, layouts = TORCH[base]
    axes = len(getattr(module, "normalized_shape", ())) + 1
    return key, layouts if axes <= 2 else tuple(
        a for a in LAYOUTS["activation"] if a in ANY and len(LETTERS[a]) == axes
    )


def _base(module: nn.Module) -> type[nn.Module]:
    """The class that says what a module does: torch.nn's (also of one not initialized yet), or ours."""
    known = (NormLayer, *TORCH)
    final = getattr(module, "cls_to_become", None) or type(module)
    return next((ancestor for ancestor in final.__mro__ if ancestor in known), nn.Module)


def plain(module: nn.Module) -> bool:
    """Whether a module does what its class says, and nothing of its own."""
    return type(module).forward is _base(module).forward


def settings_of(module: Any) -> dict[str, Any]:
    """The settings that a norm was made with, under the names that its method gives them."""
    held = module.settings if isinstance(module, NormLayer) else vars(module)
    found = {param.name: held[param.name] for param in METHODS[kind(module)[0] or ""].params if param.name in held}
    return found | ({"eps": torch.finfo(torch.float32).eps} if found.get("eps", 0) is None else {})


def sizes_of(module: nn.Module) -> list[int]:
    """The feature sizes that a module was made for: channels, or channels and space; none if it does not say."""
    if isinstance(module, NormLayer):
        return list(module.features.values())
    names = ("normalized_shape", "num_features", "num_channels")
    found: Any = next((getattr(module, name) for name in names if hasattr(module, name)), ())
    return [found] if isinstance(found, int) else list(found)


def successor(
    module: nn.Module, norm: Method, layout: str | None, shapes: Shapes, given: Mapping[str, Any], like: Tensor
) -> tuple[NormLayer, tuple[str, ...], list[str]]:
    """The layer that takes a module's place, what it takes over, and what to warn of. The module stays as it is.

    Args:
        module: A norm, in the sense of `kind`.
        norm: The method of the new layer.
        layout: The layout, where the module leaves it open.
        shapes: The shapes of the inputs that it meets, if they are known.
        given: Settings of the new layer.
        like: A tensor of the wanted precision, on the wanted device.

    Raises:
        NormcoreError: The module is not quite what its class says, a layout or setting does not fit, every region would
            hold one value, or the method needs a residual.
    """
    if not plain(module):
        raise NormcoreError(f"{type(module).__name__} is more than a {_base(module).__name__}; swap it by hand")
    old, learns = METHODS[kind(module)[0] or ""], [p.requires_grad for p in module.parameters()]
    if "residual" in norm.context.keys() - old.context.keys():
        raise NormcoreError(
            f"{norm.key} adds x to a residual, which {type(module).__name__} is not given; put it at the end of each "
            f"branch by hand, as normcore.layer({norm.key!r}, …)(x, residual=…)"
        )
    layouts = _layouts(module, norm, layout, shapes)
    sizes = sizes_of(module) or [shape[1] for shape in shapes[:1]]
    if not sizes:
        raise NormcoreError(f"{type(module).__name__} does not say how many channels it has; pass example=")
    channels = sizes if len(sizes) == len(norm.feature_letters(layouts[0])) else sizes[0]
    affine = bool(learns) or not norm.affine.keys().isdisjoint(old.state)
    new = layer(norm.key, channels, layouts[0], affine, **_settings(module, old, norm) | {**given})
    new.shift_first = getattr(module, "shift_first", False) and "shift" in norm.invariances(**new.settings)
    fresh = layer(old.key, sizes, kind(module)[1][0], **_settings(module, old, old)).state_dict()
    alike = {name for name, first in new.state_dict().items() if name in fresh and torch.equal(fresh[name], first)}
    new.to(like.device, like.dtype).requires_grad_(any(learns) or not learns).train(module.training)
    guessed = len(layouts) > 1
    warnings = [f"Its layout is taken for {layouts[0]!r}; say so with layout= or example=."] if guessed else []
    statistics = [name for name in norm.state if name != COUNTER and name not in GAIN_AND_BIAS]
    anew = [name for name in statistics if name not in alike or getattr(module, name, None) is None]
    carried, lost = _carry(module, new, fresh, alike - {COUNTER} if anew else alike)
    warnings += [f"Its {name} does not fit {norm.key} and is lost." for name in lost]
    if new.tracks and anew:
        what = "running statistics start" if anew == statistics else f"{', '.join(anew)} starts"
        remedy = "show it batches in training mode before evaluation" if COUNTER in norm.state else "load some"
        warnings.append(f"Its {what} anew: {remedy}.")
    if any((module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)):
        warnings.append("Its hooks are left behind.")
    return new, tuple(carried), warnings + _erasures(new, shapes, guessed)


def _layouts(module: nn.Module, norm: Method, layout: str | None, shapes: Shapes) -> list[str]:
    """The layouts that a module may be meant for, as far as is known."""
    possible = kind(module)[1]
    found = [name for name in possible if name in norm.layouts and (layout not in possible or name == layout)]
    found = [name for name in found if all(len(LETTERS[name]) == len(shape) for shape in shapes)]
    if found:
        return found
    met = f" and meets an input of shape {shapes[0]}" if shapes else ""
    raise NormcoreError(
        f"{type(module).__name__} works on layout {' or '.join(map(repr, possible))}{met}; "
        f"{norm.key} is defined for {', '.join(norm.layouts)}"
    )


def _settings(module: Any, old: Method, norm: Method) -> dict[str, Any]:
    """The settings that a layer hands on: all of them within one method, otherwise only that it remembers nothing."""
    if old is norm:
        return settings_of(module)
    forgets = bool(old.state) and getattr(module, "running_mean", None) is None
    return {"track_running_stats": False} if forgets and norm.default("track_running_stats") is not None else {}


def _carry(
    module: nn.Module, new: NormLayer, fresh: Mapping[str, Tensor], alike: Collection[str]
) -> tuple[list[str], list[str]]:
    """Hands over the tensors that both layers have, and names them, and the gains and biases that are lost.

    `fresh` is what a new layer of the old kind holds. What starts `alike` in both means the same in both.
    """
    carried, lost = [], []
    for name, first in fresh.items():
        value, learned = getattr(module, name, None), name in METHODS[kind(module)[0] or ""].affine
        if value is None:
            if learned and name in new.method.affine:
                setattr(new, name, None)  # a layer without a bias stays one
        elif learned and not isinstance(value, nn.Parameter):
            raise NormcoreError(f"its {name} is computed from other tensors (parametrized, pruned); undo that first")
        elif name in alike:
            if learned != (name in new.method.affine):  # only one of the two layers learns it
                value = nn.Parameter(value.clone()) if name in new.method.affine else value.detach().clone()
            setattr(new, name, value)
            carried.append(name)
        elif (learned or name in GAIN_AND_BIAS) and (value.is_meta or not torch.equal(value.detach().to(first), first)):
            lost.append(name)
    return carried, lost


def _erasures(new: NormLayer, shapes: Shapes, guessed: bool) -> list[str]:
    """Warns of regions of one or two values; refuses those of one where the shape is certain."""
    letters, norm = LETTERS[new.layout], new.method
    known = bool(shapes) or not (guessed or set(letters) - {"n", *new.features})
    parts = [new.settings[p.name] for p in norm.params if isinstance(p.domain, Divides) and p.domain.axis == "n"]
    warnings = []
    for shape in shapes or [tuple(new.features.get(letter, 1) for letter in letters)]:
        large = (64 * math.prod(parts), *shape[1:])  # a batch has samples enough, however few the example has
        bounds = norm.bound(large, new.layout, **new.settings)
        for finding in diagnose(norm.key, large, new.layout, **new.settings):
            met = ", ".join(f"{letter}={size}" for letter, size in zip(letters[1:], shape[1:], strict=True))
            if bounds[0].size == 1 and known:
                raise NormcoreError(f"on its input of {met}: {finding.sentence} {finding.remedy}")
            if bounds[0].size == 1 or known:
                warnings.append(f"On an input of {met}: {finding.sentence}" + ("" if known else " Pass example=."))
    return list(dict.fromkeys(warnings))

"""What a method is: a function, who shares its statistics, and the facts that its file declares about it."""

import importlib
import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from types import MappingProxyType, SimpleNamespace
from typing import Annotated, Any, get_origin

import torch
from torch import Tensor

from normcore.core.axes import LAYOUTS, LETTERS, PARENT, SPATIAL, axis_sizes, check_shape
from normcore.core.domains import FLAG, Domain, check
from normcore.core.errors import NormcoreError
from normcore.core.facts import Identity, Normed, Paper, Param
from normcore.core.memory import check_state
from normcore.core.part import Part
from normcore.core.precision import full_precision
from normcore.core.region import Bound, Region
from normcore.core.slots import Slot, counts, new_tensor
from normcore.core.window import Window

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
DENSE = "a dense floating-point tensor of 16, 32 or 64 bits"
EMPTY: Mapping[str, Any] = MappingProxyType({})
KEPT = SimpleNamespace()
"""Bound regions of compiled layers, by name."""


@dataclass(frozen=True, eq=False)
class Method:
    """One normalization or clipping method, called as ``method(x, layout="image", **settings)``.

    Args:
        fn: The mathematics. Its parameters annotated with a domain are the settings.
        name: The name that people know it by.
        regions: Who shares a statistic, one entry a statistic and axis order.
        paper: Where it comes from.
        why: The problem that it answers, in a sentence or two.
        formula: LaTeX in which ``<name>`` stands for the input, a statistic or a setting; a function of the settings
            where they change its form.
        pytorch: The same in plain PyTorch: code with ``{name}`` for settings and axes (see `normcore.snippet`), or a
            function of the settings.
        sizes: Which setting gives the size of a factor letter.
        affine: The tensors that its layer learns.
        state: The tensors that its layer remembers.
        context: The tensors that come with the input: a mask, labels, a style. What one left out stands for, the
            function says.
        invariant_to: "scale" or "shift": multiplying a region by a positive number, or adding one, changes nothing;
            "channel shift": even where each channel is given a number of its own. A function of the settings where they
            decide it. Of a gradient method that remembers: in its first step.
        equals: Other methods that it coincides with, and when.
        elsewhere: The same in other libraries ("keras", "flax"), as code with the same placeholders.
        builds_on: The earlier methods whose shortcoming it answers, by their keys.
        keeps: What a gradient method leaves as it is: the "direction" of all gradients together, the "direction of each
            tensor", "unit" or "example", "clipped" gradients that are clipped again, and "small" ones. A function of
            the settings where they decide it.
        limits: What a gradient method bounds, and the setting or number that is the bound: "norm", "norm of each
            tensor" (or "example"), "average norm of each tensor", "rms of each tensor", "value". A function of the
            settings where they decide it.
        remembers: What the state of a gradient method holds, in words.
    """

    fn: Callable[..., Normed]
    name: str
    regions: tuple[Region | Window | Part, ...]
    paper: Paper
    why: str
    formula: str | Callable[[Mapping[str, Any]], str]
    pytorch: str | Callable[[Mapping[str, Any]], str]
    sizes: Mapping[str, str] = field(default_factory=dict)
    affine: Mapping[str, Slot] = field(default_factory=dict)
    state: Mapping[str, Slot] = field(default_factory=dict)
    context: Mapping[str, Slot] = field(default_factory=dict)
    invariant_to: frozenset[str] | Callable[[Mapping[str, Any]], frozenset[str]] = frozenset()
    equals: tuple[Identity, ...] = ()
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    builds_on: tuple[str, ...] = ()
    keeps: frozenset[str] | Callable[[Mapping[str, Any]], frozenset[str]] = frozenset()
    limits: Mapping[str, str | float] | Callable[[Mapping[str, Any]], Mapping[str, str | float]] = field(
        default_factory=dict
    )
    remembers: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        return self.fn.__name__

    @cached_property
    def family(self) -> str:
        """Which kind of tensor it works on: "activation", "weight" or "gradient"."""
        return self.fn.__module__.split(".")[-2]

    @cached_property
    def layouts(self) -> tuple[str, ...]:
        """The layouts that it is defined for."""
        if not self.regions:
            return tuple(name for name in LAYOUTS[self.family] if name != "examples")
        return tuple(name for name in LAYOUTS[self.family] if any(r.fits(name) for r in self.regions))

    @property
    def per_example(self) -> bool:
        """Whether it takes the gradients of single examples, whose first axis is the batch."""
        return "examples" in self.layouts

    def feature_letters(self, layout: str) -> tuple[str, ...]:
        """The axes that the gain covers in its paper: ("c",), or with LayerNorm on images ("c", "h", "w")."""
        per_feature = any("..." in slot.axes for slot in self.affine.values())
        return tuple(a for a in LETTERS[layout] if a == "c" or (per_feature and a in SPATIAL))

    @cached_property
    def params(self) -> tuple[Param, ...]:
        """The settings, read off the function's annotations."""
        found = []
        for name, parameter in inspect.signature(self.fn).parameters.items():
            hint = parameter.annotation
            if name == "training":
                continue
            if hint is bool:
                found.append(Param(name, FLAG, parameter.default))
            elif get_origin(hint) is Annotated:
                found.append(Param(name, hint.__metadata__[0], parameter.default))
        return tuple(found)

    def domain(self, name: str) -> Domain:
        """The values that a setting may take."""
        return next(param.domain for param in self.params if param.name == name)

    def default(self, name: str) -> Any:
        """The default of a setting, or None where there is no such setting."""
        return next((param.default for param in self.params if param.name == name), None)

    def invariances(self, **settings: Any) -> frozenset[str]:
        """What it is invariant to under these settings, the others at their defaults."""
        if isinstance(self.invariant_to, frozenset):
            return self.invariant_to
        return self.invariant_to({param.name: param.default for param in self.params} | settings)

    def kept(self, **settings: Any) -> frozenset[str]:
        """What a gradient method leaves as it is under these settings, the others at their defaults."""
        if isinstance(self.keeps, frozenset):
            return self.keeps
        return self.keeps({param.name: param.default for param in self.params} | settings)

    def limited(self, **settings: Any) -> dict[str, float]:
        """What a gradient method bounds under these settings, the others at their defaults, and by which number."""
        complete = {param.name: param.default for param in self.params} | settings
        limits = self.limits if isinstance(self.limits, Mapping) else self.limits(complete)
        return {what: complete[bound] if isinstance(bound, str) else bound for what, bound in limits.items()}

    @cached_property
    def first_state(self) -> Mapping[str, Any]:
        """What a gradient method remembers after one gradient (o i): which entries are lists, and of what."""
        if "state" not in self.inputs:
            return EMPTY
        with torch.no_grad():
            return self.fn([torch.zeros(2, 3)], **{param.name: param.default for param in self.params}).state

    @property
    def remembers_elements(self) -> bool:
        """Whether a gradient method remembers something of each element of a gradient."""
        return any(isinstance(entry, list) and entry[0].ndim > 0 for entry in self.first_state.values())

    def check_state(self, state: Any) -> None:
        """Refuses a state that a gradient method cannot have made.

        Raises:
            NormcoreError: No mapping, an entry that the method does not know, or one of another kind than its own.
        """
        check_state(self.key, state, self.remembers, self.first_state)

    @cached_property
    def inputs(self) -> frozenset[str]:
        """What the function takes beside the tensor and the settings: learned tensors, context, `state`, `training`,
        and for a pointwise method, which has no region to tell, the `layout`."""
        parameters = inspect.signature(self.fn).parameters.values()
        named = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
        return frozenset(named - {param.name for param in self.params})

    def settings(self, given: Mapping[str, Any], sizes: Mapping[str, int]) -> dict[str, Any]:
        """All settings, defaults filled in, each checked against its domain and the axis sizes."""
        complete = {param.name: param.default for param in self.params}
        for name in given:
            if name not in complete:
                known = ", ".join(complete) or "none"
                raise NormcoreError(f"{self.key}: no setting is called {name!r}; it has {known}")
        complete.update(given)
        for param in self.params:
            try:
                check(param.name, complete[param.name], param.domain, sizes)
            except NormcoreError as error:
                raise NormcoreError(f"{self.key}: {error}") from None
        return complete

    def bound(
        self, shape: Sequence[int], layout: str | None = None, training: bool = True, **settings: Any
    ) -> tuple[Bound | Window | Part, ...]:
        """The regions for one shape, one a statistic that is computed from the tensor (none for pointwise methods).

        With `training` false, statistics that come from a running average drop out.

        Raises:
            NormcoreError: The shape does not fit the layout, or a setting lies outside its domain.
        """
        _check_training(self.key, training)
        try:
            shape = check_shape(shape)
        except NormcoreError as error:
            raise NormcoreError(f"{self.key}: {error}") from None
        layout = self.layout(layout, len(shape))
        bounds, complete = self._bind(shape, layout, settings, training)
        chosen = self._chosen(layout, complete)
        from_state = self._uses_state(complete, training)
        return tuple(b for b, r in zip(bounds, chosen, strict=True) if not (from_state and r.running))

    def _uses_state(self, settings: Mapping[str, Any], training: bool) -> bool:
        """Whether running averages take the place of the batch's statistics."""
        return bool(self.state) and not training and bool(settings.get("track_running_stats", True))

    def layout(self, name: str | None, rank: int) -> str:
        """The layout by its name; without one, images for activations, and by the number of axes for weights."""
        if name is None:
            fitting = [known for known in self.layouts if len(LETTERS[known]) == rank]
            name = "image" if self.family == "activation" else next(iter(fitting), self.layouts[0])
        if name not in self.layouts:
            raise NormcoreError(f"{self.key}: layout={name!r} is not defined for it; try {', '.join(self.layouts)}")
        return name

    def _chosen(self, layout: str, settings: Mapping[str, Any]) -> list[Region | Window | Part]:
        return [
            region
            for region in self.regions
            if region.fits(layout) and all(settings[name] == value for name, value in region.when.items())
        ]

    def _bind(
        self, shape: tuple[int, ...], layout: str, settings: Mapping[str, Any], training: bool
    ) -> tuple[tuple[Bound | Window | Part, ...], dict[str, Any]]:
        try:
            return _bind_cached(self, shape, layout, training, tuple(settings), *settings.values())
        except TypeError:  # a setting that cannot be hashed cannot be valid either: say so without the cache
            return _bind_cached.__wrapped__(self, shape, layout, training, tuple(settings), *settings.values())

    def __call__(self, x: Any, layout: str | None = None, **settings: Any) -> Normed:
        """Applies the method.

        Args:
            x: The tensor, shaped by the layout; for gradient methods a list of tensors.
            layout: One of `layouts`.
            **settings: Hyper-parameters, and what a layer would supply: `weight`, `bias`, `state`, `training`.
                A gain that is left out is 1, a bias 0; a state that is left out is a new layer's.

        Raises:
            NormcoreError: Bad input, named with the method and the value.
        """
        tensors = {name: settings.pop(name) for name in self.inputs & settings.keys()}
        if self.family == "gradient":
            self.layout(layout, 0)
            given = gradients(self.key, x)
            beside = {name: tensor for name, tensor in tensors.items() if tensor is not None}
            if "parameters" in beside:
                beside["parameters"] = self._parameters(given, beside["parameters"])
            if "state" in beside:
                self.check_state(beside["state"])
            return self.fn(given, **self.settings(settings, EMPTY), **beside)
        if not _dense(x):
            kind = f"{x.dtype}, {x.layout}" if isinstance(x, Tensor) else type(x).__name__
            raise NormcoreError(f"{self.key}: x is {kind}; it must be {DENSE}")
        training = tensors.get("training", True)
        _check_training(self.key, training)
        layout = self.layout(layout, x.ndim)
        bounds, complete = self._bind(tuple(x.shape), layout, settings, training)
        sizes = dict(zip(LETTERS[layout], x.shape, strict=True)) | counts(complete)
        state = tensors.get("state")
        if self.state and (state is None or (isinstance(state, Mapping) and not state)):
            tensors["state"] = {
                name: slot.start(x, *bounds) if callable(slot.init) else new_tensor(slot, sizes, x)
                for name, slot in self.state.items()
            }
        self._check_tensors(tensors, sizes, x.device)
        if "layout" in self.inputs:
            tensors["layout"] = layout
        return self.compute(x, *bounds, **complete, **tensors)

    def compute(self, x: Tensor, *bounds: Bound | Window | Part, **given: Any) -> Normed:
        """The mathematics alone, unchecked, in the precision of x also where torch.autocast is on."""
        with full_precision(x):
            return self.fn(x, *bounds, **given)

    def _parameters(self, given: Sequence[Tensor], parameters: Any) -> list[Tensor]:
        """The parameters as a list, refused where they are not those of the gradients."""
        if isinstance(parameters, Tensor) or not isinstance(parameters, Iterable):
            kind = "a single tensor" if isinstance(parameters, Tensor) else type(parameters).__name__
            raise NormcoreError(f"{self.key}: parameters are {kind}; they must be a list of tensors")
        listed = list(parameters)
        shapes = [tuple(p.shape) if isinstance(p, Tensor) else p for p in listed]
        wanted = [tuple(gradient.shape) for gradient in given]
        if shapes != wanted:
            raise NormcoreError(f"{self.key}: parameters have shapes {shapes}; the gradients have {wanted}")
        return listed

    def _check_tensors(self, given: Mapping[str, Any], sizes: Mapping[str, int], device: torch.device) -> None:
        """Refuses a learned or remembered tensor that does not fit, before the mathematics stumbles over it."""
        state = given.get("state")
        missing = [name for name in self.state if not isinstance(state, Mapping) or name not in state]
        if missing:
            raise NormcoreError(f"{self.key}: the state has no {missing[0]!r}; it needs {', '.join(self.state)}")
        slots = {**self.affine, **self.context}
        learned = [(name, given[name], slot) for name, slot in slots.items() if given.get(name) is not None]
        for name, tensor, slot in learned + [(name, given["state"][name], slot) for name, slot in self.state.items()]:
            if not isinstance(tensor, Tensor):
                raise NormcoreError(f"{self.key}: {name} is {type(tensor).__name__}; it must be a tensor")
            if not (_dense(tensor) or slot.dtype):
                raise NormcoreError(f"{self.key}: {name} is {tensor.dtype}, {tensor.layout}; it must be {DENSE}")
            if tensor.device != device:
                raise NormcoreError(f"{self.key}: {name} is on {tensor.device}; it must be on {device}, as x is")
            if slot.dtype is torch.bool and not _true_or_false(tensor):
                raise NormcoreError(f"{self.key}: {name} has values other than 0 and 1; it must be True or False")
            if not slot.fits(tensor.shape, sizes):
                raise NormcoreError(
                    f"{self.key}: {name} has shape {tuple(tensor.shape)}; it must be {slot.words(sizes)}"
                )

    def __reduce__(self) -> Any:
        """Copies and pickles are references to the method's file, which alone says what the method is."""
        return _method_of, (self.fn.__module__,)


def _check_training(key: str, training: Any) -> None:
    if not isinstance(training, bool):
        raise NormcoreError(f"{key}: training={training!r} must be True or False")


def _method_of(module: str) -> Method:
    method: Method = importlib.import_module(module).METHOD
    return method


def _dense(x: Any) -> bool:
    return isinstance(x, Tensor) and x.dtype in FLOATS and x.layout is torch.strided


def _true_or_false(mask: Tensor) -> bool:
    if mask.dtype is torch.bool:
        return True
    try:
        return bool(((mask == 0) | (mask == 1)).all())
    except RuntimeError:  # on the meta device and under vmap values cannot be looked at
        return True


def gradients(key: str, given: Any) -> list[Tensor]:
    """The list of gradients, refused in a sentence when it is not one of dense floating-point tensors."""
    tensors = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else None
    if tensors is None or not all(_dense(g) for g in tensors):
        kind = "a single tensor" if isinstance(given, Tensor) else type(given).__name__
        what = kind if tensors is None else "a list in which something else stands too"
        raise NormcoreError(f"{key}: the gradients are {what}; they must be a list of dense floating-point tensors")
    return tensors


def bounds_of(
    module: str, shape: tuple[int, ...], layout: str, training: bool, settings: Mapping[str, Any], said: str
) -> tuple[Bound | Window | Part, ...]:
    """The regions of the method in a module, running ones included; `said` are its settings as JSON.

    A compiler takes a text for a constant, and not the numbers in which two layers differ.
    """
    if torch.compiler.is_compiling():
        found: tuple[Bound | Window | Part, ...] = getattr(KEPT, _keep(module, shape, layout, training, said))
        return found
    return _method_of(module)._bind(shape, layout, settings, training)[0]


def _keep(module: str, shape: tuple[int, ...], layout: str, training: bool, said: str) -> str:
    """Under which name the regions are kept: a compiler follows no binding, but takes a name for a constant."""
    name = f"bounds_{len(vars(KEPT))}"
    setattr(KEPT, name, _method_of(module)._bind(shape, layout, json.loads(said), training)[0])
    return name


# torch.compiler.assume_constant_result does this too, and loads the whole compiler: half of the time of an import.
vars(_keep)["_dynamo_marked_constant"] = True


@lru_cache(maxsize=1024, typed=True)
def _bind_cached(
    method: Method, shape: tuple[int, ...], layout: str, training: bool, names: tuple[str, ...], *values: Any
) -> tuple[tuple[Bound | Window | Part, ...], dict[str, Any]]:
    try:
        sizes = axis_sizes(shape, layout, method.layouts)
    except NormcoreError as error:
        raise NormcoreError(f"{method.key}: {error}") from None
    given = dict(zip(names, values, strict=True))
    if method._uses_state({param.name: param.default for param in method.params} | given, training):
        # Evaluation does not split the batch: it is one part, and any number of samples will do.
        complete = method.settings(given, {axis: size for axis, size in sizes.items() if axis != "n"})
        whole = {letter: sizes["n"] for letter in method.sizes if PARENT[letter] == "n"}
    else:
        complete, whole = method.settings(given, sizes), {}
    factors = {letter: complete[name] for letter, name in method.sizes.items()} | whole
    chosen = method._chosen(layout, complete)
    return tuple(r.bind(shape, **(factors if isinstance(r, Region) else complete)) for r in chosen), complete

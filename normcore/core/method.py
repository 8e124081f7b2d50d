"""What a method is: a function, who shares its statistics, and the facts that its file declares about it."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import Annotated, Any, get_origin

import torch
from torch import Tensor

from normcore.core.axes import LAYOUTS, LETTERS, axis_sizes
from normcore.core.domains import FLAG, Domain, check
from normcore.core.errors import NormcoreError
from normcore.core.region import Bound, Region
from normcore.core.window import Window

EMPTY: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Paper:
    """Where a method was published."""

    authors: str
    title: str
    year: int
    arxiv: str | None = None


@dataclass(frozen=True)
class Param:
    """One hyper-parameter: its name, the values it may take, and the one it has when nothing is said."""

    name: str
    domain: Domain
    default: Any


@dataclass(frozen=True)
class Slot:
    """A tensor that a layer owns: its shape in axis letters, and its first value (or a function of the weight)."""

    axes: str
    init: float | Callable[[Tensor, Bound], Tensor]
    dtype: torch.dtype | None = None


@dataclass(frozen=True)
class Identity:
    """Under these settings (and axis sizes) the method equals another one. An axis letter stands for that size."""

    other: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    other_settings: Mapping[str, Any] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    layouts: tuple[str, ...] = ()

    def holds(self, layout: str, sizes: Mapping[str, int], settings: Mapping[str, Any]) -> bool:
        """Whether the condition is met by a layout, its axis sizes and complete settings."""
        wanted = self.resolve(self.settings, sizes)
        return (
            (not self.layouts or layout in self.layouts)
            and all(sizes.get(axis) == size for axis, size in self.sizes.items())
            and all(settings[name] == value for name, value in wanted.items())
        )

    @staticmethod
    def resolve(settings: Mapping[str, Any], sizes: Mapping[str, int]) -> dict[str, Any]:
        """The settings with axis letters replaced by sizes."""
        return {name: sizes.get(v, v) if isinstance(v, str) else v for name, v in settings.items()}


@dataclass(frozen=True)
class Normed:
    """What every method returns. `stats` are the ones that were used, in shapes that broadcast against the input."""

    y: Any
    stats: Mapping[str, Tensor]
    state: Mapping[str, Tensor] = field(default_factory=dict)


GAIN = {"weight": Slot("c", 1.0)}
GAIN_AND_BIAS = {**GAIN, "bias": Slot("c", 0.0)}
RUNNING = {
    "running_mean": Slot("c", 0.0),
    "running_var": Slot("c", 1.0),
    "num_batches_tracked": Slot("", 0, torch.long),
}


@dataclass(frozen=True, eq=False)
class Method:
    """One normalization or clipping method, called as ``method(x, layout="image", **settings)``.

    Args:
        fn: The mathematics. Its parameters annotated with a domain are the settings.
        name: The name that people know it by.
        regions: Who shares a statistic, one entry a statistic and axis order.
        paper: Where it comes from.
        why: The problem that it answers, in a sentence or two.
        formula: LaTeX in which ``<name>`` stands for the input, a statistic, a setting or a parameter.
        pytorch: The same in plain PyTorch, as code with ``{names}`` of settings and axes (see `normcore.snippet`).
        sizes: Which setting gives the size of a factor letter.
        affine: The tensors that its layer learns.
        state: The tensors that its layer remembers.
        invariant_to: "scale" or "shift": multiplying a region by a positive number, or adding one, changes nothing.
        equals: Other methods that it coincides with, and when.
    """

    fn: Callable[..., Normed]
    name: str
    regions: tuple[Region | Window, ...]
    paper: Paper
    why: str
    formula: str
    pytorch: str
    sizes: Mapping[str, str] = field(default_factory=dict)
    affine: Mapping[str, Slot] = field(default_factory=dict)
    state: Mapping[str, Slot] = field(default_factory=dict)
    invariant_to: frozenset[str] = frozenset()
    equals: tuple[Identity, ...] = ()

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
        names = LAYOUTS[self.family]
        return tuple(name for name in names if not self.regions or any(r.fits(name) for r in self.regions))

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

    @cached_property
    def inputs(self) -> frozenset[str]:
        """What the function takes beside the tensor and the settings: learned tensors, `state`, `training`."""
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
    ) -> tuple[Bound | Window, ...]:
        """The regions for one shape, one a statistic that is computed from the tensor (none for pointwise methods).

        With `training` false, statistics that come from a running average drop out.

        Raises:
            NormcoreError: The shape does not fit the layout, or a setting lies outside its domain.
        """
        layout = self.layout(layout, len(shape))
        bounds, complete = self._bind(tuple(shape), layout, settings)
        chosen = self._chosen(layout, complete)
        from_state = not training and complete.get("track_running_stats", True)
        return tuple(b for b, r in zip(bounds, chosen, strict=True) if not (from_state and r.running))

    def layout(self, name: str | None, rank: int) -> str:
        """The layout by its name; without one, images for activations, and by the number of axes for weights."""
        if name is None:
            fitting = [known for known in self.layouts if len(LETTERS[known]) == rank]
            name = "image" if self.family == "activation" else next(iter(fitting), self.layouts[0])
        if name not in self.layouts:
            raise NormcoreError(f"{self.key}: layout={name!r} is not defined for it; try {', '.join(self.layouts)}")
        return name

    def _chosen(self, layout: str, settings: Mapping[str, Any]) -> list[Region | Window]:
        return [
            region
            for region in self.regions
            if region.fits(layout) and all(settings[name] == value for name, value in region.when.items())
        ]

    def _bind(
        self, shape: tuple[int, ...], layout: str, settings: Mapping[str, Any]
    ) -> tuple[tuple[Bound | Window, ...], dict[str, Any]]:
        try:
            return _bind_cached(self, shape, layout, tuple(settings), *settings.values())
        except TypeError:  # a setting that cannot be hashed cannot be valid either: say so without the cache
            return _bind_cached.__wrapped__(self, shape, layout, tuple(settings), *settings.values())

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
            return self.fn(gradients(self.key, x), **self.settings(settings, EMPTY), **tensors)
        if not isinstance(x, Tensor) or not x.is_floating_point():
            kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise NormcoreError(f"{self.key}: x is {kind}; it must be a floating-point tensor")
        bounds, complete = self._bind(tuple(x.shape), self.layout(layout, x.ndim), settings)
        if self.state and tensors.get("state") is None:
            sizes = axis_sizes(x.shape, self.layout(layout, x.ndim))
            tensors["state"] = {name: new_tensor(slot, sizes, x) for name, slot in self.state.items()}
        return self.fn(x, *bounds, **complete, **tensors)


def new_tensor(slot: Slot, sizes: Mapping[str, int], like: Tensor | None = None) -> Tensor:
    """A slot's tensor with its first value; half-precision input gets float32."""
    dtype = slot.dtype
    if dtype is None and like is not None:
        dtype = torch.promote_types(like.dtype, torch.float32)
    shape = [int(axis) if axis.isdigit() else sizes[axis] for axis in slot.axes.split()]
    device = None if like is None else like.device
    assert not callable(slot.init), "slots that start from a weight are filled by reparametrize"
    return torch.full(shape, slot.init, dtype=dtype or torch.get_default_dtype(), device=device)


def gradients(key: str, given: Any) -> list[Tensor]:
    """The list of gradients, refused in a sentence when it is not one of dense floating-point tensors."""
    tensors = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else None
    if tensors is None or not all(isinstance(g, Tensor) and g.is_floating_point() and not g.is_sparse for g in tensors):
        kind = "a single tensor" if isinstance(given, Tensor) else type(given).__name__
        what = kind if tensors is None else "a list in which something else stands too"
        raise NormcoreError(f"{key}: the gradients are {what}; they must be a list of dense floating-point tensors")
    return tensors


@lru_cache(maxsize=1024, typed=True)
def _bind_cached(
    method: Method, shape: tuple[int, ...], layout: str, names: tuple[str, ...], *values: Any
) -> tuple[tuple[Bound | Window, ...], dict[str, Any]]:
    try:
        sizes = axis_sizes(shape, layout)
    except NormcoreError as error:
        raise NormcoreError(f"{method.key}: {error}") from None
    complete = method.settings(dict(zip(names, values, strict=True)), sizes)
    factors = {letter: complete[name] for letter, name in method.sizes.items()}
    chosen = method._chosen(layout, complete)
    return tuple(r.bind(shape, **(complete if isinstance(r, Window) else factors)) for r in chosen), complete

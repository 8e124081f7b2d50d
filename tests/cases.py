"""What the laws run over: every method, in every layout, under settings drawn from its parameter domains."""

import random
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from normcore import METHODS, Method
from normcore.core import LETTERS, Bound, Divides, OneOf, Slot, Window, counts, new_tensor

SIZES = {"n": 4, "c": 4, "t": 3, "l": 3, "d": 2, "h": 2, "w": 2, "o": 4, "i": 3}
ACTIVATIONS = [method for method in METHODS.values() if method.family == "activation"]
WEIGHTS = [method for method in METHODS.values() if method.family == "weight"]
GRADIENTS = [method for method in METHODS.values() if method.family == "gradient"]
TENSORS = ACTIVATIONS + WEIGHTS
PLAIN: dict[str, dict[str, Any]] = {"ada_norm": {"k": 0.0}, "batch_renorm": {"rmax": 1.0, "dmax": 0.0}}
"""Settings that turn off what a method does beside normalizing, with a gradient that is not the values' derivative."""
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def sizes_of(layout: str, **changed: int) -> dict[str, int]:
    """The axis sizes of the laws' small tensors."""
    return {letter: (SIZES | changed)[letter] for letter in LETTERS[layout]}


def shape_of(layout: str, **changed: int) -> tuple[int, ...]:
    return tuple(sizes_of(layout, **changed).values())


def draw(layout: str, seed: int = 0, dtype: torch.dtype = torch.float64, **changed: int) -> Tensor:
    """A random tensor of a layout."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape_of(layout, **changed), generator=generator, dtype=torch.float64).to(dtype)


def samples(method: Method, layout: str) -> list[dict[str, Any]]:
    """Settings: the defaults, each sample of each parameter alone, and three random combinations."""
    sizes, chance = sizes_of(layout), random.Random(0)
    values = {param.name: param.domain.samples(sizes) for param in method.params}
    alone = [{name: value} for name, options in values.items() for value in options]
    mixed = [{name: chance.choice(options) for name, options in values.items()} for _ in range(3)]
    return [{}, *alone, *(mixed if len(values) > 1 else [])]


def structures(method: Method, sizes: dict[str, int], **changed: Any) -> list[dict[str, Any]]:
    """Settings that change who shares a statistic, or which: the defaults, and the options of counts and choices."""
    options = {p.name: p.domain.samples(sizes) for p in method.params if isinstance(p.domain, Divides | OneOf)}
    every = [{}, *({name: value} for name, values in options.items() for value in values)]
    known = {param.name for param in method.params}
    return [{k: v for k, v in changed.items() if k in known} | settings for settings in every]


def learned(method: Method, x: Tensor, layout: str, settings: dict[str, Any], seed: int = 1) -> dict[str, Tensor]:
    """Random values for all that the method's layer learns."""
    generator = torch.Generator().manual_seed(seed)
    sizes = dict(zip(LETTERS[layout], x.shape, strict=True))
    sizes |= counts(method.settings(settings, sizes))

    def shape(slot: Slot) -> tuple[int, ...]:
        if callable(slot.init):
            return tuple(slot.init(x, *method.bound(x.shape, layout, **settings)).shape)
        return slot.shape(sizes)

    return {
        name: torch.randn(shape(slot), generator=generator, dtype=torch.float64).to(x.dtype)
        for name, slot in method.affine.items()
    }


def remembered(
    method: Method, channels: int, settings: dict[str, Any] | None = None, seed: int = 2, like: Tensor | None = None
) -> dict[str, Tensor]:
    """A running state somewhere along the way; that of a weight method comes from another weight `like` this one."""
    generator = torch.Generator().manual_seed(seed)
    if method.family == "weight":
        assert like is not None
        other = torch.randn(like.shape, generator=generator, dtype=torch.float64)
        bounds = method.bound(like.shape, **(settings or {}))
        return {name: slot.init(other, *bounds) for name, slot in method.state.items() if callable(slot.init)}
    sizes = {"c": channels} | counts(method.settings(settings or {}, {"c": channels}))
    state = {name: new_tensor(slot, sizes, torch.empty(0, dtype=torch.float64)) for name, slot in method.state.items()}
    if "num_batches_tracked" in state:
        state["num_batches_tracked"] += 3  # the first batch counts in full with some
    for name in ("running_mean", "running_var", "running_whitening"):
        if name in state:
            state[name] = torch.rand(state[name].shape, generator=generator, dtype=torch.float64) + 0.5
    return state


def function(
    method: Method, layout: str, settings: dict[str, Any], training: bool = True, **tensors: Any
) -> Callable[[Tensor], Tensor]:
    """The method as a function from one tensor to one tensor."""
    if method.family == "gradient":
        return lambda x: method([x], **beside(method, x), **settings).y[0]
    mode = {"training": training} if "training" in method.inputs else {}
    return lambda x: method(x, layout, **settings, **mode, **tensors).y


def beside(method: Method, x: Tensor) -> dict[str, Any]:
    """The parameters of a gradient, for methods that ask for them: large ones, whose steps need not be short."""
    if "parameters" not in method.inputs:
        return {}
    generator = torch.Generator().manual_seed(3)
    return {"parameters": [100 * torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype)]}


def modes(method: Method) -> tuple[bool, ...]:
    """Training, and evaluation where it differs."""
    return (True, False) if method.state else (True,)


def constant_on(tensor: Tensor, bounds: tuple[Bound | Window, ...]) -> bool:
    """Whether a tensor has one value in each region."""
    for bound in bounds:
        if not isinstance(bound, Bound):
            whole, rows = tensor.expand(bound.shape), product(*map(range, bound.shape))
            if any((whole[_slices(bound, row)] != whole[row]).any() for row in rows):
                return False
            continue
        ids = bound.ids().reshape(-1)
        values = tensor.expand(bound.shape).reshape(-1)
        first = torch.empty(bound.count, dtype=values.dtype).scatter_(0, ids.flip(0), values.flip(0))
        if not torch.equal(first[ids], values):
            return False
    return True


def _slices(bound: Window, index: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(start, stop) for start, stop in bound.box(index))


def _cases(methods: list[Method]) -> Iterator[Any]:
    for method in methods:
        for layout in method.layouts:
            yield pytest.param(method, layout, id=f"{method.key}-{layout}")


every_method = pytest.mark.parametrize(("method", "layout"), list(_cases(list(METHODS.values()))))
every_tensor_method = pytest.mark.parametrize(("method", "layout"), list(_cases(TENSORS)))
every_activation = pytest.mark.parametrize(("method", "layout"), list(_cases(ACTIVATIONS)))
every_weight = pytest.mark.parametrize(("method", "layout"), list(_cases(WEIGHTS)))

"""What the norms of a model meet while it runs, what goes wrong there, and what stands right before them."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from normcore.core import LETTERS, Method
from normcore.diagnose import diagnose
from normcore.finding import Finding
from normcore.layer import _Reparametrization
from normcore.registry import METHODS
from normcore.successor import kind, plain, settings_of

DROPOUT = nn.modules.dropout._DropoutNd
BEFORE = (nn.Linear, nn.modules.conv._ConvNd, DROPOUT)
"""Layers that should not stand right before certain norms."""

NOT_HERE = ("range",)
"""Kinds of findings that are advice for code of one's own, of which a layer of torch.nn needs none."""


def method_of(module: nn.Module) -> Method | None:
    """The method that a module is, if it is one."""
    if isinstance(module, _Reparametrization):
        return module.method
    key = kind(module)[0]
    return METHODS[key] if key and plain(module) else None


@dataclass
class Watch(TorchFunctionMode):
    """Notes what norms meet, and whether what a layer before them made goes anywhere else."""

    norms: Mapping[nn.Module, list[str]]
    shapes: dict[nn.Module, list[tuple[int, ...]]] = field(default_factory=dict)
    symptoms: dict[nn.Module, list[Finding]] = field(default_factory=dict)
    sources: dict[nn.Module, list[Tensor]] = field(default_factory=dict)
    makers: dict[int, tuple[Tensor, nn.Module]] = field(default_factory=dict)  # which keeps the tensors, and their ids
    uses: dict[int, int] = field(default_factory=dict)
    inside: bool = False

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if not self.inside and isinstance(output, Tensor | tuple | list) and not isinstance(output, torch.Size):
            self.use((args, kwargs or {}))
        return output

    def use(self, given: Any) -> None:
        """Counts the tensors in what somebody uses."""
        for tensor in _leaves(given):
            if id(tensor) in self.makers:
                self.uses[id(tensor)] = self.uses.get(id(tensor), 0) + 1

    def made(self, module: nn.Module, output: Tensor) -> None:
        if not (isinstance(module, DROPOUT) and module.p == 0):
            self.makers[id(output)] = (output, module)
            self.uses.pop(id(output), None)

    def enters(self, module: nn.Module, x: Tensor) -> None:
        self.inside = True
        self.shapes.setdefault(module, []).append(tuple(x.shape))
        self.use(x)
        if id(x) in self.makers:
            self.sources.setdefault(module, []).append(x)
        layout, shape = understood(module, tuple(x.shape))
        norm = method_of(module)
        if layout is not None and norm is not None:
            found = diagnose(norm.key, shape, layout, True, x.reshape(shape), **settings_met(module))
            known = {finding.sentence for finding in diagnose(norm.key, shape, layout, True, **settings_met(module))}
            self.symptoms.setdefault(module, []).extend(
                f for f in found if f.sentence not in known and f.kind not in NOT_HERE
            )

    def leaves(self, module: nn.Module, output: Tensor) -> None:
        self.inside = False


def _leaves(given: Any) -> Iterator[Tensor]:
    if isinstance(given, Tensor):
        yield given
    elif isinstance(given, Mapping):
        yield from chain.from_iterable(map(_leaves, given.values()))
    elif isinstance(given, tuple | list):
        yield from chain.from_iterable(map(_leaves, given))


def settings_met(module: nn.Module) -> dict[str, Any]:
    return dict(module.settings) if isinstance(module, _Reparametrization) else settings_of(module)


def understood(module: nn.Module, shape: tuple[int, ...]) -> tuple[str | None, tuple[int, ...]]:
    """The layout in which a module works on a shape; a norm of the last axis sees any other axes as one."""
    possible = (module.layout,) if isinstance(module, _Reparametrization) else kind(module)[1]
    found = next((name for name in possible if len(LETTERS[name]) == len(shape)), None)
    if found is None and "vector" in possible and kind(module)[0] in ("layer_norm", "rms_norm"):
        return "vector", (math.prod(shape[:-1]), shape[-1])
    return found, shape

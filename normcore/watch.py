"""What the norms of a model meet while it runs, what goes wrong there, and what stands right before them."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from normcore.core import LETTERS, Method, NormcoreError
from normcore.diagnose import diagnose
from normcore.digits import digits_lost_to_memory
from normcore.finding import Finding
from normcore.layer import _Reparametrization
from normcore.registry import METHODS
from normcore.successor import kind, plain, settings_of, sizes_of

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
    calls: dict[nn.Module, int] = field(default_factory=dict)
    refused: dict[nn.Module, str] = field(default_factory=dict)
    inside: bool = False

    def __post_init__(self) -> None:
        super().__init__()
        self.frozen = {module for module in self.norms if frozen(module)}  # while it runs, all are in evaluation mode

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if not self.inside and isinstance(output, Tensor | tuple | list) and not isinstance(output, torch.Size):
            self.use((args, kwargs or {}))
        return output

    def use(self, given: Any) -> None:
        """Counts the tensors in what somebody uses."""
        for tensor in _leaves(given):
            if id(tensor) in self.makers or isinstance(tensor, nn.Parameter):
                self.uses[id(tensor)] = self.uses.get(id(tensor), 0) + 1

    def made(self, module: nn.Module, output: Tensor) -> None:
        self.calls[module] = self.calls.get(module, 0) + 1
        if not (isinstance(module, DROPOUT) and module.p == 0):
            self.makers[id(output)] = (output, module)
            self.uses.pop(id(output), None)

    def enters(self, module: nn.Module, x: Tensor) -> None:
        self.inside = True
        if not isinstance(x, Tensor):
            return
        self.shapes.setdefault(module, []).append(tuple(x.shape))
        self.use(x)
        if id(x) in self.makers:
            self.sources.setdefault(module, []).append(x)
        layout, shape = understood(module, tuple(x.shape))
        norm = method_of(module)
        if layout is None or norm is None:
            return
        training, silent = module not in self.frozen, NOT_HERE + ("unlike scale",) * (len(sizes_of(module)) > 1)
        try:
            found = diagnose(norm.key, shape, layout, training, x.reshape(shape), **settings_met(module))
            known = {f.sentence for f in diagnose(norm.key, shape, layout, training, **settings_met(module))}
            lost = [] if module in self.frozen else digits_lost_to_memory(module, norm.key, x)
        except NormcoreError as error:
            self.refused[module] = str(error)
            return
        self.symptoms.setdefault(module, []).extend(
            f for f in (*found, *lost) if f.sentence not in known and f.kind not in silent
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
    """The layout in which a module works on a shape; a norm of the last axes sees them as one, and the others too."""
    possible = (module.layout,) if isinstance(module, _Reparametrization) else kind(module)[1]
    found = next((name for name in possible if len(LETTERS[name]) == len(shape)), None)
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        last = len(module.normalized_shape)
        # RMSNorm over several axes is not the method's on an image, which takes each position by itself.
        if found is None or (last > 1 and isinstance(module, nn.RMSNorm)):
            return "vector", (math.prod(shape[:-last]), math.prod(shape[-last:]))
    return found, shape


def frozen(module: nn.Module) -> bool:
    """Whether a norm goes by running statistics, in a model that may well be training."""
    return not module.training and any(getattr(module, f"running_{name}", None) is not None for name in ("mean", "var"))

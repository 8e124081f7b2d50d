"""A model run once on an example, without leaving a trace: what its layers meet is noted on the way."""

from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from normcore.core import NormcoreError

Note = Callable[[nn.Module, Tensor], None]


def places(model: nn.Module, wanted: Callable[[nn.Module], bool], who: str) -> dict[nn.Module, list[str]]:
    """The layers that are wanted, each with its names, in the order of the model; `who` asks is named in errors.

    Raises:
        NormcoreError: The model is none, or a wanted layer has no shape yet.
    """
    if not isinstance(model, nn.Module):
        raise NormcoreError(f"{who}: model is {type(model).__name__}; it must be a torch.nn.Module")
    found: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if wanted(module):
            found.setdefault(module, []).append(name or "(the model)")
    refuse_lazy(found, who)
    return found


def refuse_lazy(modules: Iterable[nn.Module], who: str) -> None:
    """Refuses modules that do not know their sizes yet."""
    lazy = next((type(m).__name__ for m in modules if isinstance(m, nn.modules.lazy.LazyModuleMixin)), None)
    if lazy:
        raise NormcoreError(f"{who}: {lazy} has no shape yet; run the model once before")


def tensors(module: nn.Module) -> chain[Tensor]:
    """Its parameters and buffers."""
    return chain(module.parameters(), module.buffers())


def run_once(
    model: nn.Module, example: Any, before: Mapping[nn.Module, Note], after: Mapping[nn.Module, Note] | None = None
) -> Any:
    """Runs a model on an example in evaluation mode; buffers, modes and the random state stay as they are.

    Args:
        model: Any module.
        example: An input, a tuple of inputs, or a dictionary of inputs by name.
        before: What is called with a module and its first input, before that module runs.
        after: What is called with a module and its output, where that is a tensor, after it has run.

    Returns:
        The model's output.
    """
    named = dict(example) if isinstance(example, Mapping) else {}
    inputs = () if named else example if isinstance(example, tuple) else (example,)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    devices = {tensor.device for tensor in tensors(model) if tensor.device.type == "cuda"}
    modes = {module: module.training for module in model.modules()}

    def met(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        before[module](module, next(iter((*args, *named.values()))))

    def gave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor) and after is not None:
            after[module](module, output)

    hooks = [module.register_forward_pre_hook(met, with_kwargs=True) for module in before]
    hooks += [module.register_forward_hook(gave) for module in after or ()]
    try:
        for module in modes:
            module.training = False
        with torch.no_grad(), torch.random.fork_rng(devices):
            return torch.func.functional_call(model, buffers, inputs, named)
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode

"""Clippers beside torch.nn.utils.clip_grad_norm_, on the gradients of a ResNet-50, taking turns with it."""

import time
from collections.abc import Callable

import torch
from torch import nn

from normcore import METHODS, Method, clipper

SECONDS = 2.0
"""How long the two of one row take turns, at least six times each after the warm-up."""
WARM_UP = 25
"""Steps until every method has its memory and does what it is there for."""
GROWTH = 1.01
"""From step to step, so that methods which compare a gradient with earlier ones have something to do."""


def report() -> None:
    """Print a row for each gradient method: its time as a multiple of PyTorch's global norm clipping."""
    print(
        "\nClipping the gradients of a ResNet-50 (161 tensors, 25.6 million numbers): time as a multiple of torch's\n"
    )
    print("| method | time / torch.nn.utils.clip_grad_norm_ |\n|---|---|")
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        given = [nn.Parameter(torch.randn(shape, device=device)) for shape in shapes()]
        fresh = [torch.randn_like(p) for p in given]
        for method in METHODS.values():
            if method.family == "gradient" and not method.per_example:
                where = method.key if device == "cpu" else f"{method.key}, {device}"
                print(f"| `{where}` | {ratio(method, given, fresh):.2f} |", flush=True)


def ratio(method: Method, given: list[nn.Parameter], fresh: list[torch.Tensor]) -> float:
    """Our time as a multiple of torch's: the best of turns that follow one another, on the same gradients for both."""
    clip, times = clipper(method.key), ([], [])  # type: ignore[var-annotated]
    calls: tuple[Callable[[], object], ...] = (
        lambda: clip(given),
        lambda: torch.nn.utils.clip_grad_norm_(given, 1.0),
    )
    started, turns = time.perf_counter(), 0
    while turns < WARM_UP + 6 or time.perf_counter() - started < SECONDS:
        for spent, call in zip(times, calls, strict=True):
            for parameter, gradient in zip(given, fresh, strict=True):
                parameter.grad = torch.mul(gradient, GROWTH**turns, out=parameter.grad)
            _wait(given[0])
            start = time.perf_counter()
            call()
            _wait(given[0])
            spent.append(time.perf_counter() - start)
        turns += 1
    return min(times[0][WARM_UP:]) / min(times[1][WARM_UP:])


def _wait(tensor: torch.Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize()


def shapes() -> list[tuple[int, ...]]:
    """The shapes of a ResNet-50's parameters."""
    found: list[tuple[int, ...]] = [(64, 3, 7, 7), (64,), (64,)]
    inputs = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            for kernel in ((width, inputs, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1)):
                found += [kernel, kernel[:1], kernel[:1]]
            if block == 0:
                found += [(4 * width, inputs, 1, 1), (4 * width,), (4 * width,)]
            inputs = 4 * width
    return [*found, (1000, 2048), (1000,)]

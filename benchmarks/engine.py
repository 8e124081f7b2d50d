"""The engine beside torch.nn: the same layer on the same tensor, taking turns so that both see the same machine."""

import time
from collections.abc import Callable, Iterator
from statistics import geometric_mean, median

import torch
from torch import Tensor, nn

import normcore

ROUNDS = 30


def pairs(device: str) -> Iterator[tuple[str, nn.Module, nn.Module, Tensor]]:
    """A name, our layer, PyTorch's, and an input, for each method that torch.nn has."""
    image, tokens = torch.randn(16, 64, 28, 28, device=device), torch.randn(16, 128, 256, device=device)
    yield "batch_norm", normcore.layer("batch_norm", 64), nn.BatchNorm2d(64), image
    yield "group_norm", normcore.layer("group_norm", 64, num_groups=32), nn.GroupNorm(32, 64), image
    yield "instance_norm", normcore.layer("instance_norm", 64), nn.InstanceNorm2d(64, affine=True), image
    yield "layer_norm", normcore.layer("layer_norm", (64, 28, 28)), nn.LayerNorm([64, 28, 28]), image
    yield "layer_norm", normcore.layer("layer_norm", 256, "tokens"), nn.LayerNorm(256), tokens
    yield "rms_norm", normcore.layer("rms_norm", 256, "tokens"), nn.RMSNorm(256, eps=1e-6), tokens
    yield "local_response_norm", normcore.layer("local_response_norm", 64), nn.LocalResponseNorm(5), image


def report() -> None:
    """Print the time of each layer as a multiple of torch.nn's: forward, and forward with backward."""
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    for device in devices:
        ratios = []
        print(f"\nTime as a multiple of torch.nn's layer, {device}\n")
        print("| method | input | forward | with backward |\n|---|---|---|---|")
        for name, ours, theirs, x in pairs(device):
            ours.to(device), theirs.to(device)
            row = [_ratio(_step(ours, x, backward), _step(theirs, x, backward)) for backward in (False, True)]
            ratios.append(row)
            sizes = "×".join(map(str, x.shape))
            print(f"| `{name}` | {sizes} | {row[0]:.2f} | {row[1]:.2f} |")
        means = [geometric_mean(column) for column in zip(*ratios, strict=True)]
        print(f"| geometric mean | | {means[0]:.2f} | {means[1]:.2f} |")


def _step(layer: nn.Module, x: Tensor, backward: bool) -> Callable[[], None]:
    x = x.clone().requires_grad_(backward)

    def run() -> None:
        with torch.set_grad_enabled(backward):
            y = layer(x)
        if backward:
            y.sum().backward()
        if x.is_cuda:
            torch.cuda.synchronize()

    return run


def _ratio(ours: Callable[[], None], theirs: Callable[[], None]) -> float:
    times: dict[Callable[[], None], list[float]] = {ours: [], theirs: []}
    for turn in range(ROUNDS + 3):
        for run in (ours, theirs) if turn % 2 else (theirs, ours):
            start = time.perf_counter()
            run()
            if turn >= 3:
                times[run].append(time.perf_counter() - start)
    return median(times[ours]) / median(times[theirs])

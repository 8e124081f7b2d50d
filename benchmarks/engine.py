"""The engine beside torch.nn, timm, Flax, the plain formula and a copy, which take turns: all see the same machine."""

import ctypes
import importlib.util
import json
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.profiler import ProfilerActivity, profile

import normcore
from normcore import METHODS, Method
from normcore.core import LETTERS, Bound, along_channels
from tests.torchvision_names import declare

LAST = "channels last"
"""The images whose channels lie side by side in memory."""
SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "image": {"image": (32, 64, 56, 56), LAST: (32, 64, 56, 56), "small": (4, 6, 4, 4)},
    "tokens": {"tokens": (32, 128, 768)},
    "conv2d": {"weight": (256, 256, 3, 3), "small weight": (8, 6, 3, 3)},
}
SECONDS = 0.5
"""How long the rivals of one row take turns, at least three times each."""
RIVALS = ("torch.nn", "timm", "Flax", "plain", "copy")
COPY = RIVALS.index("copy")
MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1
"""What glibc's mallopt can be told."""
COSTS = Path(__file__).parents[1] / "explorer" / "measured" / "costs.json"
"""What the page of a method says about its cost."""
Call = Callable[[], Any]


@dataclass(frozen=True)
class Contestant:
    """A call that gives a result, the tensors to differentiate it by, or a finished call for both (not torch)."""

    call: Callable[[], Any]
    inputs: tuple[Tensor, ...] = ()
    with_backward: Call | None = None

    def run(self, backward: bool) -> Call:
        """The call to take the time of."""
        if not self.inputs:
            return self.with_backward if backward and self.with_backward else self.call

        with torch.no_grad():
            slope = torch.ones_like(self.call())

        def step() -> None:
            with torch.set_grad_enabled(backward):
                y = self.call()
            if backward:
                torch.autograd.grad(y, self.inputs, slope, allow_unused=True)
            if y.is_cuda:
                torch.cuda.synchronize()

        return step


def keep_memory() -> None:
    """Tell glibc to keep freed memory for what comes next, as it does or not depending on who freed what before.

    It decides about thousands of page faults a call, for us and for rivals alike.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(MMAP_THRESHOLD, 2**25)
        mallopt(TRIM_THRESHOLD, 2**31 - 1)


def report() -> None:
    """Print a row for each activation and weight method: times as multiples of its rivals', and memory."""
    keep_memory()
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler talks otherwise
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    columns = [(d, mode, rival) for d in devices for mode in ("forward", "with backward") for rival in RIVALS]
    titles = [f"{mode} / {rival}" + ("" if d == "cpu" else f", {d}") for d, mode, rival in columns]
    titles += [f"peak memory / input{'' if d == 'cpu' else f', {d}'}" for d in devices]
    print(
        "\nTime as a multiple of each rival's, and the most memory that a step with backward takes beside its input\n"
    )
    print("| method | input | " + " | ".join(titles) + " |\n|---|---|" + "---|" * len(titles))
    table: list[list[float | None]] = []
    costs: dict[str, dict[str, dict[str, float | None]]] = {}
    for key, label, shape, layout in _rows():
        row: list[float | None] = []
        peaks: list[float | None] = []
        for device in devices:
            memory = torch.channels_last if label == LAST else torch.contiguous_format
            rivals = _rivals(METHODS[key], torch.randn(shape, device=device).to(memory_format=memory), layout)
            row += [ratio for backward in (False, True) for ratio in _ratios(rivals, backward)]
            peaks.append(_peak(rivals["ours"]) / (torch.Size(shape).numel() * 4))
        table.append(row + peaks)
        if "small" not in label and label != LAST:
            where = f"{label}, {' × '.join(map(str, shape))}"
            costs.setdefault(key, {})[where] = {"forward": row[COPY], "backward": row[COPY + len(RIVALS)]}
        print(f"| `{key}` | {label} | " + " | ".join(map(_shown, row + peaks)) + " |", flush=True)
    means = [[value for value in column if value is not None] for column in zip(*table, strict=True)]
    print("| geometric mean | | " + " | ".join(_shown(geometric_mean(m) if m else None) for m in means) + " |")
    COSTS.write_text(json.dumps(costs, indent=1) + "\n", encoding="utf-8")


def _shown(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"


def _rows() -> Iterator[tuple[str, str, tuple[int, ...], str]]:
    for method in METHODS.values():
        for layout, inputs in SHAPES.items():
            if method.family != "gradient" and layout in method.layouts:
                for label, shape in inputs.items():
                    if label != LAST or method.key in OF_TORCH["image"]:
                        yield method.key, label, shape, layout


def _rivals(method: Method, x: Tensor, layout: str) -> dict[str, Contestant]:
    """Ours and whatever there is to compare it with, by name."""
    x.requires_grad_(True)
    rivals = {"copy": Contestant(lambda: x.detach().clone())}
    if method.family == "weight":
        modules: dict[str, nn.Module] = {"ours": normcore.reparametrize(_conv(x), method.key)}
        if method.key == "weight_norm":
            modules["torch.nn"] = parametrizations.weight_norm(_conv(x))
        for name, module in modules.items():
            rivals[name] = Contestant(partial(getattr, module, "weight"), tuple(module.parameters()))
    else:
        letters = method.feature_letters(layout)
        sizes = [size for letter, size in zip(LETTERS[layout], x.shape, strict=True) if letter in letters]
        modules = {"ours": normcore.layer(method.key, sizes, layout).to(x.device)}
        others = {"torch.nn": _of_torch(method.key, sizes, layout), "timm": _of_timm(method.key, sizes[0], layout)}
        modules |= {name: theirs.to(x.device) for name, theirs in others.items() if theirs}
        for name, module in modules.items():
            rivals[name] = Contestant(partial(module, x), (x, *module.parameters()))
        flax = None if x.is_cuda else _of_flax(method.key, x, layout)
        rivals |= {"Flax": flax} if flax else {}
    plain = _plain(method, x, layout, modules["ours"], rivals["ours"].call)
    return rivals | ({"plain": plain} if plain else {})


class _Plain(nn.Module):
    """A formula as a module."""

    def __init__(self, formula: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.forward = formula


def _conv(weight: Tensor) -> nn.Conv2d:
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3, bias=False, device=weight.device)
    conv.weight = nn.Parameter(weight.detach().clone())
    return conv


def _of_torch(key: str, sizes: Sequence[int], layout: str) -> nn.Module | None:
    make = OF_TORCH[layout].get(key)
    return make(sizes) if make else None


OF_TORCH: dict[str, dict[str, Callable[[Sequence[int]], nn.Module]]] = {
    "image": {
        "batch_norm": lambda sizes: nn.BatchNorm2d(sizes[0]),
        "group_norm": lambda sizes: nn.GroupNorm(2, sizes[0]),
        "instance_norm": lambda sizes: nn.InstanceNorm2d(sizes[0], affine=True),
        "layer_norm": lambda sizes: nn.LayerNorm(list(sizes)),
        "local_response_norm": lambda sizes: nn.LocalResponseNorm(5),
    },
    "tokens": {
        "layer_norm": lambda sizes: nn.LayerNorm(sizes[0]),
        "rms_norm": lambda sizes: nn.RMSNorm(sizes[0], eps=1e-6),
    },
}


def _of_timm(key: str, channels: int, layout: str) -> nn.Module | None:
    """timm's module, where it can be imported; its modules are for images, and some just call torch.nn's."""
    declare()
    try:
        from timm import layers  # noqa: PLC0415 - only where it is installed
        from timm.layers.grn import GlobalResponseNorm  # noqa: PLC0415
    except ImportError:
        return None
    if key.startswith("evo_norm_"):
        return getattr(layers, f"EvoNorm2d{key[-2:].upper()}")(channels, groups=2)  # the B's pass over the groups
    makes: dict[str, Callable[..., nn.Module]] = {
        "filter_response_norm": layers.FilterResponseNormTlu2d,
        "frozen_batch_norm": partial(layers.FrozenBatchNormAct2d, apply_act=False),
        "global_response_norm": partial(GlobalResponseNorm, channels_last=False),
        "layer_norm_2d": layers.LayerNorm2d,
        "layer_scale": layers.LayerScale2d,
        "rms_norm_2d": layers.RmsNorm2d,
        "simple_norm_2d": layers.SimpleNorm2d,
    }
    return makes[key](channels) if layout == "image" and key in makes else None


def _of_flax(key: str, x: Tensor, layout: str) -> Contestant | None:
    """Flax's module under jit; its channels come last."""
    if not all(map(importlib.util.find_spec, ("jax", "flax"))):
        return None
    import jax  # noqa: PLC0415 - only where it is installed
    from flax import linen  # noqa: PLC0415

    makes = {
        "batch_norm": lambda: linen.BatchNorm(use_running_average=False, epsilon=1e-5),
        "group_norm": lambda: linen.GroupNorm(2, epsilon=1e-5),
        "layer_norm": lambda: linen.LayerNorm(epsilon=1e-5),
        "rms_norm": linen.RMSNorm,
        "instance_norm": lambda: linen.InstanceNorm(epsilon=1e-5),
    }
    if key not in makes or (layout == "tokens") != (key in ("layer_norm", "rms_norm")):
        return None
    module = makes[key]()
    value = jax.numpy.asarray((x if layout == "tokens" else x.movedim(1, -1)).detach().contiguous().numpy())
    variables = module.init(jax.random.key(0), value)
    apply = jax.jit(lambda v, t: module.apply(v, t, mutable=["batch_stats"])[0])
    both = jax.jit(lambda v, t, slope: jax.vjp(apply, v, t)[1](slope))
    slope = jax.numpy.ones_like(value)
    return Contestant(
        lambda: jax.block_until_ready(apply(variables, value)),
        with_backward=lambda: jax.block_until_ready(both(variables, value, slope)),
    )


def _plain(method: Method, x: Tensor, layout: str, module: nn.Module, ours: Call) -> Contestant | None:
    """The two-pass formula, written with mean and arithmetic, where the method's result is that (or n - 1's)."""
    region, *others = (*method.bound(x.shape, layout), None)
    statistics = set(method(x.detach(), layout).stats)
    centered = "mean" in statistics
    known = ({"mean", "var"}, {"mean", "var_unbiased"}, {"mean_square"})
    if not isinstance(region, Bound) or others != [None] or statistics not in known:
        return None
    known_parameters = dict(module.named_parameters()) if method.family == "activation" else {}
    weight, bias, tau = (known_parameters.get(name) for name in ("weight", "bias", "tau"))
    if any(p is not None and p.ndim > 1 and p.shape != x.shape[-p.ndim :] for p in (weight, bias)):
        return None

    def beside(parameter: Tensor) -> Tensor:
        return parameter if parameter.ndim > 1 else along_channels(parameter, region)

    def formula(x: Tensor) -> Tensor:
        distance = x - region.spread(region.mean(x)) if centered else x
        y = distance / torch.sqrt(region.spread(region.mean(distance**2)) + 1e-5)
        y = y if weight is None else y * beside(weight)
        y = y if bias is None else y + beside(bias)
        return y if tau is None else torch.maximum(y, beside(tau))

    with torch.no_grad():
        if not torch.allclose(formula(x), ours(), rtol=0.1, atol=0.1):
            return None
    if method.family == "weight":
        conv = parametrize.register_parametrization(_conv(x), "weight", _Plain(formula))
        return Contestant(partial(getattr, conv, "weight"), tuple(conv.parameters()))
    return Contestant(partial(_Plain(formula), x), (x, *(p for p in (weight, bias, tau) if p is not None)))


def _ratios(rivals: dict[str, Contestant], backward: bool) -> list[float | None]:
    """Our time as a multiple of each rival's: medians of turns that follow one another."""
    runs = {name: contestant.run(backward) for name, contestant in rivals.items()}
    repeats = {}
    for name, run in runs.items():
        run()
        start = time.perf_counter()
        run()
        repeats[name] = max(1, int(1e-3 / (time.perf_counter() - start)))
    times: dict[str, list[float]] = {name: [] for name in runs}
    order, started = random.Random(0), time.perf_counter()
    while len(times["ours"]) < 3 or time.perf_counter() - started < SECONDS:
        for name, run in order.sample(list(runs.items()), len(runs)):  # what came before is in the cache
            start = time.perf_counter()
            for _ in range(repeats[name]):
                run()
            times[name].append((time.perf_counter() - start) / repeats[name])
    return [median(times["ours"]) / median(times[name]) if name in times else None for name in RIVALS]


def _peak(ours: Contestant) -> float:
    """The most bytes in use at once during a step with backward, beside what was there before."""
    run = ours.run(backward=True)
    run()
    if ours.inputs[0].is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    changes = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    in_use = peak = 0
    for change in sorted(changes, key=lambda event: event.start_ns()):
        in_use += change.nbytes()
        peak = max(peak, in_use)
    return peak

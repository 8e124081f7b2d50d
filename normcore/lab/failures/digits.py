"""Failures of number formats: digits that cancel, kernels that lose them, squares that overflow."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from normcore.core import Region, shift_away
from normcore.diagnose import diagnose
from normcore.lab.failures.record import Failure, Reveal, closest, normal
from normcore.registry import METHODS


def _cancelling() -> Reveal:
    means = torch.logspace(0, 5, 41, dtype=torch.float64)
    x = (means[:, None] + 0.1 * normal(41, 4096)).float()
    exact = x.double().var(1, correction=0)
    one_pass = x.square().mean(1) - x.mean(1).square()
    two_pass = (x - x.mean(1, keepdim=True)).square().mean(1)
    off = {name: (got.double() - exact).abs() / exact for name, got in (("one", one_pass), ("two", two_pass))}
    at = int((means - 1000).abs().argmin())
    wrong = float(off["one"][at])
    answer = 2 if float(one_pass[at]) == 0 else 1 if wrong > 0.1 else 0
    negative = torch.where(one_pass < 0, off["one"], torch.nan)
    return Reveal(
        f"At mean 1,000 the one-pass formula gives a variance of {float(one_pass[at]):.3g} instead of "
        f"{float(exact[at]):.3g}; subtracting the mean first gives {float(two_pass[at]):.3g}. Of the "
        f"{len(means)} means tried, {int((one_pass < 0).sum())} give a negative variance.",
        answer,
        means.numpy(),
        {
            "mean of squares − square of mean": _positive(off["one"]),
            "of which negative": negative.numpy(),
            "mean of (value − mean)²": _positive(off["two"]),
        },
        points=("of which negative",),
    )


def _positive(values: Tensor) -> np.ndarray:
    """Errors for a logarithmic axis; none at all counts as half of float32's last digit."""
    return values.clamp_min(torch.finfo(torch.float32).eps / 2).numpy()


KERNELS = {
    "layer_norm": lambda x: functional.layer_norm(x, x.shape[1:], eps=1e-12),
    "group_norm": lambda x: functional.group_norm(x, 2, eps=1e-12),
    "batch_norm": lambda x: functional.batch_norm(x, None, None, training=True, eps=1e-12),
    "instance_norm": lambda x: functional.instance_norm(x, eps=1e-12),
}
"""PyTorch's own functions, as they are called on images."""


def kernel_errors(means: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """How far PyTorch's functions are off at deviation 0.01, alone and after a value of each region was subtracted."""
    noise = 0.01 * normal(8, 16, 8, 8)
    alone: dict[str, list[float]] = {key: [] for key in KERNELS}
    first: dict[str, list[float]] = {key: [] for key in KERNELS}
    for mean in means.tolist():
        x = (mean + noise).float()
        for key, kernel in KERNELS.items():
            exact = kernel(x.double())
            shifted = shift_away(x, METHODS[key].bound(x.shape, "image"))[0]
            alone[key].append(float((kernel(x).double() - exact).abs().max()))
            first[key].append(float((kernel(shifted).double() - exact).abs().max()))
    return ({k: torch.tensor(v, dtype=torch.float64) for k, v in found.items()} for found in (alone, first))  # type: ignore[return-value]


def _kernels() -> Reveal:
    means = torch.logspace(0, 5, 21, dtype=torch.float64)
    alone, first = kernel_errors(means)
    at = int((means - 1e4).abs().argmin())
    worst, least = (float(pick(e[at] for e in alone.values())) for pick in (max, min))
    mended = float(max(e[at] for e in first.values()))
    return Reveal(
        f"At mean 10,000 the four functions are off by {least:.2g} to {worst:.2g}, where outputs have deviation 1. "
        f"With one value of each region subtracted first, the worst is off by {mended:.1g}.",
        closest(np.log10(worst), (-6.0, -1.0, np.inf)) if np.isfinite(worst) else 2,
        means.numpy(),
        {
            **{f"torch {METHODS[key].name}": values.numpy() for key, values in alone.items()},
            "worst, shifted first": torch.stack(list(first.values())).amax(0).numpy(),
        },
    )


def _half() -> Reveal:
    sizes = torch.logspace(-1, 3.4, 89, dtype=torch.float64)
    values = normal(1024)
    region = Region("n c -> n").bind((len(sizes), 1024))
    x = sizes[:, None] * (values / values.square().mean().sqrt())

    def by_hand(dtype: torch.dtype) -> Tensor:
        narrow = x.to(dtype)
        total = narrow.square().sum(1, keepdim=True)
        return (narrow / (total / 1024).sqrt()).float()

    ours = METHODS["rms_norm"](x.half(), "vector").y.float()
    out = {
        "float16 throughout": by_hand(torch.float16),
        "bfloat16 throughout": by_hand(torch.bfloat16),
        "float16 in, statistics in float32": ours,
    }
    size = {name: region.mean(y.double().square()).sqrt() for name, y in out.items()}
    at = int((sizes - 10).abs().argmin())
    got = float(size["float16 throughout"][at])
    first = float(sizes[int((size["float16 throughout"] < 0.5).nonzero()[0])])
    return Reveal(
        f"Values of size 10 come out with size {got:g}: their squares sum to {1024 * 100:,}, beyond the largest "
        f"float16, {torch.finfo(torch.float16).max:,.0f}. It happens from size {first:.2g} on, for 1,024 values.",
        2 if np.isnan(got) else closest(got, (1.0, 0.0)),
        sizes.numpy(),
        {name: values.numpy() for name, values in size.items()},
    )


FAILURES = (
    Failure(
        "cancelling",
        "A variance that cancels",
        "Values of mean 1,000 and deviation 0.1 in float32: the variance is 0.01. What does mean(x²) − mean(x)² give?",
        ("0.01, but for the last digits", "Anything, even a negative number", "Exactly 0"),
        _cancelling,
        ("mean of the values (deviation 0.1)", "error of the variance, relative"),
        "Both terms are near 1,000,000, where float32 numbers lie 0.06 apart. Their difference, 0.01, is made of "
        "rounding alone. Under a root, a negative one gives nan.",
        "Subtract the mean first, then square. Nothing here uses the one-pass formula. Flax's norms do for speed, "
        "unless told `use_fast_variance=False`, and so does PyTorch's group norm on images in channels-last memory.",
        "import torch\n\n"
        "x = 1000 + 0.1 * torch.randn(4096)\n"
        "print(x.square().mean() - x.mean().square())  # should be 0.01\n"
        "print((x - x.mean()).square().mean())",
        "method.py",
        {"key": "batch_norm"},
        log="xy",
    ),
    Failure(
        "kernels",
        "Kernels that lose digits",
        "PyTorch's own layer norm, group norm, batch norm and instance norm, float32, mean 10,000 and deviation 0.01. "
        "How far are they off, where outputs have deviation 1?",
        ("By about 0.000001, as float32 promises", "By several hundredths or more", "They give nan"),
        _kernels,
        ("mean of the values (deviation 0.01)", "largest error of the output"),
        "The mean that they subtract is itself a float32 number. Near 10,000 these lie 0.001 apart: it may be off by "
        "0.0005 or more, a twentieth of the deviation, and the whole output is off with it.",
        "Subtract any value of the region first. That changes nothing else, for one pass more over the tensor: "
        "`shift_first=True` on a layer does it.",
        "import torch\n"
        "import normcore\n\n"
        "x = 1e4 + 1e-2 * torch.randn(8, 16, 8, 8)\n"
        "exact = torch.nn.functional.group_norm(x.double(), 2)\n"
        "for shift_first in (False, True):\n"
        '    norm = normcore.layer("group_norm", 16, shift_first=shift_first)\n'
        "    print(shift_first, (norm(x) - exact).abs().max())",
        "method.py",
        {"key": "group_norm"},
        log="xy",
        found=lambda: diagnose("group_norm", (8, 16, 8, 8), x=(1e4 + 1e-2 * normal(8, 16, 8, 8)).float()),
    ),
    Failure(
        "half",
        "Squares beyond float16",
        "1,024 values of size 10 in float16 are divided by the root of their mean square, all in float16. What comes "
        "out?",
        ("Values of size 1", "0 everywhere", "nan everywhere"),
        _half,
        ("size of the values", "size that comes out"),
        "The sum of squares passes 65,504 and becomes infinite; a finite number divided by infinity is 0. bfloat16 "
        "reaches as far as float32, at the price of digits.",
        "Take statistics in float32 whatever the input is, and round once at the end. All methods here do. PyTorch's "
        "layer, RMS, group, batch and instance norm stay within 0.01 of that on values of size 1,000; its "
        "CrossMapLRN2d gives nan there, as norms written by hand may.",
        "import torch\n"
        "import normcore\n\n"
        "x = (10 * torch.randn(1, 1024)).half()\n"
        "print((x / (x.square().sum() / 1024).sqrt()).abs().max())  # 0\n"
        'print(normcore.METHODS["rms_norm"](x, "vector").y.abs().max())',
        "method.py",
        {"key": "rms_norm"},
        log="x",
    ),
)

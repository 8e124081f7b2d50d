"""What a failure is: a question, what happens when it is tried, and what mends it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from normcore.finding import Finding


@dataclass(frozen=True)
class Reveal:
    """What came out. `said` is a sentence from the numbers, `answer` the place of the answer that they bear out.

    `series` has curves over `x` by name, with nan for a hole; those in `points` are single points.
    """

    said: str
    answer: int
    x: np.ndarray
    series: Mapping[str, np.ndarray]
    points: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "said", minus(self.said))


@dataclass(frozen=True)
class Failure:
    """One way to fail, as a small experiment.

    Args:
        key: Its name in a link.
        title: What fails, in a few words.
        question: What a visitor is to foresee.
        answers: What might happen.
        show: Runs it.
        axes: The titles of x and y, with units where there are any.
        why: Why it happens.
        remedy: What helps.
        code: The failure and its remedy, to run.
        page: The page that shows more of it, and `link`, its settings there.
        log: Which axes are logarithmic: "", "x", "y" or "xy".
        found: What `normcore.diagnose` says of it.
    """

    key: str
    title: str
    question: str
    answers: tuple[str, ...]
    show: Callable[[], Reveal]
    axes: tuple[str, str]
    why: str
    remedy: str
    code: str
    page: str
    link: Mapping[str, str | list[str]] = field(default_factory=dict)
    log: str = ""
    found: Callable[[], tuple[Finding, ...]] = tuple


def minus(text: str) -> str:
    """Hyphens before numbers as minus signs."""
    return re.sub(r"(?<!\w)-(?=\d)", "−", text)


def generator() -> torch.Generator:
    """The randomness of one experiment."""
    return torch.Generator().manual_seed(0)


def normal(*shape: int, chance: torch.Generator | None = None) -> Tensor:
    """Standard normal values in float64."""
    return torch.randn(*shape, generator=chance or generator(), dtype=torch.float64)


def closest(value: float, expected: tuple[float, ...]) -> int:
    """Which of the expected values a measured one is closest to."""
    return min(range(len(expected)), key=lambda i: abs(expected[i] - value))


def deviation(x: Tensor, dim: int | None = None) -> Tensor:
    """The root mean square distance from the mean."""
    return x.std(dim=dim, correction=0) if dim is not None else x.std(correction=0)

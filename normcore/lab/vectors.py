"""What a gradient method makes of a gradient of two numbers: its answer, its field, which setting is a threshold."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from normcore.core import Method, NormcoreError, Normed, Range
from normcore.registry import METHODS

ONE, ROW, TWO = "one tensor", "one row of a matrix", "two tensors"
PARTS: Mapping[str, tuple[tuple[int, ...], ...]] = {ONE: ((2,),), ROW: ((1, 2),), TWO: ((1,), (1,))}
"""How a net may hold two numbers: the shapes of its tensors."""
WEIGHTS = (3.0, 4.0)
"""The parameters that the two numbers are the gradient of, where a method asks for them."""


@dataclass(frozen=True)
class Variant:
    """A gradient method with its settings."""

    key: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def method(self) -> Method:
        return METHODS[self.key]

    @property
    def name(self) -> str:
        return self.method.name

    @property
    def remembers(self) -> bool:
        """Whether its answer depends on the gradients before."""
        return "state" in self.method.inputs

    def call(self, gradients: list[Tensor], state: Mapping[str, Any], weights: list[Tensor]) -> Normed:
        """The method's answer, with its memory and, where it asks for them, the parameters.

        A method for the gradients of single examples gets these as those of the only one.
        """
        given: dict[str, Any] = {"parameters": weights} if "parameters" in self.method.inputs else {}
        if state:
            given["state"] = state
        asked = [gradient[None] for gradient in gradients] if self.method.per_example else gradients
        return self.method(asked, **self.settings, **given)


@dataclass(frozen=True)
class Answer:
    """What one variant made of one gradient: both of (2), their lengths, the share that is left, the degrees turned."""

    variant: Variant
    before: np.ndarray
    after: np.ndarray
    length_before: float
    length: float
    scale: float
    turned: float


def answer(
    variant: Variant, gradient: Sequence[float], past: np.ndarray, parts: str = ONE, weights: Sequence[float] = WEIGHTS
) -> Answer:
    """The answer to one gradient, after a past of other gradients (steps 2) for those that remember."""
    before = np.asarray(gradient, dtype=float)
    after = _after(variant, before[None], past, parts, weights)[0]
    length_before, length = float(np.linalg.norm(before)), float(np.linalg.norm(after))
    scale = length / length_before if length_before else (1.0 if length == 0 else math.inf)
    return Answer(variant, before, after, length_before, length, scale, turned(before, after))


@lru_cache(maxsize=1)
def refusals() -> dict[str, str]:
    """The gradient methods, each with the reason why it cannot answer to a gradient of two numbers; "" where it can."""
    return {key: _refusal(key) for key, method in METHODS.items() if method.family == "gradient"}


def _refusal(key: str) -> str:
    try:
        answer(Variant(key), (3.0, 4.0), past(2, 1.0))
    except NormcoreError as error:
        return str(error)
    return ""


def answers_to(
    variant: Variant, gradients: np.ndarray, past: np.ndarray, parts: str = ONE, weights: Sequence[float] = WEIGHTS
) -> np.ndarray:
    """Where each of many gradients (count 2) goes, all after the same past."""
    return _after(variant, np.asarray(gradients, dtype=float), past, parts, weights)


def _after(
    variant: Variant, gradients: np.ndarray, past: np.ndarray, parts: str, weights: Sequence[float] = WEIGHTS
) -> np.ndarray:
    held = split(weights, parts)
    state: Mapping[str, Any] = {}
    if variant.remembers:
        for old in past:
            state = variant.call(split(old, parts), state, held).state
    return np.array([join(variant.call(split(g, parts), state, held).y) for g in gradients])


def turned(before: np.ndarray, after: np.ndarray) -> float:
    """The angle between two vectors, in degrees; nan where one of them has no direction."""
    if not (np.isfinite([*before, *after]).all() and before.any() and after.any()):
        return math.nan
    cross = before[0] * after[1] - before[1] * after[0]
    return abs(math.degrees(math.atan2(cross, float(before @ after))))


def grid(reach: float, count: int = 13) -> np.ndarray:
    """Gradients on a square lattice from -reach to reach, without the one at the origin."""
    line = np.linspace(-reach, reach, count)
    points = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    return points[np.abs(points).sum(axis=1) > 1e-12 * reach]


def past(steps: int, length: float, seed: int = 0) -> np.ndarray:
    """Gradients (steps 2) that point anywhere, of about a usual length: as training would have left them behind."""
    source = torch.Generator().manual_seed(seed)
    angle = 2 * math.pi * torch.rand(steps, generator=source, dtype=torch.float64)
    size = length * torch.exp(0.25 * torch.randn(steps, generator=source, dtype=torch.float64))
    return torch.stack([size * angle.cos(), size * angle.sin()], dim=1).numpy()


@lru_cache(maxsize=256)
def threshold(key: str) -> str | None:
    """The setting that is a threshold, if there is one: multiplied together with the gradient it multiplies the answer.

    It is measured, not declared; a setting that changes nothing on a long gradient is none.
    """
    method = METHODS[key]
    for param in method.params:
        if not isinstance(param.domain, Range) or not isinstance(param.default, float):
            continue
        if not math.isinf(param.domain.high) or param.domain.low < 0 or param.domain.logarithmic:
            continue
        plain, high, both = (
            _probe(key, param.name, scale, limit) for scale, limit in ((1.0, 0.5), (1.0, 1.0), (2.0, 1.0))
        )
        if plain is None or high is None or both is None:
            continue
        if np.allclose(both, 2 * plain, rtol=1e-4) and not np.allclose(plain, high, rtol=1e-2):
            return param.name
    return None


def _probe(key: str, name: str, scale: float, limit: float) -> np.ndarray | None:
    try:
        return _after(Variant(key, {name: limit}), scale * np.array([[30.0, 7.0]]), np.empty((0, 2)), ONE)[0]
    except NormcoreError:
        return None


def split(point: Sequence[float] | np.ndarray, parts: str = ONE) -> list[Tensor]:
    """Two numbers as the tensors of a net."""
    numbers = torch.tensor([float(value) for value in point], dtype=torch.float64)
    shapes = PARTS[parts]
    return [part.reshape(shape) for part, shape in zip(numbers.chunk(len(shapes)), shapes, strict=True)]


def join(tensors: Sequence[Tensor]) -> list[float]:
    """The tensors of a net as its two numbers."""
    return [float(value) for tensor in tensors for value in tensor.reshape(-1)]

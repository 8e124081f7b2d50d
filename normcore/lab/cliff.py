"""The cliff of Pascanu, Mikolov and Bengio: a recurrent net of one unit, its loss surface, and descents over it.

The state follows x_t = w σ(x_{t-1}) + b from x_0 = 0.5 for fifty steps; the loss is (σ(x_50) - 0.7)². Over (w, b) that
is a flat land with a wall through it, along which the gradient is hundreds of times as long as beside it.
Source: arXiv:1211.5063, section 2.3 and figure 6.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from normcore.core import NormcoreError
from normcore.lab.vectors import ONE, Variant, join, split

TIME = 50
FIRST = 0.5
TARGET = 0.7
FAR = 1e6
"""Beyond this the net has long been flat: a descent that gets there has left for good."""


@dataclass(frozen=True)
class Surface:
    """The loss over a grid: `w` (columns), `b` (rows), `loss` (rows columns)."""

    w: np.ndarray
    b: np.ndarray
    loss: np.ndarray

    def holds(self, w: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Whether points lie within its borders."""
        return (self.w[0] <= w) & (w <= self.w[-1]) & (self.b[0] <= b) & (b <= self.b[-1])


@dataclass(frozen=True)
class Route:
    """A path as it lies on the surface, a point about every `APART`; nan where it is beyond the borders."""

    w: np.ndarray
    b: np.ndarray
    loss: np.ndarray


APART, MOST = 0.03, 240
"""How far apart the points of a route are, and how many a step has at most."""


@dataclass(frozen=True)
class Descent:
    """One path down the surface, an entry a visited point; the last point has no step any more.

    `length` and `used` are the lengths of the gradient before and after clipping, `turned` the degrees between them.
    `left` is the step at which the path was broken off, because a number was no longer finite or no longer near.
    """

    label: str
    w: np.ndarray
    b: np.ndarray
    loss: np.ndarray
    length: np.ndarray
    used: np.ndarray
    left: int | None

    @property
    def jump(self) -> int:
        """The step that moved farthest."""
        return int(np.argmax(self.moved)) if len(self.moved) else 0

    @property
    def moved(self) -> np.ndarray:
        """How far each step moved."""
        return np.hypot(np.diff(self.w), np.diff(self.b))

    def until(self, step: int) -> "Descent":
        """The same path, its first steps only."""
        kept = {name: getattr(self, name)[: step + 1] for name in ("w", "b", "loss", "length", "used")}
        return replace(self, **kept, left=self.left if self.left is not None and self.left < step else None)

    @property
    def clipped(self) -> int:
        """In how many of the steps a method changed the length of the gradient."""
        taken = len(self.moved)
        return int((np.abs(self.used - self.length) > 1e-5 * self.length)[:taken].sum())

    def outside(self, land: Surface) -> int | None:
        """The first visited point that lies beyond the borders of a surface."""
        (beyond,) = np.nonzero(~land.holds(self.w, self.b))
        return int(beyond[0]) if len(beyond) else None


def surface(w: tuple[float, float], b: tuple[float, float], count: int = 71) -> Surface:
    """The loss on a grid of `count` by `count` points."""
    across, along = np.linspace(*w, count), np.linspace(*b, count)
    return Surface(across, along, losses(across[None, :], along[:, None]))


def losses(w: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The loss at many points: what `slope` says of one, without the derivatives."""
    x = np.full(np.broadcast_shapes(w.shape, b.shape), FIRST)
    for _ in range(TIME):
        x = w * _sigmoids(x) + b
    return (_sigmoids(x) - TARGET) ** 2


def route(path: Descent, land: Surface) -> Route:
    """A path laid over the surface: between two visited points it goes straight, and up and down with the land."""
    counts = np.clip(np.ceil(path.moved / APART), 1, MOST).astype(int)
    shares = [np.linspace(0, 1, count, endpoint=False) for count in counts]
    w, b = (
        np.concatenate([*(p[i] + share * (p[i + 1] - p[i]) for i, share in enumerate(shares)), p[-1:]])
        for p in (path.w, path.b)
    )
    inside = land.holds(w, b)
    w, b = np.where(inside, w, np.nan), np.where(inside, b, np.nan)
    return Route(w, b, losses(w, b))


def slope(w: float, b: float) -> tuple[float, float, float]:
    """The loss at one point, and its derivatives by w and by b, carried forward through the fifty steps."""
    x, by_w, by_b = FIRST, 0.0, 0.0
    for _ in range(TIME):
        s = _sigmoid(x)
        steep = w * s * (1 - s)
        x, by_w, by_b = w * s + b, s + steep * by_w, 1 + steep * by_b
    s = _sigmoid(x)
    outer = 2 * (s - TARGET) * s * (1 - s)
    return (s - TARGET) ** 2, outer * by_w, outer * by_b


def descend(
    variant: Variant | None, start: tuple[float, float], rate: float, steps: int, parts: str = ONE, label: str = ""
) -> Descent:
    """Plain gradient descent from a start: point - rate · (what the variant makes of the gradient).

    Args:
        variant: The method and its settings; none for the gradient itself.
        start: w and b.
        rate: The step size.
        steps: How many steps.
        parts: How w and b are held, one of `vectors.PARTS`.
        label: What the path is called; by default the method's name.
    """
    if steps < 1:
        raise NormcoreError(f"steps={steps} must be at least 1")
    if not all(map(math.isfinite, (*start, rate))):
        raise NormcoreError(f"start={start} and step size {rate} must be finite numbers")
    state: dict[str, Any] = {}
    point = (float(start[0]), float(start[1]))
    rows: list[tuple[float, ...]] = []
    left = None
    for step in range(steps + 1):
        loss, *gradient = slope(*point)
        used = gradient
        if variant is not None and step < steps:
            normed = variant.call(split(gradient, parts), state, split(point, parts))
            state, used = dict(normed.state), join(normed.y)
        rows.append((*point, loss, math.hypot(*gradient), math.hypot(*used)))
        if step == steps:
            break
        point = (point[0] - rate * used[0], point[1] - rate * used[1])
        if not all(math.isfinite(value) and abs(value) < FAR for value in point):
            left = step
            break
    w, b, losses_there, lengths, used_there = map(np.array, zip(*rows, strict=True))
    return Descent(
        label or (variant.name if variant else "Without clipping"), w, b, losses_there, lengths, used_there, left
    )


def _sigmoids(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -700, 700)))


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0

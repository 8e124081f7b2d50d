"""What a method does to gradients: how the elements of a region push each other, and what a gradient loses."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from normcore.core import LETTERS, NormcoreError, Range
from normcore.lab.inputs import Input
from normcore.lab.numbers import Numbers, run
from normcore.registry import method

MOST = 20
"""The most elements of a region that a Jacobian is drawn for."""
LARGE = 2**15
"""From how many values on an ε is tried at fewer places."""


@dataclass(frozen=True)
class Backward:
    """One region on the way back, over the elements that count.

    `jacobian` is ∂y/∂x among some elements, in the order of their `inputs`; `names` say where they are. `outputs` and
    the gradients have one value for each element of the region: `arriving` at the output; the same `centered`, without
    its mean; `orthogonal`, without its projection on the output either; and what autograd finds at the input,
    `leaving`, times `factor`: the region's deviation before over that after, and 1 where either is 0. `members` are the
    flat places of the elements. `mean` and `along` tell of the arriving and the
    leaving gradient: its mean, and the cosine of its angle with the output. `outside` is the largest gradient that
    leaves at any other element.
    """

    names: tuple[str, ...]
    members: np.ndarray
    inputs: np.ndarray
    jacobian: np.ndarray
    outputs: np.ndarray
    arriving: np.ndarray
    centered: np.ndarray
    orthogonal: np.ndarray
    leaving: np.ndarray
    factor: float
    mean: tuple[float, float]
    along: tuple[float, float]
    outside: float


def backward(given: Input, numbers: Numbers, group: int, seed: int = 0, **settings: Any) -> Backward:
    """Measures one group of a method's numbers by autograd.

    The gradient arrives at this group alone: normal noise, plus 1 everywhere, plus the standardized output, so that it
    has a mean and a part along the output to lose.

    Raises:
        NormcoreError: The group does not exist, or nothing in it counts.
    """
    key, groups = numbers.key, numbers.groups
    if not 0 <= group < groups.count:
        raise NormcoreError(f"region={group} does not exist; there are {groups.count}, from 0 to {groups.count - 1}")
    members = groups.order[group]
    members = members[numbers.counted.reshape(-1)[members]]
    if not members.size:
        raise NormcoreError(f"region={group}: nothing in {groups.name(group)} counts; choose another region")
    before = given.x.numpy().reshape(-1)[members]
    ranked = np.argsort(before, kind="stable")
    shown = members[ranked[np.unique(np.linspace(0, members.size - 1, min(members.size, MOST)).round().astype(int))]]
    x = given.x.clone().requires_grad_()
    with torch.enable_grad():
        y = run(key, given, x, **settings).reshape(-1)
        after = y.detach().numpy()[members]
        result = after - after.mean()
        deviation = float(result.std())
        noise = torch.randn(members.size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).numpy()
        arriving = noise + 1 + (result / deviation if deviation > 0 else 0.0)
        upstream = torch.zeros(math.prod(given.shape), dtype=torch.float64)
        upstream[members] = torch.as_tensor(arriving)
        rows = [_slope(y[int(i)], x)[shown] for i in shown]
        found = _slope((y * upstream).sum(), x)
    centered = arriving - arriving.mean()
    # The output of some methods has another deviation than 1: only its own square makes this a projection.
    square = float(result @ result)
    orthogonal = centered - result * (float(centered @ result) / square if square > 0 else 0.0)
    spread = float(before.std())
    factor = spread / deviation if deviation > 0 and spread > 0 else 1.0
    leaving = found[members] * factor
    other = found.copy()
    other[members] = 0
    return Backward(
        names=tuple(_place(int(i), given) for i in shown),
        members=members,
        inputs=given.x.numpy().reshape(-1)[shown],
        jacobian=np.stack(rows),
        outputs=after,
        arriving=arriving,
        centered=centered,
        orthogonal=orthogonal,
        leaving=leaving,
        factor=factor,
        mean=(float(arriving.mean()), float(leaving.mean())),
        along=(_correlation(arriving, result), _correlation(leaving, result)),
        outside=float(np.abs(other).max()),
    )


def _slope(target: torch.Tensor, x: torch.Tensor) -> np.ndarray:
    if not target.requires_grad:
        return np.zeros(x.numel())
    (found,) = torch.autograd.grad(target, x, retain_graph=True, allow_unused=True)
    return np.zeros(x.numel()) if found is None else found.numpy().reshape(-1)


def _correlation(gradient: np.ndarray, result: np.ndarray) -> float:
    """The cosine of the angle between a gradient and the output without its mean."""
    length = float(np.linalg.norm(gradient) * np.linalg.norm(result))
    return float(gradient @ result) / length if length > 0 else 0.0


def _place(flat: int, given: Input) -> str:
    at = np.unravel_index(flat, given.shape)
    return " ".join(f"{letter}{int(i)}" for letter, i in zip(LETTERS[given.layout], at, strict=True))


@dataclass(frozen=True)
class Epsilons:
    """The mean deviation of a method's regions after normalization, for several ε; `current` is the one in use."""

    eps: np.ndarray
    std: np.ndarray
    current: float


def epsilons(given: Input, numbers: Numbers, **settings: Any) -> Epsilons | None:
    """Tries one ε after another; None for a method without one.

    The deviations are those of the groups in which something counts, over what counts.
    """
    norm, groups = method(numbers.key), numbers.groups
    domain = next((param.domain for param in norm.params if param.name == "eps"), None)
    if not isinstance(domain, Range):
        return None
    tried = []
    within = groups.table(numbers.counted)
    size = within.sum(1)
    for eps in np.logspace(-10, 2, 7 if given.x.numel() > LARGE else 13):
        try:
            rows = groups.table(run(norm.key, given, given.x, **(settings | {"eps": float(eps)})).numpy())
        except NormcoreError:  # outside the setting's domain
            continue
        mean = np.where(within, rows, 0.0).sum(1) / np.maximum(size, 1)
        var = np.where(within, (rows - mean[:, None]) ** 2, 0.0).sum(1) / np.maximum(size, 1)
        tried.append((float(eps), float(np.sqrt(var)[size > 0].mean())))
    eps, std = zip(*tried, strict=True) if tried else ((), ())
    current = settings.get("eps", norm.default("eps"))
    return Epsilons(np.array(eps), np.array(std), float("nan") if current is None else float(current))

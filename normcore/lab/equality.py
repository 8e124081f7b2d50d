"""When are two norms the same? Each method is run once on the same numbers, and what they made of them is compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import repeat
from typing import Any

import numpy as np
import torch
from torch import Tensor

from normcore.core import Bound, Method, Part, Window, axis_sizes, counts
from normcore.lab.probe import ready, source, stand_in
from normcore.lab.weights import output
from normcore.registry import method

EQUAL = 1e-6
"""Outputs are equal when they differ by at most this share of the larger one's largest value."""
FLOOR = 1e-9
"""Outputs below this are all taken for 0."""


@dataclass(frozen=True)
class Output:
    """What one method made of the numbers that all methods get, in float64, with gain 1 and bias 0.

    `shape` and `settings` are those of the tensor that was really computed. `regions` has a fingerprint for each
    statistic, the same for two methods when the same elements share it.
    `learned` has the shape of each tensor that a layer for the whole, given shape learns, without axes of one.
    """

    key: str
    shape: tuple[int, ...]
    settings: Mapping[str, Any]
    y: np.ndarray
    regions: frozenset[str]
    learned: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Comparison:
    """Every method against every other one: all arrays have the shape (methods, methods).

    `difference` is the largest |y₁ - y₂|, `share` the same as a part of the largest |y|, `equal` whether that is
    at most `EQUAL`; `same_regions` says whether the same elements share statistics, `same_learned` whether layers learn
    tensors of the same shapes.
    """

    keys: tuple[str, ...]
    difference: np.ndarray
    share: np.ndarray
    equal: np.ndarray
    same_regions: np.ndarray
    same_learned: np.ndarray

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Every two methods once, by their places."""
        return [(i, j) for i in range(len(self.keys)) for j in range(i + 1, len(self.keys))]

    def groups(self) -> list[list[int]]:
        """The methods whose outputs are equal, by their places, those that equal no other one left out."""
        found: list[list[int]] = []
        for i in range(len(self.keys)):
            home = next((group for group in found if self.equal[i, group].all()), None)
            if home is None:
                found.append([i])
            else:
                home.append(i)
        return [group for group in found if len(group) > 1]


def made_of(
    key: str, shape: Sequence[int], layout: str, training: bool = True, seed: int = 0, **settings: Any
) -> Output:
    """Runs a method on random values (channels of unlike mean and spread), the same for every method of a layout.

    In evaluation the running state has seen 20 batches of the same kind. A large tensor is replaced by a small one of
    the same structure.

    Raises:
        NormcoreError: No such method, layout or setting, or a value outside its domain.
    """
    norm = method(key)
    small, _, smaller = stand_in(norm, shape, layout, [0] * len(shape), settings)
    batches = source(small, layout, seed)
    x = next(batches)
    seen = repeat(x) if norm.family == "weight" else batches
    y = output(norm, x, layout, ready(norm, seen, layout, training, smaller))
    bounds = [bound for bound in norm.bound(small, layout, training, **smaller) if bound.count]
    regions = frozenset(fingerprint(bound) for bound in bounds)
    return Output(key, small, smaller, y.detach().numpy(), regions, learned_shapes(norm, shape, layout, settings))


def given(shape: Sequence[int], layout: str, seed: int = 0) -> np.ndarray:
    """The numbers that every method gets on a tensor of this shape, which must be one that is really computed."""
    return next(source(shape, layout, seed)).numpy()


def compare(outputs: Sequence[Output]) -> Comparison:
    """Compares outputs of the same numbers in pairs."""
    values = np.array([made.y.ravel() for made in outputs])
    difference = np.array([np.abs(values - row).max(1) for row in values])
    largest = np.abs(values).max(1)
    share = difference / np.maximum(np.maximum(largest, largest[:, None]), FLOOR)
    return Comparison(
        keys=tuple(made.key for made in outputs),
        difference=difference,
        share=share,
        equal=share <= EQUAL,
        same_regions=_pairs([made.regions for made in outputs]),
        same_learned=_pairs([dict(made.learned) for made in outputs]),
    )


def fingerprint(bound: Bound | Window | Part) -> str:
    """A word for who shares a statistic with whom: for two bounds the same where each element's has the same others.

    It is made of the sums of random whole numbers over what each element's statistic is taken from.
    """
    generator = torch.Generator().manual_seed(1)
    weights = torch.randint(2**40, bound.shape, generator=generator).to(torch.float64)  # sums stay exact
    if isinstance(bound, Window):
        sums = weights
        for axis, size in enumerate(bound.shape):
            start, stop = torch.tensor([bound.span(axis, i, bound.times) for i in range(size)])[..., None].unbind(1)
            inside = (start <= torch.arange(size)) & (torch.arange(size) < stop)
            sums = (sums.movedim(axis, -1) @ inside.to(torch.float64).mT).movedim(-1, axis)
    elif isinstance(bound, Part):
        takes_part = torch.zeros_like(weights)
        bound.take(takes_part).fill_(1)
        shared = _sums(bound.whole, weights * takes_part)
        sums = shared if bound.lent else torch.where(takes_part > 0, shared, weights)
    else:
        sums = _sums(bound, weights)
    return blake2b(sums.contiguous().numpy().tobytes(), digest_size=16).hexdigest()


def _sums(bound: Bound, weights: Tensor) -> Tensor:
    """The sum of each element's region."""
    ids = bound.ids().reshape(-1)
    return torch.bincount(ids, weights.reshape(-1))[ids].reshape(bound.shape)


def learned_shapes(
    norm: Method, shape: Sequence[int], layout: str, settings: Mapping[str, Any]
) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor that a layer learns, without axes of one."""
    sizes = axis_sizes(shape, layout)
    known = sizes | counts(norm.settings(settings, sizes))
    shapes = {}
    for name, slot in norm.affine.items():
        bounds = norm.bound(shape, layout, **settings)
        regions = [bound.region_shape for bound in bounds if isinstance(bound, Bound)]
        shapes[name] = regions[0] if callable(slot.init) else slot.shape(known)
    return {name: tuple(size for size in found if size > 1) for name, found in shapes.items()}


def _pairs(things: Sequence[Any]) -> np.ndarray:
    """Whether each two are the same."""
    return np.array([[one == other for other in things] for one in things])

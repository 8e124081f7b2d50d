"""The classic remedies for gradients that vanish or explode, each as one switch, measured side by side."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import torch

from normcore.core import NormcoreError
from normcore.lab.flow import Batches, forward
from normcore.lab.flow_nets import Wiring, build, fitting
from normcore.lab.flow_training import Training
from normcore.registry import METHODS

AS_IT_IS = "as set up"
SETTINGS = {"norm": "norm_settings", "weights": "weight_settings", "clip": "clip_settings"}
"""The parts of a wiring that are methods, and where their settings stand."""
LEARNING = ("learning_rate", "optimizer", "clip", "clip_settings", "penalty", "strength")
"""The parts of a wiring that say how it learns."""


@dataclass(frozen=True)
class Remedy:
    """A change of a wiring under its name; `learns` says that it acts only through what the net learns."""

    name: str
    changes: tuple[tuple[str, Any], ...] = ()
    learns: bool = False

    def apply(self, wiring: Wiring) -> Wiring:
        """The wiring with this switch flipped."""
        emptied: dict[str, Any] = {SETTINGS[name]: () for name in self.emptied(wiring)}
        return replace(wiring, **dict(self.changes) | emptied)

    def emptied(self, wiring: Wiring) -> list[str]:
        """Which of `SETTINGS` begin with another method, whose settings are the published ones."""
        changes = dict(self.changes)
        return [name for name in SETTINGS if name in changes and changes[name] != getattr(wiring, name)]


def remedies(wiring: Wiring) -> tuple[Remedy, ...]:
    """The switches that a wiring has not flipped yet, one remedy each, and the pair that belongs together."""
    methods = [key for key in ("batch_norm", "layer_norm", "rms_norm") if key in fitting(wiring.kind)]
    weights = ("weight_norm", "weight_standardization")
    offered = [
        *_inside(wiring),
        *(Remedy(name, (("start", start),)) for start, name in (("xavier", "Xavier"), ("he", "He"))),
        Remedy("orthogonal start", (("start", "orthogonal"),)),
        *(Remedy(METHODS[key].name, (("norm", key),)) for key in methods),
        *(Remedy(METHODS[key].name, (("weights", key),)) for key in weights),
        Remedy("larger batch", (("batch", 4 * wiring.batch),), True),
        Remedy("orthogonal penalty", (("penalty", "so"),), True),
        Remedy("clipping", (("clip", "clip_by_global_norm"),), True),
    ]
    return tuple(one for one in offered if _changes(one, wiring))


def _inside(wiring: Wiring) -> list[Remedy]:
    """What the layers, or the cell, could be made of instead."""
    if wiring.kind == "mlp":
        return [
            Remedy("ReLU", (("activation", "relu"),)),
            Remedy("tanh", (("activation", "tanh"),)),
            Remedy("ReLU with He", (("activation", "relu"), ("start", "he"))),
            Remedy("residual connections", (("residual", True),)),
            Remedy("half as deep", (("depth", wiring.depth // 2),)),
        ]
    others = [Remedy(kind.upper(), (("kind", kind),)) for kind in ("lstm", "gru")]
    both = (("kind", "lstm"), ("norm", "layer_norm"))
    if wiring.kind == "lstm":
        others.append(Remedy("forget bias 1", (("forget", 1.0),)))
    return [*others, Remedy("LSTM with LayerNorm", both)]


def _changes(remedy: Remedy, wiring: Wiring) -> bool:
    """Whether it changes something, all that it is called after, to what can be built."""
    changes = dict(remedy.changes)
    if len(changes) > 1 and any(getattr(wiring, name) == value for name, value in changes.items()):
        return False
    known = changes.get("norm", wiring.norm) in (None, *fitting(changes.get("kind", wiring.kind)))
    return known and all(getattr(wiring, n) != v for n, v in changes.items()) and changes.get("depth", 2) >= 2


def ratio(wiring: Wiring, seed: int, after: int = 0) -> float:
    """The first layer's gradient over the last one's, after some steps of training; nan for a net that diverged.

    Raises:
        NormcoreError: Something that cannot be built or trained, in a sentence.
    """
    if after:
        training = Training(wiring, seed, after + 1)
        for found in training:
            last = found.ratio
        return last if training.lost < 0 else float("nan")
    _, probes, value = forward(build(wiring, seed), wiring, *Batches(wiring, seed).next(), listen=False)
    (grown,) = torch.autograd.grad(value, probes)
    lengths = grown.flatten(1).norm(dim=1)
    return float(lengths[0] / lengths[-1])


@dataclass(frozen=True)
class Compared:
    """The ratio of the first to the last layer's gradient (remedies, depths, seeds), nan where none was measured.

    The first `done` cells of (depths, remedies, seeds) have been measured; a nan among them is a net that diverged,
    had no gradient left to divide by, or could not be built.
    """

    names: tuple[str, ...]
    depths: tuple[int, ...]
    seeds: tuple[int, ...]
    after: int
    ratio: np.ndarray
    done: int

    def middle(self) -> np.ndarray:
        """The geometric mean over the seeds of each cell, nan while one of them is missing."""
        with np.errstate(divide="ignore"):
            found: np.ndarray = np.exp(np.log(self.ratio).mean(-1))
        return found

    def columns(self) -> dict[str, list[Any]]:
        """A row for each remedy, depth and seed that has been measured."""
        every = list(product(range(len(self.depths)), range(len(self.names)), range(len(self.seeds))))[: self.done]
        return {
            "remedy": [self.names[i] for _, i, _ in every],
            "depth": [self.depths[j] for j, _, _ in every],
            "seed": [self.seeds[k] for _, _, k in every],
            "first over last gradient": [float(self.ratio[i, j, k]) for j, i, k in every],
        }


def compared(wiring: Wiring, after: int) -> tuple[Remedy, ...]:
    """What is compared at every depth: the net as it is, and each switch that can have acted by then."""
    offered = [one for one in remedies(wiring) if (after or not one.learns) and "depth" not in dict(one.changes)]
    return (Remedy(AS_IT_IS), *offered)


def counted(wiring: Wiring, after: int) -> Wiring:
    """The wiring with the usual values for all that a comparison does not look at."""
    ignored = ("depth",) if after else ("depth", *LEARNING)
    return replace(wiring, **{name: getattr(Wiring, name) for name in ignored})


class Comparison(Iterator[float]):
    """Measures every remedy at every depth with every seed, one cell a step.

    Before training, what acts only by learning is left out. A remedy that cannot be built at some depth leaves nan.

    Args:
        wiring: The net as it is set up; its depth counts only where it is not among `depths`.
        depths: How many layers, or time steps.
        seeds: Which first weights.
        after: After how many steps of training.
    """

    def __init__(self, wiring: Wiring, depths: Sequence[int], seeds: Sequence[int], after: int = 0) -> None:
        self.remedies = compared(wiring, after)
        self.wiring, self.depths, self.seeds, self.after = wiring, tuple(depths), tuple(seeds), after
        self._ratio = np.full((len(self.remedies), len(self.depths), len(self.seeds)), np.nan)
        self._cells = list(product(range(len(self.depths)), range(len(self.remedies)), range(len(self.seeds))))
        self.step = 0
        build(replace(wiring, depth=self.depths[0]), self.seeds[0])  # what cannot be built says so at once

    def __len__(self) -> int:
        return len(self._cells)

    def __next__(self) -> float:
        if self.step >= len(self._cells):
            raise StopIteration
        j, i, k = self._cells[self.step]
        wiring = self.remedies[i].apply(replace(self.wiring, depth=self.depths[j]))
        with suppress(NormcoreError):  # nan says it, and the others go on
            self._ratio[i, j, k] = ratio(wiring, self.seeds[k], self.after)
        self.step += 1
        return float(self._ratio[i, j, k])

    def results(self) -> Compared:
        """What has been measured so far."""
        names = tuple(one.name for one in self.remedies)
        return Compared(names, self.depths, self.seeds, self.after, self._ratio.copy(), self.step)


def switches(wiring: Wiring, seed: int = 0) -> tuple[tuple[Remedy, float], ...]:
    """Every single switch that acts at the first weights, with the ratio that it leaves, the closest to 1 first."""
    found = []
    for remedy in remedies(wiring):
        if not remedy.learns:
            try:
                found.append((remedy, ratio(remedy.apply(wiring), seed)))
            except NormcoreError:  # a setting that does not fit the width
                continue
    return tuple(sorted(found, key=lambda one: distance(one[1])))


def distance(found: float) -> float:
    """How far a ratio is from 1, in factors of ten; infinite where nothing arrives or nothing is left."""
    return abs(float(np.log10(found))) if found > 0 and np.isfinite(found) else float("inf")

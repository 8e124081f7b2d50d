"""What becomes of every layer's gradient while a deep net learns, step by step."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from normcore.clipper import clipper
from normcore.core import NormcoreError
from normcore.lab.flow import Batches, Layers, forward, learned, read
from normcore.lab.flow_nets import Wiring, build
from normcore.lab.teams import OPTIMIZERS
from normcore.penalties import orthogonal_regularization

ROWS = ("gradient", "weights", "spread", "flat")


@dataclass(frozen=True)
class Course:
    """What every layer showed in every step: arrays of (layers, steps), `loss` and `step` of (steps).

    `gradient`, `spread` and `flat` are those of `Layers`, before the step; `weights` is what the optimizer got, after
    clipping, and has no rows where all layers share their weights. `lost` is the step in which the net diverged, or -1.
    """

    step: np.ndarray
    loss: np.ndarray
    gradient: np.ndarray
    weights: np.ndarray
    spread: np.ndarray
    flat: np.ndarray
    lost: int


class Training(Iterator[Layers]):
    """Trains a net and measures it in every step; one record a step, until it has diverged.

    Raises:
        NormcoreError: Something that cannot be built or trained, in a sentence.
    """

    def __init__(self, wiring: Wiring, seed: int, steps: int) -> None:
        if wiring.optimizer not in OPTIMIZERS:
            raise NormcoreError(f"flow: optimizer={wiring.optimizer!r} cannot be; there are {', '.join(OPTIMIZERS)}")
        self.wiring, self.steps, self.step, self.lost = wiring, steps, 0, -1
        self.net, self.batches = build(wiring, seed), Batches(wiring, seed)
        self.learned = learned(self.net)
        self.optimizer = OPTIMIZERS[wiring.optimizer](self.learned, lr=wiring.learning_rate)
        self.clip = None if wiring.clip is None else clipper(wiring.clip, **dict(wiring.clip_settings))
        self._found: list[Layers] = []

    def __len__(self) -> int:
        return self.steps

    def __next__(self) -> Layers:
        if self.step >= self.steps:
            raise StopIteration
        try:
            found = self._one()
        except torch.linalg.LinAlgError:  # weights that have diverged have no singular values
            self.lost, self.step = self.step, self.steps
            raise StopIteration from None
        self._found.append(found)
        self.step += 1
        if not np.isfinite(found.loss) or not np.isfinite(found.gradient).all():
            self.lost, self.step = len(self._found) - 1, self.steps
        return found

    def results(self) -> Course:
        """All that was measured so far."""
        found = self._found
        none = np.zeros((self.wiring.depth, 0))
        rows = {name: np.stack([getattr(one, name) for one in found], 1) if found else none for name in ROWS}
        return Course(np.arange(len(found)), np.array([one.loss for one in found]), **rows, lost=self.lost)

    def _one(self) -> Layers:
        seen, probes, value = forward(self.net, self.wiring, *self.batches.next())
        whole = value
        if self.wiring.penalty is not None:
            for matrix in (part for layer in self.net.matrices() for part in layer):
                whole = whole + self.wiring.strength * orthogonal_regularization(matrix, self.wiring.penalty)
        # Some methods have a parameter that a setting leaves out of the computation: its gradient is zero.
        grown = torch.autograd.grad(whole, [probes, *self.learned], materialize_grads=True)
        for parameter, gradient in zip(self.learned, grown[1:], strict=True):
            parameter.grad = gradient.contiguous()
        if self.clip is not None:
            self.clip(self.learned)
        gradients = [p.grad for p in self.learned if p.grad is not None]
        found = read(self.net, seen, value, grown[0], gradients)
        self.optimizer.step()
        return found

"""Where independent answers are held against ours, and where the largest difference found is written down."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from normcore import METHODS

FOUND: dict[str, dict[str, float]] = {}
"""The largest difference to each oracle, by method."""
RECORD = Path(__file__).parents[2] / "explorer" / "measured" / "oracles.json"
ASKED_FOR = os.environ.get("NORMCORE_ORACLES")
KNOWN: dict[str, dict[str, float]] = json.loads(RECORD.read_text("utf-8"))
"""What the pages show."""


def agrees(key: str, oracle: str, ours: Any, theirs: Any, tolerance: float = 1e-9) -> None:
    """Asserts that two answers (tensors, arrays, or lists of them) differ by at most `tolerance`, and records by how
    much they do. `oracle` is what the reference page calls the other side, such as "torch.nn.GroupNorm"; it names it
    already."""
    pairs = list(zip(*(_arrays(side) for side in (ours, theirs)), strict=True))
    assert pairs
    told = ASKED_FOR or key not in METHODS or oracle in KNOWN.get(key, {})
    assert told, f"the page of {key} does not name {oracle}; run make oracles"
    for mine, other in pairs:
        assert mine.shape == other.shape, f"{key}: {mine.shape} against {other.shape} of {oracle}"
        difference = float(np.abs(mine - other).max(initial=0.0))
        assert difference <= tolerance, f"{key} is {difference:.3g} off {oracle}; {tolerance:.1g} is allowed"
        known = FOUND.setdefault(key, {})
        known[oracle] = max(known.get(oracle, 0.0), difference)


def with_gradients(y: Tensor, inputs: Iterable[Tensor]) -> list[Tensor]:
    """A value, and the gradients of a weighted sum of it."""
    weights = torch.cos(torch.arange(y.numel(), dtype=y.dtype)).reshape(y.shape)
    return [y, *torch.autograd.grad((y * weights).sum(), list(inputs))]


def write() -> None:
    """Leaves what was found as a file of JSON where one is asked for."""
    if ASKED_FOR and FOUND:
        Path(ASKED_FOR).write_text(
            json.dumps({key: FOUND[key] for key in sorted(FOUND.keys() & METHODS.keys())}, indent=1) + "\n", "utf-8"
        )


def _arrays(side: Any) -> list[np.ndarray]:
    parts = side if isinstance(side, list | tuple) else [side]
    return [
        np.asarray(part.detach().double() if isinstance(part, Tensor) else part, dtype=np.float64) for part in parts
    ]

"""What a method shrugs off, measured: one thing is done to its input, and the change of its output is reported."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from normcore.core import LETTERS, Method, Normed
from normcore.registry import method

SIZES: Mapping[str, int] = {"n": 6, "c": 8, "t": 5, "l": 6, "d": 3, "h": 5, "w": 5, "o": 6, "i": 5}
FACTOR, OFFSET = 3.0, 3.0


@dataclass(frozen=True)
class Change:
    """What was done to the input, and by how much the output moved: max |Δy|, as a share of max |y|."""

    what: str
    difference: float

    @property
    def nothing(self) -> bool:
        """Whether the output stayed where it was, but for what ε does."""
        return self.difference < 1e-3


def changes(key: str, layout: str, seed: int = 0, **settings: Any) -> tuple[Change, ...]:
    """Measures what moves a method's output, in training, with gain 1 and bias 0, on random values in float64.

    The factors lie between 0.3 and 3, the constants between 0 and 3. "Other samples" means that all samples but the
    first are replaced, and the first one's output is looked at.

    Raises:
        NormcoreError: No such method, layout or setting, or a value outside its domain.
    """
    norm = method(key)
    letters = LETTERS[norm.layout(layout, 0)]
    generator = torch.Generator().manual_seed(seed)
    options: dict[str, Any] = {"generator": generator, "dtype": torch.float64}
    x = torch.randn([SIZES[letter] for letter in letters], **options) + 0.5
    y = _output(norm, x, layout, settings)
    found = []
    for what, change, part in _perturbations(norm, letters, options):
        moved = _output(norm, change(x), layout, settings)
        found.append(Change(what, float((moved - y)[part].abs().max() / y[part].abs().max())))
    return tuple(found)


def _perturbations(
    norm: Method, letters: tuple[str, ...], options: Mapping[str, Any]
) -> list[tuple[str, Callable[[Tensor], Tensor], Any]]:
    def along(letter: str, low: float, high: float) -> Tensor:
        values = low + (high - low) * torch.rand(SIZES[letter], **options)
        return values.reshape([-1 if letter == other else 1 for other in letters])

    words = {"n": "sample", "c": "channel", "o": "output unit"}
    grains = [letter for letter in letters if letter in words and norm.family != "gradient"]
    listed: list[tuple[str, Callable[[Tensor], Tensor], Any]] = [
        ("everything × 3", lambda x: x * FACTOR, ...),
        ("everything + 3", lambda x: x + OFFSET, ...),
    ]
    for letter in grains:
        listed += [
            (f"each {words[letter]} × a factor of its own", along(letter, 1 / FACTOR, FACTOR).mul, ...),
            (f"each {words[letter]} + a constant of its own", along(letter, 0.0, OFFSET).add, ...),
        ]
    if norm.family == "activation":
        listed.append(("other samples replaced", lambda x: torch.cat([x[:1], x[1:].flip(1) ** 2]), 0))
    return listed


def _output(norm: Method, x: Tensor, layout: str, settings: Mapping[str, Any]) -> Tensor:
    normed: Normed = norm([x] if norm.family == "gradient" else x, layout, **settings)
    y = normed.y[0] if isinstance(normed.y, list) else normed.y
    assert isinstance(y, Tensor)
    return y

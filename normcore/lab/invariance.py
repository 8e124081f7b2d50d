"""What a method shrugs off, measured: one thing is done to its input, and the change of its output is reported."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from normcore.core import LETTERS, Method
from normcore.lab.expected import Expected
from normcore.lab.probe import ready, stand_in
from normcore.lab.weights import STAYS, from_weight, output, share
from normcore.registry import method

SIZES: Mapping[str, int] = {"n": 6, "c": 8, "t": 5, "l": 6, "d": 3, "h": 5, "w": 5, "o": 6, "i": 5}
FACTOR, OFFSET = 3.0, 3.0
ELSEWHERE = (0.01, 100.0)
"""How much smaller and larger an input is made to see whether an output stays there too: past every usual threshold."""
WORDS = {"n": "sample", "c": "channel", "o": "output unit"}

SCALED, SHIFTED = "everything × 3", "everything + 3"
WEIGHTS_SCALED = "the weights before it × 3"
WEIGHTS_SHIFTED = "the weights before it + a vector that all channels share"
ORDER, OTHERS = "samples in another order", "other samples replaced"


@dataclass(frozen=True)
class Change:
    """What was done to the input, and by how much the output moved: max |Δy|, as a share of max |y|.

    `declared` says whether it follows from the method's file that nothing moves: from the invariances that it declares,
    and from the regions on which they hold.
    """

    what: str
    difference: float
    declared: bool = False

    @property
    def nothing(self) -> bool:
        """Whether the output stayed where it was, but for what ε does."""
        return self.difference < STAYS


def changes(
    key: str,
    layout: str,
    seed: int = 0,
    shape: Sequence[int] | None = None,
    training: bool = True,
    **settings: Any,
) -> tuple[Change, ...]:
    """Measures what moves a method's output, with gain 1 and bias 0, on random values in float64.

    The factors lie between 0.3 and 3, the constants between 0 and 3. "Other samples" means that all samples but the
    first are replaced, and the first one's output is looked at. Another order moves nothing if the outputs merely come
    in that order too. The weights are those of a linear layer, or a convolution, without a bias. In evaluation the
    running state has seen 20 batches, none of them changed. A large shape is measured on a small one of its structure.
    What stays though nothing declares it, as a gradient does that is clipped before and after, is measured again on
    much smaller and much larger input, and the largest change counts.

    Raises:
        NormcoreError: No such method, layout or setting, or a value outside its domain.
    """
    norm = method(key)
    letters = LETTERS[norm.layout(layout, 0)]
    shape = [SIZES[letter] for letter in letters] if shape is None else shape
    shape, _, settings = stand_in(norm, shape, layout, [0] * len(shape), settings)
    found = _measured(norm, shape, layout, seed, training, settings)
    exact = settings if norm.default("eps") is None else {**settings, "eps": 0.0}  # on small input ε would count
    for magnitude in ELSEWHERE if any(change.nothing and not change.declared for change in found) else ():
        again = _measured(norm, shape, layout, seed, training, exact, magnitude)
        found = [
            max(one, other, key=lambda change: change.difference) if one.nothing and not one.declared else one
            for one, other in zip(found, again, strict=True)
        ]
    return tuple(found)


def _measured(
    norm: Method,
    shape: Sequence[int],
    layout: str,
    seed: int,
    training: bool,
    settings: Mapping[str, Any],
    magnitude: float = 1.0,
) -> list[Change]:
    """Every change once, on an input of some magnitude."""
    letters = LETTERS[layout]
    options: dict[str, Any] = {"generator": torch.Generator().manual_seed(seed), "dtype": torch.float64}
    x = magnitude * (torch.randn(shape, **options) + 0.5)
    listed = _perturbations(norm, dict(zip(letters, shape, strict=True)), options)
    arguments = ready(norm, _batches(norm, x, options), layout, training, settings)
    y = output(norm, x, layout, arguments)
    expected = Expected(norm, shape, layout, training, settings)
    found = [
        Change(what, share(output(norm, change(x), layout, arguments) - y, y), expected.stays(kind, axes))
        for what, change, kind, axes in listed
    ]
    if norm.family != "activation":
        return found

    run, weight = from_weight(norm, shape, layout, training, settings, options)
    before, vector = run(weight), torch.randn(1, *weight.shape[1:], **options)
    elsewhere = [letter for letter in letters if letter != "c"]
    found += [
        Change(WEIGHTS_SCALED, share(run(FACTOR * weight) - before, before), expected.stays("scale")),
        Change(WEIGHTS_SHIFTED, share(run(weight + vector) - before, before), expected.stays("shift", elsewhere)),
    ]
    if len(x) > 1:
        order = torch.arange(len(x)).roll(1)
        permuted = output(norm, x[order], layout, arguments) - y[order]
        others = output(norm, torch.cat([x[:1], x[1:].flip(1) ** 2]), layout, arguments) - y
        found += [
            Change(ORDER, share(permuted, y), expected.orderless),
            Change(OTHERS, share(others[0], y[0]), expected.separate),
        ]
    return found


def _perturbations(
    norm: Method, sizes: Mapping[str, int], options: Mapping[str, Any]
) -> list[tuple[str, Callable[[Tensor], Tensor], str, tuple[str, ...]]]:
    """What is done to the input: in words, as a function, its kind, and the axes along which it varies."""

    def along(letter: str, low: float, high: float) -> Tensor:
        values = low + (high - low) * torch.rand(sizes[letter], **options)
        return values.reshape([-1 if letter == other else 1 for other in sizes])

    listed: list[tuple[str, Callable[[Tensor], Tensor], str, tuple[str, ...]]] = [
        (SCALED, lambda x: x * FACTOR, "scale", ()),
        (SHIFTED, lambda x: x + OFFSET, "shift", ()),
    ]
    for letter in [letter for letter in sizes if letter in WORDS and norm.family != "gradient"]:
        name = WORDS[letter]
        listed += [
            (f"each {name} × a factor of its own", along(letter, 1 / FACTOR, FACTOR).mul, "scale", (letter,)),
            (f"each {name} + a constant of its own", along(letter, 0.0, OFFSET).add, "shift", (letter,)),
        ]
    return listed


def _batches(norm: Method, x: Tensor, options: Mapping[str, Any]) -> Iterator[Tensor]:
    """What a running state has seen: other batches of the kind of x, or with weights the same one again and again."""
    while True:
        yield x if norm.family == "weight" else torch.randn(x.shape, **options) + 0.5

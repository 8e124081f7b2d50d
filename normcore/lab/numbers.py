"""What a method does to numbers, measured region by region: moments, extremes, distributions, before and after."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from normcore.core import AXIS_WORDS, LETTERS, Bound, NormcoreError, Part
from normcore.lab.functions import ACTIVATIONS
from normcore.lab.inputs import Input
from normcore.registry import method

OWN = "its own regions"
WHOLE = "everything"


@dataclass(frozen=True)
class Groups:
    """Which elements are looked at together: equally many in each group.

    `labels` has a number for each element, negative for one in no group; a group stands at `shape` along `letters`.
    """

    labels: np.ndarray
    letters: tuple[str, ...]
    shape: tuple[int, ...]
    note: str = ""

    @property
    def count(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    def name(self, group: int) -> str:
        """A group in words: "sample 0, channel 3"."""
        at = np.unravel_index(group, self.shape) if self.shape else ()
        words = (f"{AXIS_WORDS[letter]} {int(i)}" for letter, i in zip(self.letters, at, strict=True))
        return ", ".join(words) or WHOLE

    @cached_property
    def order(self) -> np.ndarray:
        """The flat indices of all elements in groups, one row a group."""
        flat = self.labels.reshape(-1)
        order = np.argsort(flat, kind="stable")
        return order[int((flat < 0).sum()) :].reshape(self.count, -1)

    def table(self, values: np.ndarray) -> np.ndarray:
        """The elements of a tensor, one row a group."""
        return values.reshape(-1)[self.order]

    @cached_property
    def chosen(self) -> np.ndarray:
        """The groups that tables and pictures show: all of a few, evenly chosen ones of many."""
        return np.unique(np.linspace(0, self.count - 1, min(self.count, 128)).round().astype(np.int64))


@dataclass(frozen=True)
class Summary:
    """Statistics of each group, over the elements that count; not a number where there is none to speak of.

    `std` divides by the number of values; `kurtosis` is 3 for normal values; `dead` is the share that ReLU makes 0,
    `saturated` the share where the activation function's slope is at most a tenth of its steepest.
    """

    size: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    low: np.ndarray
    high: np.ndarray
    kurtosis: np.ndarray
    dead: np.ndarray
    saturated: np.ndarray


@dataclass(frozen=True)
class Numbers:
    """A method's numbers before and after, cut into groups; `counted` says which elements count."""

    key: str
    groups: Groups
    x: np.ndarray
    y: np.ndarray
    counted: np.ndarray
    before: Summary
    after: Summary
    whole_before: Summary
    whole_after: Summary


def measure(
    key: str, given: Input, by: str = OWN, activation: str = "sigmoid", everything: bool = False, **settings: Any
) -> Numbers:
    """Applies a method with gain 1 and bias 0, as in training, and measures both sides.

    Args:
        key: The method.
        given: What it is applied to; a method that takes a mask gets it.
        by: "its own regions", "everything", or the word for an axis, such as "channel".
        activation: Whose saturation is counted.
        everything: Also count what is masked, such as padding.
        **settings: The method's settings.

    Raises:
        NormcoreError: The method is not defined for the layout, or a setting lies outside its domain.
    """
    x, y = given.x.numpy(), run(key, given, given.x, **settings).numpy()
    counted = np.ones(given.shape, dtype=bool) if everything else given.counted
    groups = grouped(key, given, by, **settings)
    whole = Groups(np.zeros(given.shape, dtype=np.int64), (), ())
    return Numbers(
        key,
        groups,
        x,
        y,
        counted,
        *(summarize(cut, values, counted, activation) for cut in (groups, whole) for values in (x, y)),
    )


def run(key: str, given: Input, x: Tensor, **settings: Any) -> Tensor:
    """The method's output for x in the place of the given tensor."""
    norm = method(key)
    context = {name: value for name, value in given.context.items() if name in norm.context}
    y = norm([x] if norm.family == "gradient" else x, given.layout, **settings, **context).y
    return torch.as_tensor(y[0] if isinstance(y, list) else y)


def grouped(key: str, given: Input, by: str = OWN, **settings: Any) -> Groups:
    """The groups that a method's numbers are cut into."""
    letters = LETTERS[given.layout]
    if by == WHOLE:
        return Groups(np.zeros(given.shape, dtype=np.int64), (), ())
    if by != OWN:
        named = {AXIS_WORDS[letter]: letter for letter in letters}
        if by not in named:
            raise NormcoreError(f"by={by!r} is no axis of {given.layout}; try {', '.join([OWN, *named, WHOLE])}")
        return _along(named[by], given, "")
    bounds = method(key).bound(given.shape, given.layout, **settings)
    bound = next((b for b in bounds if isinstance(b, Bound | Part) and b.count), None)
    if bound is None:
        letter = "c" if "c" in letters else "o"
        reason = "Its neighborhoods overlap" if bounds else "It takes no statistic of the tensor"
        return _along(letter, given, f"{reason}; shown by {AXIS_WORDS[letter]}.")
    inner = bound.inner if isinstance(bound, Part) else bound
    labels = np.zeros(given.shape, dtype=np.int64)
    outside = np.zeros(given.shape, dtype=bool)
    for axis, part in enumerate(bound.parts):
        along = np.asarray(part).reshape([-1 if other == axis else 1 for other in range(len(given.shape))])
        labels, outside = labels + along, outside | (along < 0)
    several = len([b for b in bounds if b.count]) > 1
    note = f"It takes {len(bounds)} statistics; shown by the regions of the first." if several else ""
    return Groups(np.where(outside, -1, labels), inner.letters, inner.region_shape, note)


def _along(letter: str, given: Input, note: str) -> Groups:
    axis = LETTERS[given.layout].index(letter)
    size = given.shape[axis]
    along = np.arange(size).reshape([-1 if other == axis else 1 for other in range(len(given.shape))])
    return Groups(np.broadcast_to(along, given.shape), (letter,), (size,), note)


def summarize(groups: Groups, values: np.ndarray, counted: np.ndarray, activation: str) -> Summary:
    """The statistics of each group in two passes: the mean first, then what is left of the values without it."""
    rows, within = groups.table(values), groups.table(counted)
    size = within.sum(1)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):

        def mean_of(part: np.ndarray) -> np.ndarray:
            return np.asarray(np.where(within, part, 0.0).sum(1) / size)

        mean = mean_of(rows)
        squares = (rows - mean[:, None]) ** 2
        var = mean_of(squares)
        kurtosis = np.where(var > 0, mean_of(squares**2) / var**2, np.nan)
        return Summary(
            size=size,
            mean=mean,
            std=np.sqrt(var),
            low=np.where(size > 0, np.where(within, rows, np.inf).min(1), np.nan),
            high=np.where(size > 0, np.where(within, rows, -np.inf).max(1), np.nan),
            kurtosis=kurtosis,
            dead=mean_of(rows <= 0),
            saturated=mean_of(ACTIVATIONS[activation].flat(rows)),
        )


def given_back(numbers: Numbers, layout: str) -> float:
    """How much of a channel's variance the best γ and β of that channel bring back, on average: 1 is all of it.

    γ and β of a channel can undo whatever happened to all of it alike, and nothing else: this is the square of the
    correlation between the channel's input and output. Channels that do not vary are left out.
    """
    letters = LETTERS[layout]
    axis = letters.index("c") if "c" in letters else 0
    x, y = (np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1) for values in (numbers.x, numbers.y))
    within = np.moveaxis(numbers.counted, axis, 0).reshape(x.shape)
    size = within.sum(1, keepdims=True)

    def centered(values: np.ndarray) -> np.ndarray:
        return np.where(within, values - np.where(within, values, 0.0).sum(1, keepdims=True) / size, 0.0)

    source, result = centered(x), centered(y)
    squares, total = (result**2).sum(1), (source**2).sum(1)
    varied = total > 0
    if not varied.any():
        return float("nan")
    shared = (source * result).sum(1) ** 2 / np.where(squares > 0, squares, 1.0)
    return float((shared[varied] / total[varied]).mean())

"""Parameter domains: each is declared once, beside the parameter it limits.

From it come the check and its sentence, the widget, the sample values of the laws, and the bad values of the tests.
"""

import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from normcore.core.axes import plural
from normcore.core.errors import NormcoreError

Sizes = Mapping[str, int]


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`; `usual` is the stretch that a slider offers, `none` says what None stands for,
    and `infinite` admits infinity."""

    low: float
    high: float = math.inf
    usual: tuple[float, float] | None = None
    none: str | None = None
    integer: bool = False
    logarithmic: bool = False
    infinite: bool = False

    def problem(self, value: Any, sizes: Sizes) -> str | None:
        if value is None and self.none:
            return None
        kind = numbers.Integral if self.integer else numbers.Real
        fits = isinstance(value, kind) and not isinstance(value, bool) and self._contains(value)
        return None if fits else f"must be {self.words()}"

    def _contains(self, value: numbers.Real) -> bool:
        try:
            number = float(value)
        except OverflowError:  # a whole number beyond all floats
            return False
        return self.low <= number <= self.high and (self.infinite or math.isfinite(number))

    def words(self) -> str:
        noun = "a whole number" if self.integer else "a number"
        if math.isinf(self.low) and math.isinf(self.high):
            span = noun
        elif math.isinf(self.low):
            span = f"{noun} of at most {self.high:g}"
        elif math.isinf(self.high):
            span = f"{noun} of at least {self.low:g}"
        else:
            span = f"{noun} from {self.low:g} to {self.high:g}"
        if self.infinite:
            span += " or infinity" if math.isinf(self.high) else " or minus infinity"
        return f"{span} or None ({self.none})" if self.none else span

    @property
    def span(self) -> tuple[float, float]:
        return self.usual or (self.low, self.high)

    def samples(self, sizes: Sizes) -> list[Any]:
        low, high = self.span
        middle: float = math.sqrt(max(low, 1e-6) * high) if self.logarithmic else (low + high) / 2
        # An exact zero turns many a method off: the laws want a value that still does something.
        values = [int(low), int(low) + 1, int(middle), int(high)] if self.integer else [low or 1e-6, middle, high]
        values += [end for end in (self.low, self.high) if self.infinite and math.isinf(end)]
        return sorted(set(values)) + ([None] if self.none else [])

    def bad(self, sizes: Sizes) -> list[Any]:
        values: list[Any] = ["text", math.nan, True, [1]]
        values += [] if self.infinite else [math.inf]
        values += [] if self.none else [None]
        values += [] if math.isinf(self.low) else [self.low - 1]
        values += [] if math.isinf(self.high) else [self.high + 1]
        return values + ([1.5] if self.integer else [])


@dataclass(frozen=True)
class Divides:
    """Whole numbers that divide an axis: `parts` names what they count, `each` what is in one.

    With `counts_members` the number says how many are in a part instead of how many parts there are. While the axis is
    unknown (a layer knows no batch yet), any positive whole number passes.
    """

    axis: str
    part: str
    each: str
    counts_members: bool = False

    def problem(self, value: Any, sizes: Sizes) -> str | None:
        whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        size = sizes.get(self.axis)
        if whole and value >= 1 and (size is None or size % value == 0):
            return None
        if size is None:
            return f"must be {self.words()}; try 1"
        options = self.samples(sizes)
        shown = ", ".join(map(str, options[:8])) + (", …" if len(options) > 8 else "")
        one_of = f"try one of {shown}" if len(options) > 1 else "try 1"
        return f"must divide {self.axis}={size}; {one_of}"

    def words(self) -> str:
        return f"a positive whole number that divides {self.axis}"

    def samples(self, sizes: Sizes) -> list[int]:
        size = sizes[self.axis]
        return [value for value in range(1, size + 1) if size % value == 0]

    def bad(self, sizes: Sizes) -> list[Any]:
        return [0, -1, sizes[self.axis] + 1, 1.5, "two", None, True, [1]]

    def describe(self, value: int, sizes: Sizes) -> str:
        """The split in words: ``"2 groups of 3 channels"``."""
        other = sizes[self.axis] // value
        parts, members = (other, value) if self.counts_members else (value, other)
        return f"{plural(parts, self.part)} of {plural(members, self.each)}"


@dataclass(frozen=True)
class OneOf:
    """One of a few values."""

    values: tuple[Any, ...]

    def problem(self, value: Any, sizes: Sizes) -> str | None:
        fits = any(value is option or (type(value) is type(option) and value == option) for option in self.values)
        return None if fits else f"must be {self.words()}"

    def words(self) -> str:
        return "one of " + ", ".join(map(repr, self.values))

    def samples(self, sizes: Sizes) -> list[Any]:
        return list(self.values)

    def bad(self, sizes: Sizes) -> list[Any]:
        return [v for v in ["text", 0, -1.5, None, [1]] if all(v is not o and v != o for o in self.values)]


Domain = Range | Divides | OneOf
FLAG = OneOf((False, True))
"""The domain of a parameter annotated as plain ``bool``."""


def check(name: str, value: Any, domain: Domain, sizes: Sizes) -> None:
    """Raises one sentence when the value lies outside the domain: what, which value, what would work."""
    problem = domain.problem(value, sizes)
    if problem:
        raise NormcoreError(f"{name}={value!r} {problem}")

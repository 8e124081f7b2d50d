"""What must stay where it is, according to what a method's file declares: its invariances, and its regions."""

from collections.abc import Mapping, Sequence
from typing import Any

from normcore.core import LETTERS, Bound, Method, Part, Window


class Expected:
    """What follows for one shape, mode and settings from a method's declared invariances and regions."""

    def __init__(
        self, norm: Method, shape: Sequence[int], layout: str, training: bool, settings: Mapping[str, Any]
    ) -> None:
        """Read the declarations; statistics that are remembered do not follow the input."""
        self.letters = LETTERS[layout]
        self.bounds = norm.bound(shape, layout, training, **settings)
        follows = self.bounds == norm.bound(shape, layout, **settings)
        self.declared = norm.invariances(**settings) if follows else frozenset()

    def stays(self, kind: str, axes: Sequence[str] = ()) -> bool:
        """Whether nothing moves when the input is scaled, or shifted, by numbers that vary along these axes."""
        if tuple(axes) == ("c",) and f"channel {kind}" in self.declared:
            return True
        constant = all(alone(bound, self.letters.index(axis)) for bound in self.bounds for axis in axes)
        return kind in self.declared and constant

    @property
    def orderless(self) -> bool:
        """Whether no region tells one sample from another, so that their order does not matter."""
        return all(alone(bound, 0) or _together(bound, 0) for bound in self.bounds)

    @property
    def separate(self) -> bool:
        """Whether every region lies within one sample."""
        return all(alone(bound, 0) for bound in self.bounds)


def alone(bound: Bound | Window | Part, axis: int) -> bool:
    """Whether regions have an extent of one along an axis."""
    if isinstance(bound, Window):
        spans = [bound.span(axis, i, bound.times) for i in range(bound.shape[axis])]
        return all(stop - start == 1 for start, stop in spans)
    return all(factor.kept or factor.size == 1 for factor in bound.factors[axis])


def _together(bound: Bound | Window | Part, axis: int) -> bool:
    """Whether regions hold the whole axis."""
    return not isinstance(bound, Window) and not any(factor.kept and factor.size > 1 for factor in bound.factors[axis])

"""What a method's file declares about it, and what the method returns: plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from normcore.core.domains import Domain


@dataclass(frozen=True)
class Paper:
    """Where a method was published."""

    authors: str
    title: str
    year: int
    arxiv: str | None = None


@dataclass(frozen=True)
class Param:
    """One hyper-parameter: its name, the values it may take, and the one it has when nothing is said."""

    name: str
    domain: Domain
    default: Any


@dataclass(frozen=True)
class Identity:
    """Under these settings (and axis sizes) the method equals another one. An axis letter stands for that size.

    `single` restricts it to a list of one gradient.
    """

    other: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    other_settings: Mapping[str, Any] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    layouts: tuple[str, ...] = ()
    single: bool = False

    def holds(self, layout: str, sizes: Mapping[str, int], settings: Mapping[str, Any]) -> bool:
        """Whether the condition is met by a layout, its axis sizes and complete settings."""
        wanted = self.resolve(self.settings, sizes)
        return (
            (not self.layouts or layout in self.layouts)
            and all(sizes.get(axis) == size for axis, size in self.sizes.items())
            and all(settings[name] == value for name, value in wanted.items())
        )

    @staticmethod
    def resolve(settings: Mapping[str, Any], sizes: Mapping[str, int]) -> dict[str, Any]:
        """The settings with axis letters replaced by sizes."""
        return {name: sizes.get(v, v) if isinstance(v, str) else v for name, v in settings.items()}


@dataclass(frozen=True)
class Normed:
    """What every method returns. `stats` are the ones that were used, in shapes that broadcast against the input.

    With gradient methods a statistic is one tensor for all gradients, or a list with an entry for each; and the state
    may hold numbers, and lists with an entry for each gradient, too.
    """

    y: Any
    stats: Mapping[str, Any]
    state: Mapping[str, Any] = field(default_factory=dict)

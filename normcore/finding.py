"""What is said when something goes wrong, and the case that it is said of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from normcore.core import Bound, Method, Part, Window


@dataclass(frozen=True)
class Finding:
    """Something that goes wrong: a sentence, what would mend it, and a word or two that name the kind of trouble."""

    sentence: str
    remedy: str
    kind: str = ""


@dataclass(frozen=True)
class Case:
    """A method about to meet a tensor."""

    norm: Method
    x: Tensor
    layout: str
    mode: Mapping[str, bool]
    settings: Mapping[str, Any]

    def run(self, x: Tensor, **changed: Any) -> Tensor:
        """The output, with gain 1, bias 0 and a new layer's state."""
        given = [x] if self.norm.family == "gradient" else x
        y = self.norm(given, self.layout, **self.mode, **{**self.settings, **changed}).y
        return y[0] if isinstance(y, list) else y

    @property
    def bounds(self) -> tuple[Bound | Window | Part, ...]:
        """Who shares a statistic."""
        return self.norm.bound(self.x.shape, self.layout, self.mode.get("training", True), **self.settings)

    @property
    def region(self) -> Bound | None:
        """The region, where one statistic of the tensor is all there is."""
        return self.bounds[0] if len(self.bounds) == 1 and isinstance(self.bounds[0], Bound) else None

    @property
    def centers(self) -> bool:
        """Whether a shift of a region leaves the output alone."""
        return "shift" in self.norm.invariances(**self.settings)


def moments(region: Bound, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each region, in float64."""
    wide = x.double()
    mean = region.mean(wide)
    return mean, region.mean((wide - region.spread(mean)).square()).sqrt()

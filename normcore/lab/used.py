"""Which statistics a method uses, by running it: what its output came of is said by `Normed.stats` alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from normcore.core import Method


def statistics(
    norm: Method, shape: Sequence[int], layout: str, settings: Mapping[str, Any], training: bool = True
) -> tuple[str, ...]:
    """The names of the statistics that a method uses on a tensor of this shape.

    Raises:
        NormcoreError: A layout or setting that the method does not have, or a value outside its domain.
    """
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    mode = {"training": training} if norm.state and norm.family == "activation" else {}
    return tuple(norm([x] if norm.family == "gradient" else x, layout, **settings, **mode).stats)

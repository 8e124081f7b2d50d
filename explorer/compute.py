"""What pages compute, kept for all visitors: small results only, each a pure function of its arguments.

Nobody changes a result, so it is kept as it is; Streamlit's own cache would unpickle it for every visitor.
"""

from functools import lru_cache
from typing import Any

from normcore.lab.invariance import Change, changes
from normcore.lab.probe import Probe, probe

Settings = tuple[tuple[str, Any], ...]


@lru_cache(maxsize=512)
def probed(
    key: str, shape: tuple[int, ...], layout: str, index: tuple[int, ...], training: bool, settings: Settings
) -> Probe:
    """One element's way through a method, measured."""
    return probe(key, shape, layout, index, training, **dict(settings))


@lru_cache(maxsize=256)
def changed(key: str, layout: str, settings: Settings) -> tuple[Change, ...]:
    """What moves a method's output, measured."""
    return changes(key, layout, **dict(settings))

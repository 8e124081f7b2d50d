"""What pages compute, cached for all visitors: small results only, each a pure function of its arguments."""

from typing import Any

import streamlit as st

from normcore.lab.invariance import Change, changes
from normcore.lab.probe import Probe, probe

Settings = tuple[tuple[str, Any], ...]


@st.cache_data(max_entries=512, show_spinner=False)
def probed(
    key: str, shape: tuple[int, ...], layout: str, index: tuple[int, ...], training: bool, settings: Settings
) -> Probe:
    """One element's way through a method, measured."""
    return probe(key, shape, layout, index, training, **dict(settings))


@st.cache_data(max_entries=256, show_spinner=False)
def changed(key: str, layout: str, settings: Settings) -> tuple[Change, ...]:
    """What moves a method's output, measured."""
    return changes(key, layout, **dict(settings))

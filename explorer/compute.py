"""What pages compute, cached for all visitors: small results only, each a pure function of its arguments."""

from typing import Any

import streamlit as st

from normcore.lab.probe import Probe, probe

Settings = tuple[tuple[str, Any], ...]


@st.cache_data(max_entries=512, show_spinner=False)
def probed(
    key: str, shape: tuple[int, ...], layout: str, index: tuple[int, ...], training: bool, settings: Settings
) -> Probe:
    """One element's way through a method, measured."""
    return probe(key, shape, layout, index, training, **dict(settings))

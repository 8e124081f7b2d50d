"""Figures put together from finished traces."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

CHECKED = False
"""Whether Plotly checks every value. It takes five times as long as all the rest; the tests of figures switch it on."""


def assemble(traces: Sequence[Mapping[str, Any]], layout: Mapping[str, Any]) -> go.Figure:
    """A figure of these traces and this layout."""
    return go.Figure(list(traces), layout, _validate=CHECKED)

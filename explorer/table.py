"""Tables of numbers: shown rounded, downloaded whole, from the very arrays that a plot was drawn from."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import streamlit as st

Columns = Mapping[str, Sequence[Any] | np.ndarray]


def table(columns: Columns, *, key: str, file: str, height: int | None = None) -> None:
    """Show columns of equal length, each under its name with its unit, and offer them as CSV in full precision."""
    shown = {name: _plain(values) for name, values in columns.items()}
    formats = {
        name: st.column_config.NumberColumn(format="%.4g")
        for name, values in shown.items()
        if any(isinstance(value, float) for value in values)
    }
    st.dataframe(shown, hide_index=True, column_config=formats, height=height or "auto", key=f"{key}_table")
    download("Download as CSV", partial(as_csv, shown), f"{file}.csv", key)


def download(label: str, make: Callable[[], str], file: str, key: str) -> None:
    """A button that hands over a file; it is made only when it is asked for, and the page stays as it is."""
    st.download_button(
        label,
        make,
        file_name=file,
        mime="application/json" if file.endswith(".json") else "text/csv",
        on_click="ignore",
        key=f"{key}_download",
        type="tertiary",
        icon=":material/download:",
    )


def as_csv(columns: Columns) -> str:
    """Write columns as CSV; every number reads back as the same number, and what is missing is an empty field."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*map(_plain, columns.values()), strict=True))
    return text.getvalue()


def _plain(values: Sequence[Any] | np.ndarray) -> list[Any]:
    """Python's own numbers and words, which print in full."""
    return values.tolist() if isinstance(values, np.ndarray) else list(values)

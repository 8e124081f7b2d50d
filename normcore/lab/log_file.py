"""Gradient norms out of the files that people have: tables and JSON as four loggers write them."""

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from normcore.core import NormcoreError

MEGABYTES = 8
"""The largest file."""
ROWS = 200_000
"""The most rows that are read."""
WIDEST = 1_000
"""The most columns."""
CELLS = 2_000_000
"""The most rows times columns, whether or not anything stands there."""
SMALLEST, LARGEST = 1e-100, 1e100
"""Finite norms beyond these cannot be counted in bins of equal ratio."""
STEPS = ("step", "_step", "global_step", "train/global_step", "trainer/global_step", "iteration", "iter", "steps")
"""Columns that count the steps, as loggers call them."""
OTHERS = ("step", "wall time", "wall_time", "_runtime", "_timestamp", "epoch", "timestamp", "time", "learning_rate")
_SPREAD = re.compile(r"__(MIN|MAX)$")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x19\x1b-\x1f]")
_NORMS = (
    re.compile(r"grad(ient)?s?[ _/.-]*(global[ _/.-]*)?(l2[ _/.-]*)?norm|gnorm|norm[ _/.-]*(of[ _/.-]*)?grad", re.I),
    re.compile(r"(total|global)[ _/.-]*norm|^norm$", re.I),
    re.compile(r"grad", re.I),
    re.compile(r"^value$", re.I),
)
"""How a column of gradient norms is called, the surest first."""
KIND = "a CSV or JSON lines file with a column of gradient norms"


@dataclass(frozen=True)
class Log:
    """Gradient norms in the order of their steps; `columns` are all that hold numbers, `column` the one taken.

    `format` says which program writes such files; `skipped` how many rows had no number there.
    """

    name: str
    format: str
    step: np.ndarray
    norm: np.ndarray
    column: str
    columns: tuple[str, ...]
    skipped: int


class NoNormError(NormcoreError):
    """There are numbers, but no column that is called like a gradient norm; `columns` are those to choose from."""

    def __init__(self, sentence: str, columns: tuple[str, ...]) -> None:
        super().__init__(sentence)
        self.columns = columns


def read(data: bytes | str, name: str = "the text", column: str | None = None) -> Log:
    """The norms in a file or a pasted text.

    Args:
        data: Its bytes, or the text.
        name: What to call it in a sentence.
        column: Which column holds the norms; by its name if left out.

    Raises:
        NormcoreError: Too large, not text, no rows, no such column, or none that looks like a gradient norm.
    """
    text = _text(data, name)
    table, kind = _table(text, name)
    known = tuple(c for c, cells in table.items() if np.isfinite(cells.values).any())
    if not known:
        raise NormcoreError(f"{name}: no column of numbers in it; send {KIND}")
    if column is None:
        column = guess(known)
        if column is None:
            shown = ", ".join(c[:40] for c in known[:6])
            raise NoNormError(f"{name}: no column is called like a gradient norm; choose one of {shown}", known)
    if column not in known:
        raise NormcoreError(f"{name}: no column of numbers is called {column[:40]!r}; there are {', '.join(known)}")
    norms, there = table[column].values, table[column].there
    count = next((c for c in known if c.lower() in STEPS and c != column), None)
    steps = table[count].values if count else np.arange(float(len(norms)))
    there = there & np.isfinite(steps)
    if (norms[there] < 0).any():
        raise NormcoreError(f"{name}: {column[:40]} has values below 0; a norm has none, so choose another column")
    finite = norms[there & np.isfinite(norms) & (norms > 0)]
    if ((finite < SMALLEST) | (finite > LARGEST)).any():
        raise NormcoreError(
            f"{name}: {column[:40]} has values that are not 0 and not from {SMALLEST:g} to {LARGEST:g}; no gradient "
            "has such a norm, so choose another column"
        )
    order = np.argsort(steps[there], kind="stable")
    return Log(name, kind, steps[there][order], norms[there][order], column, known, int((~there).sum()))


def guess(columns: Sequence[str]) -> str | None:
    """The column that is most likely a gradient norm; None where none looks like it."""
    candidates = [c for c in columns if not _SPREAD.search(c) and c.lower() not in OTHERS]
    for pattern in _NORMS:
        found = [c for c in candidates if pattern.search(c)]
        if found:
            return min(found, key=len)
    return candidates[0] if len(candidates) == 1 and candidates[0] == "column 1" else None


@dataclass(frozen=True)
class Cells:
    """A column: its numbers, nan where there is none, and where something stands that is a number or the word nan."""

    values: np.ndarray
    there: np.ndarray


def _text(data: bytes | str, name: str) -> str:
    size = len(data)
    if size > MEGABYTES * 2**20:
        raise NormcoreError(f"{name}: {size / 2**20:.1f} MB; at most {MEGABYTES} MB are taken, so send a part")
    if not data.strip():
        raise NormcoreError(f"{name}: there is nothing in it; send {KIND}")
    if isinstance(data, bytes):
        start = data[:1000]
        if start.startswith((b"\xff\xfe", b"\xfe\xff")) or start.count(0) > len(start) / 4:
            raise NormcoreError(f"{name}: not text in UTF-8, but perhaps in UTF-16; save it again as UTF-8")
        try:
            data = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise NormcoreError(f"{name}: not a text file; send {KIND}") from None
    if _CONTROL.search(data):
        raise NormcoreError(f"{name}: not plain text; send {KIND}")
    return data.strip()


def _table(text: str, name: str) -> tuple[dict[str, Cells], str]:
    """The columns of numbers, and what kind of file it was."""
    if text[0] in "[{":
        rows, kind = _json(text, name)
        return _columns(rows, name), kind
    header, cells = _cells(text, name)
    lower = [c.strip().lower() for c in header]
    kind = "a table"
    if lower == ["wall time", "step", "value"]:
        kind = "a TensorBoard export"
    elif any(_SPREAD.search(c) for c in header):
        kind = "a Weights & Biases export"
    return _filled(header, [enumerate(row[: len(header)]) for row in cells]), kind


def _json(text: str, name: str) -> tuple[list[Mapping[str, Any]], str]:
    """Rows out of JSON: one whole document, or one a line."""
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        rows, damaged = [], 0
        for line in text.splitlines():
            if line.strip():
                row = _parsed(line)
                rows += [row] if isinstance(row, Mapping) else []
                damaged += not isinstance(row, Mapping)
        if not rows or damaged > 1 + len(rows) // 100:  # a run that is still being written may end in half a line
            raise NormcoreError(f"{name}: damaged JSON; write one object a line, or one whole document") from None
        return _at_most(rows, name), "JSON lines"
    if isinstance(whole, Mapping) and isinstance(whole.get("log_history"), list):
        whole, kind = whole["log_history"], "a Hugging Face trainer_state.json"
    elif isinstance(whole, Mapping):
        lists = {str(key): value for key, value in whole.items() if isinstance(value, list)}
        length = max((len(value) for value in lists.values()), default=0)
        kind = "a JSON document of columns" if lists else "JSON lines"
        whole = [{k: v[i] for k, v in lists.items() if i < len(v)} for i in range(min(length, ROWS + 1))] or [whole]
    else:
        kind = "a JSON list"
    if whole and all(isinstance(row, list) and len(row) == 3 for row in whole):
        kind = "a TensorBoard export"
        whole = [dict(zip(("Wall time", "Step", "Value"), row, strict=True)) for row in whole]
    rows = [row for row in whole if isinstance(row, Mapping)]
    if not rows:
        raise NormcoreError(f"{name}: JSON without rows; write a list of objects, or one object a line")
    return _at_most(rows, name), kind


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _at_most(rows: list[Mapping[str, Any]], name: str) -> list[Mapping[str, Any]]:
    if len(rows) > ROWS:
        raise NormcoreError(f"{name}: more than {ROWS:,} rows; send a part of them")
    return rows


def _columns(rows: list[Mapping[str, Any]], name: str) -> dict[str, Cells]:
    """A column for every key, also for those one level down, called "outer/inner"."""
    flat = []
    for row in rows:
        found: dict[str, Any] = {}
        for key, value in row.items():
            inner = value if isinstance(value, Mapping) else None
            found |= {f"{key}/{k}": v for k, v in inner.items()} if inner is not None else {str(key): value}
        flat.append(found)
    names = list(dict.fromkeys(key for row in flat for key in row))[:WIDEST]
    _no_more(len(flat), len(names), name)
    places = {key: place for place, key in enumerate(names)}
    return _filled(names, [[(places[key], row[key]) for key in row if key in places] for row in flat])


def _cells(text: str, name: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a table; a first line of numbers has no header."""
    first = text.split("\n", 1)[0]
    delimiter = max((",", "\t", ";"), key=first.count)
    rows: list[list[str]] = []
    try:
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True):
            if any(cell.strip() for cell in row):
                rows.append(row)
            if len(rows) > ROWS + 1:
                raise NormcoreError(f"{name}: more than {ROWS:,} rows; send a part of them")
    except csv.Error:
        raise NormcoreError(f"{name}: neither a table nor JSON; send {KIND}") from None
    if not rows:
        raise NormcoreError(f"{name}: no row with anything in it; send {KIND}")
    width = len(rows[0])
    if width > WIDEST:
        raise NormcoreError(f"{name}: {width:,} columns; at most {WIDEST:,} are taken")
    header = [cell.strip() for cell in rows[0]]
    if all(_number(cell) is not None for cell in header):
        header = [f"column {i + 1}" for i in range(width)]
    else:
        rows = rows[1:]
    if not rows:
        raise NormcoreError(f"{name}: a header and no rows; send {KIND}")
    header = [c if c and c not in header[:i] else f"column {i + 1}" for i, c in enumerate(header)]
    _no_more(len(rows), width, name)
    return header, rows


def _no_more(rows: int, columns: int, name: str) -> None:
    if rows * columns > CELLS:
        raise NormcoreError(
            f"{name}: {rows:,} rows of {columns:,} columns are more than {CELLS:,} cells; send fewer columns or rows"
        )


def _filled(names: Sequence[str], rows: Sequence[Iterable[tuple[int, Any]]]) -> dict[str, Cells]:
    """The columns, from what stands in each row at which place; the price is that of what stands there."""
    found: list[tuple[list[int], list[float]]] = [([], []) for _ in names]
    for at, row in enumerate(rows):
        for place, value in row:
            number = _number(value)
            if number is not None:
                found[place][0].append(at)
                found[place][1].append(number)
    columns = {}
    for key, (places, numbers) in zip(names, found, strict=True):
        values, there = np.full(len(rows), math.nan), np.zeros(len(rows), dtype=bool)
        values[places], there[places] = numbers, True
        columns[key] = Cells(values, there)
    return columns


def _number(value: Any) -> float | None:
    """A number, also where it is written as a word: "NaN", "Infinity"."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:  # JSON has whole numbers of any length
            return math.inf
    if not isinstance(value, str) or len(value) > 40 or "_" in value:
        return None
    try:
        return float(value.strip())
    except ValueError:
        return None

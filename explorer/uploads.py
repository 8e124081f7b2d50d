"""A visitor's file, read with care: its kind is told by its bytes, its size before anything is unpacked.

Whatever is wrong with a file, the answer is a NormcoreError of one sentence. Nothing in a file is ever executed, and
nothing is allocated that the file only announces.
"""

import csv
import io
import math
import re
import struct
from array import array
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

from normcore.core import LAYOUTS, LETTERS, NormcoreError
from normcore.lab.inputs import LIMIT, WIDEST

MEGABYTES = 4
"""The largest file."""

PIXELS = 12_500_000
"""The most pixels that are decoded: what a telephone takes."""

LONGEST = 16_384
"""The most pixels of one side: each row costs something of its own."""

MEMORY = 90_000_000
"""The most bytes that decoding may take."""

_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2}
"""How many bytes Pillow keeps a pixel in, by mode; 4 in all others."""

SIDE = 96
"""How large a picture is when it is normalized, in pixels: larger ones are made smaller."""

LARGEST = 1e30
"""The largest number: its fourth power still fits."""

TYPES = ("npy", "png", "jpg", "jpeg", "csv")
_KINDS = "a .npy, PNG, JPEG or CSV file"
_OTHERS = {
    "a GIF picture": rb"GIF8[79]a",
    "a BMP picture": rb"BM.{4}\0{4}",
    "a TIFF picture": rb"II\*\0|MM\0\*|II\+\0|MM\0\+",
    "a WebP picture": rb"RIFF.{4}WEBP",
    "a PDF document": rb"%PDF-",
    "a web page or other markup": rb"(\xef\xbb\xbf)?\s*<[!?a-zA-Z]",
}
"""How files of other kinds begin."""

# The oldest pickles are text: they begin with a mark, an import or a value of its own line, and end with a point.
_OLD_PICKLE = re.compile(rb"\([ldtcIFLVSN(]|c[\w.]+\r?\n[\w.]+\r?\n|[IFLVS][^\n]*\n(p\d+\n)?\.|[NI]\.")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x19\x1b-\x1f]")
_DTYPE = re.compile(r"'descr':\s*'([<>|=])([a-zA-Z])([0-9]?)'")
_ORDER = re.compile(r"'fortran_order':\s*(True|False)")
_SHAPE = re.compile(r"'shape':\s*\(([0-9, ]*)\)")
_SIZES = {"f": (2, 4, 8), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "b": (1,)}


@dataclass(frozen=True)
class Upload:
    """What a file holds: the numbers, the layouts that their axes can have, and what became of them on the way."""

    values: np.ndarray
    layouts: tuple[str, ...]
    name: str


def read(data: bytes, name: str) -> Upload:
    """The numbers in a file: .npy, PNG or JPEG, or CSV.

    Raises:
        NormcoreError: The file is too large, of another kind, damaged, or holds what is not a finite number.
    """
    name = short(name)
    layouts: tuple[str, ...]
    if len(data) > MEGABYTES * 2**20:
        raise NormcoreError(f"{name}: {len(data) / 2**20:.1f} MB; at most {MEGABYTES} MB are taken")
    if not data:
        raise NormcoreError(f"{name}: the file is empty; send a .npy, PNG, JPEG or CSV file with numbers in it")
    if data.startswith(b"\x93NUMPY"):
        values = array_of(data, name)
        layouts = tuple(layout for layout in LAYOUTS["activation"] if len(LETTERS[layout]) == values.ndim)
    elif data.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")):
        values, layouts = _picture(data, name), ("image",)
    elif data.startswith((b"\x80", b"PK\x03\x04", b"PK\x05\x06")) or _old_pickle(data):
        raise NormcoreError(
            f"{name}: a pickle or an archive, which is never opened here; send an array saved by numpy.save"
        )
    else:
        for other, start in _OTHERS.items():
            if re.match(start, data, re.DOTALL):
                raise NormcoreError(f"{name}: {other}; send {_KINDS}")
        values, layouts = _rows(data, name), ("vector",)
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise NormcoreError(
            f"{name}: {count:,} of {values.size:,} values are not finite; replace or leave out NaN and ∞"
        )
    if np.abs(values).max() > LARGEST:
        raise NormcoreError(f"{name}: a value of {np.abs(values).max():.3g}; at most {LARGEST:g} can be computed with")
    return Upload(values, layouts, name)


def short(name: str) -> str:
    """A file's name as it may stand in a sentence: no path, no control characters, no markup, not long."""
    kept = re.sub(r"[^\w.\- ]", "_", re.split(r"[/\\]", name)[-1]).strip()
    return (kept if len(kept) <= 40 else f"{kept[:30]}…{kept[-8:]}") or "the file"


def _old_pickle(data: bytes) -> bool:
    return data.rstrip().endswith(b".") and _OLD_PICKLE.match(data) is not None


def array_of(data: bytes, name: str) -> np.ndarray:
    """A .npy file, whose header is read as text with three patterns, and whose size must be just what it says."""
    damaged = NormcoreError(f"{name}: a damaged .npy file; save the array again with numpy.save")
    if len(data) < 12 or data[6] not in (1, 2, 3):
        raise damaged
    start, length = (10, "<H") if data[6] == 1 else (12, "<I")
    size = struct.unpack_from(length, data, 8)[0]
    if size > 10_000 or start + size > len(data):
        raise damaged
    header = data[start : start + size].decode("latin-1")
    kind, order, shape = _DTYPE.search(header), _ORDER.search(header), _SHAPE.search(header)
    if order is None or shape is None:
        raise damaged
    if kind is None or int(kind[3] or 0) not in _SIZES.get(kind[2], ()):
        what = "Python objects" if kind and kind[2] == "O" else "something else than plain numbers"
        raise NormcoreError(f"{name}: an array of {what}; save real numbers, such as float32")
    words = [word for word in shape[1].replace(" ", "").split(",") if word]
    if any(len(word) > 18 for word in words):
        raise damaged
    sizes = tuple(int(word) for word in words)
    if len(sizes) > 5:
        raise NormcoreError(f"{name}: {len(sizes)} axes; at most 5 (n c d h w) have a meaning here")
    count = math.prod(sizes)
    if not count:
        raise NormcoreError(f"{name}: shape {sizes} holds no values; every axis needs at least one")
    if count > 10**18:
        raise NormcoreError(f"{name}: more than 10^18 values; at most {LIMIT:,} are taken, so send a part")
    if count > LIMIT:
        raise NormcoreError(f"{name}: shape {sizes} has {count:,} values; at most {LIMIT:,} are taken, so send a part")
    dtype = np.dtype(f"{'=' if kind[1] == '|' else kind[1]}{kind[2]}{kind[3]}")
    if len(data) - start - size != count * dtype.itemsize:
        raise damaged
    values = np.frombuffer(data, dtype, count, start + size)
    values = values.reshape(sizes, order="F" if order[1] == "True" else "C")
    if values.ndim < 2:
        return values.reshape(-1, 1)  # a list of numbers: samples of one channel
    return values


def _picture(data: bytes, name: str) -> np.ndarray:
    """A PNG or JPEG as (1 c h w) from 0 to 1; its size is looked at before any pixel is decoded."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as picture:
            width, height = picture.size
            size = f"{name}: {width:,} × {height:,} pixels"
            if max(width, height) > LONGEST:
                raise NormcoreError(f"{size}; at most {LONGEST:,} on a side are decoded, so make it smaller")
            if width * height > PIXELS:
                raise NormcoreError(f"{size}; at most {PIXELS / 1e6:g} million are decoded, so make it smaller")
            deep = picture.mode in ("I", "I;16", "I;16B", "F")
            mode = "F" if deep else "L" if picture.mode in ("1", "L", "LA") else "RGB"
            # A progressive JPEG is kept whole, in two bytes a number, before it is made smaller.
            whole_first = 2 * len(picture.getbands()) * width * height if "progressive" in picture.info else 0
            picture.draft(mode, (2 * SIDE, 2 * SIDE))
            copies = _BYTES.get(picture.mode, 4) + (4 if deep else 0)
            copies += 0 if picture.mode == mode else _BYTES.get(mode, 4)
            if whole_first + picture.size[0] * picture.size[1] * copies > MEMORY:
                raise NormcoreError(f"{size} of this kind take too much memory to decode, so make it smaller")
            if deep:
                plain = picture.convert("I").convert(mode)
            else:
                plain = picture if picture.mode == mode else picture.convert(mode)
            small = plain.reduce(-(-max(plain.size) // SIDE))
            whole = np.asarray(small, dtype=np.float64) / (65535 if deep else 255)
    except Image.DecompressionBombError:
        raise NormcoreError(f"{name}: far more than {PIXELS / 1e6:g} million pixels; make it smaller") from None
    except (
        UnidentifiedImageError,
        OSError,
        SyntaxError,
        ValueError,
        TypeError,
        IndexError,
        KeyError,
        EOFError,
        OverflowError,
        struct.error,
    ) as error:
        if isinstance(error, NormcoreError):
            raise
        raise NormcoreError(f"{name}: a damaged picture; save it again as PNG or JPEG") from None
    return np.moveaxis(np.atleast_3d(whole), 2, 0)[None]


def _rows(data: bytes, name: str) -> np.ndarray:
    """A CSV file as (n c): one sample a line, one channel a column; a first line of names is skipped."""
    start = data[:1000]
    if start.startswith((b"\xff\xfe", b"\xfe\xff")) or max(start[::2].count(0), start[1::2].count(0)) > len(start) / 4:
        raise NormcoreError(f"{name}: not text in UTF-8, but perhaps in UTF-16; save the table again as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise NormcoreError(f"{name}: neither .npy, PNG, JPEG nor text; send one of these") from None
    if _CONTROL.search(text):
        raise NormcoreError(f"{name}: neither .npy, PNG, JPEG nor plain text; send one of these")
    first = re.split(r"[\r\n]", text.lstrip(), maxsplit=1)[0]
    delimiter = max(("\t", ";", ","), key=first.count)
    found = array("d")
    width = 0
    try:
        for number, cells in enumerate(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), 1):
            if number > 4 * LIMIT:
                raise NormcoreError(f"{name}: more than {4 * LIMIT:,} lines; send a part of them")
            if not any(cell.strip() for cell in cells):
                continue
            if (width and len(cells) != width) or len(cells) > WIDEST:
                most = f"those before it have {width}" if width else f"at most {WIDEST} are taken"
                raise NormcoreError(f"{name}: line {number} has {len(cells):,} columns; {most}")
            row = [_number(cell, delimiter) for cell in cells]
            names, width = not width and all(value is None for value in row), len(cells)
            if names:
                continue
            wrong = next((i for i, value in enumerate(row) if value is None), None)
            if wrong is not None:
                cell = short(cells[wrong]) if cells[wrong].strip() else "nothing"
                raise NormcoreError(f"{name}: {cell} in line {number}, column {wrong + 1} is not a number; write one")
            if len(found) + len(row) > LIMIT:
                raise NormcoreError(f"{name}: more than {LIMIT:,} values; send a part of the lines")
            found.extend(value for value in row if value is not None)
    except csv.Error:
        raise NormcoreError(f"{name}: neither .npy, PNG, JPEG nor a table of numbers; send one of these") from None
    if not found:
        raise NormcoreError(f"{name}: no line of numbers; a CSV file needs at least one")
    return np.array(found).reshape(-1, width)


def _number(cell: str, delimiter: str) -> float | None:
    """A cell's number; with semicolons between the cells a comma may stand before the decimals."""
    cell = cell.strip()
    if delimiter == ";":
        cell = cell.replace(",", ".")
    if "_" in cell or len(cell) > 40:
        return None
    try:
        return float(cell)
    except ValueError:
        return None

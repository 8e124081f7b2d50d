"""An .npz archive read with care: what it says of itself is looked at before anything is unpacked."""

import io
import zipfile
import zlib

import numpy as np

from explorer.uploads import MEGABYTES, array_of, short
from normcore.core import NormcoreError

MOST = 8
"""The most arrays in one archive."""
LARGEST = 16 * 2**20
"""The most bytes of one array, unpacked."""


def arrays(data: bytes, name: str) -> dict[str, np.ndarray]:
    """The arrays in an .npz archive, by their names.

    Raises:
        NormcoreError: Too large, damaged, or holding anything but plain arrays of numbers.
    """
    name = short(name)
    if len(data) > MEGABYTES * 2**20:
        raise NormcoreError(f"{name}: {len(data) / 2**20:.1f} MB; at most {MEGABYTES} MB are taken")
    found = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if len(entries) > MOST:
                raise NormcoreError(f"{name}: {len(entries):,} files in the archive; at most {MOST} arrays are taken")
            for entry in entries:
                inner = f"{name}, {short(entry.filename)}"
                if not entry.filename.endswith(".npy"):
                    raise NormcoreError(f"{inner}: not an array; write the archive with numpy.savez")
                if entry.file_size > LARGEST:
                    size = f"{entry.file_size / 2**20:,.0f} MB"
                    raise NormcoreError(f"{inner}: {size} unpacked; at most {LARGEST // 2**20} MB are taken")
                with archive.open(entry) as file:
                    unpacked = file.read(LARGEST + 1)
                if not unpacked.startswith(b"\x93NUMPY"):
                    raise NormcoreError(f"{inner}: not an array; write the archive with numpy.savez")
                found[entry.filename.removesuffix(".npy")] = array_of(unpacked, inner)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError):
        raise NormcoreError(f"{name}: a damaged archive; write it again with numpy.savez") from None
    if not found:
        raise NormcoreError(f"{name}: an empty archive; it needs an x and a y")
    return found

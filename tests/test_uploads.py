"""Files from strangers: what is sound is read to the last bit, everything else gets one sentence and costs little."""

import csv
import io
import pickle
import struct
import tracemalloc
import zipfile
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.lib import format as npy
from PIL import Image

from explorer import uploads
from explorer.uploads import LARGEST, LIMIT, LONGEST, MEGABYTES, MEMORY, PIXELS, SIDE, read
from normcore import NormcoreError


def saved(array: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def announced(shape: tuple[int, ...], data: bytes = b"", descr: Any = "<f8") -> bytes:
    """A .npy file whose header says what it likes."""
    file = io.BytesIO()
    npy.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    return file.getvalue() + data


def pixels(rows: int, columns: int, mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(0)
    shape = (rows, columns, 3) if mode == "RGB" else (rows, columns)
    return Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).convert(mode)


def drawn(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width: int, height: int, body: bytes = b"", bits: int = 8, colors: int = 2) -> bytes:
    """A small PNG that would unpack to gigabytes."""
    header = struct.pack(">IIBBBBB", width, height, bits, colors, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f8", "<i1", ">i4", "<i8", "|u1", "<u2", "|b1"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_is_read_to_the_last_bit(dtype: str, order: str) -> None:
    array = np.arange(60).reshape(3, 4, 5).astype(dtype)
    found = read(saved(np.asarray(array, order=order)), "a.npy")  # type: ignore[call-overload]
    assert np.array_equal(found.values, array.astype(float))
    assert found.values.dtype == np.float64
    assert found.layouts == ("signal", "tokens")


@pytest.mark.parametrize(
    ("shape", "layouts"),
    [((7,), ("vector",)), ((7, 3), ("vector",)), ((2, 3, 4, 4), ("image",)), ((1, 2, 2, 3, 3), ("volume",))],
)
def test_the_axes_say_the_layout(shape: tuple[int, ...], layouts: tuple[str, ...]) -> None:
    found = read(saved(np.ones(shape)), "a.npy")
    assert found.layouts == layouts
    assert found.values.shape == (shape if len(shape) > 1 else (*shape, 1))


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_the_format_is_read(version: tuple[int, int]) -> None:
    file = io.BytesIO()
    npy.write_array(file, np.arange(6.0).reshape(2, 3), version=version)
    assert np.array_equal(read(file.getvalue(), "a.npy").values, np.arange(6.0).reshape(2, 3))


def test_a_picture_becomes_channels_from_0_to_1() -> None:
    small = pixels(20, 30)
    found = read(drawn(small), "p.png")
    assert found.layouts == ("image",)
    assert np.allclose(found.values[0], np.moveaxis(np.asarray(small), 2, 0) / 255)
    assert read(drawn(pixels(20, 30, "L")), "p.png").values.shape == (1, 1, 20, 30)
    deep = Image.fromarray((np.arange(600, dtype=np.uint16) * 100).reshape(20, 30))
    assert np.allclose(read(drawn(deep), "p.png").values[0, 0], np.asarray(deep) / 65535)
    for mode in ("1", "P", "RGBA", "LA"):
        values = read(drawn(pixels(20, 30).convert(mode)), "p.png").values
        assert 0 <= values.min() <= values.max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_large_picture_is_averaged(kind: str) -> None:
    found = read(drawn(pixels(900, 1300), kind), "p").values
    assert max(found.shape[2:]) <= SIDE
    assert found.shape[2] / found.shape[3] == pytest.approx(900 / 1300, rel=0.05)
    assert found.mean() == pytest.approx(0.5, abs=0.03)
    assert found.std() < 0.1


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("head", [True, False])
def test_a_table_is_read_with_or_without_names(delimiter: str, head: bool) -> None:
    values = np.random.default_rng(0).normal(size=(5, 3))
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter)
    writer.writerows([["one", "two", "three"]] * head + values.tolist())
    found = read(("\ufeff" + file.getvalue() + "\n\n").encode(), "t.csv")
    assert np.array_equal(found.values, values)
    assert found.layouts == ("vector",)


def test_decimal_commas_are_read_between_semicolons() -> None:
    assert read(b"1,5;2\n3;4,25", "t.csv").values.tolist() == [[1.5, 2], [3, 4.25]]


BAD = {
    "empty": (b"", "empty"),
    "text": (
        b"Dear reader, this is no table.\nIt has commas, but no numbers.",
        "no line of numbers|not a number|columns",
    ),
    "noise": (bytes(range(256)) * 9, "neither|not a number"),
    "nul": (b"1,2\n3,\x00", "neither|not a number"),
    "pickle": (pickle.dumps({"a": 1}), "pickle"),
    "archive": (b"", "pickle or an archive"),
    "objects": (saved(np.array([{}, 1], dtype=object), allow_pickle=True), "Python objects"),
    "structured": (saved(np.zeros(3, dtype=[("a", "f4"), ("b", "i4")])), "plain numbers"),
    "complex": (saved(np.zeros(3, dtype=complex)), "plain numbers"),
    "words": (saved(np.array(["a", "b"])), "plain numbers"),
    "dates": (saved(np.array(["2020-01-01"], dtype="M8[D]")), "plain numbers"),
    "nan": (saved(np.array([1.0, np.nan, np.inf])), "2 of 3 values are not finite"),
    "csv nan": (b"1,2\nnan,4", "1 of 4 values are not finite"),
    "enormous value": (saved(np.array([1e300, 1.0])), "1e\\+300"),
    "announced petabytes": (announced((2**40, 1024)), "1,125,899,906,842,624 values"),
    "announced more digits than numbers have": (announced((10**30,)), "damaged|values"),
    "shorter than announced": (saved(np.zeros((50, 50)))[:-8], "damaged"),
    "longer than announced": (saved(np.zeros((50, 50))) + b"12345678", "damaged"),
    "negative": (announced((-4, 2)), "damaged"),
    "no values": (saved(np.zeros((3, 0, 2))), "no values"),
    "too many axes": (saved(np.zeros((1, 1, 1, 1, 2, 2))), "6 axes"),
    "too many values": (saved(np.zeros((4, LIMIT // 2), dtype=np.uint8)), f"{2 * LIMIT:,} values"),
    "200 axes": (announced((1,) * 200, b"1234", "<f4"), "200 axes"),
    "450 enormous axes": (announced((999_999_999_999_999_999,) * 450), "450 axes"),
    "5 enormous axes": (announced((999_999_999_999_999_999,) * 5), "more than 10\\^18 values"),
    "no header": (b"\x93NUMPY", "damaged"),
    "a header without an end": (b"\x93NUMPY\x01\x00\xff\xff{'descr': '<f8'", "damaged"),
    "a header that would run": (
        b"\x93NUMPY\x01\x00\x46\x00{'descr': __import__('os').abort(), 'fortran_order': False, 'shape': (1,), }\n",
        "damaged|plain numbers",
    ),
    "a header of brackets": (b"\x93NUMPY\x01\x00\x10\x27" + b"(" * 10_000, "damaged"),
    "another version": (b"\x93NUMPY\x09\x00" + b"\x00" * 90, "damaged"),
    "a bomb": (bomb(30_000, 30_000), "far more than 12.5 million pixels"),
    "a bomb below Pillow's alarm": (bomb(8_000, 8_000, zlib.compress(bytes(10**7))), "8,000 × 8,000 pixels"),
    "a bomb as narrow as can be": (bomb(1, 12_000_000), f"1 × 12,000,000 pixels; at most {LONGEST:,} on a side"),
    "a bomb of 16 million pixels": (bomb(4000, 4000), "4,000 × 4,000 pixels; at most 12.5 million"),
    "a bomb with transparency": (bomb(3500, 3500, colors=6), "too much memory"),
    "a deep bomb": (bomb(3100, 3100, bits=16, colors=0), "too much memory"),
    "a progressive bomb": (drawn(Image.new("CMYK", (4000, 3000)), "JPEG", progressive=True), "too much memory"),
    "a small bomb": (bomb(3000, 3000, zlib.compress(bytes(100))), "damaged"),
    "a PNG that ends": (drawn(pixels(60, 60))[:2000], "damaged"),
    "a PNG with a wrong sum": (drawn(pixels(9, 9)).replace(b"IDAT", b"IDAZ"), "damaged"),
    "a PNG without pixels": (bomb(0, 10), "damaged"),
    "a JPEG that ends": (drawn(pixels(60, 60), "JPEG")[:700], "damaged"),
    "a JPEG of nothing": (b"\xff\xd8\xff" + bytes(500), "damaged"),
    "a GIF": (drawn(pixels(9, 9), "GIF"), "a GIF picture; send"),
    "a bomb of text in a PNG": (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 0, 0, 0, 0))
        + chunk(b"zTXt", b"a\x00\x00" + zlib.compress(bytes(50 * 2**20)))
        + chunk(b"IDAT", zlib.compress(bytes(20)))
        + chunk(b"IEND", b""),
        "damaged",
    ),
    "a ragged table": (b"1,2\n3,4,5\n", "line 2 has 3 columns; those before it have 2"),
    "a hole": (b"1,2\n3,\n", "nothing in line 2, column 2"),
    "a word": (b"1,2\n3,four\n", "four in line 2, column 2"),
    "names alone": (b"a,b\n", "no line of numbers"),
    "too many columns": (b",".join([b"1"] * 600), "600 columns"),
    "too many lines": (b"1,2,3\n" * (LIMIT // 3 + 2), f"more than {LIMIT:,} values"),
    "too many lines of an old kind": (b"1\r" * 2_000_000, f"more than {LIMIT:,} values"),
    "too many lines of nothing": (b"\r" * 4_000_000, f"more than {4 * LIMIT:,} lines"),
    "an endless cell": (b"1" * 200_000, "neither|not a number"),
    "UTF-16": ("1,2\n3,4\n".encode("utf-16"), "UTF-16; save the table again as UTF-8"),
    "UTF-16 without a mark": ("1,2\n3,4\n".encode("utf-16-le"), "UTF-16; save the table again as UTF-8"),
    "UTF-16, the other way round": ("1,2\n3,4\n".encode("utf-16-be"), "UTF-16; save the table again as UTF-8"),
    "an old pickle": (pickle.dumps({"a": 1}, 0), "pickle"),
    "an old pickle of a list": (pickle.dumps([1.5, 2], 0), "pickle"),
    "an old pickle of a tuple": (pickle.dumps((1, 2), 0), "pickle"),
    "an old pickle of an array": (pickle.dumps(np.arange(3.0), 0), "pickle"),
    "a pickle of protocol 1": (pickle.dumps([1, 2], 1), "neither|pickle"),
    "a BMP": (drawn(pixels(9, 9), "BMP"), "a BMP picture; send"),
    "a TIFF": (drawn(pixels(9, 9), "TIFF"), "a TIFF picture; send"),
    "a WebP": (b"RIFF\x10\0\0\0WEBPVP8 ", "a WebP picture; send"),
    "a web page": (b"\n<!DOCTYPE html>\n<html><body>1,2</body></html>", "a web page or other markup; send"),
    "an SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "a web page or other markup; send"),
    "an open quotation": (b'1,"2\n3,4', "neither"),
    "too large": (bytes(MEGABYTES * 2**20 + 1), "4.0 MB; at most 4 MB"),
}
_archive = io.BytesIO()
with zipfile.ZipFile(_archive, "w") as _zip:
    _zip.writestr("a.npy", saved(np.zeros(3)))
BAD["archive"] = (_archive.getvalue(), "pickle or an archive")


@pytest.mark.parametrize("what", BAD)
def test_whatever_is_wrong_gets_one_sentence_and_costs_little(what: str) -> None:
    data, said = BAD[what]
    tracemalloc.start()
    try:
        with pytest.raises(NormcoreError, match=said) as caught:
            read(data, "bad.file")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 * 2**20
    sentence = str(caught.value)
    assert sentence.startswith("bad.file: ")
    assert "\n" not in sentence
    assert not sentence.endswith(".")
    assert len(sentence) < 160


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_a_table_may_have_as_many_values_as_fit_and_not_one_more(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "LIMIT", 500)
    assert read((f"1{end}" * 499 + "1").encode(), "fits.csv").values.size == 500
    with pytest.raises(NormcoreError, match="more than 500 values"):
        read((f"1{end}" * 500 + "1").encode(), "bad.csv")
    with pytest.raises(NormcoreError, match="more than 2,000 lines"):
        read((end * 2001 + "1").encode(), "bad.csv")


@pytest.mark.parametrize("start", [b"\x93NUMPY", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"", b"\x80\x04", b"1,2\n"])
def test_random_bytes_never_raise_anything_else(start: bytes) -> None:
    rng = np.random.default_rng(0)
    for length in (0, 1, 5, 40, 300, 5000):
        for _ in range(20):
            try:
                read(start + rng.bytes(length), "x")
            except NormcoreError:
                continue


@pytest.mark.parametrize("kind", ["npy", "PNG", "JPEG", "csv"])
def test_flipped_bytes_never_raise_anything_else(kind: str) -> None:
    rng = np.random.default_rng(1)
    sound = {
        "npy": saved(rng.normal(size=(4, 5))),
        "PNG": drawn(pixels(24, 24)),
        "JPEG": drawn(pixels(24, 24), "JPEG"),
        "csv": b"a,b\n1.5,2\n3,4\n",
    }[kind]
    refused = 0
    for _ in range(300):
        data = bytearray(sound)
        for place in rng.integers(0, len(data), rng.integers(1, 6)):
            data[place] = rng.integers(0, 256)
        try:
            assert np.isfinite(read(bytes(data), "x").values).all()
        except NormcoreError:
            refused += 1
    assert refused > 20


def test_a_name_cannot_carry_anything_into_the_sentence() -> None:
    for name in ("../../etc/passwd", "<b>x</b>.npy", "[click](http://x).npy", "a\nb.npy", "x" * 300, "", "**x**`y`$z$"):
        with pytest.raises(NormcoreError) as caught:
            read(b"", name)
        told = str(caught.value).split(": ")[0]
        assert len(told) <= 40
        assert not set(told) & set("<>[]()*`$\n/\\")


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_a_table_of_just_the_limit_is_read(end: str) -> None:
    found = read((f"1,2{end}" * (LIMIT // 2)).encode(), "t.csv").values
    assert found.shape == (LIMIT // 2, 2)
    assert (found == [1, 2]).all()


@pytest.mark.parametrize(("colors", "side"), [(2, 3500), (0, 3500), (6, 3300)])
def test_a_picture_within_the_limits_is_decoded(colors: int, side: int) -> None:
    body = zlib.compress(bytes((1 + side * {0: 1, 2: 3, 6: 4}[colors]) * side))
    assert not read(bomb(side, side, body, colors=colors), "p.png").values.any()


def test_a_picture_from_a_telephone_is_decoded() -> None:
    for progressive in (False, True):
        picture = drawn(Image.new("RGB", (4032, 3024), (255, 0, 0)), "JPEG", progressive=progressive)
        assert read(picture, "p.jpg").values[0, 0].min() > 0.95


def test_the_limits_fit_each_other() -> None:
    assert MEMORY < 100 * 10**6
    assert np.finfo(float).max > LARGEST**4 * LIMIT
    assert 3 * SIDE**2 <= LIMIT
    assert PIXELS < Image.MAX_IMAGE_PIXELS  # type: ignore[operator]

from __future__ import annotations

import base64
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazyarr.errors import FormatError
from lazyarr.formats.zarr import data_type_from_numpy, parse_data_type, parse_v2_data_type
from lazyarr.formats.zarr.fillvalue import parse_fill
from lazyarr.formats.zarr.fillvalue_document import encode_fill, fill_document

NUMBERS = ["|i1", "|u1", "<i2", ">i4", "<u8", "<f2", "<f4", ">f8", "<c8", ">c16"]
OTHERS = ["|b1", "<M8[ns]", ">m8[D]", "<U3", ">U2", "|S4", "|V3"]
STRUCT = [["a", "<i4"], ["b", ">f8"], ["c", "|S3"]]


@pytest.mark.parametrize(
    ("typestr", "value", "expected"),
    [
        ("|b1", True, b"\1"),
        ("|b1", 0, b"\0"),
        ("<i2", -2, b"\xfe\xff"),
        (">i2", -2, b"\xff\xfe"),
        ("<u8", 2**64 - 1, b"\xff" * 8),
        ("<i4", 3.0, b"\3\0\0\0"),
        ("<f4", 1, struct.pack("<f", 1)),
        ("<f4", "NaN", bytes.fromhex("0000c07f")),
        (">f4", "NaN", bytes.fromhex("7fc00000")),
        ("<f8", "-Infinity", struct.pack("<d", -np.inf)),
        ("<f4", "0x7fc00001", bytes.fromhex("0100c07f")),
        (">f4", "0x7FC00001", bytes.fromhex("7fc00001")),
        ("<f2", 1e300, struct.pack("<e", np.inf)),
        ("<f4", -1e300, struct.pack("<f", -np.inf)),
        ("<f8", -0.0, struct.pack("<d", -0.0)),
        ("<f8", 10**300, struct.pack("<d", 1e300)),
        ("<c8", [1, "NaN"], struct.pack("<ff", 1, np.nan)),
        (">c16", ["0x3ff0000000000000", 2], struct.pack(">dd", 1, 2)),
        ("<c8", 3.0, struct.pack("<ff", 3, 0)),
        ("<M8[s]", "NaT", struct.pack("<q", -(2**63))),
        (">m8[s]", 5, struct.pack(">q", 5)),
        ("<U3", "aß", "aß\0".encode("utf-32-le")),
        (">U2", "a", "a\0".encode("utf-32-be")),
        ("<U2", 0, bytes(8)),
        ("|S4", base64.b64encode(b"ab").decode(), b"ab\0\0"),
        ("|S4", "", bytes(4)),
        ("|V3", [1, 2, 255], b"\1\2\xff"),
        ("|V3", base64.b64encode(b"abc").decode(), b"abc"),
        ("|V3", 0, bytes(3)),
    ],
)
def test_parse_fill(typestr, value, expected):
    """Every spelling gives the bytes of one element, in its byte order."""
    assert parse_fill(parse_v2_data_type(typestr), value) == expected


@pytest.mark.parametrize(
    ("typestr", "value"),
    [
        *[("|b1", value) for value in (2, "true", "0", [])],
        *[("|u1", value) for value in (-1, 256, True, "-1", "1.5", 1.5, None, float("nan"), [1])],
        *[
            ("<f4", value)
            for value in ("", "none", "0x7fc0000", "0x7fc000000", "0x7fc0000g", True, None)
        ],
        *[("<f8", value) for value in (10**400, "0x", "0x+fc0000000000000", [1.0])],
        *[("<c8", value) for value in ([1], [1, 2, 3], "NaN1", ["1", 2], {})],
        *[("<M8[s]", value) for value in ("2020", 2**63, -(2**63) - 1, 1.5)],
        *[("<U2", value) for value in ("abc", "\ud800", 1, None)],
        *[("|S2", value) for value in ("YWJj", "not base64!", "a", 1, None, "ü")],
        *[("|V2", value) for value in ([1], [1, 2, 3], [1, 256], [1, -1], [1, True], None)],
        *[
            (STRUCT, value)
            for value in ({}, {"a": 1, "b": 2}, [1, 2, 3], 5, {"a": 1, "b": 2, "c": 3})
        ],
    ],
    ids=str,
)
def test_what_is_refused(typestr, value):
    """A value that is none of the data type is an error that names the type."""
    with pytest.raises(FormatError):
        parse_fill(parse_v2_data_type(typestr), value)


def test_structs_by_field():
    """The fill value of a struct is that of its members, one after the other."""
    dtype = parse_v2_data_type(STRUCT)
    value = {"c": base64.b64encode(b"xy").decode(), "a": -1, "b": "NaN"}
    assert parse_fill(dtype, value) == struct.pack("<i", -1) + struct.pack(">d", np.nan) + b"xy\0"
    assert parse_fill(dtype, base64.b64encode(bytes(range(15))).decode()) == bytes(range(15))
    assert parse_fill(dtype, 0) == bytes(15)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("bfloat16", 1.0, "803f"),
        ("bfloat16", "0x3f81", "813f"),
        ("bfloat16", "NaN", "c07f"),
        ("bfloat16", -0.0, "0080"),
        ("float8_e4m3fn", 1.0, "38"),
        ("float8_e8m0fnu", 1.0, "7f"),
        ("float8_e5m2", "Infinity", "7c"),
    ],
)
def test_ml_types(name, value, expected):
    """Types of ml_dtypes take numbers and bit patterns."""
    assert parse_fill(parse_data_type(name), value).hex() == expected


@given(st.sampled_from([*NUMBERS, *OTHERS, STRUCT]), st.data())
def test_documents_come_back(typestr, data):
    """Any element, NaN of any kind included, is written and read bit for bit."""
    dtype = parse_v2_data_type(typestr)
    element = data.draw(st.binary(min_size=dtype.itemsize, max_size=dtype.itemsize))
    if dtype.kind == "b":
        element = bytes([element[0] & 1])
    if dtype.kind == "U":
        text = data.draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=2))
        order = "be" if dtype.byte_order == ">" else "le"
        element = text.encode(f"utf-32-{order}").ljust(dtype.itemsize, b"\0")
    assert parse_fill(dtype, fill_document(dtype, element)) == element


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu"])
def test_documents_of_ml_types_come_back(name):
    """So does every pattern of bits of types of ml_dtypes."""
    dtype = parse_data_type(name)
    for bits in range(0, 2 ** (8 * dtype.itemsize), 1 if dtype.itemsize == 1 else 97):
        element = bits.to_bytes(dtype.itemsize, "little")
        assert parse_fill(dtype, fill_document(dtype, element)) == element


@pytest.mark.parametrize(
    ("typestr", "value"),
    [
        *[("<i2", 5), ("<i2", np.int64(5)), ("|u1", np.uint8(255)), ("<f4", 1.1), ("<f4", np.nan)],
        *[("<f4", np.float64(0.1)), ("<c8", 1 + 2j), ("|b1", True), ("<i4", 2.0), ("<f4", 3)],
        *[("<U3", "ab"), ("|S3", b"ab"), ("<M8[s]", np.datetime64("2020-01-01")), ("|V2", b"ab")],
        *[("<m8[s]", np.timedelta64(3, "m")), ("<M8[s]", "2020-01-01")],
    ],
)
def test_encode_fill(typestr, value):
    """Python and NumPy values become one element, as NumPy stores them."""
    dtype = data_type_from_numpy(np.dtype(typestr))
    assert encode_fill(dtype, value) == np.array(value, typestr).tobytes()


@pytest.mark.parametrize("typestr", [*NUMBERS, *OTHERS, [("a", "<i4"), ("b", "S3")]], ids=str)
@pytest.mark.parametrize("value", [0, None, False])
def test_zero_is_zero_bits(typestr, value):
    """Zero and None are all zero bits, with strings and structs too."""
    dtype = data_type_from_numpy(np.dtype(typestr))
    assert encode_fill(dtype, value) == bytes(dtype.itemsize)


@pytest.mark.parametrize(
    ("typestr", "value"),
    [
        *[("|u1", 256), ("|u1", -1), ("<i4", 1.5), ("|b1", 2), ("<i4", "a"), ("<f4", "x")],
        *[("<U2", "abc"), ("|S2", b"abc"), ("<f4", [1, 2]), ("<f4", 1j), ("<i4", np.nan)],
    ],
)
def test_encode_fill_refuses(typestr, value):
    """What a type cannot hold is an error, not something near it."""
    with pytest.raises(FormatError, match="cannot hold"):
        encode_fill(data_type_from_numpy(np.dtype(typestr)), value)

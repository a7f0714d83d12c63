from __future__ import annotations

import numpy as np
import pytest

from lazyarr.errors import FormatError
from lazyarr.formats.zarr import data_type_from_numpy, parse_v2_data_type


@pytest.mark.parametrize(
    "spelled",
    [
        *["|b1", "|i1", "|u1", "<i2", ">i4", "<u8", ">f2", "<f4", ">f8", "<c8", ">c16"],
        *["<M8[ns]", ">M8[10s]", "<m8[D]", "<M8", "<U5", ">U3", "|S4", "|V3"],
        [["a", "<i4"], ["b", ">f8"], ["c", "|S3"]],
        [["a", "<i4", [2, 3]], ["n", [["x", "<f4"]]]],
    ],
    ids=str,
)
def test_spellings_are_numpys(spelled):
    """Type strings and lists of fields are what NumPy takes, byte order included."""

    def as_numpy(value):
        if isinstance(value, str):
            return value
        return [(name, as_numpy(kind), *map(tuple, shape)) for name, kind, *shape in value]

    dtype = parse_v2_data_type(spelled)
    assert dtype.to_numpy() == np.dtype(as_numpy(spelled))
    assert dtype.itemsize == np.dtype(as_numpy(spelled)).itemsize


@pytest.mark.parametrize(
    "spelled",
    [
        *[
            None,
            3,
            {},
            "",
            "f4",
            "<f3",
            "<f16",
            "|O",
            "|O8",
            "|S0",
            "<U0",
            "|V0",
            "<i4[ns]",
            "<M8[x]",
        ],
        *["<b2", "<M4[s]", "<i99999999999", "|S2147483648", "(2,)f4", "float32"],
        *[[], [["a"]], [["a", "<f4", [0]]], [["a", "<f4"], ["a", "<f4"]], [["a", "|O"]]],
        [["a", "<f4", [2**31]]],
    ],
    ids=str,
)
def test_what_is_refused(spelled):
    """Objects, unknown types, elements of no size and fields without a name are errors."""
    with pytest.raises(FormatError):
        parse_v2_data_type(spelled)


def test_nesting_is_bounded():
    """Structs in structs end somewhere."""
    spelled = "<i4"
    for _ in range(30):
        spelled = [["a", spelled]]
    with pytest.raises(FormatError, match="nests deeper"):
        parse_v2_data_type(spelled)


def test_numpy_types_become_little_endian():
    """The type of an array to be written is little endian."""
    descr = [("a", ">i4"), ("b", "S2"), ("c", ">f4", (2,))]
    dtype = data_type_from_numpy(np.dtype(descr))
    assert dtype.to_numpy() == np.dtype(descr).newbyteorder("<")
    assert data_type_from_numpy(np.dtype(">M8[ns]")).typestr == "<M8[ns]"


@pytest.mark.parametrize(
    "dtype",
    [
        np.dtype("O"),
        np.dtype("T"),
        np.dtype([("a", "i1"), ("b", "i4")], align=True),
        np.dtype("S0"),
        np.dtype([("a", "O")]),
    ],
    ids=str,
)
def test_numpy_types_that_zarr_can_not_hold(dtype):
    """Objects, variable-length strings and structs with gaps are errors."""
    with pytest.raises(FormatError):
        data_type_from_numpy(dtype)

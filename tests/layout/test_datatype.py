from __future__ import annotations

import sys

import ml_dtypes
import numpy as np
import pytest

from lazyarr.errors import FormatError
from lazyarr.formats.zarr import data_type_from_numpy, parse_data_type
from lazyarr.layout import DataType
from lazyarr.layout.datatype import ML_NAMES


@pytest.mark.parametrize("name", ML_NAMES)
def test_ml_types_are_those_of_ml_dtypes(name):
    """Types of ml_dtypes have its names and sizes."""
    dtype = parse_data_type(name)
    assert dtype.to_numpy() == np.dtype(getattr(ml_dtypes, name))
    assert dtype.itemsize == dtype.to_numpy().itemsize
    assert data_type_from_numpy(dtype.to_numpy()) == dtype


@pytest.mark.parametrize("name", ["float8_e5m2", "bfloat16"])
def test_missing_ml_dtypes_is_explained(monkeypatch, name):
    """Without ml_dtypes such a type says what to install."""
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(FormatError, match=r"install lazyarr\[ml\]"):
        parse_data_type(name).to_numpy()


@pytest.mark.parametrize(
    "typestr", ["|b1", "<i4", "<f2", "<c8", "<M8[10s]", "<m8[ns]", "<U3", "|S4", "|V3"]
)
def test_byte_orders(typestr):
    """Another byte order is another NumPy type only where an element has one."""
    dtype = data_type_from_numpy(np.dtype(typestr))
    big = dtype.with_byte_order(">")
    assert big.to_numpy() == np.dtype(typestr).newbyteorder(">")
    assert big.with_byte_order("<") == dtype
    assert big.byte_order == ("|" if typestr.startswith("|") else ">")


def test_structs_change_order_by_member():
    """The byte order of a struct is that of its members."""
    descr = [("a", "<i4"), ("n", [("x", "<f4"), ("y", "|S3")]), ("z", "<u2", (2, 3))]
    dtype = data_type_from_numpy(np.dtype(descr))
    assert dtype.itemsize == np.dtype(descr).itemsize
    assert dtype.to_numpy() == np.dtype(descr)
    assert dtype.with_byte_order(">").to_numpy() == np.dtype(descr).newbyteorder(">")
    assert dtype.with_byte_order(">").byte_order == ">"


def test_big_endian_bfloat16_is_refused():
    """ml_dtypes has no big-endian types; of one byte there is no order."""
    with pytest.raises(FormatError, match="big endian"):
        parse_data_type("bfloat16").with_byte_order(">")
    assert parse_data_type("float8_e5m2").with_byte_order(">").itemsize == 1


def test_needs_no_numpy_to_exist():
    """A data type is a plain value: equal, hashable, with a readable repr."""
    assert DataType("int16", 2, "<i2") == parse_data_type("int16")
    assert len({parse_data_type("int16"), parse_data_type("int16")}) == 1

from __future__ import annotations

import numpy as np
import pytest

from lazyarr.errors import FormatError
from lazyarr.formats.zarr import data_type_from_numpy, parse_data_type
from lazyarr.formats.zarr.datatype_v3 import data_type_document

SIMPLE = {
    "bool": "?",
    **{f"{u}int{8 * n}": f"<{u or 'i'}{n}" for u in ("", "u") for n in (1, 2, 4, 8)},
    **{f"float{8 * n}": f"<f{n}" for n in (2, 4, 8)},
    "complex64": "<c8",
    "complex128": "<c16",
    "r24": "V3",
    "complex_float32": "<c8",
}


def named(name, **configuration):
    return {"name": name, "configuration": configuration}


@pytest.mark.parametrize("name", SIMPLE)
def test_simple_types(name):
    """Types without parameters are NumPy's of that name, in either spelling."""
    assert parse_data_type(name).to_numpy() == np.dtype(SIMPLE[name])
    assert parse_data_type({"name": name}) == parse_data_type(name)


@pytest.mark.parametrize(
    ("value", "descr"),
    [
        (named("numpy.datetime64", unit="s", scale_factor=10), "<M8[10s]"),
        (named("numpy.datetime64", unit="μs", scale_factor=1), "<M8[us]"),
        (named("numpy.timedelta64", unit="generic", scale_factor=1), "<m8"),
        (named("fixed_length_utf32", length_bytes=12), "<U3"),
        (named("null_terminated_bytes", length_bytes=5), "S5"),
        (named("raw_bytes", length_bytes=5), "V5"),
        (
            named(
                "struct",
                fields=[{"name": "a", "data_type": "int8"}, {"name": "b", "data_type": "r16"}],
            ),
            [("a", "i1"), ("b", "V2")],
        ),
        (named("structured", fields=[["a", "int16"]]), [("a", "<i2")]),
    ],
    ids=str,
)
def test_types_with_parameters(value, descr):
    """Types with parameters become what NumPy calls them."""
    dtype = parse_data_type(value)
    assert dtype.to_numpy() == np.dtype(descr)
    assert dtype.itemsize == np.dtype(descr).itemsize


def deep_struct(depth):
    value = "int8"
    for _ in range(depth):
        value = named("struct", fields=[{"name": "a", "data_type": value}])
    return value


@pytest.mark.parametrize(
    "value",
    [
        *[None, 3, [], {}, "", "float", "int128", "r", "r0", "r12", "r99999999999", "R8", "r8 "],
        *["string", "bytes", "variable_length_utf8", named("int8", a=1)],
        named("numpy.datetime64"),
        named("numpy.datetime64", unit="x", scale_factor=1),
        named("numpy.datetime64", unit="s", scale_factor=0),
        named("numpy.datetime64", unit="s", scale_factor=2**31),
        named("numpy.datetime64", unit="s", scale_factor=True),
        named("fixed_length_utf32", length_bytes=0),
        named("fixed_length_utf32", length_bytes=3),
        named("raw_bytes", length_bytes=2**31),
        named("raw_bytes"),
        named("struct", fields=[]),
        named("struct", fields=[["a", "int8"], ["a", "int8"]]),
        named("struct", fields=[["f1", "int8"], ["", "int8"]]),
        named("struct", fields=[["a", "string"]]),
        named("struct", fields=[{"name": "a", "data_type": "int8", "more": 1}]),
        named(
            "struct",
            fields=[
                ["a", named("raw_bytes", length_bytes=2**30)],
                ["b", named("raw_bytes", length_bytes=2**30)],
            ],
        ),
        deep_struct(17),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_is_refused(value):
    """Unknown names, wrong parameters, variable lengths and elements of no size are errors."""
    with pytest.raises(FormatError):
        parse_data_type(value)


def test_variable_lengths_are_explained():
    """Elements of variable length are a limit of mapping, not an unknown type."""
    with pytest.raises(FormatError, match="'string' has elements of variable length"):
        parse_data_type("string")


@pytest.mark.parametrize(
    "descr",
    [
        *["?", "i1", "<u8", "<f2", "<c16", "<M8[10s]", "<M8[ns]", "<m8", "<U3", "S5", "V3"],
        [("a", "<i4"), ("n", [("x", "<f4"), ("y", "S3")])],
    ],
    ids=str,
)
def test_documents_come_back(descr):
    """What is written of a type is read as that type."""
    dtype = data_type_from_numpy(np.dtype(descr))
    assert parse_data_type(data_type_document(dtype)).to_numpy() == np.dtype(descr)


def test_arrays_in_structs_can_not_be_written():
    """Zarr v3 has no name for a member that is an array."""
    dtype = data_type_from_numpy(np.dtype([("a", "<i4", (2,))]))
    with pytest.raises(FormatError, match="several fields"):
        data_type_document(dtype)

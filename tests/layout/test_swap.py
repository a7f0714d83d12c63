"""Bytes of elements are turned around once, however much of them is there."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazyarr.formats.zarr import data_type_from_numpy, parse_v2_array, parse_v2_data_type
from lazyarr.layout.swap import find_swap

STRUCT = [["a", ">u2"], ["b", "<f4", [2]], ["c", [["d", ">M8[s]"], ["e", "|S3"]]], ["f", ">U2"]]
STORED = [">i2", ">u4", ">f8", ">c8", ">c16", ">M8[ns]", ">U5", STRUCT]


@pytest.mark.parametrize("value", STORED, ids=str)
def test_elements_come_as_numpy_gives_them(value):
    """Every kind, in place; twice is as before where all of it is turned."""
    dtype = parse_v2_data_type(value)
    swap = find_swap(dtype)
    data = np.random.default_rng(0).bytes(dtype.itemsize * 7)
    turned = bytearray(data)
    swap.apply(memoryview(turned))
    stored, native = np.frombuffer(data, dtype.to_numpy()), swap.native.to_numpy()
    assert native.isnative
    assert bytes(turned) == stored.astype(native).tobytes()
    assert swap.apply_to(data[: dtype.itemsize]) == bytes(turned[: dtype.itemsize])


@pytest.mark.parametrize(
    "value", ["<i2", "|b1", "|S3", "|u1", "bfloat16", [["a", "<u2"], ["b", "|V3"]]]
)
def test_what_is_native_needs_none(value):
    """On a machine that is little endian, as all are that are tested here."""
    assert find_swap(parse_v2_data_type(value)) is None
    assert find_swap(data_type_from_numpy(np.dtype("<f4"))) is None


@given(
    st.sampled_from([2, 4, 8, 11]),
    st.integers(0, 40),
    st.lists(st.integers(1, 500), max_size=6),
)
def test_parts_are_turned_around_as_they_come(itemsize, first_element, steps):
    """What is told to be there is right, and in the end all of it is, from wherever it began."""
    value = f">u{itemsize}" if itemsize != 11 else [["a", ">u8"], ["b", "|S3"]]
    dtype = parse_v2_data_type(value)
    n_elements = 100
    data = np.random.default_rng(1).bytes(itemsize * n_elements)
    first = first_element * itemsize
    swap = find_swap(dtype)
    expected = bytearray(data)
    swap.apply(memoryview(expected))
    out = memoryview(bytearray(len(data)))
    stops = sorted({min(len(data), first + sum(steps[:n])) for n in range(1, len(steps) + 1)})

    def decode():
        at = first
        for stop in stops:
            out[at:stop] = data[at:stop]
            at = stop
            yield stop
        out[at:] = data[at:]
        out[:first] = data[:first]

    for there in swap.follow(decode(), out, first):
        assert there % itemsize == 0
        assert out[first:there] == expected[first:there]
    assert out == expected


def test_what_begins_inside_of_an_element_is_told_at_the_end():
    """A struct may lie across the first page that is waited for."""
    dtype = parse_v2_data_type([["a", ">u8"], ["b", "|S3"]])
    data = bytearray(range(110))
    expected = bytearray(data)
    find_swap(dtype).apply(memoryview(expected))
    assert list(find_swap(dtype).follow(iter([60, 90]), memoryview(data), 50)) == []
    assert data == expected


@pytest.mark.parametrize("value", STORED, ids=str)
def test_a_native_array_is_stored_as_it_was(value):
    """What is encoded of it is what was stored, and its fill value is the same."""
    document = {
        "zarr_format": 2, "shape": [4], "chunks": [4], "dtype": value, "order": "C",
        "fill_value": None, "filters": None, "compressor": {"id": "zlib", "level": 1},
    }  # fmt: skip
    stored = parse_v2_array(json.dumps(document).encode(), None, path="x")
    native = stored.native()
    assert native.native() == native
    data = np.random.default_rng(2).bytes(4 * stored.dtype.itemsize)
    out = bytearray(len(data))
    native.layout().decode(stored.layout().encode(data), memoryview(out))
    assert out != data
    assert native.layout().encode(out) == stored.layout().encode(data)
    fill = np.frombuffer(stored.fill, stored.dtype.to_numpy()).astype(native.dtype.to_numpy())
    assert native.fill == fill.tobytes()

from __future__ import annotations

import json

import numpy as np
import pytest
import zarr_metadata
from hypothesis import given
from hypothesis import strategies as st

from lazyarr.errors import FormatError
from lazyarr.formats.zarr import parse_node
from lazyarr.writer.options import plan_array

U2 = np.dtype("u2")


def plan(shape, dtype=U2, **options):
    return parse_node(plan_array("x", shape=shape, dtype=dtype, **options), path="x")


@given(st.data(), st.lists(st.integers(0, 10**5), max_size=3).map(tuple))
def test_any_combination_is_valid(data, shape):
    """Whatever is chosen and whatever is left to lazyarr, shards are made of whole chunks."""
    lengths = st.tuples(*[st.integers(1, 50) for _ in shape])
    chunks = data.draw(st.just("auto") | lengths)
    kept = st.none() | st.just("auto")
    factors = data.draw(lengths)
    given_shards = tuple(f * (c if chunks != "auto" else 1) for f, c in zip(factors, (
        chunks if chunks != "auto" else factors), strict=True))  # fmt: skip
    shards = data.draw(kept | st.just(given_shards))
    document = plan_array("x", shape=shape, dtype=U2, chunks=chunks, shards=shards)
    assert zarr_metadata.ZarrV3ArrayMetadata.from_json(json.loads(document))
    metadata = parse_node(document, path="x")
    assert metadata.shape == shape
    if chunks != "auto":
        assert metadata.chunks == chunks
    if shards != "auto":
        assert metadata.shards == shards


@pytest.mark.parametrize("shape", [(9,), (9, 4), (9, 0, 2)])
def test_a_number_alone_is_one_of_rows(shape):
    """Chunks have them whole."""
    assert plan(shape, chunks=2).chunks == (2, *(max(1, n) for n in shape[1:]))


def test_automatic_shapes_are_the_documented_ones():
    """Half a mebibyte in a chunk and up to 64 MiB in a shard."""
    metadata = plan((8192, 128, 128, 3), np.dtype("u1"))
    assert metadata.chunks == (11, 128, 128, 3)
    assert metadata.shards == (1364, 128, 128, 3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"chunks": (3,)}, "chunks are"),
        ({"chunks": (3, 0)}, "chunks are"),
        ({"chunks": (3, 1.5)}, "chunks are"),
        ({"chunks": "many"}, "chunks are"),
        ({"chunks": None}, "chunks are"),
        ({"chunks": True}, "chunks are"),
        ({"chunks": -3}, "chunks are"),
        ({"shards": (3,)}, "shards are"),
        ({"chunks": (2, 3), "shards": (3, 3)}, "divide"),
        ({"dimension_names": ["a"]}, "'train/x': dimension_names are"),
        ({"dimension_names": "ab"}, "'ab'; give a list"),
        ({"compressor": "gzip"}, "'none', 'auto'"),
        ({"level": 100}, "'train/x': level of codec 'zstd' is 100"),
        ({"attributes": {"a": {1, 2}}}, "JSON"),
        ({"attributes": [1]}, "give a mapping"),
        ({"attributes": {"a": float("nan")}}, "JSON"),
        ({"fill_value": "a"}, "fill_value"),
        ({"fill_value": -1}, "fill_value"),
        ({"level": 99}, "level"),
    ],
    ids=str,
)
def test_errors_name_the_array_and_the_option(options, words):
    """What does not fit is a FormatError that says what, and in which array."""
    with pytest.raises(FormatError, match=words) as caught:
        plan_array("train/x", shape=(10, 3), dtype=U2, **options)
    assert "'train/x'" in str(caught.value)
    assert caught.value.path == "train/x"


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((), r"give \(\) for an array without axes, or 'auto'"),
        ((9,), "give a positive number of rows, or 'auto'"),
        ((9, 3), "for each of its two axes, or a number of rows, or 'auto'"),
        ((9, 3, 2), "give 3 positive lengths, one for each axis, or a number of rows, or 'auto'"),
    ],
)
def test_shapes_that_are_wrong_say_what_is_right(shape, words):
    """In the words for so many axes; shards may be none as well."""
    for option, more in (("chunks", "$"), ("shards", ", or None for no shards$")):
        with pytest.raises(FormatError, match=words + more):
            plan_array("x", shape=shape, dtype=U2, **{option: (0,) * 5})


@pytest.mark.parametrize(
    "dtype",
    ["<f16", [("a", "i4", (2,))], {"names": ["a"], "formats": ["u1"], "itemsize": 4}],
    ids=str,
)
def test_types_that_zarr_has_not(dtype):
    """Long doubles, arrays in structs and structs with gaps are refused."""
    with pytest.raises(FormatError, match="cannot create array 'x'"):
        plan_array("x", shape=(3,), dtype=np.dtype(dtype))

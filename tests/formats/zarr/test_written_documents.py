from __future__ import annotations

import json

import pytest

from lazyarr.errors import FormatError
from lazyarr.formats.zarr import (
    array_document,
    group_document,
    parse_data_type,
    parse_node,
    resized_document,
)

UINT8 = parse_data_type("uint8")
FLOAT32 = parse_data_type("float32")


def document(**changes):
    members = {"shape": (10, 8), "dtype": FLOAT32, "chunks": (2, 8), **changes}
    return json.loads(array_document(**members))


def test_spelling_is_the_most_portable():
    """Codecs are objects, the index is at the end, `endian` is there where it means something."""
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    assert document(shards=(4, 8), level=7)["codecs"] == [
        {
            "name": "sharding_indexed",
            "configuration": {
                "chunk_shape": [2, 8],
                "codecs": [
                    little,
                    {"name": "zstd", "configuration": {"level": 7, "checksum": False}},
                    {"name": "crc32c"},
                ],
                "index_codecs": [little, {"name": "crc32c"}],
                "index_location": "end",
            },
        }
    ]
    assert document(dtype=UINT8)["codecs"][0] == {"name": "bytes"}
    assert "dimension_names" not in document()


def test_big_endian_types_are_stored_little_endian():
    """The byte order of the type given does not matter."""
    assert document(dtype=FLOAT32.with_byte_order(">")) == document()


@pytest.mark.parametrize(
    "changes",
    [
        *[
            {"shards": (3, 8)},
            {"shards": (4,)},
            {"chunks": (0, 8)},
            {"chunks": (2,)},
            {"level": 23},
        ],
        *[
            {"fill_value": "x"},
            {"attributes": {"a": b"bytes"}},
            {"attributes": {"a": float("nan")}},
        ],
        *[{"dimension_names": ("x",)}, {"shape": (-1, 8)}, {"shape": (2**40, 2**40)}],
    ],
    ids=str,
)
def test_what_can_not_be_read_is_not_written(changes):
    """Whatever does not fit together is an error before anything is stored."""
    with pytest.raises(FormatError):
        document(**changes)


def test_groups_come_back():
    """A group, and what is consolidated in it, reads as written."""
    array = array_document(shape=(10,), dtype=UINT8, chunks=(5,))
    inner = group_document({"b": "ü"})
    group = parse_node(group_document({"a": 1}, consolidated={"g/x": array, "g": inner}), path="")
    assert group.attributes == {"a": 1}
    assert list(group.consolidated) == ["g", "g/x"]
    assert group.consolidated["g"].attributes == {"b": "ü"}
    assert group.consolidated["g/x"] == parse_node(array, path="g/x")
    assert parse_node(group_document(consolidated={}), path="").consolidated == {}


def test_resized_keeps_everything_else():
    """Only the shape changes, members that we do not know included."""
    members = {**document(attributes={"a": 1}), "x": {"must_understand": False}}
    resized = json.loads(resized_document(json.dumps(members).encode(), (99, 8)))
    assert resized == {**members, "shape": [99, 8]}


def test_resized_gives_chunks_the_length_that_they_are_read_with():
    """Those of no length, which go with an axis of none, would not be read of a longer one."""
    members = document(shape=(0, 8))
    members["chunk_grid"]["configuration"]["chunk_shape"] = [0, 8]
    stored = json.dumps(members).encode()
    chunks = parse_node(stored, path="x").chunks
    assert chunks == parse_node(resized_document(stored, (9, 8)), path="x").chunks == (1, 8)
    old = b'{"zarr_format": 2, "shape": [0, 8], "chunks": [0, 8]}'
    assert json.loads(resized_document(old, (9, 8)))["chunks"] == [1, 8]


def test_resized_keeps_what_json_does_not_have():
    """NaN and halves of characters, which other writers put into attributes."""
    stored = b'{"shape": [1], "attributes": {"a": NaN, "b": "\\ud800", "\xc3\xa9": -Infinity}}'
    assert resized_document(stored, (2,)) == stored.replace(b"[1]", b"[2]")

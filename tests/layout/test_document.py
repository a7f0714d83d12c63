"""Layouts as text: what comes back is the same layout, and everything else is refused."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given

from lazyarr.errors import FormatError
from lazyarr.formats.zarr import parse_data_type, parse_node, parse_v2_data_type
from lazyarr.formats.zarr.codec_chain import parse_codecs
from lazyarr.formats.zarr.layouts import build_layout
from lazyarr.layout import DataType, KeyEncoding
from lazyarr.layout.datatype import parse_data_type_document
from lazyarr.layout.document import layout_text, parse_layout, parse_pipeline, pipeline_text
from lazyarr.layout.entries import Entries
from lazyarr.layout.placement import ChunkTable
from lazyarr.layout.swap import find_swap
from tests.layout.test_layout import chains, layout_of
from tests.layout.test_placement import layout_with, run_of

CODECS = [{"name": "bytes", "configuration": {"endian": "big"}}, {"name": "zstd"}, "crc32c"]


def swapped_layout():
    chain, stored = parse_codecs(CODECS, chunk_shape=(4,), dtype=parse_data_type("float32"))
    return build_layout(
        shape=(10,),
        chunk_shape=(4,),
        chain=chain,
        key_encoding=KeyEncoding("v2", "."),
        fill=b"\0\0\x80?",
        swap=find_swap(stored),
    )


TABLE = ChunkTable((1,), (), (), (3,), ("a", "b"), ((0, 10, 14), None, (1, 0, 4)))
LAYOUTS = {
    "swapped": swapped_layout(),
    "table": layout_with(TABLE, (6,), (2,)),
    "run": layout_with(run_of((5, 4), (2, 4), start=128), (5, 4), (2, 4)),
    "no axes": layout_with(run_of((), (), 8), (), (), 8),
}


@given(chains())
def test_a_layout_of_shards_comes_back(drawn):
    """Shards up to three deep, transposed, and chunks without any."""
    layout = layout_of(*drawn)
    assert parse_layout(layout_text(layout)) == layout


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_comes_back(name):
    """Every placement, and elements that are swapped."""
    layout = LAYOUTS[name]
    again = parse_layout(layout_text(layout).encode())
    assert layout_text(again) == layout_text(layout)
    assert again.placement == layout.placement
    assert again._replace(pipeline=layout.pipeline) == layout
    assert parse_pipeline(pipeline_text(layout.pipeline)) == again.pipeline


def test_a_layout_that_came_back_decodes():
    """Also where the bytes of elements are swapped."""
    layout = swapped_layout()
    data = bytes(range(16))
    out = bytearray(16)
    parse_layout(layout_text(layout)).decode(layout.encode(data), memoryview(out))
    assert out == data


@pytest.mark.parametrize(
    "dtype",
    [
        *(parse_v2_data_type(text) for text in ("<f4", ">M8[25s]", "|S7", ">U3", "|V5", "<m8")),
        parse_v2_data_type([["a", ">i2"], ["b", [["c", "|u1"], ["d", ">f8"]], [2, 3]]]),
        DataType("bfloat16", 2, "bfloat16"),
    ],
    ids=str,
)
def test_a_data_type_comes_back(dtype):
    """All but its name in Zarr."""
    again = parse_data_type_document(json.loads(json.dumps(dtype.document())))
    assert again.document() == dtype.document()
    assert again.itemsize == dtype.itemsize


@pytest.mark.parametrize(
    "value",
    [
        *("", "f4", "<f3", "|f4", "<O8", "<U999999999", "<f4[ns]", ">i1", "float32", "|S0"),
        *(None, 4, {}, [], [["a"]], [["a", "<f4"]], [["a", "<f4", [0]]]),
        *([["a", "<f4", []], ["a", "<f4", []]], [["a", "<f4", [2**30]]]),
        [["a", [["a", "<O8", []]], []]],
        [["a", "<M8[parsec]", []]],
    ],
    ids=repr,
)
def test_what_is_no_data_type_is_refused(value):
    """NumPy has no such type, or it is too large."""
    with pytest.raises(FormatError):
        parse_data_type_document(value)


def _changed(name, path, value):
    document = json.loads(layout_text(LAYOUTS[name]))
    place = document
    for step in path[:-1]:
        place = place[step]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = copy.deepcopy(value)
    return json.dumps(document)


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("run", ["shape"], None),
        ("run", ["more"], 1),
        ("run", ["axes"], [0, 0]),
        ("run", ["axes"], [0]),
        ("run", ["chunk_shape"], [0, 4]),
        ("run", ["chunk_shape"], [2, 2]),
        ("run", ["shape"], [2**61, 4]),
        ("run", ["itemsize"], 2**40),
        ("run", ["itemsize"], 0),
        ("run", ["fill"], "0x"),
        ("run", ["fill"], "0001"),
        ("run", ["witnesses"], [1]),
        ("run", ["witnesses"], ["a"] * 9),
        ("run", ["place"], 1),
        ("run", ["place"], None),
        ("run", ["codecs"], [{"name": "crc32c"}]),
        ("run", ["placement", "start"], -1),
        ("run", ["placement", "start"], 2**62 + 1),
        ("run", ["placement", "kind"], "heap"),
        ("run", ["placement", "key"], 3),
        ("swapped", ["swap"], "<f4"),
        ("swapped", ["swap"], ">f8"),
        ("swapped", ["itemsize"], 3),
        ("swapped", ["codecs"], [{"name": "crc32c"}] * 65),
        ("swapped", ["placement", "separator"], "-"),
        ("swapped", ["placement", "encoding"], "v4"),
        ("swapped", ["placement", "chunks_per_object"], [2]),
        ("table", ["placement", "objects"], ["a"]),
        ("table", ["placement", "entries"], []),
        ("table", ["placement", "is_padded"], 1),
        ("table", ["placement", "entries"], Entries.of([(0, 1, 2)] * 2).document()),
        ("table", ["placement", "entries"], Entries.of([(0, 15, 14)] * 3).document()),
        ("table", ["placement", "entries"], Entries.of([(0, 1, 2, 1)] * 3).document()),
        ("table", ["placement", "entries"], Entries.of([(0, -1, 1)] * 3).document()),
        ("table", ["placement", "entries"], Entries.of([(2, 0, 1)] * 3).document()),
        ("table", ["placement", "entries", "bounds"], None),
        ("table", ["placement", "entries", "bounds"], "é"),
        ("table", ["placement", "entries", "numbers"], 5),
    ],
)
def test_a_layout_that_does_not_hold_together_is_refused(name, path, value):
    """Members too few or too many, out of their range, or against each other."""
    with pytest.raises(FormatError):
        parse_layout(_changed(name, path, value))


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("sizes", [5]),
        ("steps", [2]),
        ("strides", [2]),
        ("strides", [1, 1]),
        ("grid_shape", [3]),
        ("grid_shape", [2**30]),
        ("index_location", "middle"),
        ("checksum", 1),
    ],
)
def test_a_shard_without_an_entry_for_each_chunk_is_refused(member, value):
    """An entry is never looked for behind the end of an index."""
    document = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [10],
        "data_type": "int16",
        "fill_value": 0,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [8]}},
        "chunk_key_encoding": "default",
        "codecs": [
            {
                "name": "sharding_indexed",
                "configuration": {
                    "chunk_shape": [2],
                    "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
                },
            }
        ],
    }
    text = layout_text(parse_node(json.dumps(document).encode(), path="x").layout())
    assert parse_layout(text).levels
    members = json.loads(text)
    members["placement"]["levels"][0][member] = value
    with pytest.raises(FormatError):
        parse_layout(json.dumps(members))


@pytest.mark.parametrize("text", ["", "[]", "{", '"\ud800"', "[" * 100_000, b"\xff"])
def test_what_is_no_document_is_refused(text):
    """Neither as a layout nor as a pipeline."""
    for parse in (parse_layout, parse_pipeline):
        with pytest.raises(FormatError):
            parse(text)

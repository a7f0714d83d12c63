from __future__ import annotations

import json
import pickle

import numpy as np

from lazyarr.formats.zarr import ArrayMetadata, parse_node

DOCUMENT = {
    "zarr_format": 3,
    "node_type": "array",
    "shape": [10, 12],
    "data_type": "int16",
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [4, 6]}},
    "chunk_key_encoding": {"name": "default"},
    "fill_value": -1,
    "codecs": [
        {"name": "transpose", "configuration": {"order": [1, 0]}},
        {
            "name": "sharding_indexed",
            "configuration": {
                "chunk_shape": [3, 2],
                "codecs": [{"name": "bytes", "configuration": {"endian": "big"}}],
            },
        },
    ],
}


def load(**changes) -> ArrayMetadata:
    return parse_node(json.dumps({**DOCUMENT, **changes}).encode(), path="a/x")


def test_chunks_and_shards_are_logical():
    """Shapes are along the axes that users see, whatever the order in memory."""
    array = load()
    assert (array.shape, array.shards, array.chunks) == ((10, 12), (4, 6), (2, 3))
    assert array.layout().chunk_shape == (3, 2)
    assert array.nbytes == 240


def test_without_shards():
    """Chunks are objects then."""
    array = load(codecs=[{"name": "bytes", "configuration": {"endian": "little"}}])
    assert (array.shards, array.chunks) == (None, (4, 6))


def test_fill_value_is_a_numpy_scalar():
    """It has the array's type, byte order included."""
    array = load()
    assert array.fill_value == -1
    assert array.fill_value.dtype == np.dtype("i2")
    assert array.fill == array.layout().fill == b"\xff\xff"
    assert array.dtype.to_numpy() == np.dtype(">i2")


def test_metadata_is_a_value():
    """Equal documents are equal, hashable, and go to another process."""
    assert load() == load()
    assert hash(load()) == hash(load(attributes={"a": 1}))
    assert load() != load(attributes={"a": 1})
    assert pickle.loads(pickle.dumps(load())) == load()

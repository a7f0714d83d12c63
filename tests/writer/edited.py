"""Stores that are edited, and what zarr-python finds in them."""

from __future__ import annotations

import json

import numpy as np
import zarr

import lazyarr
from lazyarr.store import open_store

__all__ = ["X", "Y", "find", "make"]

X = np.arange(1, 11)
Y = np.arange(24.0).reshape(4, 6)


def make(url, *, shards=True, consolidated=False, options=None):
    """Make a store with an array in its root, and one in a group that holds copies as well."""
    lengths = {"x": 4, "g/y": (1, 2)} if shards else {"x": None, "g/y": None}
    with lazyarr.create(url, consolidated=consolidated, storage_options=options) as writer:
        for name, rows, chunks in (("x", X, 2), ("g/y", Y, (1, 2))):
            writer.create_array(
                name,
                shape=rows.shape,
                dtype=rows.dtype,
                chunks=chunks,
                shards=lengths[name] and ((4,) if name == "x" else (2, 4)),
            )[...] = rows
    store = open_store(url, options, writable=True)
    if consolidated:
        document = json.loads(store.read("g/zarr.json"))
        copies = {"kind": "inline", "must_understand": False}
        copies["metadata"] = {"y": json.loads(store.read("g/y/zarr.json"))}
        store.write(
            "g/zarr.json", json.dumps(document | {"consolidated_metadata": copies}).encode()
        )
    return store


def find(url, *, consolidated, options=None):
    """Return what zarr-python finds, with copies of documents if there are to be some."""
    group = zarr.open_group(
        url, mode="r", use_consolidated=consolidated, zarr_format=3, storage_options=options
    )
    found = {"": dict(group.attrs)}
    for path, node in group.members(max_depth=None):
        values = node[...] if isinstance(node, zarr.Array) else None
        found[path] = (dict(node.attrs), values)
    return found

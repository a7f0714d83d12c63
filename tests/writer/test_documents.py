from __future__ import annotations

import numpy as np

import lazyarr
from lazyarr.store import open_store
from lazyarr.writer.documents import read_documents
from lazyarr.writer.hierarchy import document_key
from lazyarr.writer.place import StorePlace
from tests.writer.stores import new_url


def test_every_node_is_found():
    """Whatever the consolidated metadata says, and nothing that only looks like a node."""
    url = new_url()
    lazyarr.save(url, {"x": np.arange(9), "g/h/y": np.arange(3), "g/z": np.float32(1)})
    store = open_store(url, writable=True)
    for key in ("notes.txt", "g/h/w/.zarray", "lost/inner/zarr.json", "broken/zarr.json"):
        store.write(key, b"{")
    found = read_documents(StorePlace(store))
    assert sorted(found) == ["", "g", "g/h", "g/h/y", "g/z", "x"]
    for path, document in found.items():
        assert store.read(document_key(path)) == document


def test_no_store_has_no_nodes():
    """Nothing is there to be found."""
    assert read_documents(StorePlace(open_store(new_url()))) == {}

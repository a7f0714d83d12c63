"""The nodes of a store."""

from __future__ import annotations

import shutil

import pytest
import zarr

from lazyarr.errors import FormatError
from lazyarr.formats.zarr import ArrayMetadata, GroupMetadata
from lazyarr.opening.nodes import open_nodes
from lazyarr.opening.survey import walk


def test_every_node_is_found_parents_first(tmp_path):
    """With and without consolidated metadata, in the order of names."""
    root = zarr.open_group(str(tmp_path), mode="w", zarr_format=3)
    for name in ("b/x", "a", "b/c/y"):
        root.create_array(name, shape=(2,), dtype="i1")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "zarr.json").write_text("{")
    expected = {
        "a": ArrayMetadata, "b": GroupMetadata, "b/c": GroupMetadata, "b/c/y": ArrayMetadata,
        "b/x": ArrayMetadata, "bad": FormatError,
    }  # fmt: skip
    found = list(walk(open_nodes(tmp_path)))
    assert [(path, type(node)) for path, node in found] == list(expected.items())
    shutil.rmtree(tmp_path / "bad")
    with pytest.warns(UserWarning, match="Consolidated"):
        zarr.consolidate_metadata(str(tmp_path))
    assert [path for path, _ in walk(open_nodes(tmp_path))] == list(expected)[:-1]


def test_a_walk_begins_where_it_is_asked(tmp_path):
    """Below a group there is only what lies below it."""
    root = zarr.open_group(str(tmp_path), mode="w", zarr_format=2)
    for name in ("b/x", "a", "bb/z"):
        root.create_array(name, shape=(2,), dtype="i1")
    assert [path for path, _ in walk(open_nodes(tmp_path), "b")] == ["b/x"]


def test_what_goes_meanwhile_is_left_out(tmp_path):
    """Another thread, or another program, edits the store."""
    root = zarr.open_group(str(tmp_path), mode="w", zarr_format=3)
    for name in ("a/x", "b/y", "c"):
        root.create_array(name, shape=(2,), dtype="i1")
    nodes = open_nodes(tmp_path)
    found = walk(nodes)
    assert next(found)[0] == "a"
    for name in ("a", "b"):
        shutil.rmtree(tmp_path / name)
    nodes.forget()
    assert [path for path, _ in found] == ["c"]

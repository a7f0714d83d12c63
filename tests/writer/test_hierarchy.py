from __future__ import annotations

import json

import pytest
import zarr_metadata

from lazyarr.formats.zarr import array_document, group_document, parse_data_type, parse_node
from lazyarr.writer.hierarchy import Hierarchy, ancestors, check_name, node_type

ARRAY = array_document(shape=(3,), dtype=parse_data_type("uint8"), chunks=(2,))


@pytest.mark.parametrize("name", ["a", "a/b/c", "ü", "a b", "c", "0", "...a", "_a"])
def test_names_that_zarr_allows(name):
    """Names are kept as they are."""
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *("", "/a", "a/", "a//b", ".", "..", "a/../b", "...", "__a", "zarr.json", "a/zarr.json"),
        *(".zarray", "a\0", ".lazyarr-partial", 3, None),
    ],
)
def test_names_that_it_does_not(name):
    """Names that leave the store, are reserved, or are no strings raise ValueError."""
    with pytest.raises(ValueError, match="cannot create"):
        check_name(name)


def test_ancestors_are_made_once():
    """A group appears for every ancestor, and what is there stays."""
    hierarchy = Hierarchy()
    hierarchy.add("", group_document({"k": 1}))
    hierarchy.add("a/b/x", ARRAY)
    hierarchy.add("a/y", ARRAY)
    assert sorted(hierarchy.documents) == ["", "a", "a/b", "a/b/x", "a/y"]
    assert json.loads(hierarchy.documents[""])["attributes"] == {"k": 1}
    assert node_type(hierarchy.documents["a/b"]) == "group"


def test_conflicts_change_nothing():
    """A second node at a path, and a node in an array, are refused."""
    hierarchy = Hierarchy()
    hierarchy.add("a/x", ARRAY)
    before = dict(hierarchy.documents)
    with pytest.raises(FileExistsError, match="'a/x'"):
        hierarchy.add("a/x", ARRAY)
    with pytest.raises(FileExistsError, match="'a'"):
        hierarchy.add("a", ARRAY)
    with pytest.raises(ValueError, match="'a/x' is an array"):
        hierarchy.add("a/x/y/z", ARRAY)
    assert hierarchy.documents == before


def test_documents_are_written_innermost_first():
    """Whoever finds a document finds everything below it."""
    hierarchy = Hierarchy()
    for path in ("b/c/x", "a", "b/y"):
        hierarchy.add(path, ARRAY)
    keys = [key for key, _ in hierarchy.plan_commit()]
    assert keys[-1] == "zarr.json"
    for path in hierarchy.documents:
        key = f"{path}/zarr.json" if path else "zarr.json"
        parents = [f"{p}/zarr.json" if p else "zarr.json" for p in ancestors(path)]
        assert all(keys.index(key) < keys.index(parent) for parent in parents)


def test_what_is_known_is_not_written_again():
    """Only nodes that were added or changed are."""
    hierarchy = Hierarchy({"": group_document(), "x": ARRAY})
    hierarchy.put("x", ARRAY)
    assert hierarchy.plan_commit() == ()
    hierarchy.add("g/y", ARRAY)
    assert [key for key, _ in hierarchy.plan_commit()] == ["g/y/zarr.json", "g/zarr.json"]


def test_consolidated_root_holds_every_node():
    """The root holds a copy of each document below, itself valid, and keeps its attributes."""
    hierarchy = Hierarchy()
    hierarchy.add("", group_document({"k": "ü"}))
    hierarchy.add("a/x", ARRAY)
    hierarchy.consolidate("a")
    hierarchy.consolidate("")
    document = hierarchy.documents[""]
    assert zarr_metadata.ZarrV3GroupMetadata.from_json(json.loads(document))
    root = parse_node(document, path="")
    assert root.attributes == {"k": "ü"}
    assert sorted(root.consolidated) == ["a", "a/x"]
    assert parse_node(hierarchy.documents["a"], path="a").consolidated.keys() == {"x"}


def test_groups_with_copies_of_changed_documents_are_stale():
    """Groups that hold copies, and they alone, have to be consolidated again; inner ones first."""
    copies = group_document(consolidated={})
    documents = {"": copies, "a": group_document(), "a/b": copies, "c": copies, "a/b/x": ARRAY}
    hierarchy = Hierarchy(documents)
    assert hierarchy.stale_groups() == ()
    hierarchy.put("a/b/x", array_document(shape=(9,), dtype=parse_data_type("uint8"), chunks=(2,)))
    assert hierarchy.stale_groups() == ("a/b", "")


def test_documents_of_others_are_copied_as_they_are():
    """Members that lazyarr does not know, and NaN in attributes, survive consolidation."""
    other = (
        b'{"zarr_format": 3, "node_type": "group", "attributes": {"a": NaN},'
        b' "ext": {"must_understand": false}}'
    )
    hierarchy = Hierarchy({"": other, "g": other})
    hierarchy.consolidate("")
    root = json.loads(hierarchy.documents[""])
    assert root["ext"] == {"must_understand": False}
    assert root["attributes"]["a"] != root["attributes"]["a"]
    assert root["consolidated_metadata"]["metadata"]["g"]["ext"] == {"must_understand": False}

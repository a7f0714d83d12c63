"""Attributes that refuse to be changed."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest

import lazyarr
from lazyarr.client.arrays.frozen_attributes import freeze

ATTRIBUTES = {"v": 1, "list": [1, [2], {"x": 3}], "deep": {"a": {"b": [4]}}}

CHANGES = {
    "setitem": lambda d: d.__setitem__("v", 2),
    "delitem": lambda d: d.__delitem__("v"),
    "update": lambda d: d.update(v=2),
    "setdefault": lambda d: d.setdefault("new", 2),
    "pop": lambda d: d.pop("v"),
    "popitem": lambda d: d.popitem(),
    "clear": lambda d: d.clear(),
    "ior": lambda d: d.__ior__({"v": 2}),
    "nested": lambda d: d["deep"]["a"].__setitem__("b", 5),
    "append": lambda d: d["list"].append(5),
    "extend": lambda d: d["list"].extend([5]),
    "insert": lambda d: d["list"].insert(0, 5),
    "remove": lambda d: d["list"].remove(1),
    "reverse": lambda d: d["list"].reverse(),
    "sort": lambda d: d["deep"]["a"]["b"].sort(),
    "slice": lambda d: d["list"].__setitem__(slice(0, 1), []),
    "iadd": lambda d: d["list"].__iadd__([5]),
    "imul": lambda d: d["list"].__imul__(2),
    "in a list": lambda d: d["list"][2].__setitem__("x", 5),
    "list in a list": lambda d: d["list"][1].append(5),
    "list pop": lambda d: d["deep"]["a"]["b"].pop(),
    "list clear": lambda d: d["deep"]["a"]["b"].clear(),
    "list delitem": lambda d: d["list"].__delitem__(0),
}


@pytest.fixture(params=["userfaultfd", "copy"])
def dataset(request, tmp_path):
    with lazyarr.create(tmp_path / "x.zarr", attributes=ATTRIBUTES) as writer:
        writer.create_array("g/x", shape=3, dtype="i4", attributes=ATTRIBUTES)
    with lazyarr.configure(engine=request.param):
        yield lazyarr.open(tmp_path / "x.zarr")


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_says_how_to_change_the_store(dataset, change):
    """Of a group's attributes, of an array's, of a view's, at any depth; nothing is changed."""
    for owner, name in ((dataset, "'/'"), (dataset["g/x"], "'g/x'"), (dataset["g/x"][1:], "'g/x'")):
        with pytest.raises(TypeError, match=rf"{name} of file://.*lazyarr.open\(url, 'r\+'\)"):
            CHANGES[change](owner.attrs)
        assert owner.attrs == ATTRIBUTES


def test_copies_are_plain(dataset):
    """Whatever makes them, they can be changed, and json and pickle take the original."""
    attrs = dataset["g/x"].attrs
    for plain in (copy.deepcopy(attrs), pickle.loads(pickle.dumps(attrs))):
        plain["list"][1].append(7)
        plain["deep"]["a"]["new"] = 1
    for plain in (dict(attrs), attrs.copy(), {**attrs}, attrs | {}, copy.copy(attrs)):
        plain["v"] = 2
    assert json.loads(json.dumps(attrs)) == attrs == ATTRIBUTES
    assert isinstance(attrs, dict)


def test_every_method_that_changes_a_dict_or_list_is_refused():
    """A Python that brings a new one shows here."""
    attrs = freeze({"a": []}, "x")
    reading = {"copy", "get", "items", "keys", "values", "fromkeys", "count", "index"}
    for value in (attrs, attrs["a"]):
        kind = dict if isinstance(value, dict) else list
        for name in set(dir(kind)) - reading:
            if not name.startswith("__"):
                assert getattr(type(value), name) is not getattr(kind, name), name


def test_attributes_that_nest_deeply_are_frozen(tmp_path):
    """As deeply as a parser of JSON goes."""
    lazyarr.save(tmp_path / "x.zarr", np.arange(3))
    document = json.loads((tmp_path / "x.zarr/zarr.json").read_text())
    depth = 400
    text = json.dumps(document).replace('"attributes": {}', '"attributes": {"a": DEEP}')
    text = text.replace("DEEP", "[" * depth + "]" * depth)
    (tmp_path / "x.zarr/zarr.json").write_text(text)
    x = lazyarr.open(tmp_path / "x.zarr")
    found, n = x.attrs["a"], 1
    while found:
        found, n = found[0], n + 1
    assert n == depth
    assert "attributes" in x.info

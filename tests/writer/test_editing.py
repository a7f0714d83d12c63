"""Edits of stores that exist, as zarr-python finds them after each."""

from __future__ import annotations

import contextlib
import itertools

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import lazyarr
from lazyarr.errors import FormatError, NodeNotFoundError
from lazyarr.store import open_store
from lazyarr.writer.editing import Editor
from tests.writer.edited import X, Y, find, make
from tests.writer.stores import new_url, same


def require(url, nodes, *, consolidated=False, options=None):
    """Raise unless zarr-python finds these values and attributes, by whatever documents."""
    for uses_copies in {False, consolidated}:
        found = find(url, consolidated=uses_copies, options=options)
        assert {p for p in found if p} == {*nodes}
        for path, values in nodes.items():
            if values is not None:
                np.testing.assert_array_equal(found[path][1], values)


KINDS = list(itertools.product(["memory", "local"], [True, False], [True, False]))


@pytest.fixture(params=KINDS, ids=lambda p: f"{p[0]}-{'shards' * p[1]}-{'copies' * p[2]}")
def place(request, tmp_path):
    kind, shards, consolidated = request.param
    url = str(tmp_path / "s.zarr") if kind == "local" else new_url()
    return url, Editor(make(url, shards=shards, consolidated=consolidated)), consolidated


def test_every_edit_is_what_zarr_python_finds(place):
    url, editor, consolidated = place
    values = {"x": X, "g": None, "g/y": Y}

    def check():
        require(url, values, consolidated=consolidated)

    check()
    editor.append("x", [11, 12, 13])
    values["x"] = np.arange(1, 14)
    check()
    editor.resize("x", (3,))
    values["x"] = X[:3]
    check()
    editor.resize("x", (9,))
    values["x"] = np.r_[X[:3], [0] * 6]
    check()
    editor.resize("g/y", (3, 3))
    values["g/y"] = Y[:3, :3]
    check()
    editor.resize("g/y", (5, 2))  # larger along one axis, smaller along the other
    values["g/y"] = np.vstack([Y[:3, :2], np.zeros((2, 2))])
    check()
    editor.resize("g/y", (5, 6))
    values["g/y"] = np.hstack([values["g/y"], np.zeros((5, 4))])
    check()
    editor.create_array("h/z", shape=3, dtype="f4", fill_value=7)
    values |= {"h": None, "h/z": np.full(3, 7.0)}
    check()
    editor.create_group("k", {"a": 1})
    values["k"] = None
    check()
    editor.rename("g", "k/new")
    values |= {"k/new": None, "k/new/y": values.pop("g/y")}
    del values["g"]
    check()
    editor.rename("x", "deep/er/x")
    values |= {"deep": None, "deep/er": None, "deep/er/x": values.pop("x")}
    check()
    editor.delete("h/z")
    del values["h/z"]
    check()
    editor.delete("k")
    values = {path: found for path, found in values.items() if path.partition("/")[0] != "k"}
    check()
    assert find(url, consolidated=consolidated)["h"][0] == {}


def test_attributes_are_in_all_copies(place):
    url, editor, consolidated = place
    wanted = {"": {"title": "ü", "n": [1, {"a": None}]}, "g": {"b": 2}, "g/y": {"units": "K"}}
    editor.set_attributes(wanted)
    for uses_copies in {False, consolidated}:
        found = find(url, consolidated=uses_copies)
        assert [found[""], found["g"][0], found["g/y"][0]] == [*wanted.values()]
    if consolidated:
        group = zarr.open_group(url, path="g", mode="r", use_consolidated=True)
        assert dict(group["y"].attrs) == wanted["g/y"]
    assert editor.attributes("g/y") == wanted["g/y"]


def test_s3(s3_server, s3_bucket):
    options = s3_server.storage_options
    url = f"{s3_bucket}/edited.zarr"
    editor = Editor(make(url, consolidated=True, options=options))
    editor.append("x", [11])
    editor.rename("g/y", "h/z")
    editor.resize("h/z", (2, 2))
    editor.delete("g")
    values = {"x": np.arange(1, 12), "h": None, "h/z": Y[:2, :2]}
    require(url, values, consolidated=True, options=options)


def test_what_is_refused(tmp_path):
    url = str(tmp_path / "s")
    editor = Editor(make(url))
    before = {path: path.read_bytes() for path in (tmp_path / "s").rglob("*") if path.is_file()}
    for call, error, words in [
        (lambda: editor.delete("no"), NodeNotFoundError, "there is no array or group 'no'"),
        (lambda: editor.delete("x/c"), NodeNotFoundError, "there is no array or group 'x/c'"),
        (lambda: editor.delete(""), ValueError, "the root"),
        (lambda: editor.rename("no", "n"), NodeNotFoundError, "no array or group 'no'"),
        (lambda: editor.rename("x", "g"), FileExistsError, "there is a node of this name"),
        (lambda: editor.rename("g", "g/y/z"), ValueError, "in the node itself"),
        (lambda: editor.rename("g", "x/z"), ValueError, "'x' is an array"),
        (lambda: editor.rename("g", "../z"), ValueError, "not a name that Zarr allows"),
        (lambda: editor.create_array("x", shape=1, dtype="i4"), FileExistsError, "choose another"),
        (lambda: editor.append("no", [1]), NodeNotFoundError, "there is no such array"),
        (lambda: editor.append("x", [[1]]), ValueError, "cannot append rows of shape"),
        (lambda: editor.append("x", [1.5]), TypeError, "convert them with astype"),
        (lambda: editor.resize("g", (1,)), NodeNotFoundError, "no array or group 'g'"),
    ]:
        with pytest.raises(error, match=words):
            call()
    assert before == {p: p.read_bytes() for p in (tmp_path / "s").rglob("*") if p.is_file()}


def test_version_2_has_its_attributes_changed_and_nothing_else(tmp_path):
    root = zarr.open_group(str(tmp_path / "v2"), mode="w", zarr_format=2)
    root.create_group("g").create_array("y", data=Y, chunks=(2, 2))
    zarr.consolidate_metadata(str(tmp_path / "v2"))
    editor = Editor(open_store(str(tmp_path / "v2"), writable=True))
    editor.set_attributes({"g/y": {"units": "K"}, "g": {"a": 1}, "": {"b": 2}})
    for uses_copies in (True, False):
        group = zarr.open_group(str(tmp_path / "v2"), mode="r", use_consolidated=uses_copies)
        found = [dict(group.attrs), dict(group["g"].attrs), dict(group["g/y"].attrs)]
        assert found == [{"b": 2}, {"a": 1}, {"units": "K"}]
    for call in (
        lambda: editor.delete("g"),
        lambda: editor.rename("g", "h"),
        lambda: editor.resize("g/y", (1, 1)),
        lambda: editor.append("g/y", Y),
        lambda: editor.create_group("h", None),
    ):
        with pytest.raises(FormatError, match="of Zarr v2, of which lazyarr changes elements"):
            call()


@pytest.mark.parametrize("encoding", [("default", "."), ("v2", "/"), ("v2", ".")])
def test_other_names_of_chunks(tmp_path, encoding):
    keys = {"name": encoding[0], "separator": encoding[1]}
    root = zarr.open_group(str(tmp_path / "s"), mode="w")
    root.create_array("y", data=Y, chunks=(2, 2), chunk_key_encoding=keys)
    editor = Editor(open_store(str(tmp_path / "s"), writable=True))
    editor.resize("y", (1, 3))
    editor.resize("y", (4, 6))
    expected = np.zeros((4, 6))
    expected[:1, :3] = Y[:1, :3]
    np.testing.assert_array_equal(zarr.open_array(str(tmp_path / "s/y"))[...], expected)


def test_values_that_others_left_beyond_the_end_do_not_come_back(tmp_path):
    url = str(tmp_path / "s")
    editor = Editor(make(url, shards=False))
    zarr.open_array(f"{url}/x", mode="r+").resize(3)  # keeps what is in the chunk
    zarr.open_array(f"{url}/g/y", mode="r+").resize((4, 5))
    editor.resize("x", (10,))
    editor.resize("g/y", (4, 6))
    assert zarr.open_array(f"{url}/x")[:].tolist() == [1, 2, 3, *[0] * 7]
    assert zarr.open_array(f"{url}/g/y")[:, 5].tolist() == [0] * 4


# --- models -------------------------------------------------------------------------------

LENGTHS = st.integers(0, 11)
EDITS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.sampled_from("ab"), LENGTHS),
        st.tuples(st.just("resize"), st.sampled_from("ab"), st.tuples(LENGTHS, LENGTHS)),
        st.tuples(st.just("delete"), st.sampled_from(["a", "b", "g", "g/c"]), st.none()),
        st.tuples(st.just("create"), st.sampled_from(["a", "b", "g/c"]), LENGTHS),
        st.tuples(
            st.just("rename"), st.sampled_from(["a", "b", "g"]), st.sampled_from(["a", "g/c"])
        ),
        st.tuples(st.just("attributes"), st.sampled_from(["", "a", "g/c"]), LENGTHS),
    ),
    max_size=12,
)


def apply(editor, model, attributes, edit):
    """Edit a store and a model alike; raise what the store raises."""
    kind, name, given = edit
    if kind == "append":
        rows = np.full((given, *model[name].shape[1:]), given) if name in model else given
        editor.append(name, rows)
        model[name] = np.concatenate([model[name], rows])
    elif kind == "resize":
        editor.resize(name, given)
        old, model[name] = model[name], np.zeros(given, "i8")
        corner = tuple(slice(min(a, b)) for a, b in zip(old.shape, given, strict=True))
        model[name][corner] = old[corner]
    elif kind == "create":
        editor.create_array(name, shape=(given, 3), dtype="i8", chunks=(2, 2), shards=(4, 4))
        model[name] = np.zeros((given, 3), "i8")
        editor.append(name, np.full((2, 3), 5))
        model[name] = np.concatenate([model[name], np.full((2, 3), 5)])
    elif kind == "attributes":
        editor.set_attributes({name: {"n": given}})
        attributes[name] = {"n": given}
    else:
        getattr(editor, kind)(name, *([given] if kind == "rename" else []))
        for known in (model, attributes):
            for path in [p for p in known if p == name or p.startswith(f"{name}/")]:
                value = known.pop(path)
                if kind == "rename":
                    known[given + path[len(name) :]] = value


@settings(max_examples=40, deadline=None)
@given(edits=EDITS, consolidated=st.booleans())
def test_random_edits_are_those_of_a_model(edits, consolidated):
    url = new_url()
    with lazyarr.create(url, consolidated=consolidated) as writer:
        writer.create_array("a", shape=(5, 3), dtype="i8", chunks=(2, 2), shards=None)[...] = 9
    editor = Editor(open_store(url, writable=True))
    model, attributes = {"a": np.full((5, 3), 9)}, {}
    for edit in edits:
        # What is refused changes nothing.
        with contextlib.suppress(NodeNotFoundError, FileExistsError, ValueError):
            apply(editor, model, attributes, edit)
    for uses_copies in {False, consolidated}:
        found = find(url, consolidated=uses_copies)
        arrays = {p: v[1] for p, v in found.items() if p and v[1] is not None}
        assert arrays.keys() == model.keys()
        for path, values in model.items():
            assert same(arrays[path], values)
            assert found[path][0] == attributes.get(path, {})

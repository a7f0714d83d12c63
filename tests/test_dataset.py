"""Groups as mappings."""

from __future__ import annotations

import json
import pickle

import h5py
import numpy as np
import pytest
import zarr

import lazyarr
from tests.process.running import run_program
from tests.programs import dataset as programs


@pytest.fixture
def group(tmp_path):
    """A group with an array, a group with one, and an array of variable length."""
    lazyarr.save(tmp_path / "g.zarr", {"a": np.arange(5), "s/b": np.ones((3, 4))})
    document = json.loads((tmp_path / "g.zarr/a/zarr.json").read_text())
    (tmp_path / "g.zarr/text").mkdir()
    document = {**document, "data_type": "string", "fill_value": ""}
    (tmp_path / "g.zarr/text/zarr.json").write_text(json.dumps(document))
    return lazyarr.open(tmp_path / "g.zarr", consolidated=False)


def test_a_name_is_in_a_group_without_being_opened(group):
    """What cannot be mapped is there too; what is no str is not, as in any mapping."""
    assert [name in group for name in ("a", "s", "s/b", "text", "/a/")] == [True] * 5
    assert [name in group for name in ("b", "s/a", "a/b", 3, None, ("a", "s"))] == [False] * 6
    assert not group._opened


@pytest.mark.parametrize("name", [3, None, ("a", "s"), b"a"])
def test_a_name_is_a_str(group, name):
    """The error says so, for groups and for the path to open."""
    with pytest.raises(TypeError, match="names no array or group; give a str"):
        group[name]
    with pytest.raises(TypeError, match="names no array or group; give a str"):
        lazyarr.open(group.url, path=name or 3)


@pytest.mark.parametrize("name", ["..", "../x", ".", "x/../x", "...", "\0", "x\0"])
def test_what_is_no_name_names_nothing(group, name):
    """Not what lies beside the store, either."""
    assert name not in group
    assert group.get(name) is None
    with pytest.raises(lazyarr.NodeNotFoundError):
        group[name]


def test_options_are_a_mapping(group):
    """A str would be taken apart into letters."""
    with pytest.raises(TypeError, match=r"storage_options=.* is no mapping; give one"):
        lazyarr.open(group.url, storage_options="anon")


@pytest.mark.parametrize("kind", ["str", "bytes", "path"])
def test_a_path_of_any_kind_is_opened(group, tmp_path, kind):
    """As builtins.open takes them."""
    path = tmp_path / "g.zarr"
    url = {"str": str(path), "bytes": bytes(path), "path": path}[kind]
    assert sorted(lazyarr.open(url, consolidated=False)) == ["a", "s", "text"]


@pytest.mark.parametrize(
    ("make", "advice"),
    [
        (lambda _: 3, "found int; give the path"),
        (lambda _: None, "found None; give where"),
        (lambda _: np.arange(3), "found numpy.ndarray; use it as it is"),
        (lambda path: zarr.open_group(path, mode="r"), "found zarr.Group; give the path"),
        (lambda path: h5py.File(path.with_name("x.h5"), "w"), "found h5py.File; give the path"),
    ],
    ids=["number", "none", "array", "zarr", "h5py"],
)
def test_what_is_open_already_is_not_opened(group, tmp_path, make, advice):
    """The error says what to give."""
    given = make(tmp_path / "g.zarr")
    for use in (lazyarr.open, lazyarr.verify):
        with pytest.raises(TypeError, match=f"expected a path or a URL, {advice}"):
            use(given)


@pytest.mark.parametrize("engine", ["userfaultfd", "copy"])
@pytest.mark.parametrize("mode", ["r", "c"])
def test_a_group_pickles_as_a_reference(tmp_path, engine, mode):
    """Opened as the first one was, below the root too."""
    data = np.arange(10**6).reshape(1000, 1000)
    lazyarr.save(tmp_path / "g.zarr", {"s/t/b": data, "a": data})
    with lazyarr.configure(engine=engine):
        group = lazyarr.open(tmp_path / "g.zarr", mode, consolidated=False)["s"]
        pickled = pickle.dumps(group)
        again = pickle.loads(pickled)
    assert len(pickled) < 1000
    assert (again.url, again.path, list(again)) == (group.url, "s", ["t"])
    assert (again["t/b"][7] == data[7]).all()
    assert again["t/b"].flags.writeable == (mode == "c")
    assert not again._opening.hierarchy.use_consolidated


def test_who_unpickles_a_group_shares_its_pages(tmp_path):
    """Workers that were spawned load nothing again that is loaded."""
    lazyarr.save(tmp_path / "g.zarr", {"s/b": np.arange(10**6).reshape(1000, 1000)})
    ended = run_program(programs.who_unpickles_a_group_shares_its_pages, tmp_path / "g.zarr")
    assert (ended.stderr, ended.stdout) == ("", "0 True\n")


def test_one_that_cannot_be_mapped_keeps_nobody_from_the_others(group):
    """values() and items() have all of them, in order; the one raises when it is used."""
    assert [name for name, _ in group.items()] == list(group) == ["a", "s", "text"]
    a, s, text = group.values()
    assert (a is group["a"], s is group["s"], a.sum()) == (True, True, 10)
    assert dict(group.items()).keys() == group.keys()
    assert len(group.values()) == len(group.items()) == 3
    for use in (len, np.asarray, lambda x: x[0], lambda x: x.shape, lambda x: x + 1, np.sum):
        with pytest.raises(lazyarr.FormatError, match="text"):
            use(text)
    assert "string" in repr(text)
    with pytest.raises(lazyarr.FormatError, match="text"):
        group["text"]


def test_values_are_found_by_identity(group):
    """To compare them would read them."""
    assert group["a"] in group.values()
    assert ("a", group["a"]) in group.items()
    assert group["a"] not in group["s"].values()
    assert ("b", group["a"]) not in group.items()
    assert 3 not in group.items()


@pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part")
@pytest.mark.parametrize("consolidated", [True, False])
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("aa", "'/' has 'a', 's'"),
        ("s/c", "'s' has 'b'"),
        ("s/t/b", "'s' has 'b'"),
        ("t/b", "'/' has 'a', 's'"),
    ],
)
def test_what_is_not_there_is_answered_with_what_is(tmp_path, consolidated, name, said):
    """In the group that was asked, or the nearest above it; in whatever way it is asked."""
    with lazyarr.create(tmp_path / "g.zarr") as writer:
        for path in ("a", "s/b"):
            writer.create_array(path, shape=(3,), dtype="u1")
    if consolidated:
        zarr.consolidate_metadata(str(tmp_path / "g.zarr"))
    ds = lazyarr.open(tmp_path / "g.zarr", consolidated=consolidated)
    for ask in (lambda: ds[name], lambda: lazyarr.open(tmp_path / "g.zarr", path=name)):
        with pytest.raises(lazyarr.NodeNotFoundError, match=r"; choose one of these$") as raised:
            ask()
        assert f"'{name}' in {ds.url}: {said}" in str(raised.value)
        assert (raised.value.path, raised.value.url) == (name, ds.url)
    assert ds.get(name) is None
    assert ds.get(name, 3) == 3


def test_of_many_names_the_most_alike_are_said(tmp_path):
    """And how many more there are."""
    lazyarr.save(tmp_path / "g.zarr", {f"array {i}": np.zeros(1) for i in range(30)})
    with pytest.raises(KeyError, match=r"has 'array 17', .* and 22 more; choose"):
        lazyarr.open(tmp_path / "g.zarr")["array17"]


@pytest.mark.parametrize("engine", ["userfaultfd", "copy"])
def test_closing_flushes_what_append_and_resize_have_returned(tmp_path, engine):
    """They are not asked of the dataset by name."""
    lazyarr.save(tmp_path / "g.zarr", {"x": np.zeros((4, 3))}, chunks=2)
    with lazyarr.configure(engine=engine), lazyarr.open(tmp_path / "g.zarr", "r+") as ds:
        x = ds["x"].append(np.ones((2, 3)))
        x[0] = 7
        assert ds.flush().units == 1
        x = x.resize(8)
        x[7] = 8
    found = zarr.open_group(tmp_path / "g.zarr", mode="r")["x"][:, 0]
    assert found.tolist() == [7, 0, 0, 0, 1, 1, 0, 8]

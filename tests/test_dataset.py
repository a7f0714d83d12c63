"""Groups as mappings."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

import lazyarr
from tests.process.running import run_program


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
    """What can not be mapped is there too; what is no str is not, as in any mapping."""
    assert [name in group for name in ("a", "s", "s/b", "text", "/a/")] == [True] * 5
    assert [name in group for name in ("b", "s/a", "a/b", 3, None, ("a", "s"))] == [False] * 6
    assert not group._opened


@pytest.mark.parametrize("name", [3, None, ("a", "s"), b"a"])
def test_a_name_is_a_str(group, name):
    """The error says so, for groups and for the path to open."""
    with pytest.raises(TypeError, match="named by str; found"):
        group[name]
    with pytest.raises(TypeError, match="named by str; found"):
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
    with pytest.raises(TypeError, match="storage_options are a mapping"):
        lazyarr.open(group.url, storage_options="anon")


@pytest.mark.parametrize("kind", ["str", "bytes", "path"])
def test_a_path_of_any_kind_is_opened(group, tmp_path, kind):
    """As builtins.open takes them."""
    path = tmp_path / "g.zarr"
    url = {"str": str(path), "bytes": bytes(path), "path": path}[kind]
    assert sorted(lazyarr.open(url, consolidated=False)) == ["a", "s", "text"]
    with pytest.raises(TypeError, match="expected str, bytes"):
        lazyarr.open(3)


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
    (tmp_path / "worker.py").write_text(
        "import lazyarr\ndef read(group, i): return int(group['b'][i, 3]), lazyarr.stats()['pid']\n"
    )
    program = """
    import multiprocessing
    sys.path.insert(0, sys.argv[1])
    import worker
    group = lazyarr.open(sys.argv[1] + "/g.zarr")["s"]
    group["b"].prefetch()
    stats = lazyarr.stats()
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        found = pool.starmap(worker.read, [(group, i) for i in range(1000)], chunksize=10)
    assert found == [(1000 * i + 3, stats["pid"]) for i in range(1000)], found
    print(lazyarr.stats()["units_loaded"] - stats["units_loaded"], stats["units_loaded"] > 9)
    """
    ended = run_program(program, tmp_path)
    assert (ended.stderr, ended.stdout) == ("", "0 True\n")

"""Attributes, new nodes, append, resize, delete and rename of what is open for writing."""

from __future__ import annotations

import copy
import json
import os
import pickle
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import zarr

import lazyarr
from lazyarr.errors import FormatError, NodeNotFoundError, StoreError

pytestmark = pytest.mark.usefixtures("engine")


@pytest.fixture
def store(tmp_path):
    path = str(tmp_path / "s.zarr")
    lazyarr.save(
        path, {"x": np.arange(6), "g/y": np.ones((3, 4))}, attributes={"x": {"a": 1, "b": [1, {}]}}
    )
    return path


def found(path, node=""):
    return zarr.open_group(path, mode="r")[node] if node else zarr.open_group(path, mode="r")


# --- attributes ----------------------------------------------------------------------------


def test_attributes_are_stored_at_the_next_flush(store):
    with lazyarr.open(store, "r+") as ds:
        x = ds["x"]
        x.attrs["a"] = 2
        x.attrs["b"][1]["c"] = np.float32(0.5)
        x.attrs["b"].append((np.arange(2), "ü"))
        del x.attrs["b"][0]
        ds.attrs.update({"t": {"u": [None, True]}}, v=3)
        ds["g"].attrs["w"] = 1
        assert found(store, "x").attrs["a"] == 1
        ds.flush()
        assert dict(found(store, "x").attrs) == {"a": 2, "b": [{"c": 0.5}, [[0, 1], "ü"]]}
        assert dict(found(store).attrs) == {"t": {"u": [None, True]}, "v": 3}
        assert dict(found(store, "g").attrs) == {"w": 1}
        del x.attrs["b"]
        assert ds["x"].attrs == lazyarr.open(store, "r+")["x"].attrs == {"a": 2}
        ds["g"].attrs |= {"z": 0}
        ds.attrs = {"new": (1, 2)}
    assert dict(found(store).attrs) == {"new": [1, 2]}
    assert dict(found(store, "x").attrs) == {"a": 2}  # closed
    assert dict(found(store, "g").attrs) == {"w": 1, "z": 0}


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.update(b=2),
        lambda a: a.__setitem__("b", {}),
        lambda a: a.pop("a"),
        lambda a: a.popitem(),
        lambda a: a.clear(),
        lambda a: a.setdefault("k", []).append(1),
        lambda a: a["b"].extend([1, {"c": 2}]),
        lambda a: a["b"].insert(0, "k"),
        lambda a: a["b"].pop(),
        lambda a: a["b"].remove(1),
        lambda a: a["b"].reverse(),
        lambda a: a["b"].__setitem__(slice(1), [5, 6]),
        lambda a: a["b"].__imul__(2),
        lambda a: a["b"].__iadd__([3]),
        lambda a: (a["b"].pop(), a["b"].extend([3, 2]), a["b"].sort()),
        lambda a: a["b"].clear(),
        lambda a: a["b"][1].update(k=1),
    ],
)
def test_every_way_to_change_attributes_is_as_with_a_dict(store, change):
    plain = {"a": 1, "b": [1, {}]}
    with lazyarr.open(store, "r+") as ds:
        attrs = ds["x"].attrs
        assert attrs == plain
        change(attrs)
        change(plain)
        assert attrs == plain
        assert json.loads(json.dumps(attrs)) == pickle.loads(pickle.dumps(attrs)) == plain
        assert type(copy.deepcopy(attrs)) is dict
    assert dict(found(store, "x").attrs) == plain


def test_attributes_that_cannot_be_stored_are_refused_at_once(store):
    with lazyarr.open(store, "r+") as ds:
        attrs = ds["x"].attrs
        for value in (float("nan"), object(), [{1, 2}], {"k": b""}):
            with pytest.raises(FormatError, match="which JSON does not have"):
                attrs["new"] = value
            with pytest.raises(FormatError):
                attrs["b"].append(value)
        with pytest.raises(FormatError):
            attrs.update(ok=1, new=float("inf"))
        with pytest.raises(TypeError, match="give a str"):
            attrs[1] = 1
    assert dict(found(store, "x").attrs) == {"a": 1, "b": [1, {}]}


def test_attributes_in_other_modes_say_how(store):
    ds = lazyarr.open(store)
    for attrs in (ds.attrs, ds["x"].attrs, ds["x"].attrs["b"][1], lazyarr.open(store, "c").attrs):
        with pytest.raises(TypeError, match=r"lazyarr\.open\(url, 'r\+'\)"):
            attrs["a"] = 1
    for node in (ds, ds["x"]):
        with pytest.raises(TypeError, match=r"lazyarr\.open\(url, 'r\+'\)"):
            node.attrs = {"a": 1}


def test_attributes_are_stored_at_the_end_of_the_process(store, engine):
    program = """
import lazyarr, sys
lazyarr.configure(engine=sys.argv[2])
ds = lazyarr.open(sys.argv[1], "r+")
ds.attrs["end"] = 1
lazyarr.open(sys.argv[1], "r+")["x"].attrs["end"] = 2
"""
    subprocess.run([sys.executable, "-c", program, store, engine], check=True)
    assert dict(found(store).attrs) == {"end": 1}
    assert found(store, "x").attrs["end"] == 2


def _change_elsewhere(store, node="x", **attributes):
    zarr.open_group(store, mode="r+", use_consolidated=False)[node].attrs.update(attributes)


def test_attributes_that_somebody_else_changed_raise_once(store):
    """And then what was changed here is on top; other attributes are as the other has put them."""
    ds = lazyarr.open(store, "r+")
    ds["x"].attrs["a"] = 5
    ds["g"].attrs["alone"] = 1
    _change_elsewhere(store, a=7, b=[2], other=1)
    ds["x"][3] = 9
    with pytest.raises(StoreError, match=r"another writer has changed them.*flush\(\) again"):
        ds.flush()
    assert found(store, "x").attrs["a"] == 7
    assert ds["x"].attrs == {"a": 5, "b": [2], "other": 1}
    # What nobody else has changed is in the store.
    assert found(store, "x")[3] == 9
    assert dict(found(store, "g").attrs) == {"alone": 1}
    ds.close()
    assert dict(found(store, "x").attrs) == {"a": 5, "b": [2], "other": 1}


def test_attributes_that_somebody_else_changed_again_raise_again(store):
    with lazyarr.open(store, "r+") as ds:
        ds["x"].attrs["a"] = 5
        for other in range(3):
            _change_elsewhere(store, other=other)
            with pytest.raises(StoreError, match="another writer has changed them"):
                ds["x"].flush()
    assert dict(found(store, "x").attrs) == {"a": 5, "b": [1, {}], "other": 2}


def test_attributes_that_were_removed_here_or_elsewhere(store):
    with lazyarr.open(store, "r+") as ds:
        del ds["x"].attrs["a"]
        zarr.open_group(store, mode="r+", use_consolidated=False)["x"].attrs.put({"a": 2})
        with pytest.raises(StoreError, match="another writer has changed them"):
            ds.flush()
    assert dict(found(store, "x").attrs) == {}


def test_changed_attributes_can_be_dropped(store):
    """Also those that nobody else has changed; what the store has now is seen."""
    with lazyarr.open(store, "r+") as ds:
        attrs = ds["x"].attrs
        attrs["a"] = 5
        attrs["b"].append("mine")
        _change_elsewhere(store, other=1)
        with pytest.raises(StoreError, match=r"attrs\.refresh\(\)"):
            ds.flush()
        attrs["b"].append("mine")
        attrs.refresh()
        assert attrs == {"a": 1, "b": [1, {}], "other": 1}
        _change_elsewhere(store, other=2)
        attrs.refresh()
        assert ds["x"].attrs["other"] == 2
        attrs["b"].append("new")
    assert dict(found(store, "x").attrs) == {"a": 1, "b": [1, {}, "new"], "other": 2}


@pytest.mark.parametrize("document", [None, b"{"], ids=["gone", "broken"])
def test_a_node_that_cannot_keep_its_attributes_any_more(store, document):
    """Its changes are dropped, so that the dataset can be closed."""
    ds = lazyarr.open(store, "r+")
    attrs = ds["g"].attrs
    attrs["a"] = 5
    path = os.path.join(store, "g", "zarr.json")
    if document is None:
        os.unlink(path)
    else:
        with open(path, "wb") as file:
            file.write(document)
    for _ in range(2):
        with pytest.raises((NodeNotFoundError, FormatError)):
            ds.close()
    attrs.refresh()
    assert attrs == {}
    ds.close()


def test_the_same_change_elsewhere_is_no_conflict(store):
    """As after a flush that failed when the document had been put."""
    with lazyarr.open(store, "r+") as ds:
        ds["x"].attrs["a"] = 5
        _change_elsewhere(store, a=5)
        ds.flush()
        ds["x"].attrs["a"] = 6
    assert found(store, "x").attrs["a"] == 6


def test_a_conflict_that_nobody_has_resolved_is_said_at_the_end(store, engine):
    """By the error and at the end; the other writer's attributes stay."""
    program = """
import lazyarr, sys, zarr
lazyarr.configure(engine=sys.argv[2])
with lazyarr.open(sys.argv[1], "r+") as ds:
    ds["x"].attrs["a"] = 5
    zarr.open_group(sys.argv[1], mode="r+", use_consolidated=False)["x"].attrs["a"] = 7
"""
    ended = subprocess.run(
        [sys.executable, "-c", program, store, engine], capture_output=True, text=True
    )
    assert found(store, "x").attrs["a"] == 7
    said = [line for line in ended.stderr.splitlines() if "another writer has changed" in line]
    assert len(said) == 2
    assert said[1].startswith("lazyarr: ")
    assert ended.returncode == 120


def test_attributes_that_cannot_be_stored_when_nobody_has_them_are_said(store, engine):
    """The process goes on, and has failed in the end."""
    program = """
import lazyarr, sys, zarr
lazyarr.configure(engine=sys.argv[2])
ds = lazyarr.open(sys.argv[1], "r+")
ds["x"].attrs["a"] = 5
zarr.open_group(sys.argv[1], mode="r+", use_consolidated=False)["x"].attrs["a"] = 7
del ds
lazyarr.shutdown()
print("goes on")
"""
    ended = subprocess.run(
        [sys.executable, "-c", program, store, engine], capture_output=True, text=True
    )
    assert (ended.returncode, ended.stdout) == (120, "goes on\n")
    assert ended.stderr.startswith("lazyarr: attributes could not be stored: ")
    assert ended.stderr.count("another writer has changed them") == 1


def test_attributes_in_a_forked_child(store):
    with lazyarr.open(store, "r+") as ds:
        ds.attrs["parent"] = 1
        pid = os.fork()
        if not pid:
            try:
                ds.attrs["child"] = 1
            except ValueError as error:
                os._exit(0 if "edit it there" in str(error) else 2)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert dict(found(store).attrs) == {"parent": 1}


def test_attributes_of_version_2(tmp_path):
    path = str(tmp_path / "v2")
    zarr.open_group(path, mode="w", zarr_format=2).create_array("x", data=np.arange(4), chunks=2)
    zarr.consolidate_metadata(path)
    with lazyarr.open(path, "r+") as ds:
        ds["x"].attrs["units"] = "K"
        with pytest.raises(FormatError, match="lazyarr convert"):
            ds.create_group("g")
        with pytest.raises(FormatError, match="lazyarr convert"):
            ds["x"].append([1])
        assert ds["x"].tolist() == [0, 1, 2, 3]
    for copies in (True, False):
        group = zarr.open_group(path, mode="r", use_consolidated=copies)
        assert dict(group["x"].attrs) == {"units": "K"}


# --- nodes ---------------------------------------------------------------------------------


def test_arrays_and_groups_are_added(store):
    with lazyarr.open(store, "r+") as ds:
        z = ds.create_array("new/z", shape=(4, 2), dtype="f4", fill_value=2, chunks=1)
        assert (z.shape, z.tolist()) == ((4, 2), [[2, 2]] * 4)
        assert z is ds["new"]["z"]
        group = ds["g"].create_group("k", attributes={"a": 1})
        assert (group.path, group.attrs) == ("g/k", {"a": 1})
        group["w"] = [[1, 2], [3, 4]]
        ds["big"] = np.arange(1000.0)
        assert sorted(ds) == ["big", "g", "new", "x"]
        assert "g/k/w" in ds.tree() or "w" in ds.tree()
        for name in ("x", "g"):
            with pytest.raises(FileExistsError):
                ds[name] = [1]
        with pytest.raises(TypeError, match="give shape and dtype, or values"):
            ds.create_array("no")
        with pytest.raises(ValueError, match="give a name"):
            ds.create_group("")
        ds["x"] = ds["x"]  # what `ds["x"] += 1` ends with
    assert found(store, "g/k/w")[...].tolist() == [[1, 2], [3, 4]]
    assert found(store, "big")[...].tolist() == [*range(1000)]
    assert found(store, "new/z")[...].tolist() == [[2, 2]] * 4


def test_append_gives_the_array_as_it_is_then(store):
    with lazyarr.open(store, "r+") as ds:
        x, other = ds["x"], lazyarr.open(store, "r+")
        assert other["x"] is x
        x.attrs["a"] = 3
        new = x.append([6, 7])
        assert new is ds["x"] is other["x"]
        assert (x.tolist(), new.tolist()) == ([*range(6)], [*range(8)])
        assert new.attrs["a"] == found(store, "x").attrs["a"] == 3
        with pytest.raises(ValueError, match="another array has taken its place"):
            x.append([8])
        with pytest.raises(ValueError, match="this is a view of it"):
            new[2:].append([8])
        with pytest.raises(ValueError, match="cannot append rows of shape"):
            new.append([[8]])
        assert new.append(new[:2]) is ds["x"]  # not retired by what was refused
        y = ds["g/y"].append(np.zeros((1, 4)))
    assert y.shape == (4, 4)
    assert found(store, "x")[...].tolist() == [*range(8), 0, 1]


def test_resize(store):
    with lazyarr.open(store, "r+") as ds:
        assert ds["x"].resize(3).tolist() == [0, 1, 2]
        assert ds["x"].resize(5).tolist() == [0, 1, 2, 0, 0]
        y = ds["g/y"].resize((2, 5))
        assert y.tolist() == [[1, 1, 1, 1, 0]] * 2
        assert y.resize(3).shape == (3, 5)
        assert ds["g/y"].resize(2, 2).shape == (2, 2)
        for shape in ((1, 2, 3), -1, (1, -1)):
            with pytest.raises(ValueError, match="give as many lengths"):
                ds["g/y"].resize(shape)
        view = ds["x"][1:]
        with pytest.raises(ValueError, match="views of it are referenced"):
            ds["x"].resize(2)
        assert ds["x"].resize(7).shape == (7,)
        del view
        view = ds["x"][1:]
        assert ds["x"].resize(2, refcheck=False).tolist() == [0, 1]
        del view
    assert found(store, "x")[...].tolist() == [0, 1]


def test_delete_and_rename_refuse_while_an_array_is_referenced(store):
    with lazyarr.open(store, "r+") as ds:
        view = ds["g/y"][1:]
        for edit in (lambda: ds.__delitem__("g"), lambda: ds.rename("g", "h")):
            with pytest.raises(ValueError, match="array 'g/y' or a view of it is referenced"):
                edit()
        assert view.sum() == 8
        ds["g"].attrs["kept"] = 1
        y = ds["g/y"]
        del view
        with pytest.raises(ValueError, match="referenced"):
            ds.rename("g/y", "z")
        assert ds["g/y"] is y
        del y
        ds.rename("g", "h")
        assert (ds["h/y"].sum(), sorted(ds), ds["h"].attrs) == (12, ["h", "x"], {"kept": 1})
        del ds["x"]
        assert list(ds) == ["h"]
        with pytest.raises(NodeNotFoundError):
            ds["x"]
        with pytest.raises(NodeNotFoundError):
            del ds["x"]
        ds["x"] = np.arange(2)
    assert dict(found(store, "h").attrs) == {"kept": 1}
    assert found(store, "x")[...].tolist() == [0, 1]


def test_edits_below_a_group_that_was_opened_bring_copies_above_up_to_date(tmp_path):
    url = str(tmp_path / "s.zarr")
    with lazyarr.create(url, consolidated=True) as writer:
        writer.create_array("g/x", shape=3, dtype="i4")
    with lazyarr.open(f"{url}/g", "r+") as group:
        group["y"] = [1, 2]
        group["x"].append([7])
        group.attrs["a"] = 1
    root = zarr.open_group(url, mode="r", use_consolidated=True)
    assert root["g/y"][...].tolist() == [1, 2]
    assert root["g/x"][...].tolist() == [0, 0, 0, 7]
    assert dict(root["g"].attrs) == {"a": 1}


def test_other_modes_and_closed_datasets_say_what_to_do(store):
    ds = lazyarr.open(store)
    edits = [
        lambda: ds.create_group("k"),
        lambda: ds.create_array("k", shape=1, dtype="i4"),
        lambda: ds.__setitem__("k", [1]),
        lambda: ds.__delitem__("x"),
        lambda: ds.rename("x", "k"),
        lambda: ds["x"].append([1]),
        lambda: ds["x"].resize(1),
    ]
    for edit in edits:
        with pytest.raises(ValueError, match=r"it is open in mode 'r'; open it with lazyarr\.open"):
            edit()
    ds = lazyarr.open(store, "r+")
    ds.close()
    with pytest.raises(ValueError, match="is closed; open it again"):
        ds.create_group("k")
    assert sorted(lazyarr.open(store)) == ["g", "x"]


@pytest.mark.parametrize("name", ["notes.txt", "labels"])
def test_a_file_in_the_store_is_not_lost_to_a_new_name(store, name):
    """Whoever has put it there: neither the file nor the array."""
    place = Path(store) / name
    place.write_text("by hand")
    with lazyarr.open(store, "r+") as ds:
        with pytest.raises(lazyarr.StoreError, match=f"cannot rename 'x' to '{name}'"):
            ds.rename("x", name)
        assert place.read_text() == "by hand"
        place.unlink()
        ds.rename("x", name)
    assert sorted(lazyarr.open(store)) == sorted(["g", name])


def test_what_is_open_says_how(store):
    """The mode, what is not in the store yet, and whether it is closed."""
    for mode in ("r", "c"):
        ds = lazyarr.open(store, mode)
        assert f", mode {mode!r}" in repr(ds)
        assert f" int64, mode {mode!r}, 0 of 1 units resident, file" in repr(ds["x"])
        ds.close()
        assert f", mode {mode!r}, closed>" in repr(ds)
    ds = lazyarr.open(store, "r+")
    x = ds["x"]
    x[2] = 5
    assert "mode 'r+', 1 of 1 units resident, 1 not written back, " in repr(x)
    ds.close()
    assert "mode 'r+', 1 of 1 units resident, file" in repr(x)
    assert repr(ds).endswith(", mode 'r+', closed>")


def test_attributes_of_a_closed_dataset_are_those_that_were_stored(store):
    """They can be read, and an error says why they cannot be changed."""
    ds = lazyarr.open(store, "r+")
    ds.attrs["a"] = live = [1]
    ds.close()
    assert ds.attrs == {"a": live}
    for change in (
        lambda: ds.attrs.update(b=1),
        lambda: ds.attrs["a"].append(2),
        lambda: setattr(ds, "attrs", {}),
    ):
        with pytest.raises(TypeError, match=r"which is closed: .*lazyarr\.open"):
            change()
    with pytest.raises(ValueError, match="is closed; open it again"):
        ds.flush()


def test_edits_and_readers_in_several_threads(store):
    ds = lazyarr.open(store, "r+")
    lengths = []

    def append(n):
        for _ in range(n):
            ds["x"].append([1])

    def edit(name):
        for _ in range(5):
            ds[name] = [1, 2]
            ds[name].attrs["a"] = 1
            ds.rename(name, f"{name}2")
            del ds[f"{name}2"]

    def read():
        for _ in range(50):
            lengths.append(len(ds["x"]))
            ds.tree()

    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(append, 10), *(pool.submit(edit, n) for n in "pq"), pool.submit(read)]
        for call in calls:
            call.result(timeout=60)
    ds.close()
    assert lengths == sorted(lengths)
    assert found(store, "x").shape == (16,)
    assert sorted(found(store).array_keys()) == ["x"]


def test_a_store_that_is_one_array(tmp_path):
    path = str(tmp_path / "x.zarr")
    lazyarr.save(path, np.arange(10), chunks=2, shards=4)
    x = lazyarr.open(path, "r+")
    x.attrs["a"] = 1
    x = x.append([10, 11, 12])
    assert x.tolist() == [*range(13)]
    x = x.resize(3).resize(6)
    assert x.tolist() == found_array(path) == [0, 1, 2, 0, 0, 0]
    assert dict(zarr.open_array(path, mode="r").attrs) == {"a": 1}
    x.attrs["a"] = 2
    x.flush()
    assert dict(zarr.open_array(path, mode="r").attrs) == {"a": 2}


def found_array(path):
    return zarr.open_array(path, mode="r")[...].tolist()


def test_random_edits_and_writes_are_those_of_a_model(tmp_path):
    url, choose = str(tmp_path / "m.zarr"), random.Random(7)
    model = {"x": np.arange(50).reshape(25, 2)}
    lazyarr.save(url, model, chunks=3, shards=6)
    ds = lazyarr.open(url, "r+")
    for step in range(80):
        name, n = choose.choice(sorted(model)), choose.randrange(30)
        match choose.choice(["write", "append", "resize", "add", "rename", "delete", "reopen"]):
            case "write" if ds[name].flags.writeable:
                ds[name][n : n + 4] = model[name][n : n + 4] = step
            case "append":
                rows = np.full((n % 4, 2), -step)
                ds[name].append(rows)
                model[name] = np.concatenate([model[name], rows])
            case "resize":
                ds[name].resize(n)
                kept = model[name][:n]
                model[name] = np.concatenate([kept, np.zeros((n - len(kept), 2), int)])
            case "add":
                name = f"g{n % 3}/a{step}"
                ds[name] = model[name] = np.full((7, 2), step)
            case "rename":
                ds.rename(name, f"r{step}")
                model[f"r{step}"] = model.pop(name)
            case "delete" if len(model) > 1:
                del ds[name], model[name]
            case "reopen":
                ds.close()
                ds = lazyarr.open(url, "r+")
        for path, values in model.items():
            assert ds[path].tolist() == values.tolist(), step
    ds.close()
    arrays = {p: node for p, node in found(url).members(None) if isinstance(node, zarr.Array)}
    assert arrays.keys() == model.keys()
    for path, values in model.items():
        assert arrays[path][...].tolist() == values.tolist()


def test_s3(s3_server, s3_bucket):
    options = s3_server.storage_options
    url = f"{s3_bucket}/s.zarr"
    arrays = {"x": np.arange(6), "g/y": np.ones(3)}
    lazyarr.save(url, arrays, storage_options=options)
    with lazyarr.open(url, "r+", storage_options=options) as ds:
        ds.attrs["a"] = 1
        ds["z"] = ds["x"].append([6])
        ds["g/y"].resize(2)
        ds.rename("g", "h")
        ds["h"].attrs["b"] = 2
        del ds["x"]
        assert sorted(ds) == ["h", "z"]
    for copies in (True, False):  # a store that is not local has copies of documents
        root = zarr.open_group(url, mode="r", storage_options=options, use_consolidated=copies)
        assert (dict(root.attrs), dict(root["h"].attrs)) == ({"a": 1}, {"b": 2})
        assert root["z"][...].tolist() == [*range(7)]
        assert root["h/y"][...].tolist() == [1, 1]
        assert sorted(name for name, _ in root.members()) == ["h", "z"]


def test_node_names_that_lead_out_of_the_store(store):
    with lazyarr.open(store, "r+") as ds:
        for name in ("../x", "a/../b", "zarr.json", "__a", "."):
            with pytest.raises(ValueError, match="not a name that Zarr allows"):
                ds[name] = [1]
            with pytest.raises(ValueError, match="not a name that Zarr allows"):
                ds.rename("x", name)
        for name in ("../s.zarr", "x/zarr.json", "x/c"):
            with pytest.raises((NodeNotFoundError, StoreError)):
                del ds[name]
    assert sorted(lazyarr.open(store)) == ["g", "x"]


def test_a_linked_array_is_not_deleted_through_its_link(store, tmp_path):
    lazyarr.save(tmp_path / "other", {"deep/a": np.arange(3)})
    os.symlink(tmp_path / "other" / "deep", f"{store}/link")
    with lazyarr.open(store, "r+") as ds:
        with pytest.raises(StoreError, match="symbolic link"):
            del ds["link/a"]
        del ds["link"]
    assert lazyarr.open(tmp_path / "other")["deep/a"].tolist() == [0, 1, 2]

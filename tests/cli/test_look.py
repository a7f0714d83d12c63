"""`lazyarr info` and `lazyarr tree`."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

import lazyarr
from tests.cli.running import run
from tests.repositories import commit, make_repository
from tests.stores import write_zarr


@pytest.fixture
def url(tmp_path):
    """A group with arrays, one of which cannot be mapped."""
    root = zarr.open_group(str(tmp_path / "s"), mode="w", attributes={"title": "t", "x": [1]})
    options = {"dimension_names": ["n", "y"], "attributes": {"unit": "m"}, "fill_value": 3}
    root.create_array("g/x", shape=(10, 4), chunks=(2, 4), shards=(4, 4), dtype="i2", **options)
    root.create_array("y", shape=(), dtype="f8", fill_value=np.nan)
    document = json.loads((tmp_path / "s" / "y" / "zarr.json").read_text())
    (tmp_path / "s" / "text").mkdir()
    (tmp_path / "s" / "text" / "zarr.json").write_text(
        json.dumps({**document, "data_type": "string"})
    )
    return str(tmp_path / "s")


def strict_json(text):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_info_describes_a_group(url):
    """The same text as `Dataset.info`."""
    result = run("info", url)
    with lazyarr.open(url) as ds:
        assert result.stdout == f"{ds.info}\n"


def test_info_describes_an_array(url):
    """The same rows as `LazyArray.info`, but for what is in memory."""
    result = run("info", f"{url}/g/x")
    text = lazyarr.open(f"{url}/g/x").info.splitlines()
    assert result.stdout.splitlines()[1:] == [line for line in text[1:] if "resident" not in line]


def test_tree_draws(url):
    """The same text as `Dataset.tree`; a line for an array alone."""
    with lazyarr.open(url) as ds:
        assert run("tree", url).stdout == f"{ds.tree()}\n"
    assert run("tree", f"{url}/g/x").stdout == "/  (10, 4) int16, 80 B\n"


def test_info_gives_json(url):
    """Everything for machines: an array's layout, a group's nodes and attributes."""
    array = strict_json(run("info", "--json", f"{url}/g/x").stdout)
    assert array == {
        "url": Path(url).as_uri() + "/g/x",
        "path": "",
        "format": "zarr",
        "format_version": "3",
        "node_type": "array",
        "shape": [10, 4],
        "dtype": "int16",
        "nbytes": 80,
        "chunks": [2, 4],
        "shards": [4, 4],
        "codecs": ["sharding_indexed(bytes, zstd level 0)"],
        "fill_value": 3,
        "dimension_names": ["n", "y"],
        "attributes": {"unit": "m"},
    }
    group = strict_json(run("info", "--json", url).stdout)
    assert (group["node_type"], group["attributes"]) == ("group", {"title": "t", "x": [1]})
    found = {node["path"]: node["node_type"] for node in group["nodes"]}
    assert found == {"g": "group", "g/x": "array", "text": "unsupported", "y": "array"}


def test_tree_gives_json(url):
    """The root comes first; what cannot be mapped has its reason."""
    nodes = strict_json(run("tree", "--json", url).stdout)["nodes"]
    assert [node["path"] for node in nodes] == ["", "g", "g/x", "text", "y"]
    assert "variable length" in nodes[3]["reason"]
    assert nodes[4]["fill_value"] == "NaN"


def test_json_has_no_nan(tmp_path):
    """Attributes with numbers that JSON does not have are spelled as Zarr spells them."""
    write_zarr(tmp_path / "x", np.zeros(2))
    path = tmp_path / "x" / "zarr.json"
    attributes = '"attributes": {"a": [NaN, Infinity, -Infinity, 1.5]}'
    path.write_text(path.read_text().replace('"attributes": {}', attributes))
    found = strict_json(run("info", "--json", tmp_path / "x").stdout)["attributes"]
    assert found == {"a": ["NaN", "Infinity", "-Infinity", 1.5]}


def test_remote_stores_need_options(s3_bucket, s3_server):
    """As JSON, or one by one; the later ones count."""
    options = s3_server.storage_options
    lazyarr.save(f"{s3_bucket}/x", np.arange(10), storage_options=options)
    whole = ["--storage-options", json.dumps(options)]
    assert "(10,)" in run("info", f"{s3_bucket}/x", *whole).stdout
    single = [f"-o{name}={json.dumps(value)}" for name, value in options.items()]
    assert "(10,)" in run("info", f"{s3_bucket}/x", *single).stdout
    plain = run("info", f"{s3_bucket}/x", "--storage-options", "{}", *single[1:], "-o", "key=other")
    assert plain.exit_code == 0


def test_nothing_is_started_and_nothing_read(url, tmp_path):
    """Looking needs no chunk: all of them may be gone."""
    write_zarr(tmp_path / "x", np.ones((8, 8)), chunks=(1, 8))
    for path in (tmp_path / "x" / "c").rglob("0"):
        if path.is_file():
            path.write_bytes(b"damaged")
    assert run("info", tmp_path / "x").exit_code == 0


def test_a_file_with_groups_is_looked_at_like_a_store(tmp_path):
    """Each node by its path; one that cannot be mapped says why."""
    url = str(tmp_path / "x.h5")
    with h5py.File(url, "w") as file:
        file.create_dataset("g/x", data=np.zeros((10, 4), "i2"), chunks=(2, 4), compression="gzip")
        file["g/text"] = "abc"
        file.attrs["title"] = "Test"
    assert run("tree", url).stdout.splitlines() == [
        "/",
        "└── g",
        "    ├── text  cannot be mapped: its elements are strings of variable length, which lie "
        "elsewhere in the file; read it with h5py",
        "    └── x     (10, 4) int16, 80 B",
    ]
    found = strict_json(run("info", url, "--json").stdout)
    assert (found["format"], found["attributes"]) == ("hdf5", {"title": "Test"})
    assert "1 array, 1 group, 1 that cannot be mapped" in run("info", url).stdout
    node = found["nodes"][-1]
    assert (node["path"], node["shape"], node["chunks"]) == ("g/x", [10, 4], [2, 4])
    assert node["codecs"] == ["zlib level 4"]


def test_a_file_of_numpys_is_looked_at_like_a_store(tmp_path):
    """Which has one array, at its root."""
    np.save(tmp_path / "x.npy", np.zeros((10, 4), "i2"))
    url = str(tmp_path / "x.npy")
    text = lazyarr.open(url).info.splitlines()
    lines = run("info", url).stdout.splitlines()
    assert lines[1:] == [line for line in text[1:] if "resident" not in line]
    assert run("tree", url).stdout == "/  (10, 4) int16, 80 B\n"
    found = strict_json(run("info", url, "--json").stdout)
    assert (found["format"], found["format_version"], found["shape"]) == ("npy", "1.0", [10, 4])
    assert run("info", str(tmp_path / "y.npy")).exit_code == 1


def test_what_is_no_plain_store_is_named(tmp_path):
    """References, and repositories with the snapshot that is read; nothing is said of others."""
    repository = make_repository(tmp_path / "repo")
    snapshot = commit(
        repository, lambda store: zarr.create_array(store, name="x", shape=3, dtype="i2")
    )
    refs = {".zgroup": '{"zarr_format": 2}'}
    (tmp_path / "refs.json").write_text(json.dumps({"version": 1, "refs": refs}))
    lazyarr.save(tmp_path / "s", {"x": np.arange(3)})
    said = {
        "repo": f"an icechunk repository, snapshot {snapshot}",
        "refs.json": "references to other files (kerchunk)",
        "s": None,
    }
    for name, kind in said.items():
        lines = run("info", tmp_path / name).stdout.splitlines()
        found = [line.split(maxsplit=2)[2] for line in lines if line.startswith("  which is")]
        assert found == ([] if kind is None else [kind])
        assert json.loads(run("info", "--json", tmp_path / name).stdout).get("store") == kind
    assert "which is" in run("info", tmp_path / "repo" / "x").stdout

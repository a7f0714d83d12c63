"""icechunk repositories, against what zarr-python reads from icechunk's own store."""

from __future__ import annotations

import base64
import json
import os
import pickle
import sys
import tempfile
from pathlib import Path

import icechunk
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import lazyarr
from lazyarr.store import open_reference, open_store, store_reference
from tests.cli.running import run
from tests.contract.test_round_trip import arrays, grids, indexes
from tests.engines import engine  # noqa: F401 - a fixture
from tests.repositories import SPEC_VERSIONS, commit, make_repository, oracle
from tests.servers import http_server, s3_bucket, s3_server  # noqa: F401 - fixtures

DATA = np.arange(6000, dtype="i4").reshape(60, 100)


def write(store, data=DATA):
    group = zarr.open_group(store, mode="a", attributes={"title": "a group"})
    group.create_array("g/a", data=data, chunks=(8, 100), attributes={"k": 1}, overwrite=True)
    group.create_array("empty", shape=(7,), chunks=(2,), dtype="f4", fill_value=9.5, overwrite=True)


@pytest.fixture(scope="module", params=SPEC_VERSIONS)
def place(request, tmp_path_factory):
    """A repository with `DATA` at the tag "first", `DATA + 1` on "dev", `DATA + 2` on "main"."""
    path = tmp_path_factory.mktemp("repositories") / "repo"
    repository = make_repository(path, request.param)
    first = commit(repository, write)
    repository.create_tag("first", first)
    repository.create_branch("dev", first)
    commit(repository, lambda store: write(store, DATA + 1), "dev")
    commit(repository, lambda store: write(store, DATA + 2))
    return path


def test_a_directory_is_seen_to_be_a_repository(place, tmp_path, engine):  # noqa: F811
    """Without a word: arrays, attributes, names, pickles; it is verified, listed and converted."""
    with lazyarr.open(place) as ds:
        assert sorted(ds) == ["empty", "g"]
        assert ds.attrs == {"title": "a group"}
        assert ds["g/a"].attrs == {"k": 1}
        np.testing.assert_array_equal(np.asarray(ds["g/a"]), DATA + 2)
        assert np.asarray(ds["empty"]).tolist() == [9.5] * 7
        assert (pickle.loads(pickle.dumps(ds))["g/a"][5] == DATA[5] + 2).all()
        assert "stored" not in ds["g/a"].info  # nobody has counted
        assert (ds.to_xarray()["empty"].values == 9.5).all()
        assert (ds["g/a"].to_dask().compute() == DATA + 2).all()
    assert lazyarr.verify(place, progress=False).ok
    assert "a" in run("tree", place).stdout
    assert json.loads(run("info", place, "--json").stdout)
    out = run("convert", place, tmp_path / "out.zarr", "--quiet")
    assert out.exit_code == 0, out.stderr
    np.testing.assert_array_equal(np.asarray(lazyarr.open(tmp_path / "out.zarr")["g/a"]), DATA + 2)


def test_versions(place, engine):  # noqa: F811
    """A branch, a tag and a snapshot, by an option of that name."""
    repository = icechunk.Repository.open(icechunk.local_filesystem_storage(str(place)))
    snapshot = repository.lookup_branch("dev")
    for version, data in (
        ({"branch": "main"}, DATA + 2),
        ({"branch": "dev"}, DATA + 1),
        ({"tag": "first"}, DATA),
        ({"snapshot": snapshot}, DATA + 1),
    ):
        x = lazyarr.open(place, path="g/a", storage_options=version)
        np.testing.assert_array_equal(np.asarray(x), data)
    assert run("info", place, "--storage-option", "tag=first").exit_code == 0


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"branch": "none"}, "none"),
        ({"tag": "none"}, "none"),
        ({"snapshot": "none"}, "invalid snapshot id"),
        ({"snapshot": "1CECHNKREP0F1RSTCMT1"}, "1CECHNKREP0F1RSTCMT1|no zarr.json|not found"),
        ({"branch": "main", "tag": "first"}, "'branch' and 'tag' exclude each other"),
        ({"brnch": "dev"}, "no storage option 'brnch'; there are 'branch', 'tag', 'snapshot'"),
        ({"branch": "dev", "anon": True}, "no storage option 'anon'; there are 'branch'"),
    ],
)
def test_a_version_that_is_not_there(place, options, found):
    """Is an error that names it."""
    with pytest.raises(lazyarr.StoreError, match=found):
        lazyarr.open(place, storage_options=options)


def test_a_path_goes_on_in_a_repository(place, engine):  # noqa: F811
    """To a group or an array, of any version; as it does in directories."""
    for options, data in (({}, DATA + 2), ({"tag": "first"}, DATA)):
        x = lazyarr.open(f"{place}/g/a", storage_options=options)
        np.testing.assert_array_equal(np.asarray(x), data)
        assert (x.url, x.path) == (Path(place).as_uri(), "g/a")
        assert (pickle.loads(pickle.dumps(x[3:5])) == data[3:5]).all()
        with lazyarr.open(place / "g", storage_options=options) as ds:
            assert sorted(ds) == ["a"]
            np.testing.assert_array_equal(np.asarray(pickle.loads(pickle.dumps(ds))["a"]), data)
    assert lazyarr.verify(f"{place}/g", progress=False).arrays == 1
    assert "a" in run("tree", f"{place}/g").stdout
    with pytest.raises(lazyarr.NodeNotFoundError, match="'none'"):
        lazyarr.open(place / "none")


def test_what_is_committed_later_is_not_seen(tmp_path, engine):  # noqa: F811
    """By nothing that is open, nor by its pickles: they have the snapshot of the opening."""
    repository = make_repository(tmp_path / "repo")
    commit(repository, write)
    ds = lazyarr.open(tmp_path / "repo")
    x = ds["g/a"]
    assert (x[0] == DATA[0]).all()
    texts = pickle.dumps(x), pickle.dumps(ds)
    commit(repository, lambda store: write(store, DATA[:30] + 7))
    np.testing.assert_array_equal(np.asarray(x), DATA)
    np.testing.assert_array_equal(np.asarray(ds["g/a"]), DATA)
    np.testing.assert_array_equal(np.asarray(pickle.loads(texts[0])), DATA)
    np.testing.assert_array_equal(np.asarray(pickle.loads(texts[1])["g/a"]), DATA)
    np.testing.assert_array_equal(np.asarray(lazyarr.open(tmp_path / "repo")["g/a"]), DATA[:30] + 7)


def test_other_processes_open_the_snapshot(tmp_path):
    """The reference to a store has it in place of the branch."""
    repository = make_repository(tmp_path / "repo")
    snapshot = commit(repository, write)
    store = open_store(tmp_path / "repo", {"branch": "main"})
    reference = store_reference(store)
    commit(repository, lambda store: write(store, DATA + 7))
    assert reference.description["storage_options"] == {"snapshot": snapshot}
    other = open_reference(json.loads(json.dumps(reference.description)))
    assert other.read("g/a/c/0/0") == store.read("g/a/c/0/0")
    assert snapshot in repr(other)


def test_copy_on_write(place, engine):  # noqa: F811
    """Mode "c" writes to memory; no mode writes to the repository."""
    x = lazyarr.open(place, "c", path="g/a")
    x[3] = 5
    assert x[3].sum() == 500
    assert (x[4] == DATA[4] + 2).all()
    assert (lazyarr.open(place, path="g/a")[3] == DATA[3] + 2).all()
    with pytest.raises(lazyarr.StoreError, match="write with icechunk"):
        open_store(place, {"branch": "main"}, writable=True)
    with pytest.raises(FileExistsError):
        lazyarr.save(place, {"x": DATA}, overwrite=True)


@settings(max_examples=25)
@given(st.data())
def test_what_zarr_python_reads(data):
    """The same values, whatever the shape, chunks, shards and data type; chunks may be missing."""
    values = data.draw(arrays())
    chunks, shards = data.draw(grids(values.shape))
    fill_value = data.draw(st.sampled_from([0, 1]))
    with tempfile.TemporaryDirectory() as directory:
        repository = make_repository(Path(directory) / "repo")

        def change(store):
            made = zarr.create_array(
                store,
                name="x",
                shape=values.shape,
                dtype=values.dtype,
                chunks=chunks,
                shards=shards,
                fill_value=fill_value,
            )
            rows = slice(values.shape[0] // 2) if values.shape else ()
            made[rows] = values[rows]

        commit(repository, change)
        expected = oracle(repository, "x")
        index = data.draw(indexes(values.shape))
        for kind in ("userfaultfd", "copy"):
            with lazyarr.configure(engine=kind):
                x = lazyarr.open(Path(directory) / "repo", path="x")
                np.testing.assert_array_equal(x[index], expected[index])
                np.testing.assert_array_equal(np.asarray(x), expected)


def test_over_s3(s3_server, s3_bucket, engine):  # noqa: F811
    """With the options that fsspec takes, seen to be a repository or not; errors have no keys."""
    storage = icechunk.s3_storage(
        bucket=s3_bucket.removeprefix("s3://"),
        prefix="a/repo",
        region="us-east-1",
        endpoint_url=s3_server.endpoint_url,
        allow_http=True,
        force_path_style=True,
        access_key_id="testing",
        secret_access_key="testing",
    )
    commit(make_repository(storage), write)
    url, options = f"{s3_bucket}/a/repo", s3_server.storage_options
    for more in ({}, {"branch": "main"}):
        x = lazyarr.open(url, path="g/a", storage_options={**options, **more})
        np.testing.assert_array_equal(np.asarray(x), DATA)
    wrong = {**options, "key": "AKIAWRONG", "secret": "hush", "bogus": "hush2", "branch": "main"}
    with pytest.raises(lazyarr.StoreError, match="bogus") as caught:
        lazyarr.open(url, storage_options=wrong)
    assert not any(word in str(caught.value) for word in ("AKIAWRONG", "hush"))
    with pytest.raises(lazyarr.NodeNotFoundError, match=r"repository.*named by path="):
        lazyarr.open(f"{s3_bucket}/a/repo/g", storage_options={**options, "branch": "main"})


def test_over_http(http_server):  # noqa: F811
    """Where icechunk can; else the error says which can."""
    commit(make_repository(Path(http_server.directory) / "repo"), write)
    url = f"{http_server.url}/repo"
    if hasattr(icechunk, "http_storage"):
        np.testing.assert_array_equal(np.asarray(lazyarr.open(url, path="g/a")), DATA)
        with pytest.raises(lazyarr.StoreError, match="no storage option 'brnch'; there are"):
            lazyarr.open(url, storage_options={"brnch": "dev"}, format="icechunk")
    else:
        with pytest.raises(lazyarr.StoreError, match="install icechunk 2"):
            lazyarr.open(url, path="g/a")


def test_a_zarr_store_costs_no_look(http_server):  # noqa: F811
    """Only where there is no node of Zarr's a repository is looked for, by two requests."""
    lazyarr.save(Path(http_server.directory) / "s.zarr", {"a": DATA})
    lazyarr.open(f"{http_server.url}/s.zarr")["a"]
    assert not any("repo" in r.path or "refs" in r.path for r in http_server.requests())
    with pytest.raises(lazyarr.NodeNotFoundError):
        lazyarr.open(f"{http_server.url}/none")
    asked = [r.path for r in http_server.requests()]
    assert sum("repo" in path or "refs" in path for path in asked) == 2


def test_what_only_looks_like_a_repository(tmp_path):
    """Is none: files and directories of such names that are something else."""
    (tmp_path / "repo").write_bytes(b"ICE")
    (tmp_path / "refs/branch.main/ref.json").mkdir(parents=True)
    with pytest.raises(lazyarr.NodeNotFoundError, match=r"no zarr\.json"):
        lazyarr.open(tmp_path)
    (tmp_path / "repo").unlink()
    os.rmdir(tmp_path / "refs/branch.main/ref.json")
    for text in ("[" * 100_000, "[1]", '"snapshot"', ""):
        (tmp_path / "refs/branch.main/ref.json").write_text(text)
        with pytest.raises(lazyarr.LazyarrError):
            lazyarr.open(tmp_path)


def test_sessions(place, engine):  # noqa: F811
    """A read-only session of icechunk's, or its store: also for pickles and `verify`."""
    repository = icechunk.Repository.open(icechunk.local_filesystem_storage(str(place)))
    session = repository.readonly_session(tag="first")
    for source in (session, session.store):
        with lazyarr.open(source) as ds:
            np.testing.assert_array_equal(np.asarray(ds["g/a"]), DATA)
            assert session.snapshot_id in ds.url
            assert (pickle.loads(pickle.dumps(ds["g/a"]))[3] == DATA[3]).all()
            assert (pickle.loads(pickle.dumps(ds))["empty"][3] == 9.5).all()
    assert lazyarr.verify(session, progress=False).ok
    with pytest.raises(ValueError, match="readonly_session"):
        lazyarr.open(repository.writable_session("main"))
    with pytest.raises(TypeError, match="found a Repository"):
        lazyarr.open(repository)


def test_a_session_is_nothing_else(place):
    """Text that would run something when it is unpickled is refused."""
    text = base64.b64encode(pickle.dumps(os.getpid)).decode()
    with pytest.raises(lazyarr.StoreError, match="getpid") as caught:
        lazyarr.open("icechunk://x", storage_options={"icechunk_session": text})
    assert text not in str(caught.value)


def test_by_name_of_the_format(place, tmp_path):
    """``format="icechunk"`` means a repository, ``format="zarr"`` none."""
    x = lazyarr.open(place, path="g/a", format="icechunk")
    assert (pickle.loads(pickle.dumps(x))[3] == DATA[3] + 2).all()
    with pytest.raises(lazyarr.NodeNotFoundError, match=r"no zarr\.json"):
        lazyarr.open(place, format="zarr")
    with pytest.raises(lazyarr.NodeNotFoundError, match="no such directory"):
        lazyarr.open(tmp_path / "none", format="icechunk")
    assert not (tmp_path / "none").exists()  # icechunk would make it
    with pytest.raises(lazyarr.NodeNotFoundError, match="repository doesn't exist"):
        lazyarr.open(tmp_path, format="icechunk")


def test_without_icechunk(place, monkeypatch):
    """The error names the extra."""
    monkeypatch.setitem(sys.modules, "icechunk", None)
    with pytest.raises(lazyarr.StoreError, match=r"lazyarr\[icechunk\]"):
        lazyarr.open(place)

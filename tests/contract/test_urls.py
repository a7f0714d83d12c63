"""The same array by every kind of URL: opened, touched, asked for, forked, pickled."""

from __future__ import annotations

import itertools
import os
import pickle
import warnings

import fsspec
import numpy as np
import pytest
import zarr

import lazyarr
from lazyarr.testing import Behaviour
from tests.stores import images

DATA = images()
pytestmark = pytest.mark.usefixtures("engine")
_numbers = itertools.count()


@pytest.fixture(params=["path", "file", "memory", "http", "s3", "simplecache"])
def place(request, tmp_path):
    """Return a URL with a store at it, and the options to open it with."""
    kind, options = request.param, {}
    url = {
        "path": str(tmp_path / "x.zarr"),
        "file": f"file://{tmp_path}/x.zarr",
        "memory": f"memory://x{next(_numbers)}.zarr",
    }.get(kind)
    if kind in ("http", "simplecache"):
        server = request.getfixturevalue("http_server")
        lazyarr.save(f"{server.directory}/x.zarr", {"x": DATA}, chunks=(4, 32, 128))
        url = f"{server.url}/x.zarr"
    if kind == "simplecache":
        url = f"simplecache::{url}"
        options = {"simplecache": {"cache_storage": str(tmp_path / "cache")}}
    if kind == "s3":
        server = request.getfixturevalue("s3_server")
        url, options = f"s3://{server.make_bucket()}/x.zarr", server.storage_options
    if kind not in ("http", "simplecache"):
        lazyarr.save(url, {"x": DATA}, chunks=(4, 32, 128), storage_options=options or None)
    yield url, options or None
    if kind == "memory":
        fsspec.filesystem("memory").rm(url.removeprefix("memory://"), recursive=True)


def test_every_url_reads_right(place):
    """Picks, raw touches, forked children and pickles give the data, whatever the store."""
    url, options = place
    ds = lazyarr.open(url, storage_options=options)
    assert list(ds) == ["x"]
    x = ds["x"]
    np.testing.assert_array_equal(x[[5, 60, 33]], DATA[[5, 60, 33]])
    raw = np.asarray(x)
    assert raw[20, 3, 4] == DATA[20, 3, 4]
    pid = os.fork()
    if pid == 0:
        os._exit(0 if raw.tobytes() == DATA.tobytes() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    x.evict()
    np.testing.assert_array_equal(raw, DATA)
    again = pickle.loads(pickle.dumps(x[8:12]))
    np.testing.assert_array_equal(again[1], DATA[9])


def test_only_what_is_needed_is_fetched(http_server):
    """One row over HTTP takes the metadata, one shard index and one chunk."""
    lazyarr.save(f"{http_server.directory}/x.zarr", {"x": DATA}, chunks=(4, 32, 128))
    ds = lazyarr.open(f"{http_server.url}/x.zarr")
    ds["x"][17]
    asked = [request.path for request in http_server.requests()]
    assert len([path for path in asked if "/c/" in path]) == 2, asked
    assert len(asked) <= 4, asked


@pytest.mark.parametrize(
    ("zarr_format", "documents"),
    [(3, ["zarr.json"]), (2, ["zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"])],
)
def test_consolidated_metadata_is_all_that_is_read(http_server, zarr_format, documents):
    """One request, or those that tell which format it is, however many arrays there are."""
    path = f"{http_server.directory}/x.zarr"
    group = zarr.create_group(path, zarr_format=zarr_format)
    for n in range(20):
        group.create_array(f"g{n % 3}/x{n}", data=np.full(8, n), chunks=(4,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zarr-python: not in the specification yet
        zarr.consolidate_metadata(path, zarr_format=zarr_format)
    http_server.requests()
    ds = lazyarr.open(f"{http_server.url}/x.zarr")
    assert sum(x.shape == (8,) and x.dtype == np.int64 for g in ds for x in ds[g].values()) == 20
    asked = [request.path for request in http_server.requests()]
    assert sorted(asked) == sorted(f"/x.zarr/{name}" for name in documents)
    assert np.array_equal(ds["g1/x7"], np.full(8, 7))


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_server_that_fails_gives_errors_or_nothing(http_server, status):
    """A refusal is an error that names everything; only a 404 is a chunk that is not there."""
    lazyarr.save(f"{http_server.directory}/x.zarr", {"x": DATA}, chunks=(4, 32, 128), shards=None)
    with lazyarr.configure(retries=1, timeout=5):
        x = lazyarr.open(f"{http_server.url}/x.zarr")["x"]
        http_server.behave(Behaviour(status=status), path="/x.zarr/x/c/3/0/0")
        if status == 404:
            assert not x[13].any()
        else:
            with pytest.raises(lazyarr.ChunkError, match=f"{status}.*x/c/3/0/0"):
                x[13]
        np.testing.assert_array_equal(x[17], DATA[17])
        http_server.behave(Behaviour(), path="/x.zarr/x/c/3/0/0")
        x.evict()
        np.testing.assert_array_equal(x[13], DATA[13])


def test_a_failed_transfer_is_tried_again(http_server):
    """A dropped connection and a throttled answer heal without the reader's noticing."""
    lazyarr.save(f"{http_server.directory}/x.zarr", {"x": DATA}, chunks=(4, 32, 128))
    x = lazyarr.open(f"{http_server.url}/x.zarr")["x"]
    http_server.behave(Behaviour(status=503), times=2)
    np.testing.assert_array_equal(x[13], DATA[13])
    http_server.behave(Behaviour(truncate=True), times=1)
    np.testing.assert_array_equal(np.asarray(x)[33], DATA[33])

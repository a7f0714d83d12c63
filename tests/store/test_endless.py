"""Servers that send more than there is, or do not stop sending."""

from __future__ import annotations

import os
import time
import tracemalloc
from pathlib import Path

import pytest

import lazyarr
from lazyarr.errors import StoreError
from lazyarr.store import RetryingStore, RetryPolicy, open_store
from lazyarr.store.transport_http import parse_links
from lazyarr.testing import Behaviour
from tests.store.places import KINDS, OBJECTS, make_store

CHUNK = "images/c/0/0"
DATA = OBJECTS[CHUNK]
SIZE = len(DATA)
# Long enough: nobody reads that in a test, and a disk can take it.
ENDLESS = 1 << 31
MIB = 1 << 20


@pytest.fixture(params=["http", "s3", "simplecache"])
def remote(http_server, request, tmp_path):
    """Give a store, and hold what is read of it to a few mebibytes of memory."""
    for key, data in OBJECTS.items():
        path = Path(http_server.directory) / "bucket" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    url, options = f"{http_server.url}/bucket", {}
    if request.param == "s3":
        url = "s3://bucket"
        options = {"key": "k", "secret": "s", "endpoint_url": http_server.url}
        options["client_kwargs"] = {"region_name": "us-east-1"}
    elif request.param != "http":
        url = f"{request.param}::{url}"
        options = {request.param: {"cache_storage": str(tmp_path / "cache")}}
    store = open_store(url, options, timeout_seconds=20)
    store.read("zarr.json")
    tracemalloc.start()
    yield store
    peak_nbytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_nbytes < 16 * MIB


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_may_be_as_long_as_it_is_allowed(kind, request):
    """One byte more, and it is an error that says so and does not pass; an empty one is fine."""
    store = make_store(kind, request)
    try:
        assert store.read("images/empty", limit_nbytes=10) == b""
        assert store.read("images/absent", limit_nbytes=10) is None
        with pytest.raises(StoreError, match=f"{CHUNK}.*more than the {SIZE - 1} bytes") as caught:
            store.read(CHUNK, limit_nbytes=SIZE - 1)
        assert not caught.value.transient
        assert store.read(CHUNK, limit_nbytes=SIZE) == DATA
        with pytest.raises(StoreError, match=f"{CHUNK}.*more than the {SIZE - 1} bytes"):
            store.read(CHUNK, limit_nbytes=SIZE - 1)
    finally:
        store.close()


@pytest.mark.parametrize("ignore_range", [False, True])
@pytest.mark.parametrize("no_length", [False, True])
def test_an_endless_object_is_not_read_further_than_it_may_go(
    http_server, remote, no_length, ignore_range
):
    """Whether the server says how long it is or not, in bounded memory and at once."""
    behaviour = {"excess_nbytes": ENDLESS, "no_length": no_length, "ignore_range": ignore_range}
    http_server.behave(Behaviour(**behaviour))
    with pytest.raises(StoreError, match=f"{CHUNK}.*{MIB}") as caught:
        remote.read(CHUNK, limit_nbytes=MIB)
    assert not caught.value.transient


@pytest.mark.parametrize("remote", ["filecache"], indirect=True)
def test_a_cache_of_fsspecs_is_not_let_download_what_is_too_long(http_server, remote, tmp_path):
    """It would do so to the end."""
    http_server.behave(Behaviour(excess_nbytes=64 * MIB, ignore_range=True))
    with pytest.raises(StoreError, match=f"{CHUNK}.*{MIB}"):
        remote.read(CHUNK, limit_nbytes=MIB)
    found = [path for path in (tmp_path / "cache").iterdir() if path.stat().st_size > MIB]
    assert not found


@pytest.mark.parametrize("no_length", [False, True])
@pytest.mark.parametrize("remote", ["http", "s3"], indirect=True)
def test_an_endless_answer_to_a_range_is_refused(http_server, remote, no_length):
    """Bytes that are more than the server itself says of them are no answer."""
    http_server.behave(Behaviour(excess_nbytes=ENDLESS, no_length=no_length))
    for read in (lambda: remote.read_range(CHUNK, 5, 99), lambda: remote.read_suffix(CHUNK, 99)):
        with pytest.raises(StoreError, match=r"more than the 9[49] bytes that it named") as caught:
            read()
        assert not caught.value.transient


@pytest.mark.parametrize("remote", ["http", "s3"], indirect=True)
def test_a_range_is_taken_out_of_an_endless_object(http_server, remote):
    """From a server that ignores ranges; the rest is not read."""
    http_server.behave(Behaviour(excess_nbytes=ENDLESS, no_length=True, ignore_range=True))
    assert remote.read_range(CHUNK, 5, 99) == DATA[5:99]


@pytest.mark.parametrize("remote", ["http", "s3"], indirect=True)
@pytest.mark.parametrize("no_length", [False, True])
def test_the_end_is_taken_from_a_long_object_in_little_memory(http_server, remote, no_length):
    """From a server that ignores ranges, and may not even say how long the object is."""
    http_server.behave(Behaviour(excess_nbytes=64 * MIB, no_length=no_length, ignore_range=True))
    assert remote.read_suffix(CHUNK, 99) == (bytes(99), SIZE + 64 * MIB)
    if remote.url.startswith("http"):
        assert remote.size(CHUNK) == SIZE + 64 * MIB


@pytest.mark.parametrize("remote", ["http", "s3"], indirect=True)
def test_a_server_that_trickles_is_given_up(http_server, remote):
    """However long it goes on: the time-out is that of the whole answer, not of its pieces."""
    http_server.behave(
        Behaviour(excess_nbytes=ENDLESS, pause_seconds=0.2, no_length=True, ignore_range=True)
    )
    store = open_store(remote.url, remote._options, timeout_seconds=1.0)
    begin = time.monotonic()
    with pytest.raises(StoreError, match="Timeout") as caught:
        RetryingStore(store, RetryPolicy(retries=1, first_delay_seconds=0.01)).read_suffix(CHUNK, 9)
    assert caught.value.transient
    assert time.monotonic() - begin < 10


def test_an_endless_directory_page_is_refused(http_server):
    """In bounded memory."""
    (Path(http_server.directory) / "group").mkdir()
    (Path(http_server.directory) / "group" / "index.html").write_bytes(b"x" * (17 * MIB))
    with pytest.raises(StoreError, match=r"'group'.*more than the 16777216 bytes"):
        open_store(http_server.url).list_names("group")


@pytest.mark.parametrize(
    "piece", ["<a ", "<a href", "<a href = ", "<a href='", "<a href='x", " href=", "&", "<a\t"]
)
def test_a_page_of_any_kind_is_understood_in_linear_time(piece):
    """One that was made to be slow too: this takes a second at most, or an age."""
    begin = time.process_time()
    parse_links(piece * (MIB // len(piece)), "http://host/x/")
    assert time.process_time() - begin < 10


@pytest.mark.parametrize("name", ["zarr.json", ".zarray", ".zattrs"])
@pytest.mark.parametrize("kind", ["http", "local"])
def test_a_document_that_does_not_end_is_not_opened(http_server, tmp_path, kind, name):
    """Nor one of a terabyte, on any store, and that is said at once."""
    directory = Path(http_server.directory) if kind == "http" else tmp_path
    (directory / "x.zarr").mkdir()
    (directory / "x.zarr" / ".zgroup").write_text('{"zarr_format": 2}')
    (directory / "x.zarr" / name).write_text("{}")
    if kind == "http":
        http_server.behave(Behaviour(excess_nbytes=ENDLESS), path=name)
    else:
        os.truncate(directory / "x.zarr" / name, 1 << 40)
    url = f"{http_server.url}/x.zarr" if kind == "http" else str(directory / "x.zarr")
    with pytest.raises(StoreError, match=rf"'{name}'.*more than the 268435456 bytes"):
        lazyarr.open(url)

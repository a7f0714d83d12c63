"""HTTP servers that answer as they should, and those that do not."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lazyarr.errors import StoreError
from lazyarr.store import RetryingStore, RetryPolicy, event_loop, open_store, store_reference
from lazyarr.store.base import NoObjectError
from lazyarr.store.failure import UnusableAnswerError
from lazyarr.store.http_headers import parse_content_range
from lazyarr.testing import Behaviour
from tests.store.places import OBJECTS, fill_directory

CHUNK = "images/c/0/0"
DATA = OBJECTS[CHUNK]
SIZE = len(DATA)

READS = {
    "read": lambda store: store.read(CHUNK),
    "read_range": lambda store: store.read_range(CHUNK, 1, 9),
    "read_suffix": lambda store: store.read_suffix(CHUNK, 9),
    "size": lambda store: store.size(CHUNK),
}


@pytest.fixture
def server(http_server):
    fill_directory(Path(http_server.directory))
    return http_server


@pytest.fixture(params=["", "simplecache::", "filecache::"])
def store(server, request, tmp_path):
    """Give the server's store, directly and through fsspec's caches."""
    name = request.param.rstrip(":")
    options = {name: {"cache_storage": str(tmp_path / "cache")}} if name else {}
    return open_store(request.param + server.url, options, timeout_seconds=10)


@pytest.fixture
def direct(server):
    return open_store(server.url, timeout_seconds=10)


@pytest.mark.parametrize("method", READS)
@pytest.mark.parametrize(
    ("behaviour", "transient"),
    [
        (Behaviour(status=401), False),
        (Behaviour(status=403), False),
        (Behaviour(status=410), False),
        (Behaviour(status=429), True),
        (Behaviour(status=500), True),
        (Behaviour(status=501), False),
        (Behaviour(status=503), True),
        (Behaviour(status=204), False),
        (Behaviour(drop=True), True),
    ],
    ids=lambda x: f"{x.status or 'drop'}" if isinstance(x, Behaviour) else str(x),
)
def test_a_failure_is_never_a_missing_object(server, store, method, behaviour, transient):
    """Whatever the server does instead of answering raises, for every way to read."""
    server.behave(behaviour)
    with pytest.raises(StoreError, match=CHUNK) as caught:
        READS[method](store)
    assert caught.value.transient is transient
    assert caught.value.key == CHUNK
    assert caught.value.url == store.url


@pytest.mark.parametrize("method", READS)
def test_only_404_is_a_missing_object(server, store, method):
    """404 gives None."""
    server.behave(Behaviour(status=404))
    assert READS[method](store) is None


@pytest.mark.parametrize("method", ["read", "read_range", "read_suffix"])
def test_a_broken_transfer_heals(server, store, method):
    """After a connection that broke in the middle of the body, the next attempt is whole."""
    server.behave(Behaviour(truncate=True), times=1)
    policy = RetryPolicy(first_delay_seconds=0.001)
    found = READS[method](RetryingStore(store, policy))
    assert found in (DATA, DATA[1:9], (DATA[-9:], SIZE))


def test_a_broken_transfer_leaves_nothing_in_the_cache(server, tmp_path):
    """Half an object is not kept, so another store on the same cache gets all of it."""
    options = {"simplecache": {"cache_storage": str(tmp_path / "cache")}}
    url = f"simplecache::{server.url}"
    server.behave(Behaviour(truncate=True))
    with pytest.raises(StoreError) as caught:
        open_store(url, options).read(CHUNK)
    assert caught.value.transient
    server.behave(Behaviour())
    assert open_store(url, options).read(CHUNK) == DATA


def test_half_a_copy_in_the_cache_heals(server, tmp_path):
    """A copy that something else left half in the cache is noticed and fetched again."""
    options = {"simplecache": {"cache_storage": str(tmp_path / "cache")}}
    store = open_store(f"simplecache::{server.url}", options)
    assert store.read(CHUNK) == DATA
    (copy,) = (tmp_path / "cache").iterdir()
    copy.write_bytes(DATA[:100])
    with pytest.raises(StoreError, match="shorter") as caught:
        store.read_range(CHUNK, 90, 110)
    assert caught.value.transient
    assert store.read_range(CHUNK, 90, 110) == DATA[90:110]


def test_a_cached_object_is_fetched_once(server, tmp_path):
    """Threads that want one object at the same time cause one request."""
    options = {"simplecache": {"cache_storage": str(tmp_path / "cache")}}
    store = open_store(f"simplecache::{server.url}", options)
    server.behave(Behaviour(delay_seconds=0.05))
    barrier = threading.Barrier(6)

    def read(number):
        barrier.wait()
        return store.read_range(CHUNK, number, SIZE) == DATA[number:]

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(read, range(6)))
    assert len(server.requests()) == 1


def test_an_emptied_cache_is_filled_again(server, tmp_path):
    """A cache directory that somebody removes does not make objects missing."""
    options = {"simplecache": {"cache_storage": str(tmp_path / "cache")}}
    store = open_store(f"simplecache::{server.url}", options)
    store.read(CHUNK)
    for copy in (tmp_path / "cache").iterdir():
        copy.unlink()
    (tmp_path / "cache").rmdir()
    assert store.read(CHUNK) == DATA


@pytest.mark.parametrize(("start", "stop"), [(0, 10), (5000, 6000), (SIZE - 1, SIZE), (0, SIZE)])
def test_a_server_that_ignores_ranges_gives_the_right_bytes(server, direct, start, stop):
    """The part asked for is taken out of the whole object."""
    server.behave(Behaviour(ignore_range=True))
    assert direct.read_range(CHUNK, start, stop) == DATA[start:stop]


def test_what_a_server_sends_unasked_is_counted(server):
    """Of one that ignores ranges, what comes before the part."""
    store = open_store(server.url)
    for ignores in (False, True):
        server.behave(Behaviour(ignore_range=ignores))
        fetch = store.fetch(CHUNK, 5000, 6000)
        answer = asyncio.run_coroutine_threadsafe(fetch, event_loop()).result(60)
        assert answer.data == DATA[5000:6000]
        assert (answer.fetched_nbytes >= 6000) == ignores
        assert ignores or answer.fetched_nbytes == 1000


def test_a_server_that_ignores_ranges_does_not_make_a_range_longer(server, direct):
    """A range past the end raises, also when the whole object has as many bytes as the range."""
    server.behave(Behaviour(ignore_range=True))
    with pytest.raises(StoreError, match=f"has {SIZE} bytes") as caught:
        direct.read_range(CHUNK, 100, 100 + SIZE)
    assert not caught.value.transient


@pytest.mark.parametrize("behaviour", [Behaviour(ignore_range=True), Behaviour(no_suffix=True)])
def test_a_server_without_suffixes_gives_the_end(server, direct, behaviour):
    """The end and the size are right, however they have to be asked for."""
    server.behave(behaviour)
    assert direct.read_suffix(CHUNK, 20) == (DATA[-20:], SIZE)
    assert direct.read_suffix(CHUNK, 2 * SIZE) == (DATA, SIZE)
    assert direct.read_suffix("images/empty", 20) == (b"", 0)
    assert direct.size(CHUNK) == SIZE


@pytest.mark.parametrize("method", ["read_range", "read_suffix"])
def test_another_range_than_asked_for_is_refused(server, direct, method):
    """Right length or not, bytes from another place are no answer."""
    server.behave(Behaviour(shift_nbytes=1))
    with pytest.raises(StoreError, match="the server gave bytes"):
        READS[method](direct)


def test_a_read_is_one_request(server, direct):
    """Whole objects, ranges and suffixes with their size cost one round trip each."""
    direct.read(CHUNK)
    direct.read_range(CHUNK, 2, 5)
    direct.read_suffix(CHUNK, 7)
    asked = [(request.method, request.range) for request in server.requests()]
    assert asked == [("GET", None), ("GET", "bytes=2-4"), ("GET", "bytes=-7")]


def test_the_rest_of_an_ignored_range_is_not_read(server, direct):
    """A server that ignores ranges is cut off, and the next request works."""
    (Path(server.directory) / "large").write_bytes(bytes(64 << 20))
    server.behave(Behaviour(ignore_range=True))
    for _ in range(3):
        assert direct.read_range("large", 0, 10) == bytes(10)


def test_a_server_that_stalls_is_given_up(server):
    """An attempt ends at its time-out, as a transient failure."""
    store = open_store(server.url, timeout_seconds=0.2)
    server.behave(Behaviour(delay_seconds=30))
    started = time.monotonic()
    with pytest.raises(StoreError, match="Timeout") as caught:
        store.read_range(CHUNK, 0, 10)
    assert caught.value.transient
    assert time.monotonic() - started < 10


def test_a_server_that_never_was_there_is_no_missing_object(unused_url):
    """A refused connection is said at once."""
    with pytest.raises(StoreError, match=r"refused|Cannot connect") as caught:
        open_store(unused_url).read("zarr.json")
    assert not isinstance(caught.value, NoObjectError)
    assert not caught.value.transient


@pytest.fixture
def unused_url():
    """Give a URL where nobody listens, and nobody else can while the test runs."""
    import socket

    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


def test_many_ranges_at_once(server, direct):
    """Sixteen threads read ranges over one session."""

    def read(number):
        return direct.read_range(CHUNK, number, number + 99) == DATA[number : number + 99]

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(read, range(200)))


def test_a_server_that_does_not_list_says_so(server, direct):
    """A group does not look empty because its directory cannot be listed."""
    server.behave(Behaviour(no_listing=True))
    with pytest.raises(StoreError, match="consolidated metadata") as caught:
        direct.list_names("images")
    assert not caught.value.transient


def test_a_failure_while_listing_is_transient(server, direct):
    """503 on a directory is no empty directory."""
    server.behave(Behaviour(status=503))
    with pytest.raises(StoreError, match="503") as caught:
        direct.list_names("images")
    assert caught.value.transient


def test_http_is_not_written(server):
    """A store for writing is refused when it is opened."""
    with pytest.raises(StoreError, match="reading only"):
        open_store(server.url, writable=True)


def test_a_query_is_refused(server):
    """Keys cannot follow a query; the message says where it goes."""
    with pytest.raises(StoreError, match="params") as caught:
        open_store(server.url + "/x.zarr?token=hush")
    assert "hush" not in str(caught.value)


def test_the_password_is_not_shown(server):
    """User and password are used and appear in no URL and no message."""
    url = server.url.replace("http://", "http://user:hush@")
    store = open_store(url)
    assert store.read(CHUNK) == DATA
    server.behave(Behaviour(status=503))
    with pytest.raises(StoreError) as caught:
        store.read("absent")
    assert "hush" not in str(caught.value) + store.url + repr(store) + caught.value.url


def test_options_that_can_not_travel_are_named(server):
    """An object among the options is refused with its name when another process needs it."""
    import aiohttp

    options = {"client_kwargs": {"timeout": aiohttp.ClientTimeout(total=5)}, "headers": {}}
    store = open_store(server.url, options)
    with pytest.raises(StoreError, match="'client_kwargs' is a dict"):
        store_reference(store)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes 0-0/1", (0, 1, 1)),
        ("bytes 10-19/*", (10, 20, None)),
        (" bytes */7 ", (0, 0, 7)),
        (None, None),
        ("", None),
        ("bytes 0-9", None),
        ("items 0-9/10", None),
        ("bytes -1-9/10", None),
        ("bytes 0-9/10, bytes 20-29/10", None),
        ("bytes 0-" + "9" * 40 + "/10", None),
    ],
)
def test_content_range_is_parsed_or_refused(header, expected):
    """What is not understood is not guessed."""
    if expected is None:
        with pytest.raises(UnusableAnswerError, match="Content-Range"):
            parse_content_range(header)
    else:
        assert parse_content_range(header) == expected


def test_what_has_come_is_told(server):
    """The beginning of the range, longer each time, and right: before the rest is there."""
    data = os.urandom(8 << 20)
    (Path(server.directory) / "large").write_bytes(data)
    store = open_store(server.url)
    seen = []
    fetch = store.fetch("large", 10, len(data), arrived=seen.append)
    answer = asyncio.run_coroutine_threadsafe(fetch, event_loop()).result(60)
    assert answer.data == data[10:]
    assert seen
    lengths = [len(view) for view in seen]
    assert lengths == sorted(lengths)
    assert all(view == data[10 : 10 + len(view)] for view in seen)


def test_a_read_that_is_given_up_does_not_spoil_the_next(server):
    """Its connection is closed: what comes on it later belongs to nobody."""
    store = open_store(server.url, timeout_seconds=0.3)
    server.behave(Behaviour(delay_seconds=1.0))
    fetch = store.fetch(CHUNK, 0, 9)
    with pytest.raises(StoreError, match="Timeout"):
        asyncio.run_coroutine_threadsafe(fetch, event_loop()).result(60)
    server.behave(Behaviour())
    assert store.read_range(CHUNK, 5, 99) == DATA[5:99]

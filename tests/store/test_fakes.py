"""The public fakes do what they say."""

from __future__ import annotations

import os
import urllib.error
import urllib.request

import pytest

from lazyarr.errors import StoreError
from lazyarr.store import open_store
from lazyarr.testing import (
    Behaviour,
    FaultyStore,
    LatencyStore,
    Misbehaviour,
    random_plan,
    serve_directory,
)


@pytest.fixture
def inner(request):
    store = open_store(f"memory://{request.node.name}", writable=True)
    store.write("a", b"0123456789")
    return store


def test_latency_is_added_to_every_call(inner):
    """Each call waits once, then gives the inner store's answer."""
    waits = []
    store = LatencyStore(inner, seconds=0.5, sleep=waits.append)
    store.write("b", b"1")
    answers = [
        store.read("a"),
        store.read_range("a", 1, 3),
        store.read_suffix("a", 2),
        store.size("a"),
        store.list_names(""),
        store.exists_any("b"),
    ]
    store.delete("b")
    store.delete_prefix("a")
    assert answers == [b"0123456789", b"12", (b"89", 10), 10, ("a", "b"), True]
    assert waits == [0.5] * 9


@pytest.mark.parametrize(
    ("how", "transient"),
    [
        (Misbehaviour.DROPPED, True),
        (Misbehaviour.FORBIDDEN, False),
        (Misbehaviour.THROTTLED, True),
        (Misbehaviour.BROKEN, True),
        (Misbehaviour.UNAVAILABLE, True),
    ],
)
def test_errors_on_command(inner, how, transient):
    """A commanded error comes once, with its transience, and then the right answer."""
    store = FaultyStore(inner)
    store.misbehave(how)
    with pytest.raises(StoreError) as caught:
        store.read_range("a", 0, 2)
    assert caught.value.transient is transient
    assert store.read_range("a", 0, 2) == b"01"


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (Misbehaviour.SHORT, b"01"),
        (Misbehaviour.EMPTY, b""),
        (Misbehaviour.WRONG, b"\xcf12"),
        (Misbehaviour.MISSING, None),
    ],
)
def test_wrong_answers_on_command(inner, how, expected):
    """Short, empty, wrong and missing answers, with and without a buffer of the caller's."""
    store = FaultyStore(inner)
    store.misbehave(how, times=2)
    assert store.read_range("a", 0, 3) == expected
    assert store.read_range("a", 0, 3, into=memoryview(bytearray(5))) == expected
    assert store.read_range("a", 0, 3) == b"012"


def test_commands_are_for_keys_and_times(inner):
    """A command for one key leaves the others; one without an end holds until `behave`."""
    store = FaultyStore(inner)
    store.write("b", b"b")
    store.misbehave(Misbehaviour.MISSING, times=None, key="a")
    assert [store.read("a"), store.read("b"), store.read("a")] == [None, b"b", None]
    store.behave()
    assert store.read("a") == b"0123456789"
    assert [call.key for call in store.calls] == ["b", "a", "b", "a", "a"]


def test_slow_calls_wait(inner):
    """A slow call gives the right answer after its wait."""
    waits = []
    store = FaultyStore(inner, slow_seconds=2, sleep=waits.append)
    store.misbehave(Misbehaviour.SLOW)
    assert store.read("a") == b"0123456789"
    assert waits == [2]


def test_a_random_plan_repeats():
    """The same seed gives the same failures, another seed others."""

    def draw(seed):
        plan = random_plan(seed, 0.5, list(Misbehaviour))
        return [plan("read", "a") for _ in range(50)]

    assert draw(1) == draw(1) != draw(2)
    assert None in draw(1)


def test_the_server_ends_with_its_context(tmp_path):
    """No process is left behind, and nobody answers any more."""
    (tmp_path / "a").write_bytes(b"data")
    with serve_directory(tmp_path) as server:
        assert urllib.request.urlopen(server.url + "/a").read() == b"data"
        pid = server.pid
    assert not os.path.exists(f"/proc/{pid}")
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(server.url + "/a")


def test_misbehaviour_can_be_limited(http_server):
    """A behaviour holds for some requests, for some paths, and is taken back."""
    for name in "ab":
        with open(f"{http_server.directory}/{name}", "wb") as file:
            file.write(b"data")
    store = open_store(http_server.url)
    http_server.behave(Behaviour(wrong_bytes=True), times=1, path="/b")
    right, wrong = b"data", bytes(byte ^ 0xFF for byte in b"data")
    assert [store.read("a"), store.read("b"), store.read("b")] == [right, wrong, right]
    assert [r.path for r in http_server.requests()] == ["/a", "/b", "/b"]
    assert http_server.requests() == []

"""Servers that are not there, and servers that say nothing: an error, and not much later."""

from __future__ import annotations

import contextlib
import socket

import numpy as np
import pytest

import lazyarr
from lazyarr.errors import StoreError
from lazyarr.store import (
    RetryingStore,
    RetryPolicy,
    open_reference,
    open_store,
    store_reference,
)
from lazyarr.testing import Behaviour, serve_directory

S3 = {"key": "k", "secret": "s", "client_kwargs": {"region_name": "us-east-1"}}

CALLS = {
    "read": lambda store: store.read("a"),
    "read_range": lambda store: store.read_range("a", 0, 1),
    "read_suffix": lambda store: store.read_suffix("a", 1),
    "size": lambda store: store.size("a"),
    "list_names": lambda store: store.list_names(""),
}


@contextlib.contextmanager
def taken_port(*, listens):
    """Lend a port that nobody else can have; who connects to it gets no answer, or is refused."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        if listens:
            taken.listen()
        yield taken.getsockname()[1]


def place(kind, port, tmp_path):
    """Return the URL and options of a store behind a port."""
    cache = {"cache_storage": str(tmp_path / "cache")}
    s3 = {**S3, "endpoint_url": f"http://127.0.0.1:{port}"}
    return {
        "http": (f"http://127.0.0.1:{port}/x.zarr", {}),
        "http by name": (f"http://localhost:{port}/x.zarr", {}),
        "s3": ("s3://bucket/x.zarr", s3),
        "simplecache-s3": ("simplecache::s3://bucket/x.zarr", {"s3": s3, "simplecache": cache}),
    }[kind]


KINDS = ["http", "http by name", "s3", "simplecache-s3"]


def never(seconds):
    raise AssertionError("it is tried again")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", KINDS)
def test_nobody_listens(tmp_path, kind, call):
    """An error that says what to look at, at the first attempt."""
    with taken_port(listens=False) as port:
        store = RetryingStore(open_store(*place(kind, port, tmp_path)), RetryPolicy(), sleep=never)
        with pytest.raises(
            StoreError, match="check the URL, or endpoint_url, and whether"
        ) as caught:
            CALLS[call](store)
    assert not caught.value.transient
    assert str(port) in str(caught.value)


@pytest.mark.parametrize("kind", ["http", "s3"])
def test_nobody_listens_to_who_opens_or_saves(tmp_path, kind):
    """Nor do these try again."""
    with taken_port(listens=False) as port:
        url, options = place(kind, port, tmp_path)
        with pytest.raises(StoreError, match="whether the server runs"):
            lazyarr.open(url, storage_options=options)
        if kind == "s3":
            with pytest.raises(StoreError, match="whether the server runs"):
                lazyarr.save(url, np.arange(3), storage_options=options)


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_has_answered_may_come_again(tmp_path, kind):
    """Nobody gives up at once, in this process and where the store was sent to."""
    with serve_directory(tmp_path) as server:
        port = int(server.url.rpartition(":")[2])
        url, options = place(kind, port, tmp_path)
        # The directory is empty, which is an answer.
        store = open_store(url, options)
        assert store.read("a") is None
    with pytest.raises(StoreError) as caught:
        store.read("a")
    assert caught.value.transient
    with pytest.raises(StoreError) as caught:
        open_reference(*store_reference(store)).read("a")
    assert caught.value.transient
    with pytest.raises(StoreError) as caught:
        open_store(url, options).read("a")
    assert not caught.value.transient


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", ["http", "s3", "simplecache-s3"])
def test_a_server_that_says_nothing(tmp_path, kind, call):
    """Is given up after the time-out, which the error names."""
    with taken_port(listens=True) as port:
        store = open_store(*place(kind, port, tmp_path), timeout_seconds=0.3)
        with pytest.raises(StoreError, match=r"no answer in 0\.3 s; try again, or raise") as caught:
            CALLS[call](store)
    assert caught.value.transient


@pytest.mark.parametrize("n_attempts", [None, 2])
def test_a_server_that_fails_is_tried_again_in_one_place(http_server, tmp_path, n_attempts):
    """By lazyarr, and not by botocore as well, unless that was told to."""
    http_server.behave(Behaviour(status=500))
    url, options = place("s3", int(http_server.url.rpartition(":")[2]), tmp_path)
    if n_attempts is not None:
        options["config_kwargs"] = {"retries": {"total_max_attempts": n_attempts}}
    store = RetryingStore(
        open_store(url, options), RetryPolicy(retries=3), sleep=lambda seconds: None
    )
    with pytest.raises(StoreError) as caught:
        store.read("a")
    assert caught.value.transient
    assert len(http_server.requests()) == 4 * (n_attempts or 1)

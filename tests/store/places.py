"""Every kind of store, filled with the same objects."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from lazyarr.opening.references import open_reference_store
from lazyarr.store import RetryingStore, RetryPolicy, open_reference, open_store, store_reference
from lazyarr.testing import FaultyStore, LatencyStore

if TYPE_CHECKING:
    from lazyarr.store import Store, WritableStore

OBJECTS = {
    "zarr.json": b"{}",
    "images/zarr.json": b'{"node_type": "array"}',
    "images/c/0/0": bytes(range(256)) * 40,
    "images/c/0/1": b"x",
    "images/empty": b"",
    "a name%20with +&=/odd~signs!": b"odd",
}

KINDS = (
    *("local", "memory", "http", "s3", "simplecache-http", "simplecache-memory", "filecache-http"),
    *("packed", "reopened-local", "reopened-s3", "retrying", "latency", "faulty"),
    "references",
)
WRITABLE_KINDS = ("local", "memory", "s3", "retrying", "latency", "faulty")

_numbers = itertools.count()


class Place(NamedTuple):
    """A store's URL and options."""

    url: str
    options: dict


def fill_directory(directory: Path) -> None:
    for key, data in OBJECTS.items():
        path = directory / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def make_place(kind: str, request: pytest.FixtureRequest) -> Place:
    """Return a new place of a kind: empty, or, where lazyarr does not write, filled."""
    tmp_path = request.getfixturevalue("tmp_path")
    if kind == "memory":
        return Place(f"memory://place-{next(_numbers)}", {})
    if kind == "s3":
        options = request.getfixturevalue("s3_server").storage_options
        return Place(request.getfixturevalue("s3_bucket") + "/store", options)
    if kind == "http":
        server = request.getfixturevalue("http_server")
        fill_directory(Path(server.directory))
        return Place(server.url, {})
    return Place(str(tmp_path / "store"), {})


def fill(place: Place) -> WritableStore:
    store = open_store(place.url, place.options, writable=True)
    for key, data in OBJECTS.items():
        store.write(key, data)
    return store


def make_references(request: pytest.FixtureRequest) -> Store:
    """Return references that lead to `OBJECTS`."""
    directory = request.getfixturevalue("tmp_path") / "store"
    directory.mkdir()
    (directory / "all.bin").write_bytes(b"before" + b"".join(OBJECTS.values()) + b"behind")
    (directory / "one.bin").write_bytes(b"x")
    references: dict[str, str | list[str | int]] = {}
    start = len("before")
    for key, data in OBJECTS.items():
        references[key] = ["all.bin", start, len(data)]
        start += len(data)
    references["zarr.json"] = "{}"
    references["images/c/0/1"] = ["one.bin"]
    path = directory / "refs.json"
    path.write_text(json.dumps({"version": 1, "refs": references}))
    return open_reference_store(path, None, RetryPolicy(), timeout_seconds=60)


def make_store(kind: str, request: pytest.FixtureRequest) -> Store:
    """Return a store of a kind that holds `OBJECTS`."""
    if kind == "http":
        return open_store(*make_place("http", request))
    if kind in ("simplecache-http", "filecache-http"):
        protocol = kind.partition("-")[0]
        cache = str(request.getfixturevalue("tmp_path") / "cache")
        url = f"{protocol}::{make_place('http', request).url}"
        return open_store(url, {protocol: {"cache_storage": cache}})
    if kind == "simplecache-memory":
        place = make_place("memory", request)
        fill(place)
        cache = str(request.getfixturevalue("tmp_path") / "cache")
        return open_store(f"simplecache::{place.url}", {"simplecache": {"cache_storage": cache}})
    if kind == "packed":
        return open_reference(*store_reference(fill(make_place("memory", request))))
    if kind == "references":
        return make_references(request)
    if kind.startswith("reopened-"):
        return open_reference(*store_reference(fill(make_place(kind[9:], request))))
    store = fill(make_place(kind, request))
    if kind == "retrying":
        return RetryingStore(store, RetryPolicy())
    if kind == "latency":
        return LatencyStore(store, seconds=0.001)
    return FaultyStore(store) if kind == "faulty" else store

"""From URLs to stores."""

from __future__ import annotations

import os
import pickle
import warnings

import fsspec
import pytest

from lazyarr.errors import StoreError
from lazyarr.store import open_reference, open_store, open_writable, store_reference
from lazyarr.store.urls import lives_in_this_process, local_path, without_credentials
from lazyarr.testing import LatencyStore


def test_an_unknown_protocol_is_named():
    """A URL that fsspec does not know is refused when it is opened."""
    with pytest.raises(StoreError, match="nonsense") as caught:
        open_store("nonsense://bucket/x.zarr")
    assert not caught.value.transient


def test_a_package_that_is_not_installed_is_named():
    """A protocol whose package is missing says what to install."""
    fsspec.register_implementation("absent", "a_package_that_is_absent.FileSystem", clobber=True)
    with pytest.raises(StoreError, match=r"a_package_that_is_absent.*pip install"):
        open_store("absent://bucket/x.zarr")


def test_wrong_options_are_refused_when_opened():
    """An option that the file system does not take is an error, not ignored."""
    with pytest.raises(StoreError, match="cannot open zip"):
        open_store("zip://::memory://not-there.zip", {"zip": {"nonsense": 1}})


def test_a_store_that_can_not_travel_is_named():
    """A fake lives in this process."""
    with pytest.raises(StoreError, match="LatencyStore"):
        store_reference(LatencyStore(open_store("memory://x"), seconds=0))


def test_a_reference_of_another_version_is_refused():
    """A description of an unknown kind says that versions differ."""
    with pytest.raises(StoreError, match="different versions"):
        open_reference({"kind": "carrier-pigeon"})


def test_errors_travel():
    """An error keeps its fields through pickle."""
    with pytest.raises(StoreError) as caught:
        open_store("memory://x").read("../a")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.url, copy.key, copy.transient) == ("memory://x", "../a", False)
    assert str(copy) == str(caught.value)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("/data/x.zarr", "/data/x.zarr"),
        ("file:///data/x", "/data/x"),
        ("local:///data/x", "/data/x"),
        ("x.zarr", "x.zarr"),
        ("s3://bucket/x", None),
        ("simplecache::/data/x", None),
        ("memory://x", None),
    ],
)
def test_local_paths_are_told_from_urls(url, path):
    """Only what needs no fsspec is a local path."""
    assert local_path(url) == path


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://bucket/x", "s3://bucket/x"),
        ("https://me:hush@host/x", "https://host/x"),
        ("https://me:hu@sh@host:80/x@y", "https://host:80/x@y"),
        ("a::ftp://u:p@h/x?y=hush", "a::ftp://h/x"),
        ("error for url 'http://h/x?sig=hush' here", "error for url 'http://h/x' here"),
    ],
)
def test_secrets_are_cut_out(text, shown):
    """User, password and query go; the rest stays."""
    assert without_credentials(text) == shown


def test_memory_is_found_at_any_place_of_a_chain():
    """What lies in this process's memory cannot be opened by another."""
    assert lives_in_this_process("memory://x")
    assert lives_in_this_process("simplecache::memory://x")
    assert not lives_in_this_process("s3://memory/x")


def test_no_warning_is_left_by_an_unused_store(recwarn):
    """Opening and dropping stores leaves nothing unclosed."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for url in ("memory://x", "http://127.0.0.1:1", "/nowhere"):
            open_store(url).close()
    assert list(recwarn) == []


@pytest.mark.parametrize(
    ("description", "found"),
    [
        ({"kind": "packed", "url": "memory://x"}, "engine='copy'"),
        ({"kind": "icechunk", "url": "s3://a/b"}, "icechunk and zarr"),
        ({"kind": "references", "url": "refs.json"}, "lazyarr convert"),
        ({"kind": "fsspec", "url": "zip://::s3://a/b.zip"}, "archive or a cache"),
        ({"kind": "fsspec", "url": "http://a/b", "storage_options": {}}, "HTTP is for reading"),
    ],
    ids=lambda found: found["kind"] if isinstance(found, dict) else None,
)
def test_stores_that_take_nothing_are_refused_at_once(description, found):
    """What to do instead is said; descriptors that came along are closed."""
    fd = os.open(os.devnull, os.O_RDONLY)
    with pytest.raises(StoreError, match=found) as caught:
        open_writable(description, [fd])
    assert not caught.value.transient
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(fd)


def test_store_that_was_opened_for_reading_is_opened_for_writing(tmp_path):
    """By its reference; what is put is forced to the disk."""
    store = open_store(tmp_path)
    assert store.list_names("") == ()  # its directory is held from then on
    writable = open_writable(*store_reference(store))
    assert writable.durable
    version = writable.write("a/b", b"1", expected=None)
    writable.sync()
    assert store.read("a/b") == b"1"
    assert writable.version("a/b") == version

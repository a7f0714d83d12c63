"""S3, through s3fs."""

from __future__ import annotations

import pytest

from lazyarr.errors import StoreError
from lazyarr.store import open_store
from lazyarr.testing import Behaviour


@pytest.fixture
def options(s3_server):
    return s3_server.storage_options


def test_a_bucket_that_is_not_there_has_no_missing_objects(options):
    """No object of a bucket that does not exist counts as missing."""
    store = open_store("s3://no-such-bucket/store", options)
    with pytest.raises(StoreError, match="check the URL") as caught:
        store.read("zarr.json")
    assert not caught.value.transient


def test_nothing_is_written_to_a_bucket_that_is_not_there(options):
    """A write that had nowhere to go raises."""
    store = open_store("s3://no-such-bucket/store", options, writable=True)
    with pytest.raises(StoreError, match="cannot write"):
        store.write("zarr.json", b"{}")


def test_the_bucket_survives_its_objects(s3_bucket, options):
    """Deleting all of a store that is a whole bucket leaves the bucket."""
    store = open_store(s3_bucket, options, writable=True)
    store.write("a/b", b"1")
    store.delete_prefix("")
    assert store.list_names("") == ()
    store.write("a/b", b"2")
    assert store.read("a/b") == b"2"


def test_what_another_writes_is_seen(s3_bucket, options):
    """Listings and sizes are asked for anew, not taken from what fsspec has kept."""
    reader = open_store(s3_bucket + "/store", options)
    writer = open_store(s3_bucket + "/store", {**options, "version_aware": False}, writable=True)
    writer.write("a", b"1")
    assert reader.list_names("") == ("a",)
    writer.write("a", b"22")
    writer.write("b", b"1")
    assert reader.list_names("") == ("a", "b")
    assert reader.size("a") == 2


@pytest.mark.parametrize(
    ("behaviour", "transient"),
    [
        (Behaviour(status=403), False),
        (Behaviour(status=500), True),
        (Behaviour(status=503), True),
        (Behaviour(drop=True), True),
    ],
    ids=["403", "500", "503", "drop"],
)
def test_a_failure_is_never_a_missing_object(http_server, options, behaviour, transient):
    """An endpoint that refuses, breaks or drops raises, for every way to read."""
    http_server.behave(behaviour)
    options = {**options, "endpoint_url": http_server.url}
    store = open_store("s3://bucket/store", options, timeout_seconds=20)
    for read in (
        lambda: store.read("a"),
        lambda: store.read_range("a", 0, 1),
        lambda: store.read_suffix("a", 1),
        lambda: store.size("a"),
        lambda: store.list_names(""),
    ):
        with pytest.raises(StoreError) as caught:
            read()
        assert caught.value.transient is transient


def test_the_secret_is_not_shown(s3_bucket, options):
    """Keys appear in no URL, repr or message."""
    store = open_store(s3_bucket, {**options, "key": "hush", "secret": "hush"})
    with pytest.raises(StoreError) as caught:
        store.read_range("../a", 0, 1)
    assert "hush" not in store.url + repr(store) + str(caught.value)

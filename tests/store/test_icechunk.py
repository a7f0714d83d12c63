"""The store that a version of an icechunk repository is: damage, threads, virtual chunks."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import icechunk
import numpy as np
import pytest
import zarr

import lazyarr
from lazyarr.store.icechunk import IcechunkStore, _decode
from lazyarr.store.icechunk_sessions import storage_of
from lazyarr.testing import Behaviour
from tests.engines import engine  # noqa: F401 - a fixture
from tests.repositories import SPEC_VERSIONS, commit, make_repository
from tests.servers import http_server  # noqa: F401 - a fixture

DATA = np.random.default_rng(0).integers(0, 2**16, (64, 512), dtype="u2")


def write(store):
    array = zarr.create_array(
        store, name="x", shape=(96, 512), dtype="u2", chunks=(32, 512), fill_value=3
    )
    array[:64] = DATA


@pytest.fixture(scope="module", params=SPEC_VERSIONS)
def whole(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("icechunk") / "repo"
    commit(make_repository(path, request.param), write)
    return path


@pytest.fixture
def place(whole, tmp_path):
    """A copy, to be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "repo"))


def store_of(place, **options):
    return IcechunkStore(str(place), {"branch": "main"}, **options)


def files(place, kind):
    return sorted((place / kind).iterdir())


def test_what_it_has(whole):
    """Objects whole and in part, their sizes and names; None for what does not exist."""
    store = store_of(whole)
    chunk, document = store.read("x/c/0/0"), store.read("x/zarr.json")
    for key, data in (("x/c/0/0", chunk), ("x/zarr.json", document)):
        n = len(data)
        assert store.size(key) == n
        assert store.read_range(key, 3, 50) == data[3:50]
        assert store.read_range(key, 5, 5) == b""
        into = memoryview(bytearray(20))
        assert store.read_range(key, 0, 10, into=into) == data[:10] == into[:10]
        assert store.read_suffix(key, 7) == (data[-7:], n)
        assert store.read_suffix(key, n + 7) == (data, n)
        assert store.read_suffix(key, 0) == (b"", n)
        with pytest.raises(lazyarr.StoreError, match="cannot read"):
            store.read_range(key, 10, n + 1)
        with pytest.raises(lazyarr.StoreError, match="more than the 10 bytes"):
            store.read(key, limit_nbytes=10)
    for key in ("x/c/2/0", "x/c/7/7", "none/zarr.json", "x/.zarray", ".zgroup", "x/.zattrs"):
        assert store.read(key) is store.size(key) is store.read_range(key, 0, 5) is None
        assert store.read_suffix(key, 5) is None
    assert store.list_names("") == ("x", "zarr.json")
    assert store.list_directories("") == ("x",)
    assert store.list_names("none") == ()
    for key in ("../x", "/x", "x//c", ""):
        with pytest.raises(lazyarr.StoreError, match="leaves the store"):
            store.read(key)


def test_threads_read_at_once(whole):
    """All get what is there, from a store that nobody has used before."""
    store = store_of(whole)
    found = []

    def read(i):
        found.append((i % 2, store.read(f"x/c/{i % 2}/0")))

    threads = [threading.Thread(target=read, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 16
    assert len({(i, bytes(data)) for i, data in found}) == 2


def lose(path):
    path.unlink()


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [lose, halve, empty])
def test_a_lost_chunk_is_no_fill_value(place, damage, engine):  # noqa: F811
    """A chunk that was never written is; one whose object is gone or cut is an error."""
    for path in files(place, "chunks"):
        damage(path)
    x = lazyarr.open(place, path="x")
    assert (x[64:] == 3).all()
    with lazyarr.configure(retries=0), pytest.raises(lazyarr.ChunkError, match="x/c/0/0"):
        x[0]


@pytest.mark.parametrize("damage", [lose, halve, empty])
@pytest.mark.parametrize("kind", ["manifests", "snapshots"])
def test_lost_metadata_is_an_error(place, kind, damage, engine):  # noqa: F811
    """Not an array of fill values, nor a repository without arrays."""
    for path in files(place, kind):
        damage(path)
    with lazyarr.configure(retries=0), pytest.raises(lazyarr.LazyarrError, match=r"cannot|chunk"):
        lazyarr.open(place, path="x")[0]


def test_flipped_bytes_are_never_a_hang(place):
    """Any error, or values: icechunk checks no sums.  Each byte of the metadata in turn, a bit."""
    targets = [*files(place, "manifests"), *files(place, "snapshots")]
    expected = np.concatenate([DATA, np.full((32, 512), 3, "u2")])
    n_errors = 0
    with lazyarr.configure(engine="copy", retries=0, timeout=10):
        for path in targets:
            good = path.read_bytes()
            for at in range(0, len(good), 1 + len(good) // 12):
                bad = bytearray(good)
                bad[at] ^= 0x10
                path.write_bytes(bad)
                try:
                    values = np.asarray(lazyarr.open(place, path="x"))
                except lazyarr.LazyarrError:
                    n_errors += 1
                else:
                    assert values.shape == expected.shape
            path.write_bytes(good)
        assert (np.asarray(lazyarr.open(place, path="x")) == expected).all()
    assert n_errors


def test_collected_garbage(tmp_path, engine):  # noqa: F811
    """What is gone of a snapshot that is open is an error, and so is to open it."""
    import datetime

    repository = make_repository(tmp_path / "repo")
    first = commit(repository, write)
    x = lazyarr.open(tmp_path / "repo", path="x")
    session = repository.writable_session("main")
    zarr.open_array(session.store, path="x")[:] = 1
    session.amend("again") if hasattr(session, "amend") else session.commit("again")
    now = datetime.datetime.now(datetime.UTC)
    repository.expire_snapshots(now)
    repository.garbage_collect(now)
    assert not (tmp_path / "repo/snapshots" / first).exists()
    with lazyarr.configure(retries=0):
        with pytest.raises(lazyarr.ChunkError, match=r"lost an object"):
            x[0]
        with pytest.raises(lazyarr.StoreError, match=r"lost an object"):
            lazyarr.open(tmp_path / "repo", path="x", storage_options={"snapshot": first})
    assert (lazyarr.open(tmp_path / "repo", path="x")[0] == 1).all()


@pytest.mark.skipif(not hasattr(icechunk, "http_storage"), reason="icechunk 1 knows no HTTP")
def test_a_server_that_fails(http_server):  # noqa: F811
    """Answers that may be better later are waited for, in the time that is set."""
    directory = Path(http_server.directory)
    commit(make_repository(directory / "repo"), write)
    url = f"{http_server.url}/repo"
    http_server.behave(Behaviour(status=503), times=2)
    with lazyarr.configure(engine="copy", timeout=2, retries=3):
        x = lazyarr.open(url, path="x", format="icechunk")
        http_server.behave(Behaviour(status=503), times=2, path="chunks")
        assert (x[0] == DATA[0]).all()
        http_server.behave(Behaviour(hold=True), path="chunks")
        with pytest.raises(lazyarr.ChunkError, match="no answer within 2 seconds"):
            x[40]
        http_server.let_go(100)
        http_server.behave(Behaviour())
        assert (x[40] == DATA[40]).all()


def test_a_snapshot_that_cannot_be_loaded_is_not_empty(place):
    """Neither the names in it nor its documents are missing: icechunk itself lists nothing."""
    for path in files(place, "snapshots"):
        path.unlink()
    for ask in (
        lambda: store_of(place).list_names(""),
        lambda: store_of(place).read("zarr.json"),
        lambda: store_of(place).size("x/c/0/0"),
    ):
        with pytest.raises(lazyarr.StoreError, match="lost an object"):
            ask()


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("s3://b/x", {"anon": True, "client_kwargs": {"region_name": "eu-west-1"}}),
        ("s3://b/x", {"key": "k", "secret": "s", "token": "t", "requester_pays": True}),
        ("s3://b/x", {"access_key_id": "k", "secret_access_key": "s", "region": "eu-west-1"}),
        ("s3a://b", {"anon": True, "default_block_size": 100}),
        ("gs://b/x", {"token": "anon"}),
        ("gcs://b/x", {"token": "a-token"}),
        ("gs://b/x", {"bearer_token": "a-token"}),
        ("az://c/x", {"account_name": "a", "account_key": "a2V5"}),
        ("abfs://c/x", {"account": "a", "sas_token": "sv=1"}),
    ],
)
def test_options_of_fsspec_and_of_icechunk(url, options):
    """Both are what icechunk takes."""
    assert isinstance(storage_of(url, options), icechunk.Storage)


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("s3://b/x", {"bogus": "hush"}),
        ("gs://b/x", {"bogus": "hush"}),
        ("az://c/x", {"key": "hush"}),
        ("ftp://host/x", {"password": "hush"}),
    ],
)
def test_what_icechunk_does_not_take(url, options):
    """Is an error that names options, but not what they are."""
    with pytest.raises(lazyarr.StoreError, match=r"does not take|reads local") as caught:
        storage_of(url, options)
    assert "hush" not in str(caught.value)


def test_virtual_chunks(tmp_path, engine):  # noqa: F811
    """Chunks that lie in other files need leave to be read, or say so."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files/a.bin").write_bytes(b"head" + DATA.tobytes())
    prefix = f"file://{tmp_path}/files/"
    config = icechunk.RepositoryConfig.default()
    container = icechunk.local_filesystem_store(f"{tmp_path}/files/")
    config.set_virtual_chunk_container(icechunk.VirtualChunkContainer(prefix, container))
    repository = make_repository(tmp_path / "repo", config=config)
    repository.save_config()

    def refer(store):
        options = {"chunks": (32, 512), "compressors": None, "filters": None}
        zarr.create_array(store, name="x", shape=DATA.shape, dtype="u2", **options)
        for i in range(2):
            n = DATA[:32].nbytes
            place = {"offset": 4 + i * n, "length": n}
            store.set_virtual_ref(f"x/c/{i}/0", f"{prefix}a.bin", **place)

    commit(repository, refer)
    with pytest.raises(lazyarr.ChunkError, match="authorize_virtual_chunk_access"):
        lazyarr.open(tmp_path / "repo", path="x")[0]
    for leave in ([prefix], {prefix: None}):
        options = {"authorize_virtual_chunk_access": leave}
        x = lazyarr.open(tmp_path / "repo", path="x", storage_options=options)
        np.testing.assert_array_equal(np.asarray(x), DATA)
    x = lazyarr.open(tmp_path / "repo", path="x", memory="private", storage_options=options)
    (tmp_path / "files/a.bin").unlink()
    with pytest.raises(lazyarr.ChunkError):
        x[40]


@pytest.mark.parametrize("is_reached", [False, True])
def test_storage_that_takes_no_connections_may_come_again_if_it_was_there(is_reached):
    """The words are icechunk 1.1's, which takes twenty seconds to say them."""
    said = (
        "x error getting object metadata from object store dispatch failure | context: | 0: a "
        "`-> dispatch failure: io error: client error (Connect): tcp connect error: Connection "
        "refused (os error 111)"
    )
    found, transient, remedy = _decode(icechunk.IcechunkError(said), 60, is_reached=is_reached)
    assert "Connection refused" in found
    assert transient is is_reached
    assert ("whether the server runs" in remedy) is not is_reached

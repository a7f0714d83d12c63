"""Every stored chunk is read and checked, and what is damaged is named."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, ZstdCodec

import lazyarr
from lazyarr import Report, StoreError, verify
from lazyarr.reading.workspace import Workspace
from lazyarr.testing import Misbehaviour
from lazyarr.verification.checker import Checker
from lazyarr.verification.checking import Tally, check_all
from tests.process.running import command_of
from tests.programs import measures
from tests.stores import images, write_zarr

DATA = images((64, 32, 128))
GUARDED = [ZstdCodec(), Crc32cCodec()]


def check(url, **options):
    return verify(url, progress=False, **options)


def consolidate(directory):
    """Write consolidated metadata, which zarr-python warns of."""
    with pytest.warns(UserWarning, match="Consolidated"):
        zarr.consolidate_metadata(str(directory))


def flip(path, place):
    """Change one byte of a file."""
    data = bytearray(Path(path).read_bytes())
    data[place] ^= 0xFF
    Path(path).write_bytes(data)


@pytest.fixture
def plain(tmp_path):
    """An array of 16 chunks, each an object."""
    return write_zarr(tmp_path / "x", DATA, chunks=(4, 32, 128), compressors=GUARDED)


@pytest.fixture
def sharded(tmp_path):
    """An array of 16 chunks in 2 shards, with another in the same group."""
    url = str(tmp_path / "s")
    zarr.open_group(url, mode="w")
    shards = {"chunks": (4, 32, 128), "shards": (32, 32, 128)}
    write_zarr(url, DATA, "images", compressors=GUARDED, **shards)
    write_zarr(url, np.arange(10), "labels", compressors=GUARDED)
    return url


def test_an_intact_store_is_ok(sharded):
    """Arrays, chunks and bytes are counted."""
    report = check(sharded)
    assert isinstance(report, Report)
    assert report.ok
    assert (report.arrays, report.chunks_checked, report.chunks_missing) == (2, 17, 0)
    assert report.decoded_nbytes == DATA.nbytes + 80
    files = [path for path in Path(sharded).rglob("*") if path.is_file()]
    chunks_nbytes = sum(path.stat().st_size for path in files if path.name != "zarr.json")
    assert report.stored_nbytes == chunks_nbytes - 2 * (8 * 16 + 4)  # but for two indexes
    assert report.damaged == report.skipped == report.unguarded == ()


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_missing_chunks_are_counted_and_fine(tmp_path, zarr_format):
    """A chunk that is not stored is the fill value, as Zarr says."""
    options = {"zarr_format": zarr_format, "fill_value": 7}
    url = write_zarr(tmp_path / "x", np.full((64, 8), 7), chunks=(4, 8), **options)
    zarr.open_array(url)[8:12] = 1
    report = check(url)
    assert (report.ok, report.chunks_checked, report.chunks_missing) == (True, 1, 15)


def test_a_whole_missing_shard_counts_all_of_its_chunks(sharded):
    """Chunks of a shard that is not there are missing, not damaged."""
    (Path(sharded) / "images/c/1/0/0").unlink()
    report = check(sharded)
    assert (report.ok, report.chunks_checked, report.chunks_missing) == (True, 9, 8)


def test_every_damaged_chunk_is_named(plain):
    """One byte in each of three chunks: three records, in order, with all fields."""
    for row in (9, 2, 11):
        flip(f"{plain}/c/{row}/0/0", 100)
    report = check(plain)
    assert not report.ok
    assert [error.chunk for error in report.damaged] == [(2, 0, 0), (9, 0, 0), (11, 0, 0)]
    error = report.damaged[1]
    assert isinstance(error, lazyarr.ChunkError)
    assert (error.array, error.key, error.byte_range) == ("", "c/9/0/0", None)
    assert error.url == Path(plain).as_uri()
    assert error.reason.startswith("crc32c expected ")
    assert report.chunks_checked == 16


def test_a_damaged_chunk_in_a_shard_has_its_byte_range(sharded):
    """The record says which bytes of which object are wrong."""
    path = f"{sharded}/images/c/1/0/0"
    flip(path, 10)
    (error,) = check(sharded).damaged
    start, stop = error.byte_range
    assert start <= 10 < stop < os.path.getsize(path)
    assert (error.array, error.chunk) == ("images", (8, 0, 0))
    assert error.key == "images/c/1/0/0"


def test_a_damaged_index_damages_every_chunk_of_its_shard(sharded):
    """All of them are listed; the text keeps to one line for them."""
    flip(f"{sharded}/images/c/0/0/0", -1)
    report = check(sharded)
    assert [error.chunk for error in report.damaged] == [(row, 0, 0) for row in range(8)]
    lines = [line for line in str(report).splitlines() if "crc32c of the shard index" in line]
    assert len(lines) == 1
    assert "8 chunks, (0, 0, 0) to (7, 0, 0), of 'images'" in lines[0]


@pytest.mark.parametrize("keep", [0, 10, 1000])
def test_a_truncated_object_is_damaged(plain, sharded, keep):
    """Chunks and shards that end too early are found, whatever is left of them."""
    for path in (f"{plain}/c/3/0/0", f"{sharded}/images/c/1/0/0"):
        os.truncate(path, keep)
    assert [error.chunk for error in check(plain).damaged] == [(3, 0, 0)]
    assert len(check(sharded).damaged) == 8


def test_the_decoded_length_is_checked(tmp_path):
    """A chunk without any checksum that decodes to another length is damaged."""
    url = write_zarr(tmp_path / "x", np.arange(100), chunks=(10,), compressors=None)
    with open(f"{url}/c/4", "ab") as file:
        file.write(b"!")
    os.truncate(f"{url}/c/7", 79)
    report = check(url)
    assert [error.chunk for error in report.damaged] == [(4,), (7,)]
    assert "80" in report.damaged[0].reason


def test_tiles_are_checked_one_by_one(tmp_path):
    """Where a unit has many tiles, one that is damaged does not hide the next."""
    url = write_zarr(tmp_path / "x", DATA, chunks=(32, 16, 32), compressors=GUARDED)
    for key in ("0/1/2", "0/1/3", "1/0/0"):
        flip(f"{url}/c/{key}", 50)
    chunks = [error.chunk for error in check(url).damaged]
    assert chunks == [(0, 1, 2), (0, 1, 3), (1, 0, 0)]


def test_nested_shards_are_checked(tmp_path):
    """A chunk two shards down is found by its array's smallest grid."""
    inner = ShardingCodec(chunk_shape=(2,), codecs=[BytesCodec(), Crc32cCodec()])
    outer = ShardingCodec(chunk_shape=(8,), codecs=[inner])
    array = zarr.create_array(
        tmp_path / "x", shape=(64,), dtype="i4", chunks=(32,), serializer=outer, compressors=None
    )
    array[...] = np.arange(64) + 1
    assert check(tmp_path / "x").chunks_checked == 32
    flip(tmp_path / "x" / "c" / "1", 0)
    report = check(tmp_path / "x")
    assert [error.chunk for error in report.damaged] == [(16,)]
    assert report.damaged[0].byte_range == (0, 12)


def test_transposed_arrays_and_scalars_are_checked(tmp_path):
    """Every chunk counts once, in any order of axes and without any axis."""
    root = zarr.open_group(str(tmp_path), mode="w", zarr_format=2)
    root.create_array("f", shape=(10, 6), chunks=(3, 4), dtype="i2", order="F")[...] = 1
    root.create_array("s", shape=(), dtype="f8")[...] = 1
    root.create_array("e", shape=(0, 4), chunks=(2, 2), dtype="f8")
    report = check(tmp_path)
    assert (report.ok, report.arrays, report.chunks_checked) == (True, 3, 9)


def test_arrays_without_checksums_are_told(tmp_path):
    """What only decodes is not called proven; every codec with a checksum counts."""
    root = zarr.open_group(str(tmp_path), mode="w")
    shards = {"shape": (8,), "chunks": (2,), "shards": (4,), "dtype": "i4"}
    root.create_array("bare", **shards, compressors=ZstdCodec())
    root.create_array("crc", **shards, compressors=[ZstdCodec(), Crc32cCodec()])
    root.create_array("inside", shape=(8,), dtype="i4", compressors=ZstdCodec(checksum=True))
    root.create_array("gzip", shape=(8,), dtype="i4", compressors=zarr.codecs.GzipCodec())
    root["bare"][...] = 1
    report = check(tmp_path)
    assert report.ok
    assert report.unguarded == ("bare",)
    assert "no checksums in 1 array" in str(report)


def test_an_array_that_can_not_be_mapped_is_skipped(tmp_path):
    """The report names it with the reason, and is ok all the same."""
    zarr.open_group(str(tmp_path), mode="w")
    write_zarr(tmp_path, np.arange(4), "x")
    document = json.loads((tmp_path / "x" / "zarr.json").read_text())
    (tmp_path / "text").mkdir()
    document["data_type"] = "string"
    (tmp_path / "text" / "zarr.json").write_text(json.dumps(document))
    report = check(tmp_path)
    assert (report.ok, report.arrays) == (True, 1)
    ((array, reason),) = report.skipped
    assert array == "text"
    assert reason.startswith("data_type 'string'")
    assert "skipped  1 array" in str(report)


def test_a_chunk_that_does_not_fit_into_memory_is_skipped(plain):
    """A chunk larger than the memory limit is no reason to exceed it."""
    with lazyarr.configure(memory_limit="16 KiB"):
        report = check(plain)
    assert (report.arrays, report.chunks_checked) == (0, 0)
    assert "32768 bytes, the memory limit is 16384 bytes" in report.skipped[0].reason


@pytest.mark.parametrize("document", [b'{"zarr_format": 3', b"[]", b"", b"\xff\xfe"])
def test_broken_metadata_is_damage(sharded, document):
    """An array whose document nobody can read is not passed over."""
    (Path(sharded) / "labels" / "zarr.json").write_bytes(document)
    report = check(sharded)
    assert not report.ok
    (error,) = report.damaged
    assert (error.array, error.key, error.chunk) == ("labels", "labels/zarr.json", ())
    assert "damaged  0 chunks, 1 document" in str(report)
    assert "metadata of 'labels'" in str(report)
    assert (report.arrays, report.skipped) == (1, ())


def test_the_node_itself_must_be_usable(tmp_path):
    """Nothing there, or a root that cannot be read, is an error and no report."""
    with pytest.raises(lazyarr.NodeNotFoundError):
        check(tmp_path / "nothing")
    (tmp_path / "zarr.json").write_text("{")
    with pytest.raises(lazyarr.FormatError, match="not JSON"):
        check(tmp_path)


def test_a_part_of_a_store_can_be_verified(sharded):
    """The URL may lead to an array in the store."""
    flip(f"{sharded}/images/c/0/0/0", 10)
    assert check(f"{sharded}/labels").ok
    assert not check(f"{sharded}/images").ok


def test_a_remote_store_is_verified(http_server):
    """Over HTTP too; without a listing, by consolidated metadata."""
    directory = Path(http_server.directory)
    zarr.open_group(str(directory), mode="w")
    write_zarr(directory, DATA, "images", chunks=(4, 32, 128), compressors=GUARDED)
    consolidate(directory)
    flip(directory / "images/c/5/0/0", 100)
    report = check(http_server.url)
    assert [error.chunk for error in report.damaged] == [(5, 0, 0)]
    assert report.chunks_checked == 16


def test_memory_is_a_store_too():
    """What lives in this process needs no other one."""
    url = "memory://verification"
    lazyarr.save(url, {"x": DATA}, overwrite=True)
    report = check(url)
    assert (report.ok, report.arrays, report.unguarded) == (True, 1, ())


def test_a_store_that_goes_away_is_no_damage(tmp_path):
    """When nobody can be reached any more, that is an error, not a list of chunks."""
    url = write_zarr(tmp_path / "x", DATA, chunks=(4, 32, 128), compressors=GUARDED)
    store, checker, tally = faulty(url)
    store.misbehave(Misbehaviour.UNAVAILABLE, times=None, key="c/3/0/0")
    with pytest.raises(StoreError, match="503") as caught:
        check_all([checker], tally, 2)
    assert caught.value.transient
    assert not [t for t in threading.enumerate() if t.name.startswith("lazyarr-verify")]


def test_a_forbidden_chunk_is_listed(tmp_path):
    """What the store refuses for good cannot be had, and the rest is checked."""
    url = write_zarr(tmp_path / "x", DATA, chunks=(4, 32, 128), compressors=GUARDED)
    store, checker, tally = faulty(url)
    store.misbehave(Misbehaviour.FORBIDDEN, times=None, key="c/3/0/0")
    check_all([checker], tally, 2)
    report = report_of(tally, checker)
    assert [error.chunk for error in report.damaged] == [(3, 0, 0)]
    assert report.chunks_checked == 16


def test_a_bad_transfer_heals(sharded):
    """A chunk, or an index, that is right the second time is not damaged."""
    store, checker, tally = faulty(f"{sharded}/images")
    store.misbehave(Misbehaviour.WRONG)
    workspace = Workspace()
    assert checker.check((0, 0, 0), workspace) is not None
    store.misbehave(Misbehaviour.WRONG)
    assert checker.check((1, 0, 0), workspace) is not None
    workspace.close()
    methods = [call.method for call in store.calls if call.misbehaviour is Misbehaviour.WRONG]
    assert methods == ["read_suffix", "read_range"]
    check_all([checker], tally, 2)
    assert report_of(tally, checker).ok


def test_a_damaged_index_is_read_twice_only(sharded):
    """Not for each of its chunks: a shard may have a hundred thousand."""
    flip(f"{sharded}/images/c/0/0/0", -1)
    store, checker, tally = faulty(f"{sharded}/images")
    check_all([checker], tally, 1)
    assert len(report_of(tally, checker).damaged) == 8
    reads = [call for call in store.calls if call.key == "c/0/0/0"]
    assert [call.method for call in reads] == ["read_suffix"] * 2


def test_each_index_is_needed_at_one_time(tmp_path):
    """Chunks are taken shard by shard, so that no index is read again."""
    url = write_zarr(tmp_path / "x", images((64, 64)), chunks=(4, 4), shards=(16, 16))
    _, checker, _ = faulty(url)
    shards = [(row // 4, column // 4) for row, column in checker.chunks()]
    assert len(shards) == 256
    changes = sum(a != b for a, b in itertools.pairwise(shards))
    assert changes == 15


def test_a_grid_is_not_listed_beforehand():
    """The first chunks of a trillion come at once."""
    document = {
        "zarr_format": 3, "node_type": "array", "shape": [2**50, 4], "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 2]}},
        "chunk_key_encoding": {"name": "default"}, "fill_value": 0, "codecs": [{"name": "bytes"}],
    }  # fmt: skip
    metadata = lazyarr.formats.zarr.parse_node(json.dumps(document).encode(), path="")
    chunks = Checker(lazyarr.store.open_store("memory://none"), metadata).chunks()
    assert [next(chunks) for _ in range(3)] == [(0, 0), (0, 1), (1, 0)]


def faulty(url):
    """Return a store that misbehaves, and what checks the array at its root."""
    from lazyarr.opening.hierarchy import Hierarchy
    from lazyarr.store import open_store
    from lazyarr.testing import FaultyStore

    metadata = Hierarchy(open_store(url)).node("")
    store = FaultyStore(open_store(url))
    return store, Checker(store, metadata), Tally(0, [], progress=False)


def report_of(tally, checker):
    from lazyarr.verification.survey import Survey

    return tally.report("url", Survey([checker], [], [], [], []))


def test_a_report_reads_well(sharded):
    """`repr` is one line, `str` all of it, and both are picklable values' own."""
    flip(f"{sharded}/images/c/1/0/0", 10)
    report = check(sharded)
    url = Path(sharded).as_uri()
    assert repr(report) == f"<Report: 1 damaged of 17 chunks in 2 arrays, 0 skipped, {url}>"
    lines = str(report).splitlines()
    assert lines[0] == f"DAMAGED: {url}"
    assert lines[1].startswith("  checked  17 chunks of 2 arrays, ")
    assert "chunk (8, 0, 0) of 'images', bytes [" in lines[4]
    assert ": crc32c expected" in lines[4]
    again = pickle.loads(pickle.dumps(report))
    assert str(again) == str(report)
    with pytest.raises(AttributeError):
        report.arrays = 3


def test_damaged_chunks_are_not_kept_in_memory(plain):
    """A record holds no traceback, and with it no buffers."""
    flip(f"{plain}/c/3/0/0", 100)
    (error,) = check(plain).damaged
    assert error.__traceback__ is error.__cause__ is error.__context__ is None


def test_progress_goes_to_stderr(plain, capfd):
    """A bar that counts chunks, only when it is asked for."""
    check(plain)
    assert capfd.readouterr() == ("", "")
    verify(plain)
    out, err = capfd.readouterr()
    assert out == ""
    assert "16/16" in err


def test_memory_is_bounded(tmp_path):
    """Verifying 256 MiB takes a few buffers, not the array."""
    shape = (2048, 256, 256)
    array = zarr.create_array(
        tmp_path / "x", shape=shape, dtype="u2", chunks=(8, 256, 256), shards=(512, 256, 256)
    )
    array[...] = 3
    arguments = [sys.executable, *command_of(measures.verifying_takes, tmp_path / "x")]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=True)
    shutil.rmtree(tmp_path / "x")
    assert int(done.stdout) * 1024 < 100 * 2**20


def respell(directory, zarr_format, separator, encoding="default"):
    """Have the metadata of an array name its chunks with a separator."""
    name = "zarr.json" if zarr_format == 3 else ".zarray"
    document = json.loads((directory / name).read_text())
    if zarr_format == 2:
        document["dimension_separator"] = separator
    else:
        configuration = {"separator": separator}
        document["chunk_key_encoding"] = {"name": encoding, "configuration": configuration}
    (directory / name).write_text(json.dumps(document))


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize(
    ("zarr_format", "written", "encoding", "said"),
    [
        (2, "/", "v2", "."),
        (2, ".", "v2", "/"),
        (3, "/", "default", "."),
        (3, ".", "default", "/"),
        (3, "/", "v2", "/"),
        (3, ".", "v2", "."),
    ],
)
def test_files_named_in_another_way_are_told(tmp_path, zarr_format, written, encoding, said, ndim):
    """By verify, info and once by open; all of the array is the fill value."""
    root = zarr.open_group(str(tmp_path), mode="w", zarr_format=zarr_format)
    keys = {"name": "default" if zarr_format == 3 else "v2", "separator": written}
    options = {"shape": (4,) * ndim, "chunks": (2,) * ndim, "chunk_key_encoding": keys}
    root.create_array("x", dtype="i4", **options)[...] = 7
    root.create_array("y", dtype="i4", **options)[...] = 7
    if zarr_format == 2 and ndim == 1:
        assert check(tmp_path).ok  # no separator, no other way
        return
    respell(tmp_path / "x", zarr_format, said, encoding)
    report = check(tmp_path)
    assert not report.ok
    assert report.chunks_missing == 2**ndim
    assert [array for array, _ in report.strays] == ["x"]
    assert all((tmp_path / key).is_file() for key in report.strays[0].keys)
    assert "no chunk of 'x' is named" in str(report)
    ds = lazyarr.open(tmp_path)
    with pytest.warns(lazyarr.StoreWarning, match=r"no chunk of array 'x'.* is stored"):
        x = ds["x"]
    assert x.max() == 0
    assert ds["x"] is x
    assert "0 of" in x.info
    assert "is named" in x.info
    assert "is named" in ds.info
    assert (ds["y"] == 7).all()
    assert f"{2**ndim} of {2**ndim}" in ds["y"].info


def test_some_chunks_named_in_another_way_are_told(tmp_path):
    """Also beside others that are named right; what only lies there is no chunk."""
    array = zarr.create_array(tmp_path, shape=(4, 4), chunks=(2, 2), dtype="i4", zarr_format=2)
    array[...] = 7
    for name in (".DS_Store", "readme.txt", ".lazyarr-tmp-1-2-3"):
        (tmp_path / name).write_text("1")
    (tmp_path / "empty/0").mkdir(parents=True)
    assert check(tmp_path).ok
    (tmp_path / "1").mkdir()
    (tmp_path / "1.1").rename(tmp_path / "1/1")
    report = check(tmp_path)
    assert (report.ok, report.chunks_missing, report.strays) == (False, 1, (("", ("1/1",)),))
    assert lazyarr.open(tmp_path).sum() == 12 * 7


@pytest.mark.parametrize("make", [
    lambda path: zarr.open_group(str(path), mode="w"),
    lambda path: zarr.create_array(path, shape=(4,), dtype="i4"),
    lambda path: zarr.create_array(path, shape=(0,), dtype="i4"),
])  # fmt: skip
def test_a_verification_that_checked_nothing_says_so(tmp_path, make):
    """An empty result is no success."""
    make(tmp_path)
    report = check(tmp_path)
    assert not report.ok
    assert str(report).startswith("NOTHING CHECKED: ")

"""Mode "r+" of the engine that copies: what is written is what zarr-python reads afterwards."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lazyarr
from tests.client.arrays.test_assigning import DATA, KEYS
from tests.stores import images, write_zarr

IMAGES = images((64, 8, 128))

LAYOUTS = {
    "rows": {"chunks": (4, 8, 128)},
    "tiles": {"chunks": (4, 5, 100)},
    "shards": {"chunks": (2, 8, 128), "shards": (16, 8, 128)},
    "shards of tiles": {"chunks": (3, 4, 64), "shards": (12, 8, 128)},
    "odd": {"chunks": (3, 8, 128)},
    "small": {"chunks": (1, 8, 50)},
    "version 2": {"chunks": (4, 8, 128), "zarr_format": 2},
    "big endian": {"chunks": (4, 8, 128), "zarr_format": 2, "dtype": ">u2"},
    "one": {"chunks": (64, 8, 128)},
}


@pytest.fixture(autouse=True)
def copying():
    """Open arrays with the engine that copies."""
    with lazyarr.configure(engine="copy"):
        yield


def make(directory, layout="rows"):
    options = dict(LAYOUTS[layout])
    return write_zarr(directory / "x.zarr", IMAGES.astype(options.pop("dtype", "u2")), **options)


@pytest.fixture
def url(tmp_path):
    return make(tmp_path)


def stored(url, **options):
    return np.asarray(zarr.open_array(url, mode="r", **options)[...])


class Broken:
    """A local array of which no chunk can be written: a file lies where its directory should be."""

    def __init__(self, url):
        self.chunks, self.away = Path(url, "c"), Path(url, "away")

    def __enter__(self):
        self.chunks.rename(self.away)
        self.chunks.write_bytes(b"")

    def __exit__(self, *_):
        self.chunks.unlink()
        self.away.rename(self.chunks)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_way_to_write_is_seen_and_stored(tmp_path, layout):
    """With little room and with much; by views, operators, `out=` and functions of NumPy's."""
    for limit in ("1 GiB", "192 KiB"):
        url, expected = make(tmp_path, layout), IMAGES.copy()
        with lazyarr.configure(memory_limit=limit):
            x = lazyarr.open(url, "r+")
            view = x[2:20]
            for array in (x, expected):
                array[3] += 1
                array[5][2:4] = 9
                array[10:20, 4] *= 2
                array[[30, 40, 30]] = 7
                array[50][array[50] > 1000] = 8
                np.add.at(array, (slice(60, 64), 0, 0), 1)
                np.copyto(array[60], array[61])
                array[62].fill(4)
                array[1].sort()
                np.multiply(array[20:24], 3, out=array[24:28])
                np.put(array[28], [3, 4], [5, 6])
                array[33:37] = array[34:38]
                array.T[5] = 3
                array.reshape(-1)[1000:9000:7] = 1
                array[::-3, 1] = array[::3, 2]
            np.testing.assert_array_equal(view[...], expected[2:20])
            report = x.flush()
            assert report.bytes >= report.units > 0 or limit != "1 GiB"
            np.testing.assert_array_equal(stored(url), expected)
            for array in (x, expected):  # of all of it, part by part where there is little room
                array += 1
                array[1:] = array[:-1]
                np.multiply(array, 2, out=array, where=IMAGES % 2 == 0)
                np.bitwise_or(array, array[:1], out=array)
                np.minimum(array, IMAGES, out=array)
            np.testing.assert_array_equal(x[...], expected)
            x.evict()
            np.testing.assert_array_equal(x[...], expected)
            x.flush()
            assert not lazyarr.stats()["units_dirty"]
            np.testing.assert_array_equal(stored(url), expected)
        del x, view, array


@pytest.mark.parametrize("limit", ["1 GiB", "512 KiB"])
def test_every_index_is_numpys(tmp_path, limit):
    """Also what NumPy makes of values of other shapes and types."""
    url = write_zarr(tmp_path / "x.zarr", DATA, chunks=(2, 8, 128))
    expected = DATA.copy()
    with lazyarr.configure(memory_limit=limit):
        x = lazyarr.open(url, "r+")
        for name, (key, value) in KEYS.items():
            for array in (x, expected):
                array[key] = value
            np.testing.assert_array_equal(x[...], expected, name)
        for array in (x, expected):
            with pytest.raises(ValueError, match=r"could not broadcast .* \(40,8,256\)"):
                array[...] = np.zeros((3, 256))
            with pytest.raises(OverflowError):
                array[...] = 1 << 40
        x.flush()
    np.testing.assert_array_equal(stored(url), expected)


_INDEXES = st.one_of(
    st.integers(-64, 63),
    st.builds(slice, st.integers(-70, 70), st.integers(-70, 70), st.sampled_from([1, 2, -1, 5])),
    st.lists(st.integers(-64, 63), min_size=1, max_size=6),
    st.tuples(st.slices(64), st.integers(0, 7)),
    st.tuples(st.slices(64), st.slices(8), st.slices(128)),
)
_STEPS = st.one_of(
    st.tuples(st.just("write"), _INDEXES, st.integers(1, 1000)),
    st.tuples(st.just("add"), _INDEXES, st.integers(0, 1000)),
    st.sampled_from([("flush",), ("evict",), ("fail",), ("read",), ("reopen",)]),
)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(_STEPS, min_size=3, max_size=8),
    layout=st.sampled_from(["rows", "tiles", "shards of tiles", "odd"]),
    limit=st.sampled_from(["1 GiB", "128 KiB"]),
)
def test_random_walks_beside_a_plain_array(tmp_path, steps, layout, limit):
    """Writes, flushes, evictions, flushes that fail, and arrays that are dropped and reopened."""
    url, expected = make(tmp_path, layout), IMAGES.copy()
    with lazyarr.configure(memory_limit=limit):
        x = lazyarr.open(url, "r+")
        for name, *arguments in steps:
            if name == "write":
                x[arguments[0]] = expected[arguments[0]] = arguments[1]
            elif name == "add":
                x[arguments[0]] += np.uint16(arguments[1])
                expected[arguments[0]] += np.uint16(arguments[1])
            elif name == "flush":
                x.flush()
                assert not x.residency().dirty_units
                np.testing.assert_array_equal(stored(url), expected)
            elif name == "evict":
                x.evict()
            elif name == "fail" and x.residency().dirty_units:
                with Broken(url), pytest.raises(lazyarr.StoreError, match="cannot"):
                    x.flush()
                assert x.residency().dirty_units
            elif name == "reopen":
                x = None
                x = lazyarr.open(url, "r+")
            np.testing.assert_array_equal(x[...], expected)
        x.flush()
        np.testing.assert_array_equal(stored(url), expected)
        del x


def test_dirty_memory_has_a_limit(tmp_path):
    """A quarter of the limit is written back, and what is resident keeps to the limit."""
    url, limit = make(tmp_path), 64 << 10
    with lazyarr.configure(memory_limit=limit):
        x = lazyarr.open(url, "r+")
        for i in range(len(IMAGES)):
            x[i] = i
            stats = lazyarr.stats()
            assert 0 < stats["bytes_dirty"] <= limit // 4
            assert stats["resident_bytes"] <= limit
            assert stats["units_dirty"] == x.residency().dirty_units
        x.flush()
    np.testing.assert_array_equal(stored(url)[:, 0, 0], np.arange(64))


def test_who_fills_shards_in_order_has_each_put_once(tmp_path):
    """A shard of a third of the limit is written when it is whole."""
    data = IMAGES[:, :8, :128].astype("u2")
    url = write_zarr(tmp_path / "x.zarr", data, chunks=(4, 8, 128), shards=(16, 8, 128))
    files = [Path(url, f"c/{k}/0/0") for k in range(4)]
    seen = {(file, file.stat().st_ino): None for file in files}
    with lazyarr.configure(memory_limit="96 KiB"):
        x = lazyarr.open(url, "r+")
        for i in range(0, len(data), 4):
            x[i : i + 4] = i
            seen |= {(file, file.stat().st_ino): None for file in files}
            assert lazyarr.stats()["bytes_dirty"] <= 48 << 10
        x.flush()
    seen |= {(file, file.stat().st_ino): None for file in files}
    assert [file for file, _ in seen] == [*files, *files]
    np.testing.assert_array_equal(stored(url)[:, 0, 0], np.arange(64) // 4 * 4)


def test_a_unit_that_is_replaced_is_not_read(url):
    """A damaged chunk is mended by that; a part of it cannot be changed, and nothing else is."""
    Path(url, "c/3/0/0").write_bytes(b"damaged")
    x = lazyarr.open(url, "r+")
    with pytest.raises(lazyarr.ChunkError):
        x[10:14, 0] = 1
    assert not x.residency().dirty_units
    x[12:16] = 5
    x.flush()
    expected = IMAGES.copy()
    expected[12:16] = 5
    np.testing.assert_array_equal(stored(url), expected)
    np.testing.assert_array_equal(x[...], expected)
    x[0:4] = "7"  # as NumPy converts it
    with pytest.raises(ValueError, match="invalid literal"):
        x[4:8] = "a word"
    np.testing.assert_array_equal(x[4:8], expected[4:8])


def test_what_cannot_be_written_stays_and_then_holds_writers_up(url):
    """Half of the limit is kept in memory; a flush that works later writes all of it."""
    expected = IMAGES.copy()
    with lazyarr.configure(memory_limit="64 KiB"):
        x = lazyarr.open(url, "r+")
        with Broken(url):
            for i in range(0, 16, 4):
                x[i : i + 4] = expected[i : i + 4] = i + 1
            with pytest.raises(lazyarr.StoreError, match="cannot write") as raised:
                x[16:20] = 1
            assert "stay in memory, and flush() tries again" in raised.value.__notes__[-1]
            assert lazyarr.stats()["bytes_dirty"] == 32 << 10
            np.testing.assert_array_equal(x[:16], expected[:16])
        x[16:20] = expected[16:20] = 8
        x.flush()
        np.testing.assert_array_equal(stored(url), expected)


def test_a_dataset_that_cannot_be_flushed_stays_open(tmp_path):
    """Closing it raises, and closing it later works."""
    lazyarr.save(tmp_path / "s.zarr", {"x": IMAGES}, shards=None)
    ds = lazyarr.open(tmp_path / "s.zarr", "r+")
    ds["x"][5] = 1
    with Broken(tmp_path / "s.zarr" / "x"), pytest.raises(lazyarr.StoreError):
        ds.close()
    assert ds["x"][5, 0, 0] == 1
    ds.close()
    assert (stored(tmp_path / "s.zarr" / "x")[5] == 1).all()


def test_threads_write_read_and_flush(tmp_path):
    """Each to rows of its own, which lie in shards and units of others."""
    url = make(tmp_path, "shards of tiles")
    with lazyarr.configure(memory_limit="160 KiB"):
        x = lazyarr.open(url, "r+")

        def work(place):
            for turn in range(6):
                for row in range(place, 64, 4):
                    x[row] = x[row] + 1
                if turn % 2:
                    x.flush()
                    x.evict()

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(work, range(4)))
        np.testing.assert_array_equal(x[...], IMAGES + 6)
        x.flush()
    np.testing.assert_array_equal(stored(url), IMAGES + 6)


def test_a_write_during_a_flush_is_not_lost(url, monkeypatch):
    """The unit stays dirty: what was copied for the store is older."""
    from lazyarr.committing.committer import Committer

    x = lazyarr.open(url, "r+")
    put, begun, go_on = Committer.put, threading.Event(), threading.Event()

    def slow_put(self, chunks):
        begun.set()
        assert go_on.wait(20)
        return put(self, chunks)

    monkeypatch.setattr(Committer, "put", slow_put)
    x[0] = 1
    with ThreadPoolExecutor(1) as threads:
        flushed = threads.submit(x.flush)
        assert begun.wait(20)
        x[1] = 2
        go_on.set()
        assert flushed.result(20).units == 1
    assert x.residency().dirty_units == 1
    assert x.flush().units == 1
    assert stored(url)[:2, 0, 0].tolist() == [1, 2]


def test_the_last_reference_flushes(url):
    """An array that is opened again reads what was written before."""
    x = lazyarr.open(url, "r+")
    x[3] = 8
    rows = x[2:5]
    del x
    gc.collect()
    rows[1] = 9
    del rows
    gc.collect()
    assert (lazyarr.open(url, "r+")[3] == 9).all()
    assert (stored(url)[3] == 9).all()


def run(program, *arguments):
    """Run a program that uses the engine that copies; return its exit code and what it said."""
    begin = "import os, pickle, sys, lazyarr\nlazyarr.configure(engine='copy')\n"
    ended = subprocess.run(
        [sys.executable, "-c", begin + program, *arguments],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.parametrize("end", ["", "sys.exit(0)", "del x, ds", "ds.close()"])
def test_the_end_of_the_process_flushes(tmp_path, end):
    """Whatever ends it, but a signal that ends it at once."""
    lazyarr.save(tmp_path / "s.zarr", {"x": IMAGES})
    program = f"ds = lazyarr.open(sys.argv[1], 'r+')\nx = ds['x']\nx[7] = 3\n{end}"
    assert run(program, str(tmp_path / "s.zarr")) == (0, "", "")
    assert (stored(tmp_path / "s.zarr" / "x")[7] == 3).all()


def test_what_is_lost_at_the_end_is_said(url):
    """Once, with the array and the reason; the process has failed."""
    program = (
        "x = lazyarr.open(sys.argv[1], 'r+')\nx[7] = 3\n"
        "os.rename(sys.argv[1] + '/c', sys.argv[1] + '/away')\nopen(sys.argv[1] + '/c', 'w')"
    )
    code, _, said = run(program, url)
    assert code == 120
    assert said.startswith("lazyarr: 1 units of array '/'")
    assert said.count("lazyarr") == said.count("could not be written back: cannot write") == 1


def test_all_else_is_flushed_when_something_fails(tmp_path):
    """Other chunks of an array, other arrays, attributes; and all that failed is said."""
    path = str(tmp_path / "s.zarr")
    lazyarr.save(path, dict.fromkeys("abc", IMAGES), chunks=(4, 32, 128), shards=None)
    with lazyarr.open(path, "r+") as ds:
        for name in "abc":
            ds[name][...] = 3
        ds.attrs["title"] = "new"
        for name in "ac":
            obstacle = tmp_path / "s.zarr" / name / "c" / "0" / "0" / "0"
            obstacle.unlink()
            obstacle.mkdir()
        with pytest.raises(lazyarr.StoreError, match="a/c/0/0/0") as caught:
            ds.flush()
        notes = "\n".join(caught.value.__notes__)
        assert "also: " in notes
        assert "c/c/0/0/0" in notes
        for name in "abc":
            assert ds[name].residency().dirty_units == (name != "b")
        assert (stored(tmp_path / "s.zarr" / "b") == 3).all()
        assert zarr.open_group(path, mode="r").attrs["title"] == "new"
        for name in "ac":
            (tmp_path / "s.zarr" / name / "c" / "0" / "0" / "0").rmdir()
    for name in "ac":
        assert (stored(tmp_path / "s.zarr" / name) == 3).all()


def test_a_forked_child_reads_and_does_not_write(url):
    """It has what was dirty at the fork, and neither writes nor writes back."""
    x = lazyarr.open(url, "r+")
    x[0] = 1
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        said = b"nothing"
        try:
            assert x[0, 0, 0] == 1
            assert x[60, 0, 0] == IMAGES[60, 0, 0]
            assert x.flush().units == 0
            x[1] = 1
        except ValueError as error:
            said = str(error).encode()
        os.write(write, said)
        os._exit(0)
    os.waitpid(pid, 0)
    assert f"forked from process {os.getpid()}" in os.read(read, 4096).decode()
    os.close(read)
    os.close(write)
    np.testing.assert_array_equal(stored(url), IMAGES)
    x.flush()
    assert (stored(url)[0] == 1).all()


def test_pickles_mean_the_same_array_here_and_nothing_elsewhere(url):
    """Another process gets the error of the claim, and the way out."""
    x = lazyarr.open(url, "r+")
    x[0] = 1
    again = pickle.loads(pickle.dumps(x[:4]))
    again[1] = 2
    assert x[:2, 0, 0].tolist() == [1, 2]
    program = "pickle.loads(bytes.fromhex(sys.argv[1]))[0]"
    code, _, said = run(program, pickle.dumps(x).hex())
    assert code == 1
    assert f"process {os.getpid()} is writing to it" in said
    assert "send a copy, as numpy.array(x)" in said
    assert run("lazyarr.open(sys.argv[1], 'r+')", url)[0] == 1


def test_appending_and_resizing_retire_an_array(tmp_path):
    """What was written before is in the store, and nothing is afterwards."""
    lazyarr.save(tmp_path / "s.zarr", {"x": IMAGES}, chunks=5)
    with lazyarr.open(tmp_path / "s.zarr", "r+") as ds:
        old = ds["x"]
        old[62] = 1
        new = old.append(IMAGES[:3])
        for key in (0, slice(3), [1, 2]):
            with pytest.raises(ValueError, match="appended to or resized"):
                old[key] = 2
        assert not old.flags.writeable
        assert old[62, 0, 0] == 1
        new[66] = 4
        new = new.resize(70)
        new[69] = 5
    expected = np.concatenate([IMAGES, IMAGES[:3], np.zeros((3, 8, 128), "u2")])
    expected[62], expected[66], expected[69] = 1, 4, 5
    np.testing.assert_array_equal(stored(tmp_path / "s.zarr" / "x"), expected)


@pytest.mark.parametrize("shards", [None, 16])
def test_stores_that_are_not_local(s3_server, s3_bucket, shards):
    """S3, and what is in the memory of this process."""
    for url, options in (
        (f"{s3_bucket}/s.zarr", s3_server.storage_options),
        (f"memory://copying-{shards}", None),
    ):
        arrays = {"x": IMAGES}
        lazyarr.save(url, arrays, chunks=4, shards=shards, storage_options=options)
        expected = IMAGES.copy()
        with lazyarr.open(url, "r+", storage_options=options) as ds:
            for array in (ds["x"], expected):
                array[::3] += 1
                array[[5, 60]] = 2
            assert ds.flush().units == 16
            ds["x"].evict()
            np.testing.assert_array_equal(ds["x"][...], expected)
            ds["x"][7] = expected[7] = 9
        found = lazyarr.open(url, storage_options=options)["x"]
        np.testing.assert_array_equal(found[...], expected)
        found = zarr.open_group(url, mode="r", storage_options=options)["x"]
        np.testing.assert_array_equal(found[...], expected)


def test_what_somebody_else_has_put_meanwhile_is_said(url):
    """And a second flush puts it on top of that."""
    x = lazyarr.open(url, "r+")
    x[0] = 1
    x.flush()
    zarr.open_array(url, mode="r+")[0:4] = 5
    x[1] = 2
    with pytest.raises(lazyarr.StoreError, match="another writer has changed it"):
        x.flush()
    x.flush()
    assert (stored(url)[1] == 2).all()


def test_flush_says_what_it_wrote(url, capsys):
    """Of a view its own units; with a bar where one is asked for."""
    x = lazyarr.open(url, "r+")
    x[:12] = 1
    report = x[4:8].flush()
    assert report.units == 1
    assert 0 < report.bytes < 4 * 8 * 128 * 2
    assert lazyarr.flush(x, progress=True).units == 2
    assert "flush: 100%" in capsys.readouterr().err
    assert x.flush().units == 0
    with pytest.raises(ValueError, match="stay in this process"):
        lazyarr.open(url, "c").flush()

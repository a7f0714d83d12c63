"""Traces: what is noted, the file that keeps it, and what a later run makes of it."""

from __future__ import annotations

import json
import os
import random
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lazyarr
from lazyarr import traces
from lazyarr.client.session import process
from lazyarr.client.trace_file import read_trace, write_trace
from lazyarr.units import Span
from tests.programs.support import settled, wait_until
from tests.stores import images, write_zarr

DATA = images((64, 32, 128))  # 64 rows of 8 KiB
UNIT_NBYTES = 2 * 8192


@pytest.fixture
def url(tmp_path):
    """Return a store with arrays "x", of 32 chunks, and "g/y"."""
    url = str(tmp_path / "s.zarr")
    chunks = {"x": (2, 32, 128), "g/y": (16,)}
    lazyarr.save(url, {"x": DATA, "g/y": np.arange(64.0)}, chunks=chunks, shards=None)
    return url


def record(url, path, rows, name="x"):
    """Record a run that reads some rows; nothing is in memory after it."""
    with lazyarr.open(url) as ds:
        with lazyarr.record(path):
            raw = np.asarray(ds[name])
            for row in rows:
                raw[row].sum()
        settled()
        ds[name].evict()  # the array may be there still when it is opened again
    return path


def units(path):
    """Return the chunks of "x" in a trace, in order."""
    trace = read_trace(path)
    found = []
    for number, span in trace.ranges():
        if trace.arrays[number].path == "x":
            found += range(span.start // UNIT_NBYTES, -(-span.stop // UNIT_NBYTES))
    return found


# --- recording --------------------------------------------------------------------------


def test_first_touches_are_noted_in_their_order(url, tmp_path):
    """By raw memory, by picks and by operations, of all arrays; each chunk once."""
    with lazyarr.open(url) as ds, lazyarr.record(tmp_path / "t") as recorded:
        assert repr(recorded) == f"<lazyarr.record: {tmp_path / 't'}>"
        raw = np.asarray(ds["x"])
        raw[40].sum()
        ds["x"][3].sum()
        assert ds["g/y"][20] == 20
        raw[3].sum()
        ds["x"][[60, 9]].sum()
        ds["x"][16:20].sum()
    trace = read_trace(tmp_path / "t")
    assert [array.path for array in trace.arrays] == ["x", "g/y"]
    assert {array.url for array in trace.arrays} == {lazyarr.open(url).url}
    assert trace.arrays[0].shape == DATA.shape
    assert (trace.arrays[0].dtype, trace.arrays[0].itemsize) == ("uint16", 2)
    assert units(tmp_path / "t") == [20, 1, 4, 30, 8, 9]
    assert trace.n_left_out == 0


def test_a_scan_is_one_range(url, tmp_path):
    """Also what was read ahead and only then touched; and not what nobody has touched."""
    path = record(url, tmp_path / "t", range(40))
    assert list(read_trace(path).ranges()) == [(0, Span(0, 20 * UNIT_NBYTES))]
    assert len(path.read_text().splitlines()) == 4


@pytest.mark.parametrize("mode", ["r", "c"])
def test_modes_and_closed_arrays(url, tmp_path, mode):
    """Memory of one process alone too; an array may be gone before the block ends."""
    with lazyarr.record(tmp_path / "t"):
        x = lazyarr.open(url, mode=mode)["x"]
        for row in (50, 10, 11, 30):
            np.asarray(x)[row].sum()
        del x
        assert lazyarr.open(url)["g/y"][0] == 0
    assert units(tmp_path / "t") == [25, 5, 15]


def test_several_record_at_once(url, tmp_path):
    """Each from its beginning on."""
    with lazyarr.open(url) as ds, lazyarr.record(tmp_path / "outer"):
        ds["x"][0].sum()
        with lazyarr.record(tmp_path / "inner"):
            ds["x"][20].sum()
        ds["x"][40].sum()
    assert units(tmp_path / "outer") == [0, 10, 20]
    assert units(tmp_path / "inner") == [10]


def test_a_block_that_raises_is_recorded(url, tmp_path):
    """The file replaces the one that was there, and nothing else is left."""
    (tmp_path / "t").write_text("older")
    with pytest.raises(IndexError) as raised, lazyarr.record(tmp_path / "t"):
        lazyarr.open(url)["x"][8, 99 + lazyarr.open(url)["x"][9, 0, 0]]
    assert units(tmp_path / "t") == [4]
    assert sorted(os.listdir(tmp_path)) == ["s.zarr", "t"]
    assert not hasattr(raised.value, "__notes__")


def test_nothing_touched_is_a_trace_too(url, tmp_path):
    """It has no arrays, so nothing can be replayed by it."""
    with lazyarr.record(tmp_path / "t"):
        pass
    assert len(read_trace(tmp_path / "t")) == 0
    with pytest.raises(ValueError, match=r"has no array of <Dataset / of .*: it has none"):
        lazyarr.open(url).replay(tmp_path / "t")


def test_a_directory_that_cannot_be_written_to_is_told_of_at_once(tmp_path, url):
    """And one that goes meanwhile, at the end; then nothing is left of the trace."""
    with (
        pytest.raises(FileNotFoundError, match="cannot write a trace into the directory"),
        lazyarr.record(tmp_path / "nowhere" / "t"),
    ):
        raise AssertionError
    (tmp_path / "d").mkdir()
    with pytest.raises(FileNotFoundError), lazyarr.record(tmp_path / "d" / "t"):
        (tmp_path / "d").rmdir()
    (tmp_path / "d").mkdir()

    def fail():
        (tmp_path / "d").rmdir()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as raised, lazyarr.record(tmp_path / "d" / "t"):
        fail()
    assert "could not be written" in raised.value.__notes__[0]


def test_after_a_trace_that_could_not_be_written_nothing_is_noted_any_more(url, tmp_path):
    """Private memory is loaded ahead, which it is not while somebody records."""
    (tmp_path / "d").mkdir()
    with pytest.raises(FileNotFoundError), lazyarr.record(tmp_path / "d" / "t"):
        (tmp_path / "d").rmdir()
    x = lazyarr.open(url, "c")["x"]
    x.advise("sequential")
    np.asarray(x)[0].sum()
    settled()
    assert x.residency().resident_units > 2


class Noted:
    """What a pager has noted, and gives a part of at a time, while more is noted."""

    def __init__(self, arrays, runs, part):
        self.arrays, self.runs, self.part = arrays, runs, part

    def trace(self, _, start, n_arrays):
        found = {
            "n_arrays": len(self.arrays),
            "n_runs": len(self.runs),
            "n_left_out": 3,
            "arrays": self.arrays[n_arrays : n_arrays + self.part],
            "runs": self.runs[start : start + self.part],
        }
        self.runs = [*self.runs, [0, 0, 1]]
        return found


def array(path):
    return {"url": "u", "path": path, "shape": [100], "dtype": "uint8", "itemsize": 1}


def test_long_traces_come_in_parts(tmp_path, monkeypatch):
    """More arrays and ranges than a message has, and than a line; what comes later is not in it."""
    monkeypatch.setattr(traces, "_LINE_RANGES", 7)
    runs = [[k // 25, k % 25, k % 25 + 1] for k in range(100)]
    noted = Noted([array(name) for name in "abcd"], runs, part=30)
    assert write_trace(str(tmp_path / "t"), traces._read_pager(noted, 1)) == 3
    trace = read_trace(tmp_path / "t")
    assert [each.path for each in trace.arrays] == [*"abcd"]
    assert [[number, *span] for number, span in trace.ranges()] == runs
    assert trace.n_left_out == 3
    noted = Noted([array(str(k)) for k in range(50)], runs[:1], part=7)
    write_trace(str(tmp_path / "t"), traces._read_pager(noted, 1))
    assert len(read_trace(tmp_path / "t").arrays) == 50


def test_what_there_was_no_room_for_is_told_of(url, tmp_path, monkeypatch):
    """The trace is written all the same."""
    recorded = lazyarr.record(tmp_path / "t")
    recorded.__enter__()
    noted = Noted([array("a")], [[0, 5, 6]], 9)
    monkeypatch.setattr(process.current_session(), "trace", noted.trace)
    with pytest.warns(lazyarr.PerformanceWarning, match="does not have all: 3 chunks"):
        recorded.__exit__(None, None, None)
    assert read_trace(tmp_path / "t").n_left_out == 3


# --- the file ---------------------------------------------------------------------------


LINES = [
    '{"lazyarr_trace":1}',
    json.dumps({"array": array("x")}),
    '{"ranges":[0,5,7,1,2]}',
    '{"end":2,"left_out":0}',
]


def test_a_file_by_hand(tmp_path):
    """What the documentation of the format says."""
    (tmp_path / "t").write_text("\n".join(LINES) + "\n")
    assert list(read_trace(tmp_path / "t").ranges()) == [(0, Span(5, 7)), (0, Span(1, 2))]


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (0, "{}"),
        (0, "[" * 100_000),
        (0, '{"lazyarr_trace":true}'),
        (1, '{"array":{}}'),
        (1, LINES[1].replace("100", "-1")),
        (1, LINES[1].replace("100", "1e3")),
        (1, LINES[1].replace('"x"', "7")),
        (1, LINES[1].replace("[100]", str([2] * 100))),
        (2, '{"ranges":[1,5,7]}'),
        (2, '{"ranges":[0,5,7,1]}'),
        (2, '{"ranges":[0,7,7,1,2]}'),
        (2, '{"ranges":[0,5,101,1,2]}'),
        (2, '{"ranges":[0,-5,7,1,2]}'),
        (2, '{"ranges":[0,5.0,7,1,2]}'),
        (2, '{"ranges":{"0":5}}'),
        (2, '{"ranges":[0,5,7]}'),
        (2, "7"),
        (2, ""),
        (3, '{"end":2}'),
        (3, '{"end":2,"left_out":-1}'),
        (3, LINES[3] + "\n" + LINES[3]),
        (3, LINES[2]),
    ],
)
def test_damaged_files_are_refused(tmp_path, number, line):
    """Each line is looked at, and the last one counts the others."""
    lines = [*LINES[:number], line, *LINES[number + 1 :]]
    (tmp_path / "t").write_text("\n".join(lines) + "\n")
    with pytest.raises(lazyarr.FormatError, match=r"cannot read the trace .*cut short or changed"):
        read_trace(tmp_path / "t")


def test_later_versions_are_named(tmp_path):
    """They may be right."""
    (tmp_path / "t").write_text('{"lazyarr_trace":2}\n')
    with pytest.raises(lazyarr.FormatError, match="it is of version 2, this lazyarr reads version"):
        read_trace(tmp_path / "t")


@given(st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damage_ends_in_an_error_or_a_trace(tmp_path, data):
    """Never in another error; a trace that was cut short is never one."""
    whole = ("\n".join(LINES) + "\n").encode()
    stop = data.draw(st.integers(0, len(whole)))
    start = data.draw(st.integers(0, stop))
    damaged = whole[:start] + data.draw(st.binary(max_size=9)) + whole[stop:]
    (tmp_path / "t").write_bytes(damaged)
    try:
        found = list(read_trace(tmp_path / "t").ranges())
    except lazyarr.FormatError:
        return
    assert len(found) == 2
    (tmp_path / "t").write_bytes(damaged.rstrip()[:-1])
    with pytest.raises(lazyarr.FormatError):
        read_trace(tmp_path / "t")


# --- replaying --------------------------------------------------------------------------


def wait_until_there(x):
    """Wait until a part of an array is loaded, and nothing more is on its way."""
    assert wait_until(lambda: x.residency().resident_units)
    settled()


def waits(x, rows):
    """Read rows, each when nothing is on its way; return how many were not there."""
    raw, n_waits = np.asarray(x), 0
    wait_until_there(x)
    for row in rows:
        settled()
        n_waits += not x[row : row + 1].residency().resident_units
        np.testing.assert_array_equal(raw[row], DATA[row])
    return n_waits


ROWS = random.Random(3).sample(range(0, 64, 2), 32)


def test_a_random_order_is_loaded_ahead(url, tmp_path):
    """No row is waited for."""
    path = record(url, tmp_path / "t", ROWS)
    ds = lazyarr.open(url)
    before = settled()
    ds.replay(path)
    assert waits(ds["x"], ROWS) == 0
    after = settled()
    assert after["units_loaded"] - before["units_loaded"] == 32
    assert after["units_ahead"] - before["units_ahead"] == 32


def test_other_chunks_and_another_place(url, tmp_path):
    """A trace speaks of memory; a store that was moved has the same paths."""
    path = record(url, tmp_path / "t", ROWS)
    for n_rows in (1, 8):
        moved = str(tmp_path / f"{n_rows}.zarr")
        lazyarr.save(moved, {"x": DATA}, chunks={"x": (n_rows, 32, 128)}, shards=None)
        ds = lazyarr.open(moved)
        ds.replay(path)
        assert waits(ds["x"], ROWS) <= 1
        ds.close()


def test_arrays_of_a_group(url, tmp_path):
    """By their names below it; all others of the trace are nothing to it."""
    ds = lazyarr.open(url)
    with lazyarr.record(tmp_path / "t"):
        ds["x"][40].sum()
        ds["g/y"][[50, 5]].sum()
    settled()
    ds["x"].evict()
    ds["g/y"].evict()
    ds["g"].replay(str(tmp_path / "t"))
    wait_until_there(ds["g/y"])
    assert not ds["x"].residency().map.any()


def test_other_data_is_refused(url, tmp_path):
    """Another shape, another type, a group in place of an array."""
    path = record(url, tmp_path / "t", ROWS)
    others = {
        r"array 'x' was \(64, 32, 128\) of uint16, now it is \(65,\) of uint16": np.zeros(65, "u2"),
        r"now it is \(64, 32, 128\) of float32; record it again": DATA.astype("f4"),
    }
    for number, (said, other) in enumerate(others.items()):
        lazyarr.save(tmp_path / f"{number}.zarr", {"x": other})
        with pytest.raises(ValueError, match=said):
            lazyarr.open(tmp_path / f"{number}.zarr").replay(path)
    lazyarr.save(tmp_path / "group.zarr", {"x/z": DATA})
    with pytest.raises(ValueError, match="now it is a group"):
        lazyarr.open(tmp_path / "group.zarr").replay(path)


def test_stored_byte_order_is_no_other_data(url, tmp_path):
    """The same elements at the same places."""
    path = record(url, tmp_path / "t", ROWS)
    swapped = write_zarr(tmp_path / "b.zarr", DATA.astype(">u2"), "x", chunks=(2, 32, 128))
    for byteorder in ("native", "stored"):
        ds = lazyarr.open(swapped, byteorder=byteorder)
        ds.replay(path)
        wait_until_there(ds["x"])


def test_arrays_that_are_gone_are_named(url, tmp_path):
    """The others are loaded ahead; with none left it is an error."""
    with lazyarr.open(url) as ds, lazyarr.record(tmp_path / "t"):
        ds["x"][40].sum()
        ds["g/y"][50]
    shutil.rmtree(tmp_path / "s.zarr" / "g" / "y")
    ds = lazyarr.open(url)
    with pytest.warns(lazyarr.StoreWarning, match="arrays of the trace are left out: .*'g/y'"):
        ds.replay(tmp_path / "t")
    wait_until_there(ds["x"])
    with pytest.raises(ValueError, match="has no array of <Dataset g of"):
        ds["g"].replay(tmp_path / "t")


def test_several_stores_of_one_trace(url, tmp_path):
    """Each has its own; a third one cannot tell which it is like."""
    shutil.copytree(url, tmp_path / "other.zarr")
    with lazyarr.record(tmp_path / "t"):
        for store, row in ((url, 10), (tmp_path / "other.zarr", 20)):
            lazyarr.open(store)["x"][row].sum()
    ds = lazyarr.open(tmp_path / "other.zarr")
    ds.replay(tmp_path / "t")
    wait_until_there(ds["x"])
    assert np.flatnonzero(ds["x"].residency().map).tolist() == [10]
    shutil.copytree(url, tmp_path / "third.zarr")
    with pytest.raises(ValueError, match=r"it has 'x' of .*s.zarr, 'x' of .*other"):
        lazyarr.open(tmp_path / "third.zarr").replay(tmp_path / "t")


def test_the_engine_that_copies_says_that_it_does_not(url, tmp_path):
    """Recording is an error; a program that replays goes on."""
    path = record(url, tmp_path / "t", ROWS)
    with lazyarr.configure(engine="copy"):
        with (
            pytest.raises(lazyarr.LazyarrError, match="arrays are copies here"),
            lazyarr.record(tmp_path / "u"),
        ):
            raise AssertionError
        ds = lazyarr.open(url)
        with pytest.warns(lazyarr.EngineWarning, match="nothing is loaded ahead by a trace"):
            ds.replay(path)
        np.testing.assert_array_equal(ds["x"][3], DATA[3])
        lazyarr.save(tmp_path / "o.zarr", {"x": DATA[1:]})
        with pytest.raises(ValueError, match="record it again"):
            lazyarr.open(tmp_path / "o.zarr").replay(path)


def test_a_file_that_is_not_there(url, tmp_path):
    """As for any file."""
    with pytest.raises(FileNotFoundError):
        lazyarr.open(url).replay(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError):
        lazyarr.open(url)["x"].replay(tmp_path / "nothing")


@pytest.fixture
def root(tmp_path):
    """Return a store that is one array, and a trace of `ROWS` in it."""
    url, path = str(tmp_path / "root.zarr"), tmp_path / "root.trace"
    lazyarr.save(url, DATA, chunks=(2, 32, 128), shards=None)
    x = lazyarr.open(url)
    with lazyarr.record(path):
        raw = np.asarray(x)
        for row in ROWS:
            raw[row].sum()
    settled()
    x.evict()
    return url, path


@pytest.mark.parametrize("mode", ["r", "c"])
def test_an_array_at_the_root(root, tmp_path, mode):
    """It has no group, and is loaded ahead by itself, for a view of it and in another place too."""
    _, path = root
    for n_rows in (2, 8):
        moved = str(tmp_path / f"{n_rows}.zarr")
        lazyarr.save(moved, DATA, chunks=(n_rows, 32, 128), shards=None)
        x = lazyarr.open(moved, mode)
        before = settled()
        x[5:9].T.view("i2").replay(path)
        # Of private memory one chunk of each batch is waited for.
        assert waits(x, ROWS) <= (8 if mode == "c" else 1)
        assert settled()["units_loaded"] - before["units_loaded"] == 64 // n_rows
    assert read_trace(path).named().startswith("'/' of file:///")


def test_one_array_of_a_group(url, tmp_path):
    """The others stay where they are."""
    ds = lazyarr.open(url)
    with lazyarr.record(tmp_path / "t"):
        ds["x"][40].sum()
        ds["g/y"][[50, 5]].sum()
    settled()
    ds["x"].evict()
    ds["g/y"].evict()
    ds["g/y"].replay(str(tmp_path / "t"))
    wait_until_there(ds["g/y"])
    assert not ds["x"].residency().map.any()


def test_an_array_of_which_a_trace_has_nothing(root, tmp_path):
    """Another array, or one of other data, is not loaded by it."""
    _, path = root
    lazyarr.save(tmp_path / "group.zarr", {"x": DATA})
    with pytest.raises(ValueError, match=r"nothing of array 'x' of .*: it has '/' of .*root.zarr"):
        lazyarr.open(tmp_path / "group.zarr")["x"].replay(path)
    lazyarr.save(tmp_path / "other.zarr", DATA[1:])
    with pytest.raises(
        ValueError, match=r"array '/' was \(64, 32, 128\) of uint16, now it is \(63"
    ):
        lazyarr.open(tmp_path / "other.zarr").replay(path)


def test_an_array_that_is_a_copy_says_that_nothing_is_loaded_ahead(root):
    """A program that replays goes on."""
    url, path = root
    with lazyarr.configure(engine="copy"):
        x = lazyarr.open(url)
        with pytest.warns(lazyarr.EngineWarning, match="nothing is loaded ahead by a trace"):
            x[3:].replay(path)
        np.testing.assert_array_equal(x[3], DATA[3])

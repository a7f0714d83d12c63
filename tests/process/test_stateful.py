"""Random operations of all kinds on lazy arrays, against plain ndarrays as the model.

The arrays live in an actor process, where real faults are served by a real pager.  Bytes
that are not right fail, and so does an operation that does not end, a death, or a line
of the pager's that nothing accounts for.  What was written to arrays of mode "r+" is what
zarr-python reads after a flush, and after the end of the actor, or of its pager.
"""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    multiple,
    precondition,
    rule,
)

import lazyarr
from lazyarr.kernel import exchange_paths
from tests.process.actor import Actor, Ended, compute
from tests.process.running import pagers, stop, wait_until
from tests.process.stored import LAYOUTS, Damage, StoredArray, write_arrays

KILLED = "lazyarr: the pager's worker died of SIGKILL; another takes over"
LOST = "lazyarr: the pager was killed; touching what is not loaded gives SIGBUS from now on"
POISONED = "a thread that waits for it gets SIGBUS"
LIMITS = [256 << 10, 1 << 20, 64 << 20]
MOST_ANEW = 2  # times that everything is opened again, which takes longer than all else
PLACES = st.integers(0, 1 << 22)
PAIRS = st.tuples(PLACES, PLACES)


class Opened:
    """An array that the actor has open.

    Attributes
    ----------
    number : int
        What the actor calls it.
    stored : StoredArray
        The one in the store.
    expected : ndarray
        What it must read as; in mode "r+" that is what is to be in the store.
    """

    def __init__(self, number: int, stored: StoredArray, mode: str) -> None:
        self.number = number
        self.stored = stored
        self.mode = mode
        self.is_private = mode == "c"
        self.forget()

    def __repr__(self) -> str:
        return f"<{self.number}: {self.stored!r} {self.mode}>"

    def forget(self) -> None:
        """Be as an array that was opened now."""
        self.expected = self.stored.data.copy() if self.is_private else self.stored.data

    def rows(self, pair: tuple[int, int]) -> slice:
        """Return some rows, at least one."""
        start, stop = sorted(place % len(self.expected) for place in pair)
        return slice(start, stop + 1)

    def is_sound(self, rows: Any) -> bool:
        """Return whether everything that rows need can be loaded."""
        places = np.arange(len(self.expected))[rows]
        nbytes = self.stored.row_nbytes
        return all(self.stored.is_sound(r * nbytes, (r + 1) * nbytes) for r in np.ravel(places))


class Machine(RuleBasedStateMachine):
    """What may happen to arrays, in any order."""

    opened = Bundle("opened")

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.url = f"{self.directory.name}/s.zarr"
        self.stored = write_arrays(Path(self.url))
        self.written_url = f"{self.directory.name}/w.zarr"
        self.written = write_arrays(Path(self.written_url))
        self.memory_limit = LIMITS[-1]
        self.n_opened = self.n_anew = 0
        self.open_ones: dict[int, Opened] = {}
        self.start()

    def start(self) -> None:
        self.actor = Actor(Path(self.directory.name) / "log")
        self.n_killed = self.n_poisoned = self.n_lost = 0
        self.has_pager = False
        self.actor.do("configure", self.memory_limit)

    # --- arrays come and go ---------------------------------------------------------------

    @initialize(target=opened, names=st.sets(st.sampled_from(sorted(LAYOUTS)), min_size=2))
    def begin(self, names: set[str]) -> Any:
        first, *others = sorted(names)
        return multiple(
            self.open(first, "r+", "open"), *(self.open(name, "r", "open") for name in others)
        )

    @rule(
        target=opened,
        name=st.sampled_from(sorted(LAYOUTS)),
        mode=st.sampled_from(["r", "c", "r+"]),
        way=st.sampled_from(["open", "open_dataset"]),
    )
    def open(self, name: str, mode: str, way: str) -> Opened:
        array = self.enter((self.written if mode == "r+" else self.stored)[name], mode)
        self.have_opened(array, way)
        return array

    def have_opened(self, array: Opened, way: str = "open") -> None:
        url = self.written_url if array.mode == "r+" else self.url
        self.actor.do(way, array.number, url, array.stored.name, array.mode)
        self.has_pager = True

    def enter(self, stored: StoredArray, mode: str) -> Opened:
        self.n_opened += 1
        array = Opened(self.n_opened, stored, mode)
        self.open_ones[array.number] = array
        return array

    @rule(target=opened, array=opened)
    def pickle(self, array: Opened) -> Opened:
        """In mode "c" what was written goes along; else a pickle is a reference to the pages."""
        copy = self.enter(array.stored, array.mode)
        if array.is_private:
            copy.expected = array.expected.copy()
        self.actor.do("pickle", array.number, copy.number)
        return copy

    @rule(array=consumes(opened))
    def drop(self, array: Opened) -> None:
        del self.open_ones[array.number]
        self.actor.do("drop", array.number)

    # --- reading ----------------------------------------------------------------------------

    @rule(array=opened, places=PAIRS)
    def touch(self, array: Opened, places: tuple[int, int]) -> None:
        """Raw bytes: in the actor where they can be had, else in a child that may die."""
        data = array.expected.tobytes()
        start, stop = sorted(place % len(data) for place in places)
        is_sound = array.stored.is_sound(start, stop + 1)
        action = ("touch", array.number, start, stop + 1)
        self.check(action, data[start : stop + 1], is_sound=is_sound)

    @rule(array=opened, places=st.lists(PLACES, min_size=1, max_size=6), how=st.integers(0, 3))
    def pick(self, array: Opened, places: list[int], how: int) -> None:
        """By an integer, by a list, by a mask, and one element."""
        rows = [place % len(array.expected) for place in places]
        key = [
            rows[0],
            rows,
            np.isin(np.arange(len(array.expected)), rows),
            (rows[0], *(p % n for p, n in zip(places * 2, array.expected.shape[1:], strict=False))),
        ][how]
        rows = rows[:1] if how in (0, 3) else rows
        action = ("pick", array.number, key)
        self.check(action, array.expected[key], is_sound=array.is_sound(rows), rows=rows)

    @rule(array=opened, places=PAIRS, step=st.sampled_from([-3, -1, 1, 2]))
    def slice(self, array: Opened, places: tuple[int, int], step: int) -> None:
        key = (array.rows(places), slice(None, None, step))
        is_sound = array.is_sound(key[0])
        action = ("slice", array.number, key)
        self.check(action, array.expected[key], is_sound=is_sound, rows=key[0])

    @rule(
        array=opened,
        places=PAIRS,
        name=st.sampled_from(["sum", "max", "mean", "argmin", "add", "median", "stack"]),
    )
    def compute(self, array: Opened, places: tuple[int, int], name: str) -> None:
        rows = array.rows(places)
        expected = compute(array.expected[rows], name)
        action = ("compute", array.number, rows, name)
        self.check(action, expected, is_sound=array.is_sound(rows), rows=rows)

    def check(
        self, action: tuple[Any, ...], expected: Any, *, is_sound: bool, rows: Any = None
    ) -> None:
        """Do something that reads; nothing but right bytes, or an error where one is due.

        Rows that are more than a part of the memory limit are not requested but touched.
        """
        if is_sound:
            found = self.actor.do(*action)
        else:
            is_touch = rows is None or self.memory_limit < LIMITS[-1]
            try:
                found = self.actor.do(*(("in_child",) if is_touch else ()), *action)
            except lazyarr.ChunkError as error:
                note(f"{error}")
                return
            except Ended as ended:
                if ended.signal is not signal.SIGBUS:
                    raise
                self.n_poisoned += 1
                return
        assert_equal(found, expected)

    @rule(array=opened, places=PAIRS, is_raw=st.booleans(), is_grandchild=st.booleans())
    def fork(
        self, array: Opened, places: tuple[int, int], is_raw: bool, is_grandchild: bool
    ) -> None:
        rows = array.rows(places)
        if not array.is_sound(rows):
            return
        nbytes = array.stored.row_nbytes
        action: tuple[Any, ...] = ("slice", array.number, rows)
        expected: Any = array.expected[rows]
        if is_raw:
            action = ("touch", array.number, rows.start * nbytes, rows.stop * nbytes)
            expected = expected.tobytes()
        levels = ["in_child"] * (1 + is_grandchild)
        assert_equal(self.actor.do(*levels, *action), expected)

    # --- what is in memory ---------------------------------------------------------------------

    @rule(array=opened, places=PAIRS, wait=st.booleans())
    def prefetch(self, array: Opened, places: tuple[int, int], wait: bool) -> None:
        rows = array.rows(places)
        try:
            self.actor.do("prefetch", array.number, rows, wait)
        except lazyarr.ChunkError:
            assert wait
            assert not array.is_sound(rows)
        except ValueError:
            assert array.expected[rows].nbytes > self.memory_limit // 2

    @rule(array=opened, places=PAIRS)
    def evict(self, array: Opened, places: tuple[int, int]) -> None:
        self.actor.do("evict", array.number, array.rows(places))

    @rule(memory_limit=st.sampled_from(LIMITS))
    def limit(self, memory_limit: int) -> None:
        self.memory_limit = memory_limit
        self.actor.do("configure", memory_limit)

    @rule(
        array=opened,
        places=PAIRS,
        value=st.integers(0, 100),
        how=st.sampled_from(["assign", "write_raw", "add"]),
        is_child=st.booleans(),
    )
    def write(
        self, array: Opened, places: tuple[int, int], value: int, how: str, is_child: bool
    ) -> None:
        """Where what is not overwritten can be had; also in a child, in mode "r+"."""
        rows = array.rows(places)
        if array.mode == "r" or not array.is_sound(rows):
            return
        if how == "add":
            array.expected[rows] += value
        else:
            array.expected[rows] = value
        levels = ["in_child"] * (is_child and array.mode == "r+")
        self.actor.do(*levels, how, array.number, rows, value)

    @rule(array=opened, places=PAIRS, is_whole=st.booleans())
    def flush(self, array: Opened, places: tuple[int, int], is_whole: bool) -> None:
        if array.mode == "r+":
            rows = slice(None) if is_whole else array.rows(places)
            assert self.actor.do("flush", array.number, rows) == 0
            assert_equal(self.read_store(array.stored)[rows], array.expected[rows])

    def read_store(self, stored: StoredArray) -> Any:
        return zarr.open_group(self.written_url, mode="r")[stored.name][...]  # type: ignore[index]

    def check_store(self) -> None:
        """Whatever was written is in the store."""
        for stored in self.written.values():
            assert_equal(self.read_store(stored), stored.data)

    # --- things go wrong -------------------------------------------------------------------------

    @precondition(lambda self: self.has_pager)
    @rule()
    def kill_worker(self) -> None:
        self.n_killed += 1
        os.kill(self.actor.do("statistics")["pid"], signal.SIGKILL)

    @precondition(lambda self: self.n_anew < MOST_ANEW)
    @rule()
    def kill_actor(self) -> None:
        """What it had written is in the store when its pager ends; another one goes on."""
        self.actor.do("statistics")  # a worker that was killed before has been replaced
        self.actor.process.kill()
        assert wait_until(lambda: not pagers(self.actor.mark))
        self.actor.kill()
        self.check_log()
        self.check_store()
        self.start()
        self.open_anew()

    @precondition(lambda self: self.has_pager and self.n_anew < MOST_ANEW)
    @rule()
    def kill_pager(self) -> None:
        """The actor writes back without it, and has another one for what it opens then."""
        self.n_lost += 1
        self.actor.do("lose_pager")
        self.has_pager = False
        self.check_store()
        self.open_anew()

    def open_anew(self) -> None:
        self.n_anew += 1
        for array in self.open_ones.values():
            array.forget()
            self.have_opened(array)

    @rule(array=opened, places=PAIRS, is_killed=st.booleans())
    def fail_to_store(self, array: Opened, places: tuple[int, int], is_killed: bool) -> None:
        """A store takes nothing for a while, in which a worker may die: nothing is forgotten."""
        if array.mode != "r+":
            return
        rows = array.rows(places)
        array.expected[rows] += 1
        self.actor.do("add", array.number, rows, 1)
        chunks, aside = (Path(self.written_url) / array.stored.name / name for name in ("c", "d"))
        aside.symlink_to("d")
        exchange_paths(aside, chunks)  # a writer follows no link
        try:
            n_dirty = self.actor.do("flush", array.number, slice(None))
        except lazyarr.StoreError as error:
            assert "symbolic link" in str(error)  # noqa: PT017 - it may have been stored before
        else:
            assert n_dirty == 0
        if is_killed:
            self.kill_worker()
            assert_equal(self.actor.do("slice", array.number, rows), array.expected[rows])
        exchange_paths(aside, chunks)
        aside.unlink()
        self.flush(array, places, True)

    @rule(array=opened, places=PAIRS, is_raw=st.booleans(), is_killed=st.booleans())
    def stop_worker(
        self, array: Opened, places: tuple[int, int], is_raw: bool, is_killed: bool
    ) -> None:
        """A worker stops answering, and goes on or is killed when somebody waits for it."""
        rows = array.rows(places)
        if not array.is_sound(rows):
            return
        nbytes = array.stored.row_nbytes
        worker = self.actor.do("statistics")["pid"]
        stop(worker)
        if is_raw:
            self.actor.begin("touch", array.number, rows.start * nbytes, rows.stop * nbytes)
        else:
            self.actor.begin("slice", array.number, rows)
        assert wait_until(self.actor.waits)
        os.kill(worker, signal.SIGKILL if is_killed else signal.SIGCONT)
        self.n_killed += is_killed
        expected = array.expected[rows]
        assert_equal(self.actor.end(), expected.tobytes() if is_raw else expected)

    @rule(
        array=opened,
        number=PLACES,
        damage=st.sampled_from(Damage),
        place=PLACES,
        in_place=st.booleans(),
    )
    def spoil(self, array: Opened, number: int, damage: Damage, place: int, in_place: bool) -> None:
        """An object is damaged; once its rows are out of memory they are an error."""
        if array.mode == "r+":
            return
        self.actor.do("quiesce")
        stored = array.stored
        stored.spoil(number, damage, place, in_place=in_place)
        if array.is_private or stored.layout.shards:
            return  # what was written stays; shards may be known by their index and be open
        rows = sorted(stored.damaged_rows() & set(range(len(stored.data))))
        self.actor.do("evict", array.number, slice(rows[0], rows[-1] + 1))
        with pytest.raises(lazyarr.ChunkError) as raised:
            self.actor.do("prefetch", array.number, slice(rows[0], rows[0] + 1), True)
        found = (raised.value.array, raised.value.chunk[0] * stored.rows)
        assert found == (stored.name, rows[0])

    @precondition(lambda self: any(stored.damaged for stored in self.stored.values()))
    @rule(in_place=st.booleans())
    def mend(self, in_place: bool) -> None:
        """Everything is sound again, and is read right at once, without being told."""
        broken = [stored for stored in self.stored.values() if stored.damaged]
        for stored in broken:
            stored.mend(in_place=in_place)
        for array in self.open_ones.values():
            if array.stored in broken:
                self.read_all(array)

    def read_all(self, array: Opened) -> None:
        expected = array.expected
        assert_equal(self.actor.do("slice", array.number, slice(None)), expected)
        assert_equal(self.actor.do("touch", array.number, 0, expected.nbytes), expected.tobytes())

    def teardown(self) -> None:
        """Everything can be read again, from the store too, and nothing is left behind."""
        try:
            for stored in self.stored.values():
                stored.mend(in_place=True)
            for array in self.open_ones.values():
                self.actor.do("evict", array.number, slice(None))
                self.read_all(array)
            self.actor.close()
            self.check_log()
            self.check_store()
        finally:
            self.actor.kill()
            self.directory.cleanup()

    def check_log(self) -> None:
        lines = self.actor.log().splitlines()
        assert lines.count(KILLED) == self.n_killed, lines
        assert lines.count(LOST) == self.n_lost, lines
        others = [line for line in lines if line not in (KILLED, LOST)]
        assert all(line.endswith(POISONED) for line in others), others
        assert len(others) <= self.n_poisoned


def assert_equal(found: Any, expected: Any) -> None:
    """The same bytes; the message shows where they differ."""
    if isinstance(expected, bytes):
        found, expected = np.frombuffer(found, np.uint8), np.frombuffer(expected, np.uint8)
    np.testing.assert_array_equal(found, expected, strict=False)


TestArrays = Machine.TestCase
TestArrays.settings = settings(
    max_examples=4,
    stateful_step_count=50,
    # Each example starts processes: to make it shorter takes longer than to read it.
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)

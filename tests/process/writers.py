"""The writer processes of a soak: threads that write to an array of mode "r+", and keep a journal.

Each write to a row has a number, the next one of the row, and all elements of the row become that.
The journal lies in a file, so that what must be in the store is known also when the process was
killed in the middle of a write.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import random
import signal
import sys
import threading
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import zarr

import lazyarr
from tests.process.readers import NO_PAGER, Shared, Slot, in_child
from tests.process.stored import LAYOUTS
from tests.programs.writable import kill_pager, wait_for_the_end
from tests.stores import images

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Differences", "Journal", "make_store"]

_N_ROWS = 512

# More than there is room for, at times.
_STORES: list[dict[str, Any]] = [
    {"shape": (_N_ROWS, 2048), "chunks": (2, 2048)},
    {"shape": (_N_ROWS, 2048), "chunks": (2, 2048), "shards": (16, 2048)},
    {"shape": (_N_ROWS, 1501), "chunks": (3, 1501)},  # units share pages
]


def make_store(path: Path, number: int) -> None:
    """Make the array that a writer writes to; all of it is 0, which no write is."""
    zarr.create_array(str(path), dtype="u4", **_STORES[number % len(_STORES)])


class Differences(NamedTuple):
    """How many rows are older than they must be, and how many are nothing that was written."""

    n_lost: int
    n_wrong: int


class Journal:
    """Three numbers for each row: of the write that was begun last, written last, and flushed.

    Parameters
    ----------
    path : Path
        The file that has them; made when it does not exist.
    """

    def __init__(self, path: Path) -> None:
        mode = "r+" if path.exists() else "w+"
        self.begun, self.written, self.flushed = np.memmap(path, np.int64, mode, shape=(3, _N_ROWS))

    def compare(self, found: Any, least: Any, rows: Any = slice(None)) -> Differences:
        """Return what is wrong with some rows that were read.

        Parameters
        ----------
        found : ndarray
            The rows.
        least : ndarray
            For each row the oldest write that it may show.
        rows : slice or list of int
            Which rows these are, of which the newest write is the one that was begun last.
        """
        is_old = (found < least[:, None]).any(axis=1)
        is_unknown = (found > self.begun[rows][:, None]).any(axis=1)
        return Differences(int(is_old.sum()), int(is_unknown.sum()))


class Written:
    """The array that all threads of a writer write to."""

    def __init__(self, url: str, sound: str, journal: Journal) -> None:
        self.url = url
        self.journal = journal
        self._sound = sound
        self._changed = threading.Condition()
        self._n_inside = 0
        self._is_closed = False
        self.is_lost = False
        self.open()

    def open(self) -> None:
        """Open it, and an array that is read beside it, in place of those from before."""
        self.array = self.sound = None
        self.array = lazyarr.open(self.url, "r+")
        self.sound = lazyarr.open(self._sound, path="pages")

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Do something with the array, as others do at the same time."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_closed)
            self._n_inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._n_inside -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Do something while nobody else does; by one who is sharing it, and the only one."""
        with self._changed:
            self._is_closed = True
            self._changed.wait_for(lambda: self._n_inside == 1)
        try:
            yield
        finally:
            with self._changed:
                self._is_closed = False
                self._changed.notify_all()

    def stored(self, rows: slice = slice(None)) -> Any:
        """Return what zarr-python reads."""
        return np.asarray(zarr.open_array(self.url, mode="r")[rows])


class WriterThread(threading.Thread):
    """One thread of a writer; it alone writes to its rows.

    Parameters
    ----------
    shared : Shared
        Says when to end.
    place : int, int
        The process and the thread.
    written : Written
        What is written to.
    seed : int
        Of its choices.
    """

    def __init__(self, shared: Shared, place: tuple[int, int], written: Written, seed: int) -> None:
        super().__init__(daemon=True)
        self.shared = shared
        self.row = shared.row(*place)
        self.number = place[1]
        self._warning = shared.row(place[0], 0)
        self.written = written
        self.journal = written.journal
        self.random = random.Random(seed)
        self.expected = images(LAYOUTS["pages"].shape, LAYOUTS["pages"].dtype)
        self._steps: list[tuple[Callable[[], None], int]] = [
            (self.write, 60),
            (self.check, 30),
            (self.read_other, 20),
            (self.flush, 8),
            (self.evict, 8),
            (self.fork, 4),
            (self.look, 10),
            (self.limit, 2),
            *([(self.lose_pager, 1)] if self.number == 0 else []),
        ]
        self._evictions = self._workers_lost = 0

    def run(self) -> None:
        """Do one thing after the other; a process in which one goes wrong ends."""
        steps, weights = zip(*self._steps, strict=True)
        try:
            while not (self.shared.is_stopped() or self.written.is_lost):
                with self.written.shared():
                    self._do(self.random.choices(steps, weights)[0])
                self.row[Slot.OPERATIONS] += 1
            self.look()
        except lazyarr.PagerError:
            # It was killed.  What was written is in memory.
            traceback.print_exc()
            self.written.is_lost = True
        except BaseException:
            traceback.print_exc()
            os._exit(2)

    def _do(self, step: Callable[[], None]) -> None:
        # Where the store takes nothing and there is no room for what is read.
        is_careful = self.is_careful()
        try:
            step()
        except lazyarr.PagerError:
            raise
        except lazyarr.LazyarrError:
            if not is_careful:
                raise
            self.row[Slot.STORE_ERRORS] += 1

    def is_careful(self) -> bool:
        """Return whether the store may take nothing: what fails then must be an exception."""
        return bool(self._warning[Slot.CAREFUL])

    def note(self, found: Differences, what: str) -> None:
        """Count rows that are not right, and tell of them."""
        self.row[Slot.LOST] += found.n_lost
        self.row[Slot.WRONG] += found.n_wrong
        if any(found):
            print(f"WRONG {what}: {found}", file=sys.stderr, flush=True)

    def pick(self) -> list[int]:
        """Return some of the thread's rows, at least one."""
        step = self.shared.n_threads
        start = self.random.randrange(_N_ROWS // step) * step + self.number
        stop = start + step * self.random.choice((1, 2, 10))
        return list(range(min(start, _N_ROWS - step + self.number), min(stop, _N_ROWS), step))

    def target(self) -> Any:
        """Return the array, or the memory without lazyarr, where an exception is not due."""
        array = self.written.array
        is_raw = not self.is_careful() and self.random.random() < 0.5
        return np.asarray(array) if is_raw else array

    def write(self) -> None:
        """Write to rows, by assignment or past lazyarr."""
        target = self.target()
        for row in self.pick():
            number = self.journal.begun[row] + 1
            self.journal.begun[row] = number
            if self.random.random() < 0.2:
                np.copyto(target[row : row + 1], number, casting="unsafe")
            else:
                target[row] = number
            self.journal.written[row] = number
            self.row[Slot.ROWS_WRITTEN] += 1

    def check(self) -> None:
        """Read what this thread has written."""
        rows = self.pick()
        found = self.journal.compare(self.target()[rows], self.journal.written[rows], rows)
        self.note(found, f"in memory {rows}")

    def read_other(self) -> None:
        """Read an array that nobody writes to, for which there must be room, too."""
        start = self.random.randrange(len(self.expected))
        array = self.written.sound if self.is_careful() else np.asarray(self.written.sound)
        if not np.array_equal(array[start : start + 4], self.expected[start : start + 4]):
            self.note(Differences(0, 1), f"beside what is written {start}")
        self.row[Slot.REQUESTS] += 1

    def flush(self) -> None:
        """Have what was written be in the store, and look there."""
        rows, array = self.pick(), self.written.array
        written = self.journal.written[rows]
        around = slice(rows[0], rows[-1] + 1)
        (array[around] if self.random.random() < 0.7 else array).flush()
        self.journal.flushed[rows] = written
        self.row[Slot.FLUSHES] += 1
        # zarr-python reads a shard's index and its chunks from two files, if it is replaced then.
        if array.shards is None:
            found = self.written.stored(around)[:: self.shared.n_threads]
            self.note(self.journal.compare(found, written, rows), f"in the store {rows}")

    def evict(self) -> None:
        """Take rows out of memory, whoever writes to them."""
        rows = self.pick()
        self.written.array[rows[0] : rows[-1] + 1].evict()

    def fork(self) -> None:
        """Write to rows in a forked child, which does not flush."""
        if self.is_careful():
            return
        rows = self.pick()
        numbers = self.journal.begun[rows] + 1
        self.journal.begun[rows] = numbers

        def write() -> bool:
            raw = np.asarray(self.written.array)
            for row, number in zip(rows, numbers, strict=True):
                self.written.array[row] = number
            return bool((raw[rows] == numbers[:, None]).all())

        code = in_child(write)
        if code in (NO_PAGER, -signal.SIGBUS):
            raise lazyarr.PagerError("the child has lost its pager")
        if code:
            self.note(Differences(0, len(rows)), f"in a child, which ended with {code}: {rows}")
        self.journal.written[rows] = numbers
        self.row[Slot.ROWS_WRITTEN] += len(rows)
        self.row[Slot.CHILDREN] += 1

    def look(self) -> None:
        """Write down who the worker is, and what it and those before it have done."""
        stats = lazyarr.stats()
        if self.number == 0:
            if self.row[Slot.WORKER] != stats["pid"]:
                self.row[Slot.WORKER], self._evictions = stats["pid"], 0
            self.row[Slot.EVICTIONS] += stats["evictions"] - self._evictions
            self._evictions = stats["evictions"]
            self.row[Slot.WORKERS_LOST] += max(0, stats["workers_lost"] - self._workers_lost)
            self._workers_lost = stats["workers_lost"]

    def limit(self) -> None:
        """Change how much may be in memory."""
        lazyarr.configure(memory_limit=self.random.choice((512 << 10, 1 << 20, 8 << 20)))

    def lose_pager(self) -> None:
        """Kill the pager while nobody writes, write everything back without it, and go on."""
        if self.is_careful():
            return
        with self.written.alone():
            self.row[Slot.WORKER] = 0
            kill_pager()
            if self.random.random() < 0.5:
                lazyarr.rescue(self.written.array)
            else:
                self.written.array.flush()
            self.journal.flushed[:] = self.journal.written
            found = self.journal.compare(self.written.stored(), self.journal.written)
            self.note(found, "in the store, after the pager was killed")
            wait_for_the_end()
            self.written.open()
        self.row[Slot.PAGERS_LOST] += 1


def main(number: int, seed: int, directory: Path) -> int:
    """Be a writer process until the soak says that it is over."""
    faulthandler.register(signal.SIGUSR1)
    # Python 3.12 and later warn of children, which are tested here.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    warnings.simplefilter("ignore", lazyarr.PerformanceWarning)
    shared = Shared.attach(directory / "shared")
    journal = Journal(directory / f"journal-{number}")
    written = Written(f"{directory}/written-{number}.zarr", f"{directory}/sound.zarr", journal)
    # Rows to which a writer was writing that was killed.
    for row in np.flatnonzero(journal.begun != journal.written):
        written.array[row] = journal.begun[row]
        journal.written[row] = journal.begun[row]
    threads = [
        WriterThread(shared, (number, thread), written, seed + thread)
        for thread in range(shared.n_threads)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if written.is_lost:
        lazyarr.rescue(written.array)
        return NO_PAGER
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])))

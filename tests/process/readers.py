"""The reader processes of a soak: threads that do what users do, and compare every byte."""

from __future__ import annotations

import ctypes
import enum
import faulthandler
import gc
import os
import pickle
import random
import signal
import sys
import threading
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import lazyarr
from tests.process.stored import LAYOUTS
from tests.stores import images

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["COUNTED", "NO_PAGER", "Shared", "Slot", "in_child"]

NO_PAGER = 3
"""How a process ends that has lost its pager."""


class Slot(enum.IntEnum):
    """What a reader's thread writes down where the soak can see it, also while it hangs."""

    OPERATIONS = 0
    TOUCHES = 1
    REQUESTS = 2
    CHILDREN = 3
    OPENS = 4
    WRITES = 5
    CHUNK_ERRORS = 6
    SIGBUS = 7
    WRONG = 8
    WORKER = 9  # the pager's worker, as last seen
    EVICTIONS = 10
    WORKERS_LOST = 11
    ROWS_WRITTEN = 12
    FLUSHES = 13
    STORE_ERRORS = 14
    PAGERS_LOST = 15
    LOST = 16
    CAREFUL = 17  # of a writer's first thread: the store may take nothing now


COUNTED = (
    *(Slot.TOUCHES, Slot.REQUESTS, Slot.CHILDREN, Slot.OPENS, Slot.WRITES),
    *(Slot.ROWS_WRITTEN, Slot.FLUSHES),
)


class Shared:
    """Numbers in a file that the soak and its readers have mapped: a row for each thread."""

    def __init__(self, path: Path, n_processes: int, n_threads: int) -> None:
        self.n_threads = n_threads
        shape = (n_processes * n_threads + 1, len(Slot))
        mode = "r+" if path.exists() else "w+"
        self._numbers = np.memmap(path, np.int64, mode, shape=shape)
        if mode == "w+":
            self._numbers[-1, :2] = 0, n_threads

    @classmethod
    def attach(cls, path: Path) -> Shared:
        """Return the numbers that a soak has made."""
        header = np.fromfile(path, np.int64)[-len(Slot) :]
        n_rows = path.stat().st_size // 8 // len(Slot) - 1
        return cls(path, n_rows // int(header[1]), int(header[1]))

    def row(self, process: int, thread: int) -> Any:
        """Return the numbers of one thread."""
        return self._numbers[process * self.n_threads + thread]

    def totals(self) -> dict[Slot, int]:
        """Return the sums over all threads."""
        return dict(zip(Slot, self._numbers[:-1].sum(axis=0).tolist(), strict=True))

    def stop(self) -> None:
        """Tell the readers to come to an end."""
        self._numbers[-1, 0] = 1

    def is_stopped(self) -> bool:
        """Return whether the readers shall end."""
        return bool(self._numbers[-1, 0])


class Reader(threading.Thread):
    """One thread of a reader.

    Parameters
    ----------
    shared : Shared
        Says when to end.
    row : ndarray
        Its own numbers.
    urls : sequence of str
        The stores: sound, damaged, and behind a bad network.
    arrays : dict
        Arrays of the sound store, which all threads of the process have.
    seed : int
        Of its choices.
    """

    def __init__(
        self,
        shared: Shared,
        row: Any,
        urls: list[str],
        arrays: dict[str, Any],
        seed: int,
    ) -> None:
        super().__init__(daemon=True)
        self.shared = shared
        self.row = row
        self.sound, *self.bad = urls
        self.arrays = arrays
        self.random = random.Random(seed)
        self.expected = {name: images(lay.shape, lay.dtype) for name, lay in LAYOUTS.items()}
        self._steps: list[tuple[Callable[[], None], int]] = [
            (self.touch, 30),
            (self.request, 30),
            (self.evict, 6),
            (self.prefetch, 6),
            (self.open, 6),
            (self.write, 4),
            (self.read_bad, 4),
            (self.fork, 2),
            (self.fork_bad, 1),
            (self.look, 4),
            (self.limit, 1),
        ]
        self._evictions = 0

    def run(self) -> None:
        """Do one thing after the other; a process in which one goes wrong ends."""
        steps, weights = zip(*self._steps, strict=True)
        try:
            while not self.shared.is_stopped():
                self.random.choices(steps, weights)[0]()
                self.row[Slot.OPERATIONS] += 1
            self.look()
        except BaseException:
            traceback.print_exc()
            os._exit(2)

    # --- reading --------------------------------------------------------------------------

    def check(self, found: Any, expected: Any, what: str) -> None:
        """Count an answer that is not right, and tell of it."""
        if not np.array_equal(found, expected):
            self.row[Slot.WRONG] += 1
            found, expected = np.asarray(found), np.asarray(expected)
            places = np.flatnonzero(found != expected)
            print(f"WRONG {what}: {places[:8]} of {expected.shape}", file=sys.stderr, flush=True)

    def pick(self) -> tuple[str, int, int]:
        """Return an array and some of its rows."""
        name = self.random.choice(list(LAYOUTS))
        n_rows = len(self.expected[name])
        start = self.random.randrange(n_rows)
        return name, start, min(n_rows, start + self.random.choice((1, 1, 2, 8)))

    def touch(self) -> None:
        """Read through a raw pointer, with the GIL or, as NumPy copies, without."""
        name, start, stop = self.pick()
        raw = np.asarray(self.arrays[name])[start:stop]
        if self.random.random() < 0.5:
            found = np.frombuffer(ctypes.string_at(raw.ctypes.data, raw.nbytes), raw.dtype)
        else:
            found = raw.copy().ravel()
        self.check(found, self.expected[name][start:stop].ravel(), f"touch {name} {start}")
        self.row[Slot.TOUCHES] += 1

    def request(self) -> None:
        """Read by request: slices, picks and sums."""
        name, start, stop = self.pick()
        array, expected = self.arrays[name], self.expected[name]
        how = self.random.randrange(3)
        if how == 0:
            self.check(array[start:stop] + 0, expected[start:stop], f"slice {name} {start}")
        elif how == 1:
            rows = [self.random.randrange(len(expected)) for _ in range(4)]
            self.check(array[rows], expected[rows], f"pick {name} {rows}")
        else:
            self.check(array[start:stop].sum(), expected[start:stop].sum(), f"sum {name} {start}")
        self.row[Slot.REQUESTS] += 1

    def open(self) -> None:
        """Open an array anew, or unpickle it; read; let go, with or without a cycle."""
        name, start, stop = self.pick()
        if self.random.random() < 0.5:
            array = pickle.loads(pickle.dumps(self.arrays[name]))
        else:
            with lazyarr.open(self.sound) as dataset:
                array = dataset[name]
        self.check(array[start:stop] + 0, self.expected[name][start:stop], f"open {name} {start}")
        if self.random.random() < 0.1:
            cycle: list[Any] = [array]
            cycle.append(cycle)
            del array, cycle
            gc.collect()
        self.row[Slot.OPENS] += 1

    def write(self) -> None:
        """Write to memory of mode "c", and read it and the rest."""
        name, start, stop = self.pick()
        array = lazyarr.open(self.sound, mode="c", path=name)
        expected = self.expected[name].copy()
        array[start:stop] = expected[start:stop] = self.random.randrange(100)
        self.check(np.asarray(array), expected, f"write {name} {start}")
        self.row[Slot.WRITES] += 1

    def read_bad(self) -> None:
        """Ask a store that is not sound, into memory that stays: the data, or ChunkError."""
        name, start, _ = self.pick()
        try:
            array = lazyarr.open(self.random.choice(self.bad), mode="c", path=name)
            self.check(array[start], self.expected[name][start], f"bad {name} {start}")
        except (lazyarr.ChunkError, lazyarr.StoreError):
            self.row[Slot.CHUNK_ERRORS] += 1
        self.row[Slot.REQUESTS] += 1

    # --- memory ----------------------------------------------------------------------------

    def evict(self) -> None:
        """Take rows out of memory."""
        name, start, stop = self.pick()
        self.arrays[name][start:stop].evict()

    def prefetch(self) -> None:
        """Have rows brought in, and wait for them or not."""
        name, start, stop = self.pick()
        self.arrays[name].prefetch(slice(start, stop), wait=self.random.random() < 0.5)

    def limit(self) -> None:
        """Change how much may be in memory."""
        lazyarr.configure(memory_limit=self.random.choice((512 << 10, 1 << 20, 8 << 20)))

    def look(self) -> None:
        """Write down who the worker is, and what it and those before it have done."""
        stats = lazyarr.stats()
        if self.row[Slot.WORKER] != stats["pid"]:
            self.row[Slot.WORKER], self._evictions = stats["pid"], 0
        # All threads have one pager: the first speaks for it.
        if threading.current_thread().name == "0":
            self.row[Slot.EVICTIONS] += stats["evictions"] - self._evictions
            self._evictions = stats["evictions"]
            self.row[Slot.WORKERS_LOST] = stats["workers_lost"]

    # --- children ---------------------------------------------------------------------------

    def fork(self) -> None:
        """Read in a forked child."""
        picks = [self.pick() for _ in range(3)]

        def read() -> bool:
            return all(
                np.array_equal(np.asarray(self.arrays[name])[a:b], self.expected[name][a:b])
                for name, a, b in picks
            )

        if in_child(read) != 0:
            self.row[Slot.WRONG] += 1
            print(f"WRONG in a child: {picks}", file=sys.stderr, flush=True)
        self.row[Slot.CHILDREN] += 1

    def fork_bad(self) -> None:
        """Touch what may not be had in a forked child: the data, or SIGBUS."""
        name, start, stop = self.pick()

        def read() -> bool:
            array = np.asarray(lazyarr.open(self.bad[0], path=name))
            return np.array_equal(array[start:stop], self.expected[name][start:stop])

        code = in_child(read)
        if code == -signal.SIGBUS:
            self.row[Slot.SIGBUS] += 1
        elif code != 0:
            self.row[Slot.WRONG] += 1
            print(f"WRONG in a child: {code} for {name} {start}", file=sys.stderr, flush=True)
        self.row[Slot.CHILDREN] += 1


def in_child(read: Callable[[], bool]) -> int:
    """Return how a child ended: 0 when what it read is right."""
    pid = os.fork()
    if pid == 0:
        faulthandler.disable()
        try:
            os._exit(0 if read() else 1)
        except BaseException as error:
            traceback.print_exc()
            os._exit(NO_PAGER if isinstance(error, lazyarr.PagerError) else 2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _check_all(urls: list[str]) -> bool:
    """Return whether everything can be read, now that everything is sound."""
    lazyarr.configure(timeout=60, retries=6)
    for url in urls:
        for name, layout in LAYOUTS.items():
            expected = images(layout.shape, layout.dtype)
            array = lazyarr.open(url, path=name)
            if not (
                np.array_equal(array + 0, expected) and np.array_equal(np.asarray(array), expected)
            ):
                print(f"WRONG at the end: {name} in {url}", file=sys.stderr)
                return False
    return True


def main(number: int, seed: int, directory: Path, server_url: str) -> None:
    """Be a reader process until the soak says that it is over."""
    faulthandler.register(signal.SIGUSR1)
    # Python 3.12 and later warn of children, which are tested here.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    warnings.simplefilter("ignore", lazyarr.PerformanceWarning)
    shared = Shared.attach(directory / "shared")
    urls = [f"{directory}/sound.zarr", f"{directory}/bad.zarr", f"{server_url}/remote.zarr"]
    arrays = {name: lazyarr.open(urls[0], path=name) for name in LAYOUTS}
    threads = [
        Reader(shared, shared.row(number, thread), urls, arrays, seed + thread)
        for thread in range(shared.n_threads)
    ]
    for thread, reader in enumerate(threads):
        reader.name = str(thread)
        reader.start()
    for reader in threads:
        reader.join()
    if not _check_all(urls):
        shared.row(number, 0)[Slot.WRONG] += 1


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])

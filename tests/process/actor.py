"""A process that holds lazy arrays and does with them what it is told.

It is another process than the test's, so that a hang of it can be seen, and its death.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import pickle
import signal
import subprocess
import sys
import threading
import warnings
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

import lazyarr
from tests.process.running import pagers, wait_until

__all__ = ["Actor", "Actions", "Ended"]

_HANG_SECONDS = 60


class Ended(Exception):
    """A forked child was killed by a signal."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal = signal.Signals(signal_number)


class Actions:
    """What an actor can do; each array has a number."""

    def __init__(self) -> None:
        self.arrays: dict[int, lazyarr.LazyArray] = {}

    def open(self, number: int, url: str, path: str, mode: str) -> None:
        self.arrays[number] = lazyarr.open(url, mode, path=path)

    def open_dataset(self, number: int, url: str, path: str, mode: str) -> None:
        """The dataset is closed at once, and the array stays valid."""
        with lazyarr.open(url, mode) as dataset:
            self.arrays[number] = dataset[path]

    def pickle(self, number: int, copy: int) -> None:
        self.arrays[copy] = pickle.loads(pickle.dumps(self.arrays[number]))

    def drop(self, number: int) -> None:
        del self.arrays[number]

    def touch(self, number: int, start: int, stop: int) -> bytes:
        """Return bytes through a raw pointer."""
        raw = np.asarray(self.arrays[number])
        return ctypes.string_at(raw.ctypes.data + start, stop - start)

    def pick(self, number: int, key: Any) -> np.ndarray[Any, Any]:
        return np.array(self.arrays[number][key])

    def slice(self, number: int, key: Any) -> np.ndarray[Any, Any]:
        return self.arrays[number][key].copy()

    def compute(self, number: int, rows: slice, name: str) -> np.ndarray[Any, Any]:
        return np.array(compute(self.arrays[number][rows], name))

    def assign(self, number: int, rows: slice, value: int) -> None:
        self.arrays[number][rows] = value

    def write_raw(self, number: int, rows: slice, value: int) -> None:
        """Write past lazyarr."""
        np.asarray(self.arrays[number])[rows] = value

    def add(self, number: int, rows: slice, value: int) -> None:
        self.arrays[number][rows] += value

    def flush(self, number: int, rows: slice) -> int:
        """Return how much of the rows is not written back after that."""
        array = self.arrays[number][rows]
        array.flush()
        return array.residency().dirty_units

    def lose_pager(self) -> None:
        """Have it killed, write back what was written, and let go of everything."""
        from tests.programs.writable import (  # with zarr-python, which takes a while
            kill_pager,
            wait_for_the_end,
        )

        self.quiesce()
        kill_pager()
        for array in self.arrays.values():
            if array.mode == "r+":
                lazyarr.rescue(array)
        wait_for_the_end()
        self.arrays.clear()

    def prefetch(self, number: int, rows: slice, wait: bool) -> None:
        self.arrays[number].prefetch(rows, wait=wait)

    def evict(self, number: int, rows: slice) -> None:
        self.arrays[number][rows].evict()

    def configure(self, memory_limit: int) -> None:
        lazyarr.configure(memory_limit=memory_limit)

    def statistics(self) -> dict[str, Any]:
        return lazyarr.stats()

    def quiesce(self) -> None:
        """Wait until nothing is being prefetched."""
        for thread in threading.enumerate():
            if thread.name == "lazyarr-prefetch":
                thread.join()

    def in_child(self, name: str, *arguments: Any) -> Any:
        """Return what a forked child gets for an action."""
        reader, writer = Pipe(duplex=False)
        pid = os.fork()
        if pid == 0:
            faulthandler.disable()
            reader.close()
            writer.send(self.answer(name, arguments))
            os._exit(0)
        writer.close()
        with reader, contextlib.suppress(EOFError):
            answer = reader.recv()
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code:
            raise Ended(-code)
        return _value_of(answer)

    def answer(self, name: str, arguments: tuple[Any, ...]) -> tuple[Any, Exception | None]:
        """Return the result of an action, and what it raised."""
        try:
            return getattr(self, name)(*arguments), None
        except (lazyarr.LazyarrError, ValueError, Ended) as error:
            return None, error


def compute(array: Any, name: str) -> Any:
    """Return what is computed of an array, lazy or not."""
    if name == "add":
        return np.add(array, 1)
    if name == "median":
        return np.median(array, axis=0)
    if name == "stack":
        return np.concatenate([array, array])
    return getattr(array, name)(axis=0)


def _value_of(answer: tuple[Any, Exception | None]) -> Any:
    value, error = answer
    if error is not None:
        raise error
    return value


class Actor:
    """A handle on an actor process.

    Parameters
    ----------
    log : Path
        Where its stderr goes, and that of its pager.
    """

    _n_started = 0

    def __init__(self, log: Path) -> None:
        Actor._n_started += 1
        self._log = log
        self.mark = f"LAZYARR_TEST_MARK=actor-{os.getpid()}-{Actor._n_started}"
        name, value = self.mark.split("=")
        self._connection, theirs = Pipe()
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.process.actor", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stderr=file,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), name: value},
            )
        theirs.close()

    def __repr__(self) -> str:
        return f"<Actor: process {self.process.pid}>"

    def begin(self, name: str, *arguments: Any) -> None:
        """Have an action begun."""
        self._connection.send((name, arguments))

    def end(self) -> Any:
        """Return what the action gives; raise what it raises."""
        if not self._connection.poll(_HANG_SECONDS):
            raise AssertionError(f"the actor hangs; its log:\n{self.log()}")
        try:
            answer = self._connection.recv()
        except EOFError:
            code = self.process.wait()
            raise AssertionError(f"the actor ended with {code}; its log:\n{self.log()}") from None
        return _value_of(answer)

    def do(self, name: str, *arguments: Any) -> Any:
        """Return what an action gives; raise what it raises."""
        self.begin(name, *arguments)
        return self.end()

    def waits(self) -> bool:
        """Return whether the actor waits for its pager, or has done what it was told."""
        waiting_for = Path(f"/proc/{self.process.pid}/wchan").read_text()
        waits = "userfault" in waiting_for or "wait_for_more_packets" in waiting_for
        return waits or self._connection.poll()

    def log(self) -> str:
        """Return what the actor and its pager have said on stderr."""
        return self._log.read_text()

    def close(self) -> None:
        """Let it end, and see that nothing is left of it."""
        self._connection.close()
        try:
            assert self.process.wait(timeout=_HANG_SECONDS) == 0, self.log()
            assert wait_until(lambda: not pagers(self.mark))
        finally:
            self.kill()

    def kill(self) -> None:
        """End it now."""
        self._connection.close()
        self.process.kill()
        self.process.wait()


def main(descriptor: int) -> None:
    """Be the actor, until the other end is closed."""
    # Random operations may well read an array again and again for which there is no room.
    warnings.simplefilter("ignore", lazyarr.PerformanceWarning)
    actions = Actions()
    with Connection(descriptor) as connection, contextlib.suppress(EOFError):
        while True:
            name, arguments = connection.recv()
            # A thread that waits in a fault holds the GIL: only this sees a hang, in C.
            faulthandler.dump_traceback_later(_HANG_SECONDS - 10)
            connection.send(actions.answer(name, arguments))
            faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    # Pickles name this module as those who import it do.
    from tests.process.actor import main as run

    run(int(sys.argv[1]))

"""Programs of tests/process/test_writable*.py: mode "r+", in all ways to write to memory.

Each compares with a plain array that the same is done to, and with what zarr-python reads.
"""

from __future__ import annotations

import ctypes
import faulthandler
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import zarr

import lazyarr
from lazyarr.kernel import exchange_paths
from tests.programs.support import exit_code, in_child, keep, run_threads, wait_until


def stored(url: str, name: str = "") -> np.ndarray[Any, Any]:
    """Return what zarr-python reads."""
    node = zarr.open(url, mode="r")
    return np.asarray((node[name] if name else node)[...])


def require_stored(url: str, expected: np.ndarray[Any, Any], name: str = "") -> None:
    np.testing.assert_array_equal(stored(url, name), expected)


def opened(url: str, copy: str) -> tuple[Any, np.ndarray[Any, Any]]:
    """Return an array in mode "r+", and a plain array of the same elements."""
    return lazyarr.open(url, "r+"), np.load(copy)


def writes(url, copy):
    x, expected = opened(url, copy)
    assert x.mode == "r+" and x.flags.writeable
    x[5] = 1
    expected[5] = 1
    assert x.residency().dirty_units == 1 and "1 of them not written back" in repr(x.residency())
    assert (x[5] == 1).all() and (stored(url)[5] != 1).any()
    report = x.flush()
    assert (report.units, x.residency().dirty_units) == (1, 0), report
    assert report.bytes > 0 and report.seconds >= 0
    require_stored(url, expected)
    assert x.flush().units == 0
    # The same unit once more, which is protected again.
    x[4, 3] += 2
    expected[4, 3] += 2
    np.asarray(x)[-1, 0, :7] = 9
    expected[-1, 0, :7] = 9
    assert x[3:].flush().units == 2
    require_stored(url, expected)
    np.testing.assert_array_equal(np.asarray(x), expected)


def writes_in_every_way(url, copy):
    import numba

    @numba.njit(nogil=True)
    def add(array, value):
        for i in range(array.shape[0]):
            array[i] += value

    x, expected = opened(url, copy)
    raw = np.asarray(x)
    for step in range(3):
        for array in (x, expected):
            array[::7, 3] = step
            array[[1, 9, 33]] += 1
            np.multiply(array[40:50], 3, out=array[40:50])
            np.copyto(array[:, 5], 7)
            array[12:20].fill(step)
            array[30:34].sort(axis=2)
            array.put([3, 99, 12_345], [1, 2])
            array[array > 65_000] = 5
            array.reshape(len(array), -1)[:, 17] = 8
            array.T[2, 1, :] = 4
            array[::-2, ::-3][2:, 1] -= 1
        for array in (raw, expected):
            add(array[20:24].reshape(-1), 3)
        for array in (raw, expected):
            ctypes.memset(array[50:53].ctypes.data, 17 + step, array[50:53].nbytes)
        np.random.default_rng(step).random(out=None)
        if step == 1:
            x.evict()
        x.flush()
        require_stored(url, expected)
    np.testing.assert_array_equal(np.asarray(x), expected)


def several_threads(url, copy):
    x, expected = opened(url, copy)

    def work(number):
        raw = np.asarray(x)
        for row in range(number, len(x), 4):
            if row % 3:
                x[row] = row
            else:
                raw[row] = row
            if row % 16 == number:
                x.flush()

    run_threads(threading.Thread(target=work, args=(n,)) for n in range(4))
    expected[...] = np.arange(len(expected))[:, None, None]
    x.flush()
    require_stored(url, expected)


def one_unit_by_many_threads(url, copy):
    x, expected = opened(url, copy)
    raw = np.asarray(x)
    flat, plain = raw[:4].reshape(-1), expected[:4].reshape(-1)
    ends = threading.Event()

    def flushes():
        while not ends.is_set():
            x.flush()

    flusher = threading.Thread(target=flushes)
    flusher.start()

    def work(number):
        for turn in range(200):
            flat[number::4] = turn + number

    run_threads(threading.Thread(target=work, args=(n,)) for n in range(4))
    ends.set()
    flusher.join()
    for number in range(4):
        plain[number::4] = 199 + number
    x.flush()
    require_stored(url, expected)


def forked_writers(url, copy):
    x, expected = opened(url, copy)
    x[0] = 5
    expected[0] = 5
    pids = []
    for number in range(4):
        pid = os.fork()
        if pid == 0:
            raw = np.asarray(x)
            assert (x[0] == 5).all()
            for row in range(1 + number, len(x), 4):
                (x if row % 2 else raw)[row] = 1000 + row
            if number == 0:
                assert x.flush().units > 0
            os._exit(0)
        pids.append(pid)
    assert [exit_code(pid) for pid in pids] == [0] * 4
    for row in range(1, len(x)):
        expected[row] = 1000 + row
    np.testing.assert_array_equal(np.asarray(x), expected)
    x.flush()
    require_stored(url, expected)


def write_rows(x, start, stop, step, value):
    """Write to some rows, in a worker of a pool."""
    for row in range(start, stop, step):
        x[row] = value + row
    return x.mode, bool((x[0] == 5).all())


def spawned_writers(url, copy):
    x, expected = opened(url, copy)
    x[0] = 5
    expected[0] = 5
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        tasks = [(x, 1 + n, len(x), 2, 2000) for n in range(2)]
        assert pool.starmap(write_rows, tasks) == [("r+", True)] * 2
    for row in range(1, len(x)):
        expected[row] = 2000 + row
    np.testing.assert_array_equal(np.asarray(x), expected)
    x.flush()
    require_stored(url, expected)


def far_beyond_the_limit(url, copy, limit):
    lazyarr.configure(memory_limit=limit)
    x, expected = opened(url, copy)
    for array in (x, expected):
        array[...] = np.arange(expected.shape[-1])
        array += 3
        array[:, 1] = array[:, 2]
        np.multiply(array, 2, out=array)
    raw = np.asarray(x)
    for array in (raw, expected):
        array[::2] += 1
    assert lazyarr.stats()["memory_limit"] == lazyarr.config.memory_limit
    np.testing.assert_array_equal(np.asarray(x), expected)
    x.flush()
    require_stored(url, expected)


def kill_worker():
    """Kill this process's worker, and wait for the next one."""
    pid = lazyarr.stats()["pid"]
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: lazyarr.stats()["pid"] != pid)


def workers_die_between_writes(url, copy, seed):
    x, expected = opened(url, copy)
    raw, rng = np.asarray(x), random.Random(seed)
    for turn in range(12):
        for _ in range(10):
            row = rng.randrange(len(x))
            (x if rng.random() < 0.5 else raw)[row] = turn
            expected[row] = turn
        kill_worker()
        np.testing.assert_array_equal(x[:], expected)
        if turn % 4 == 3:
            x.flush()
            require_stored(url, expected)
        elif turn % 4 == 1:
            x.evict()
    x.flush()
    require_stored(url, expected)


def workers_die_during_writes(url, copy, seconds):
    x, expected = opened(url, copy)
    ends = threading.Event()
    n_killed = [0]

    def kills():
        rng = random.Random(5)
        while not ends.is_set():
            try:
                os.kill(lazyarr.stats()["pid"], signal.SIGKILL)
                n_killed[0] += 1
            except (ProcessLookupError, lazyarr.PagerError):
                pass
            # More than a quarter as many as crashes would end it.
            ends.wait(0.3 + rng.random() * 0.4)

    killer = threading.Thread(target=kills)
    killer.start()
    began_at, rng, turn = time.monotonic(), random.Random(6), 0
    raw = np.asarray(x)
    while time.monotonic() - began_at < float(seconds):
        turn += 1
        row = rng.randrange(len(x))
        (x if turn % 2 else raw)[row] = turn % 60_000
        expected[row] = turn % 60_000
        if turn % 50 == 0:
            x.flush()
        elif turn % 50 == 25:
            x.evict()
        other = rng.randrange(len(x))
        assert (x[other] == expected[other]).all(), (turn, other)
    ends.set()
    killer.join()
    x.flush()
    require_stored(url, expected)
    print(turn, n_killed[0])


def writes_until_it_is_killed(url):
    """Say of each write that it is done."""
    x = lazyarr.open(url, "r+")
    raw, rng, turn = np.asarray(x), random.Random(os.getpid()), 0
    x[0] = x[0]
    os.write(1, b"%d\n" % lazyarr.stats()["pid"])
    while True:
        turn += 1
        row, value = rng.randrange(len(x)), turn % 60_000 + 1
        (x if turn % 2 else raw)[row] = value
        if turn % 97 == 0:
            x.flush()
        os.write(1, b"%d %d\n" % (row, value))


def leaves_it_to_the_pager(url, copy, how):
    x, expected = opened(url, copy)
    x[7] = 3
    expected[7] = 3
    np.asarray(x)[60] = 4
    expected[60] = 4
    if how == "dropped":
        del x
        wait_until(lambda: not lazyarr.stats()["regions"])
        require_stored(url, expected)
    elif how == "_exit":
        os._exit(0)
    elif how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "sys.exit":
        sys.exit(0)
    elif how == "closed":
        ds = lazyarr.open(url, "r+")
        del ds, x
    elif how == "child":
        assert in_child(lambda: x.__setitem__(8, 6)) == 0


def two_openings_are_one(url, copy):
    x, expected = opened(url, copy)
    y = lazyarr.open(url, "r+")
    x[3] = 8
    assert (y[3] == 8).all()
    y[3, 0] = 9
    assert (x[3, 0] == 9).all()
    expected[3] = 8
    expected[3, 0] = 9
    reader = lazyarr.open(url)
    assert reader.mode == "r" and not (reader[3] == 8).all()
    del x
    y.flush()
    require_stored(url, expected)
    del y
    z = lazyarr.open(url, "r+")
    np.testing.assert_array_equal(np.asarray(z), expected)


def reopened_at_once(url, copy):
    _, expected = opened(url, copy)
    for turn in range(20):
        x = lazyarr.open(url, "r+")
        row = turn * 3 % len(x)
        assert (x[row] == expected[row]).all(), turn
        x[row] = turn
        expected[row] = turn
        del x
    x = lazyarr.open(url, "r+")
    np.testing.assert_array_equal(np.asarray(x), expected)
    x.flush()
    require_stored(url, expected)


def pickles_find_the_same_pages(url, copy):
    x, _ = opened(url, copy)
    x[2] = 6
    y = pickle.loads(pickle.dumps(x[1:9, 3:]))
    assert y.mode == "r+" and (y[1] == 6).all()
    y[3] = 7
    assert (x[4, 3:] == 7).all()


def kill_pager():
    """Kill this process's worker and supervisor, and leave the sentinel alive."""
    found = lazyarr.stats()
    worker, n_clients = found["pid"], found["clients"]
    supervisor = int(_stat(worker)[1])
    # A client that the sentinel has not been told of yet dies with the other two, and the
    # supervisor tells of it when it gets to run.
    assert wait_until(lambda: _sentinel(supervisor, worker, n_clients))
    sentinel = _sentinel(supervisor, worker, n_clients)
    os.kill(supervisor, signal.SIGSTOP)
    os.kill(worker, signal.SIGKILL)
    os.kill(supervisor, signal.SIGKILL)
    assert wait_until(lambda: not _lives(worker) and not _lives(supervisor))
    # It says nothing where all clients have ended before it has opened a pidfd of one.
    assert wait_until(lambda: _count_open(sentinel, "pidfd") >= n_clients)


def wait_for_the_end():
    """Wait until this process knows that its pager is gone, so that what it opens has another.

    Sockets of a process that was killed are open until the last of its threads has ended.
    """

    def is_known():
        with suppress(lazyarr.PagerError):
            return not lazyarr.stats()
        return False

    assert wait_until(is_known)


def _sentinel(supervisor, worker, n_clients):
    """Return the sentinel, if it has both userfaultfds of each client; else None."""
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    for pid in map(int, children):
        if pid == worker or _stat(pid)[17] != "1":  # processes that decode have several threads
            continue
        if _count_open(pid, "userfaultfd") >= 2 * n_clients:
            return pid
    return None


def _count_open(pid, kind):
    """Return how many descriptors of some kind a process has."""
    n_found = 0
    with suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with suppress(FileNotFoundError):
                n_found += kind in os.readlink(f"/proc/{pid}/fd/{name}")
    return n_found


def _stat(pid):
    """Return the fields behind the name (proc(5)): state, parent and so on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _lives(pid):
    try:
        return _stat(pid)[0] not in "ZX"
    except OSError:
        return False


def the_pager_is_killed(url, copy, how):
    ds, expected = lazyarr.open(url, "r+"), np.load(copy)
    x = ds["x"]
    for row in range(0, len(x), 3):
        (x if row % 2 else np.asarray(x))[row] = row
        expected[row] = row
    if how == "some flushed":
        x[:20].flush()
    elif how == "rescue of what append has returned":
        x = x.append(expected[:1])
        x[1] = 7
        expected = np.concatenate([expected, expected[:1]])
        expected[1] = 7
    reader, writer = os.pipe()
    ready, is_ready = os.pipe()
    child = os.fork() if how == "child" else -1
    if not child:
        os.close(writer)
        assert lazyarr.stats(), "the child is not with the pager"
        os.write(is_ready, b".")
        os.read(reader, 1)
        before = x.residency()
        report = x.flush()
        assert report.units > 0, (before, report)
        os._exit(0)
    if child > 0:
        os.read(ready, 1)
    kill_pager()
    if how in ("rescue", "rescue of what append has returned"):
        assert lazyarr.rescue(ds).units > 0
    elif how == "rescue of a view":
        assert lazyarr.rescue(np.asarray(x)[3:]).units > 0
    elif how == "close":
        ds.close()
    elif how == "dropped":
        del x
        ds._opened.clear()
        assert wait_until(lambda: (stored(url, "x") == expected).all())
    elif how == "exit":
        print("left")
        return
    elif how == "child":
        os.close(writer)
        assert exit_code(child) == 0
    else:
        assert x.flush().units > 0
    require_stored(url, expected, "x")
    if how in ("flush", "rescue"):
        try:
            x[1] = 3
        except lazyarr.PagerError:
            pass
        else:
            raise AssertionError
        assert x.flush().units == 0
        # What is opened anew has a pager of its own.
        del x
        ds.close()
        del ds
        again = lazyarr.open(url, "r+")
        again["x"][2] = 9
        expected[2] = 9
        again.close()
        require_stored(url, expected, "x")


def no_room_on_the_disk(place):
    """Write more than the disk holds; then make room, and go on."""
    data = np.random.default_rng(1).integers(0, 1 << 60, (64, 1 << 13))
    url, ballast = f"{place}/x.zarr", f"{place}/ballast"
    array = zarr.create_array(url, shape=data.shape, chunks=(1, 1 << 13), dtype=data.dtype)
    del array
    with open(ballast, "wb") as file:
        free = os.statvfs(place)
        file.write(bytes(free.f_bavail * free.f_bsize - (1 << 20)))
    lazyarr.configure(timeout=0.5, retries=1)
    x = lazyarr.open(url, "r+")
    x[...] = data
    try:
        x.flush()
    except lazyarr.StoreError as error:
        print(error)
    else:
        raise AssertionError
    assert x.residency().dirty_units > 0
    np.testing.assert_array_equal(np.asarray(x), data)
    os.unlink(ballast)
    assert x.flush().units > 0 and not x.residency().dirty_units
    require_stored(url, data)
    x[3] = 5
    data[3] = 5
    x.flush()
    require_stored(url, data)


def no_room_in_memory_nor_on_the_disk(place):
    """Write more than there is memory for, to a disk that is full: an exception, and no loss."""
    data = np.random.default_rng(1).integers(0, 1 << 60, (64, 1 << 13))
    url, ballast = f"{place}/x.zarr", f"{place}/ballast"
    zarr.create_array(url, shape=data.shape, chunks=(1, 1 << 13), dtype=data.dtype)
    with open(ballast, "wb") as file:
        free = os.statvfs(place)
        file.write(bytes(free.f_bavail * free.f_bsize - (256 << 10)))
    lazyarr.configure(memory_limit="1 MiB", timeout=0.5, retries=1)
    x = lazyarr.open(url, "r+")
    n_written = 0
    try:
        for row in range(len(x)):
            x[row] = data[row]
            n_written += 1
    except lazyarr.StoreError as error:
        print(error)
    assert 4 <= n_written < len(x), n_written
    np.testing.assert_array_equal(np.asarray(x)[:n_written], data[:n_written])
    os.unlink(ballast)
    for row in range(n_written, len(x)):
        x[row] = data[row]
    x.flush()
    require_stored(url, data)


def the_end_is_loud(place):
    """End while what was written cannot be written back."""
    _write_what_has_no_room(place)


def a_child_ends_and_its_parent_is_killed(place):
    """The child says what it could not flush; the parent, which has the same memory, nothing."""
    _write_what_has_no_room(place)
    # A child that ends as programs do would wait for the thread of this.
    faulthandler.cancel_dump_traceback_later()
    pid = os.fork()
    if pid:
        assert exit_code(pid) == 120
        os.kill(os.getpid(), signal.SIGKILL)


def _write_what_has_no_room(place):
    data = np.random.default_rng(1).integers(0, 1 << 60, (16, 1 << 13))
    url, ballast = f"{place}/x.zarr", f"{place}/ballast"
    # Not by zarr-python, for whose threads a forked child would wait at its end.
    lazyarr.save(url, np.zeros_like(data), chunks=(1, 1 << 13), shards=None)
    with open(ballast, "wb") as file:
        free = os.statvfs(place)
        file.write(bytes(free.f_bavail * free.f_bsize))
    lazyarr.configure(timeout=0.5, retries=1)
    x = lazyarr.open(url, "r+")
    x[...] = data
    keep(x)


def chunks_that_cannot_be_read(url):
    x = lazyarr.open(url, "r+")
    before = x[0].copy()
    for write in (lambda: x.__setitem__(9, 1), lambda: np.add(x, 1, out=x), lambda: x.fill(3)):
        try:
            write()
        except lazyarr.ChunkError as error:
            assert error.chunk == (2, 0, 0)
        else:
            raise AssertionError
    x[0] = before
    assert x.flush().units <= len(x)


def interrupted(url, copy):
    x, expected = opened(url, copy)
    flushing, n_interrupted = [], 0

    def interrupt(*_):
        if flushing:
            flushing.clear()
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    for turn in range(25):
        x[...] = turn
        # From another process: it comes while this one waits for the pager's answer.
        command = ["sh", "-c", f"sleep 0.0{turn:02}; kill -INT {os.getpid()}"]
        sender = subprocess.Popen(command)
        try:
            flushing.append(turn)
            while sender.poll() is None:
                x[turn] = turn
                x.flush()
        except KeyboardInterrupt:
            n_interrupted += 1
        flushing.clear()
        sender.wait()
        assert (np.asarray(x) == turn).all()
    expected[...] = 24
    x.flush()
    require_stored(url, expected)
    print(n_interrupted)


def refuses_to_open(url):
    try:
        lazyarr.open(url, "r+")
    except lazyarr.StoreError as error:
        print(error)


class Walk:
    """Random writes, reads, flushes and deaths, beside a plain array that the same is done to."""

    def __init__(self, url, copy, seed):
        self.url, self.random = url, random.Random(int(seed))
        self.x, self.expected = opened(url, copy)
        self.counts = {}

    def rows(self):
        start = self.random.randrange(len(self.x))
        return slice(
            start, start + self.random.choice((1, 1, 3, 9, 30)), self.random.choice((1, 2))
        )

    def assign(self):
        rows, value = self.rows(), self.random.randrange(60_000)
        self.x[rows] = self.expected[rows] = value

    def touch(self):
        rows, value = self.rows(), self.random.randrange(60_000)
        np.asarray(self.x)[rows, ::3] = value
        self.expected[rows, ::3] = value

    def add(self):
        rows = self.rows()
        self.x[rows] += 1
        self.expected[rows] += 1

    def add_all(self):
        np.add(self.x, 3, out=self.x)
        self.expected += 3

    def pick(self):
        rows = [self.random.randrange(len(self.x)) for _ in range(5)]
        self.x[rows, 2] = self.expected[rows, 2] = self.random.randrange(99)

    def memset(self):
        row = self.random.randrange(len(self.x))
        for array in (np.asarray(self.x), self.expected):
            ctypes.memset(array[row].ctypes.data + 5, row, array[row].nbytes // 3)

    def read(self):
        rows = self.rows()
        found = (self.x[rows] + 0) if self.random.random() < 0.5 else np.asarray(self.x)[rows]
        np.testing.assert_array_equal(found, self.expected[rows])

    def flush(self):
        self.x[self.rows()].flush()

    def flush_all(self):
        self.x.flush()
        assert not self.x.residency().dirty_units
        require_stored(self.url, self.expected)

    def evict(self):
        self.x[self.rows()].evict()

    def fork(self):
        rows, value = self.rows(), self.random.randrange(60_000)

        def write():
            np.testing.assert_array_equal(np.asarray(self.x)[rows], self.expected[rows])
            self.x[rows] = value

        assert in_child(write) == 0
        self.expected[rows] = value

    def kill(self):
        os.kill(lazyarr.stats()["pid"], signal.SIGKILL)

    def reopen(self):
        del self.x
        self.x = lazyarr.open(self.url, "r+")

    def limit(self):
        lazyarr.configure(memory_limit=self.random.choice(("128 KiB", "256 KiB", "4 MiB")))

    STEPS: ClassVar[dict[str, int]] = {
        "assign": 10, "touch": 10, "add": 6, "add_all": 1, "pick": 4, "memset": 4, "read": 12,
        "flush": 4, "flush_all": 1, "evict": 5, "fork": 1, "kill": 1, "reopen": 1, "limit": 1,
    }  # fmt: skip

    def run(self, n_steps, leaves_out=()):
        names = [name for name in self.STEPS if name not in leaves_out]
        for turn in range(n_steps):
            name = self.random.choices(names, [self.STEPS[name] for name in names])[0]
            try:
                getattr(self, name)()
            except BaseException:
                print(f"at step {turn}, {name}", file=sys.stderr)
                raise
            self.counts[name] = self.counts.get(name, 0) + 1
        np.testing.assert_array_equal(np.asarray(self.x), self.expected)
        self.x.flush()
        require_stored(self.url, self.expected)


def walks(url, copy, seed, n_steps):
    walk = Walk(url, copy, seed)
    walk.run(int(n_steps), () if hasattr(os, "fork") else ("fork",))
    print(sum(walk.counts.values()))


def another_file_has_the_number(url, copy):
    """Close all descriptors, as daemons do, and have files of the same numbers."""
    x, _ = opened(url, copy)
    x[3] = 7
    before = stored(url)
    # First, for they need descriptors: what is imported, and threads of zarr-python's.
    kill_pager()
    os.closerange(3, 100)
    with open(copy, "rb") as file:
        while os.dup(file.fileno()) < 100:
            pass
    try:
        x.flush()
    except lazyarr.LazyarrError as error:
        print(type(error).__name__)
    os.closerange(3, 200)
    os.execv(sys.executable, [sys.executable, "-c", _COMPARE, url, str(before.sum())])


_COMPARE = """
import sys, zarr
assert zarr.open_array(sys.argv[1], mode="r")[...].sum() == int(sys.argv[2])
"""


def written_back_before_it_is_assigned_to(url, copy, when):
    x, expected = opened(url, copy)
    lazyarr.configure(memory_limit=40 * x[0].nbytes)
    chunks, kept = f"{url}/c", f"{url}/kept"
    os.symlink("kept", kept)  # it is read through, and a writer follows no link

    def fill(rows):
        try:
            for row in rows:
                x[row] = expected[row] + 1
                expected[row] += 1
        except lazyarr.StoreError as error:
            print(type(error).__name__)

    class Late:
        """A value that takes its time."""

        def __array__(self, dtype=None, copy=None):
            x.flush()
            assert not x.residency().dirty_units
            exchange_paths(chunks, kept)
            fill(range(10, len(x)))
            if "evicted" in when:
                x[3:4].evict()
                assert x[3:4].residency().resident_units == 0
            return np.full(x.shape[1:], 7, x.dtype)

    if when != "asked":
        x[3] = 5
    x[3] = Late()
    expected[3] = 7
    fill(range(len(x) - 1, 9, -1))
    assert np.array_equal(x, expected)
    exchange_paths(chunks, kept)
    os.unlink(kept)
    x.flush()
    require_stored(url, expected)

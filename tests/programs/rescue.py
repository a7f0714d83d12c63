"""Programs of `tests.process.test_rescue`: several processes write back without a pager."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import zarr

import lazyarr
from lazyarr.committing.committer import Committer
from lazyarr.kernel import punch_hole
from tests.programs.support import exit_code, stop, wait_until
from tests.programs.writable import kill_pager, opened, require_stored, wait_for_the_end


class Child:
    """A forked child that does one thing after the other, each when it is told to."""

    def __init__(self, *acts: Callable[[], object]) -> None:
        theirs, self._ours = os.pipe()
        self._done, done = os.pipe()
        self.pid = os.fork()
        if self.pid:
            return
        os.close(self._ours)
        code = 1
        try:
            for act in acts:
                if not os.read(theirs, 1):
                    break
                act()
                os.write(done, b".")
            else:
                code = 0
        finally:
            os._exit(code)

    def begin(self) -> None:
        os.write(self._ours, b".")

    def go(self) -> None:
        self.begin()
        assert os.read(self._done, 1) == b"."

    def end(self) -> int:
        os.close(self._ours)
        return exit_code(self.pid)


def _waits_for_a_lock() -> bool:
    """Return whether a thread of this process waits for a lock of flock(2) (proc_locks(5))."""
    lines = Path("/proc/locks").read_text().splitlines()
    return any("->" in line and line.split()[5] == str(os.getpid()) for line in lines)


def an_older_copy_is_not_put_last(url, copy):
    """A child has copied what it writes back when its parent writes anew, and writes back."""
    x, expected = opened(url, copy)
    raw = np.asarray(x)
    x[::3] = 5
    expected[::3] = 5
    reached, reach = os.pipe()
    going, go_on = os.pipe()

    def flush_with_a_stop():
        put = Committer.put

        def put_late(self, chunks):
            os.write(reach, b".")
            os.read(going, 1)
            return put(self, chunks)

        Committer.put = put_late
        x.flush()

    child = Child(lambda: lazyarr.stats(), flush_with_a_stop)
    child.go()
    kill_pager()
    child.begin()
    os.read(reached, 1)
    raw[::3] = 6
    expected[::3] = 6
    flushing = threading.Thread(target=x.flush)
    flushing.start()
    assert wait_until(lambda: not flushing.is_alive() or _waits_for_a_lock())
    os.write(go_on, bytes(len(x)))
    flushing.join()
    assert child.end() == 0
    require_stored(url, expected)


def a_child_writes_after_its_parent_has_rescued(url, copy, how):
    """What it has written is its parent's to write back, when it is killed."""
    x, expected = opened(url, copy)
    raw = np.asarray(x)

    def write(value):
        raw[3] = value

    child = Child(lambda: write(7), lambda: write(8), x.flush)
    child.go()
    kill_pager()
    assert x.flush().units > 0
    assert x.flush().units == 0
    expected[3] = 7
    require_stored(url, expected)
    child.go()
    expected[3] = 8
    if how == "killed":
        os.kill(child.pid, signal.SIGKILL)
        assert child.end() == -signal.SIGKILL
        assert x.flush().units == 1
    else:
        child.go()
        assert child.end() == 0
    require_stored(url, expected)


def both_have_written(url, copy, first):
    """Parent and child each have dirty units of their own, and some that both have written to."""
    x, expected = opened(url, copy)
    raw = np.asarray(x)

    def write():
        raw[1::4] = 3
        raw[2::4, 5:] = 4

    child = Child(write, x.flush)
    raw[::4] = 1
    raw[2::4, :5] = 2
    child.go()
    expected[::4], expected[1::4], expected[2::4, :5], expected[2::4, 5:] = 1, 3, 2, 4
    kill_pager()
    flushes = [child.go, x.flush] if first == "child" else [x.flush, child.go]
    for flush in flushes:
        flush()
        require_stored(url, expected)
    assert child.end() == 0


def a_child_may_still_write_back(url, copy):
    """The store cannot be opened anew before it has: what is written then would be lost."""
    ds, expected = lazyarr.open(url, "r+"), np.load(copy)
    x = ds["x"]
    np.asarray(x)[::3] = 5
    expected[::3] = 5
    child = Child(lambda: lazyarr.stats(), x.flush)
    child.go()
    kill_pager()
    x.flush()
    del x
    ds.close()
    try:
        again = lazyarr.open(url, "r+")["x"]
    except lazyarr.StoreError as error:
        assert str(child.pid) in str(error), error
        again = None
    if again is not None:
        again[3] = 7
        again.flush()
        expected[3] = 7
    child.go()
    assert child.end() == 0
    require_stored(url, expected, "x")
    again = lazyarr.open(url, "r+")["x"]
    again[3] = 8
    expected[3] = 8
    again.flush()
    require_stored(url, expected, "x")


def a_child_that_came_too_late(url, copy):
    """It has written nothing, so it keeps nobody from opening the store anew."""
    ds, expected = lazyarr.open(url, "r+"), np.load(copy)
    x = ds["x"]
    x[3] = 5
    expected[3] = 5
    kill_pager()
    child = Child(lambda: None)
    x.flush()
    del x
    ds.close()
    again = lazyarr.open(url, "r+")["x"]
    again[4] = 7
    expected[4] = 7
    again.flush()
    child.go()
    assert child.end() == 0
    require_stored(url, expected, "x")


def attaches_and_writes(copy):
    """Be the process that a pickle came to: write, and flush when that is said."""
    x = pickle.loads(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))
    np.asarray(x)[3] = 7
    print("written", flush=True)
    if sys.stdin.buffer.readline() == b"flush\n":
        x.flush()
        print("flushed", flush=True)


def opens_and_pickles(url, copy):
    """Be the process that others have the array from; end with the pager, when that is said."""
    x, _ = opened(url, copy)
    x[5] = 6
    pickled = pickle.dumps(x)
    print(len(pickled), flush=True)
    sys.stdout.buffer.write(pickled)
    sys.stdout.buffer.flush()
    sys.stdin.readline()
    kill_pager()
    os.kill(os.getpid(), signal.SIGKILL)


def only_an_attached_process_is_left(url, copy):
    """Opener and pager are dead: nobody writes what that process would write over."""
    expected = np.load(copy)
    opener = _start(opens_and_pickles, url, copy)
    size = opener.stdout.readline()
    attached = _start(attaches_and_writes, copy)
    attached.stdin.write(size + opener.stdout.read(int(size)))
    attached.stdin.flush()
    assert attached.stdout.readline() == b"written\n"
    opener.stdin.close()
    assert opener.wait() == -signal.SIGKILL
    try:
        lazyarr.open(url, "r+")
    except lazyarr.StoreError as error:
        assert str(attached.pid) in str(error), error
    else:
        raise AssertionError
    attached.stdin.write(b"flush\n")
    attached.stdin.close()
    assert attached.stdout.readline() == b"flushed\n"
    assert attached.wait() == 0
    expected[5], expected[3] = 6, 7
    require_stored(url, expected)
    x = lazyarr.open(url, "r+")
    x[3] = expected[3] = 8
    x.flush()
    require_stored(url, expected)
    for each in (opener, attached):
        each.stdout.close()


def _start(program, *arguments):
    command = [sys.executable, "-m", "tests.programs", f"rescue:{program.__name__}", *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def one_shard_is_damaged(url, copy):
    """What else has been written is in the store."""
    x, expected = opened(url, copy)
    shard = Path(url) / "c/1/0/0"
    np.asarray(x)[::3] = 5
    expected[::3] = 5
    shard.write_bytes(shard.read_bytes()[:-9])
    kill_pager()
    try:
        x.flush()
    except lazyarr.ChunkError as error:
        print(error)
    else:
        raise AssertionError
    array = zarr.open_array(url, mode="r")
    np.testing.assert_array_equal(array[:8], expected[:8])
    np.testing.assert_array_equal(array[16:], expected[16:])
    os._exit(0)  # without one more try, and what is said of that


def pages_are_missing(url, copy):
    """Zeros are not written for what is not there."""
    x, expected = opened(url, copy)
    np.asarray(x)[::4] = 5
    expected[::4] = 5
    kill_pager()
    region = x._region
    unit = region.geometry.unit_bytes(0)
    punch_hole(region.memfd, region.offset + unit.start, unit.size)
    expected[:2] = np.load(copy)[:2]
    try:
        x.flush()
    except lazyarr.PagerError as error:
        print(error)
    else:
        raise AssertionError
    require_stored(url, expected)
    os._exit(0)


def everything_is_killed(url, copy):
    """Worker, supervisor and sentinel: the process dies, and what was flushed is whole."""
    x, _ = opened(url, copy)
    x[::3] = 5
    x.flush()
    x[1::3] = 6
    child = Child(lambda: np.asarray(x).__setitem__(4, 7), signal.pause)
    child.go()
    worker = lazyarr.stats()["pid"]
    supervisor = int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])
    family = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    pids = [supervisor, *map(int, family)]
    print(child.pid, flush=True)
    stop(*pids)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    signal.pause()


def writes_anew(url, copy):
    x, expected = opened(url, copy)
    x[0] = 9
    expected[0] = 9
    x.flush()
    require_stored(url, expected)


def lives(pid):
    """Return whether a process has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def what_is_opened_again_is_another_array(url, copy, held):
    """The pager is killed while somebody has the array, or a view of it, and opens it again."""
    x, expected = opened(url, copy)
    x[::3] = 5
    expected[::3] = 5
    kept = {"array": x, "view": x[4:8], "plain": np.asarray(x), "memory": memoryview(x)}[held]
    if held != "array":
        del x
    kill_pager()
    wait_for_the_end()
    # Where the store takes nothing, what was written stays, and nothing takes its place.
    chunks, away = Path(url, "c"), Path(url, "away")
    chunks.rename(away)
    chunks.write_bytes(b"")
    try:
        lazyarr.open(url, "r+")
    except lazyarr.StoreError as error:
        print(type(error).__name__)
    chunks.unlink()
    away.rename(chunks)
    again = lazyarr.open(url, "r+")
    assert again is not kept
    # Before anything is read of it: what the old one had is in the store.
    require_stored(url, expected)
    again[1] = 7
    expected[1] = 7
    np.testing.assert_array_equal(again, expected)
    assert lazyarr.open(url, "r+") is again
    if held == "array":
        try:
            kept[2] = 1
        except (lazyarr.PagerError, ValueError) as error:
            print(type(error).__name__)
    again.flush()
    del kept
    require_stored(url, expected)


def a_dataset_lets_go_of_what_nobody_fills(url, copy):
    """A dataset that was open gives the array that another opening has found."""
    ds = lazyarr.open(Path(url).parent, "r+")
    name = Path(url).name
    old, expected = ds[name], np.load(copy)
    old[3] = 5
    expected[3] = 5
    kill_pager()
    wait_for_the_end()
    again = lazyarr.open(Path(url).parent, "r+")
    again[name][4] = 6
    expected[4] = 6
    assert ds[name] is again[name]
    again.close()
    require_stored(url, expected)

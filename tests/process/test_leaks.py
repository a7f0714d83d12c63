"""Doing a thing many times takes no more than doing it once.

Counted are descriptors, mappings, threads and memory, of the client, of its pager,
and of the memory objects that they share.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.process.running import run_program
from tests.process.stored import LAYOUTS, write_arrays
from tests.stores import images, write_zarr

DATA = images()

COUNT = """
def count_process(pid):
    "Return descriptors, mappings, threads and KiB of a process's own."
    with open(f"/proc/{pid}/smaps_rollup") as file:
        fields = dict(line.split(":") for line in file.read().splitlines()[1:])
    own = int(fields["Anonymous"].split()[0])
    with open(f"/proc/{pid}/maps") as file:
        n_maps = len(file.readlines())
    return len(os.listdir(f"/proc/{pid}/fd")), n_maps, len(os.listdir(f"/proc/{pid}/task")), own
def count():
    "Return what this process and each process of its pager has, and KiB of shared memory."
    worker = lazyarr.stats()["pid"]
    with open(f"/proc/{worker}/stat") as file:
        supervisor = int(file.read().rpartition(")")[2].split()[1])
    memfds = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")
              if os.path.islink(f"/proc/self/fd/{fd}")
              and os.readlink(f"/proc/self/fd/{fd}").startswith("/memfd:lazyarr")]
    return [*map(count_process, ("self", worker, supervisor)),
            (sum(os.stat(name).st_blocks // 2 for name in memfds),)]
def has_settled():
    stats = lazyarr.stats()
    return not stats["regions"] and stats["clients"] == 1 and not stats["resident_bytes"]
def settle():
    "Wait until the arrays that were dropped are gone on both sides."
    deadline = time.monotonic() + 20
    while not has_settled(): assert time.monotonic() < deadline, {**lazyarr.stats(), "steps": {}}
def has_grown(before, now, n_few, n_kib):
    return any(b > a + (n_kib if i == 3 or len(then) == 1 else n_few)
               for then, there in zip(before, now)
               for i, (a, b) in enumerate(zip(then, there)))
def repeat(cycle, n, n_few=4, n_kib=2048):
    "Do something some times, then often; fail if more is left then."
    # As many channels as will ever be in use at once are opened here, and kept.
    threads = [threading.Thread(target=lazyarr.stats) for _ in range(4)]
    [t.start() for t in threads]; [t.join() for t in threads]; del threads
    for _ in range(max(10, n // 20)): cycle()
    settle()
    before = count()
    for _ in range(n): cycle()
    settle()
    deadline = time.monotonic() + 10
    while has_grown(before, now := count(), n_few, n_kib):
        assert time.monotonic() < deadline, (before, now)
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    return write_zarr(tmp_path_factory.mktemp("leaks") / "x.zarr", DATA, chunks=(4, 32, 128))


def run(cycle: str, *arguments: object) -> None:
    ended = run_program(COUNT + cycle, *arguments, seconds=120)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stderr


def test_opening_touching_and_dropping(url):
    """A thousand arrays, in either mode, touched raw and by request."""
    run(
        """
def cycle():
    for mode in "rc":
        x = lazyarr.open(sys.argv[1], mode)
        x[5]; np.asarray(x)[60, 0, 0]
repeat(cycle, 500)
""",
        url,
    )


def test_opening_and_closing_datasets(tmp_path):
    """Three hundred arrays of datasets of all layouts."""
    write_arrays(tmp_path / "s.zarr")
    run(
        """
def cycle():
    with lazyarr.open(sys.argv[1]) as dataset:
        for name in dataset:
            x = dataset[name]
            x[1]; x.evict(); x[1].tobytes(); np.asarray(x)[-1].sum()
repeat(cycle, 300 // int(sys.argv[2]))
""",
        tmp_path / "s.zarr",
        len(LAYOUTS),
    )


def test_reading_what_is_damaged(url, tmp_path):
    """Four hundred errors, of requests for one unit and for many."""
    damaged = write_zarr(tmp_path / "x.zarr", DATA, chunks=(4, 32, 128))
    chunk = Path(damaged) / "c/3/0/0"
    chunk.write_bytes(chunk.read_bytes()[:-7])
    run(
        """
def cycle():
    x = lazyarr.open(sys.argv[1])
    for rows in (12, slice(0, 64)):
        try:
            x[rows].sum()
        except lazyarr.ChunkError:
            continue
        raise AssertionError(rows)
repeat(cycle, 200)
""",
        damaged,
    )


def test_reading_from_where_nobody_answers(http_server):
    """Arrays of a server that refuses, and stores that are not there."""
    directory = Path(http_server.directory)
    write_zarr(directory / "x.zarr", DATA[:8], chunks=(4, 32, 128))
    for chunk in directory.glob("x.zarr/c/*/0/0"):
        chunk.unlink()
        chunk.mkdir()
    run(
        """
lazyarr.configure(retries=0)
def look_for_nothing():
    try:
        lazyarr.open(sys.argv[1] + "/nothing.zarr")
    except lazyarr.NodeNotFoundError:
        return
    raise AssertionError
def be_refused():
    x = lazyarr.open(sys.argv[1] + "/x.zarr")
    try:
        x[0]
    except lazyarr.ChunkError:
        return
    raise AssertionError
def cycle():
    look_for_nothing(); be_refused()
repeat(cycle, 40)
""",
        http_server.url,
    )


def test_forking(url, tmp_path):
    """A hundred children that read, some that write, some that are killed."""
    np.save(tmp_path / "x.npy", DATA)
    run(
        """
data = np.load(sys.argv[2])
n_cycles = 0
def cycle():
    global n_cycles
    n_cycles += 1
    x, mine = lazyarr.open(sys.argv[1]), lazyarr.open(sys.argv[1], "c")
    x[3]; mine[7] = 1
    def child():
        assert (x[5] == data[5]).all() and read_all(x[40]) == data[40].tobytes()
        mine[8] = 2
        if n_cycles % 3 == 0: os.kill(os.getpid(), signal.SIGKILL)
    assert in_child(child) in (0, -signal.SIGKILL)
repeat(cycle, 100)
""",
        url,
        tmp_path / "x.npy",
    )

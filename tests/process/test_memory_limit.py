"""The memory limit holds, measured by another process while raw scans run."""

from __future__ import annotations

import os
import re
import select
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

import lazyarr
from tests.process.running import end_program, run_program, start_program
from tests.programs import memory_limit as programs

MIB = 1 << 20
N_ROWS = 2560
LIMIT_NBYTES = 16 * MIB
N_THREADS = 2
SAMPLE_SECONDS = 0.002
# What the interpreter takes for records and stacks; no unit's bytes.
OWN_NBYTES = MIB


def rows(n_rows: int, row_nbytes: int) -> np.ndarray:
    """Return numbers of which hardly anything can be compressed away; row i is known from i."""
    steps = np.arange(row_nbytes // 4, dtype=np.uint32) * np.uint32(2654435761)
    return steps * np.arange(1, 2 * n_rows, 2, dtype=np.uint32)[:, None]


@dataclass
class Peaks:
    """The most that was found in any sample, in bytes.

    Parameters
    ----------
    pager : int
        Its process id.
    """

    pager: int
    n_samples: int = 0
    objects: int = 0
    total: int = 0
    mapped: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._before = resident(self.pager)["RssAnon"]

    def sample(self, clients: list[int]) -> None:
        """Look once at the pager and at its clients."""
        objects = memory_objects(self.pager)
        anonymous = resident(self.pager).get("RssAnon", 0) - self._before
        self.n_samples += 1
        self.objects = max(self.objects, objects)
        self.total = max(self.total, objects + anonymous)
        for client in clients:
            mapped = resident(client).get("RssShmem", 0)
            self.mapped[client] = max(self.mapped.get(client, 0), mapped)


def resident(pid: int) -> dict[str, int]:
    """Return what of a process is in memory, by kind; nothing when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return {}
    return {kind: int(n) << 10 for kind, n in re.findall(r"(Rss\w+):\s+(\d+) kB", status)}


def memory_objects(pid: int) -> int:
    """Return how much memory the memory objects take of which a process has descriptors."""
    sizes = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        path = f"/proc/{pid}/fd/{name}"
        try:
            if os.readlink(path).startswith("/memfd:lazyarr"):
                found = os.stat(path)
                sizes[found.st_ino] = found.st_blocks * 512
        except OSError:
            continue  # closed meanwhile
    return sum(sizes.values())


def watch(url: Path, scan: str, n_children: int, limit: int, n_steps: int) -> tuple[Peaks, dict]:
    """Return the peaks while a program scans, and the pager's statistics at its end."""
    process, _ = start_program(programs.scans, url, scan, 0, n_children, limit, n_steps)
    try:
        peaks = Peaks(int(process.stdout.readline()))
        process.stdin.write("go\n")
        process.stdin.flush()
        clients = [process.pid, *map(int, process.stdout.readline().split())]
        while not select.select([process.stdout], [], [], SAMPLE_SECONDS)[0]:
            peaks.sample(clients)
        stdout, stderr = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, stderr) == (0, "")
    return peaks, eval(stdout)


def save(path: Path, n_rows: int, row_nbytes: int, chunk_rows: int) -> Path:
    """Write an array of such rows."""
    lazyarr.save(path, rows(n_rows, row_nbytes), chunks=(chunk_rows, row_nbytes // 4), level=1)
    return path


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Return a store of 160 MiB in units of 512 KiB."""
    return save(tmp_path_factory.mktemp("limit") / "x.zarr", N_ROWS, 1 << 16, 8)


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """Return a store of 20 MiB in units of which each shares its pages with others."""
    return save(tmp_path_factory.mktemp("limit") / "x.zarr", 20_000, 1000, 5)


@pytest.mark.parametrize(
    ("scan", "n_children"),
    [("at once", 0), ("in order", 0), ("at random", 0), ("in order", 3), ("at random", 3)],
)
def test_raw_scan_stays_within_the_limit(large, scan, n_children):
    """Ten times the limit, also from four processes and with the GIL held throughout.

    What units are decoded in counts too, so all of it together takes no more than the
    limit and a unit for each thread that may be about to install one.
    """
    unit_nbytes = 8 << 16
    peaks, stats = watch(large, scan, n_children, LIMIT_NBYTES, 400)
    bound = LIMIT_NBYTES + N_THREADS * unit_nbytes
    assert peaks.n_samples > 20
    assert peaks.objects <= bound
    assert peaks.total <= bound + OWN_NBYTES
    assert all(mapped <= bound for mapped in peaks.mapped.values())
    assert stats["evictions"] > 200
    assert LIMIT_NBYTES // 2 < stats["resident_bytes"] <= LIMIT_NBYTES


@pytest.mark.parametrize("scan", ["in order", "at random"])
def test_units_that_share_pages_stay_within_the_limit(uneven, scan):
    """Pages that stay for a neighbour count, and so do shares of pages that are not whole."""
    limit_nbytes = 2 * MIB
    peaks, stats = watch(uneven, scan, 0, limit_nbytes, 3000)
    assert peaks.objects <= limit_nbytes + (64 << 10)
    assert peaks.total <= limit_nbytes + (64 << 10) + 2 * OWN_NBYTES
    assert stats["evictions"] > 2000


def test_private_memory_counts_and_stays(large):
    """Shared memory gives way to it, down to half of the limit."""
    ended = run_program(programs.private_memory_counts_and_stays, large)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_unit_larger_than_the_limit_is_refused_when_it_is_opened(large):
    """The message names the limit and the unit's size, and the process reads on elsewhere."""
    ended = run_program(programs.a_unit_larger_than_the_limit_is_refused_when_it_is_opened, large)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "refused\n", "")


def test_pagers_that_were_told_no_limit_share_one(large):
    """As workers of a cluster that open a store each: what one holds the others do not take."""
    process, _ = start_program(programs.a_pager_holds_what_it_has_read, large, "")
    other, _ = start_program(programs.a_pager_holds_what_it_has_read, large, "1 GiB")
    try:
        workers = [int(each.stdout.readline()) for each in (process, other)]
        ended = run_program(programs.a_pager_without_a_limit_looks_around, large, 2 * 40)
        names = [Path(f"/proc/{pid}/comm").read_text() for pid in workers]
    finally:
        end_program(process)
        end_program(other)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert all(40 <= int(re.fullmatch(r"lazyarr (\d+)M\n", name)[1]) < 80 for name in names)


def test_what_large_chunks_were_decoded_in_is_given_back(tmp_path):
    """When their array is closed: what comes next has all of the limit, and is loaded once."""
    numbers = np.random.default_rng(0).integers(0, 1 << 32, (160, 1 << 14), dtype=np.uint32)
    large = numbers[:128].reshape(2, 1 << 20)
    lazyarr.save(tmp_path / "large.zarr", {"x": large}, chunks={"x": 1}, shards=None, level=1)
    lazyarr.save(tmp_path / "small.zarr", {"x": numbers}, chunks={"x": 1}, shards=None, level=1)
    ended = run_program(programs.small_chunks_after_large_ones, tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")

"""What it takes to learn which pages a process has written, by different ways.

A process writes to memory that another one follows.  All of the memory is there, and
write-protected.  Either the first write to a stretch is a fault, which the other process notes
before it lets the write through; or the kernel lets it through by itself (WP_ASYNC), and the page
table is asked for it later (PAGEMAP_SCAN).
"""

from __future__ import annotations

import mmap
import os
import select
import socket
import statistics
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.report import Section, table
from benchmarks.running import Run, in_turn, tell
from lazyarr.kernel import (
    PAGE_NBYTES,
    WRITE_BACK,
    Features,
    InstallMode,
    RegisterMode,
    Stop,
    Userfaultfd,
    buffer_address,
    create_memfd,
    map_shared,
    memory_view,
    probe,
    unmap,
)
from lazyarr.kernel.libc import ioctl
from lazyarr.pager.memory.installer import map_resident, protect, unprotect

__all__ = ["Tracked", "TrackingPlan", "measure", "measure_tracking"]

# Units of this size are what the memory is divided into where nothing else is said.
_UNIT_NBYTES = 512 << 10
_MODE = RegisterMode.MISSING | RegisterMode.MINOR | RegisterMode.WP
# linux/fs.h: struct pm_scan_arg and its flags (Linux 6.7).
_SCAN = struct.Struct("=12Q")
_PAGEMAP_SCAN = 3 << 30 | _SCAN.size << 16 | ord("f") << 8 | 16
_WP_MATCHING, _CHECK_WPASYNC, _WRITTEN = 1, 2, 1 << 1
_N_FOUND = 1 << 16
_LEGEND = """\
First writes to pages that are there, and what it takes to learn of them: microseconds for each
page that is written, until the write is done, and of the processor in both processes.  With faults
the writer waits until its write is noted; with WP_ASYNC what was written is asked for once, after
all writes, which is in the processor's time alone.  Everything is protected again in the end.
"""


@dataclass(frozen=True, slots=True)
class TrackingPlan:
    """How much is measured: size of the memory, how many pages are written, and how often."""

    nbytes: int
    n_scattered: int
    repeats: int


_FULL = TrackingPlan(256 << 20, 10_000, repeats=9)
_QUICK = TrackingPlan(4 << 20, 100, repeats=1)


class Tracked(NamedTuple):
    """What one way took for one pattern of writes.

    Attributes
    ----------
    way, pattern : str
        Which.
    n_pages : int
        How many pages were written.
    n_faults : int
        How many of the writes waited.
    seconds : float
        Until the writer is done; the median of the rounds.
    processor_seconds : float
        Of both processes, until all is protected again; the median of the rounds.
    """

    way: str
    pattern: str
    n_pages: int
    n_faults: int
    seconds: float
    processor_seconds: float


class _Round(NamedTuple):
    n_pages: int
    n_faults: int
    seconds: float
    processor_seconds: float


# How many bytes are let go at a fault; 0 for WP_ASYNC.
_WAYS = {
    "a fault, a page": PAGE_NBYTES,
    "a fault, 64 KiB": 64 << 10,
    "a fault, the unit (512 KiB)": _UNIT_NBYTES,
    "WP_ASYNC, PAGEMAP_SCAN": 0,
}


def measure_tracking(plan: TrackingPlan) -> Iterator[Tracked]:
    """Give the times of every way, for each pattern; the ways take turns."""
    ways = [way for way in _WAYS if _WAYS[way] or probe().wp_async]
    for pattern in ("scattered", "in order"):
        rounds: dict[str, list[_Round]] = {way: [] for way in ways}
        for number in range(plan.repeats):
            for way in in_turn(ways, number):
                rounds[way].append(_measure(way, pattern, plan))
        for way, each in rounds.items():
            wall = statistics.median(r.seconds for r in each)
            processor = statistics.median(r.processor_seconds for r in each)
            yield Tracked(way, pattern, each[0].n_pages, each[0].n_faults, wall, processor)


def _measure(way: str, pattern: str, plan: TrackingPlan) -> _Round:
    """Have a process write, and follow it."""
    stretch_nbytes = _WAYS[way]
    features = WRITE_BACK if stretch_nbytes else WRITE_BACK | Features.WP_ASYNC
    memfd = create_memfd("tracking", nbytes=plan.nbytes)
    # All pages are there before anything is measured.
    with mmap.mmap(memfd, plan.nbytes) as filled:
        filled[:] = bytes(plan.nbytes)
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            _write(theirs, memfd, features, pattern, plan)
            status = 0
        finally:
            os._exit(status)
    theirs.close()
    message, descriptors, _, _ = socket.recv_fds(ours, 8, 1)
    address = int.from_bytes(message, "little")
    with Userfaultfd.from_fd(descriptors[0], features) as uffd:
        outcome = uffd.continue_(address, plan.nbytes, mode=int(InstallMode.WP))
        assert outcome.stop is Stop.DONE
        # Read once by the writer itself, so that its page table is warm in each way.
        ours.send(b"g")
        assert ours.recv(1) == b"r"
        begin = time.process_time()
        ours.send(b"g")
        if stretch_nbytes:
            n_faults, dirty = _follow(uffd, ours, address, stretch_nbytes)
            for unit in dirty:
                assert protect(uffd, address + unit * _UNIT_NBYTES, _UNIT_NBYTES) is Stop.DONE
        else:
            n_faults = 0
        own_seconds = time.process_time() - begin
        n_pages, seconds, processor = struct.unpack("=Qdd", ours.recv(24))
        ours.send(b"e")
    ours.close()
    os.close(memfd)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return _Round(n_pages, n_faults, seconds, processor + own_seconds)


def _follow(
    uffd: Userfaultfd, writer: socket.socket, address: int, stretch_nbytes: int
) -> tuple[int, set[int]]:
    """Note and let go what is written until the writer is done; return how many faults, and units.

    What is noted is the unit.
    """
    n_faults, dirty = 0, set()
    poll = select.epoll()
    poll.register(uffd.fileno(), select.EPOLLIN)
    poll.register(writer.fileno(), select.EPOLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == writer.fileno():
                poll.close()
                return n_faults, dirty
            for fault in uffd.read_faults():
                n_faults += 1
                start = fault.address - address
                dirty.add(start // _UNIT_NBYTES)
                start -= start % stretch_nbytes
                uffd.writeprotect(address + start, stretch_nbytes, mode=0)


def _write(
    channel: socket.socket, memfd: int, features: Features, pattern: str, plan: TrackingPlan
) -> None:
    """Map the memory, and write when told to: what the followed process does."""
    address = map_shared(memfd, 0, plan.nbytes, writable=True)
    uffd = Userfaultfd.open(features)
    uffd.register(address, plan.nbytes, _MODE)
    socket.send_fds(channel, [address.to_bytes(8, "little")], [uffd.fileno()])
    memory = np.frombuffer(memory_view(address, plan.nbytes, writable=True), "u1")
    n_all = plan.nbytes // PAGE_NBYTES
    n_pages = plan.n_scattered if pattern == "scattered" else n_all
    places = np.random.default_rng(7).choice(n_all, n_pages, replace=False) * PAGE_NBYTES
    assert channel.recv(1) == b"g"
    int(memory[::PAGE_NBYTES].sum())
    channel.send(b"r")
    assert channel.recv(1) == b"g"
    begin, begin_processor = time.perf_counter(), time.process_time()
    if pattern == "scattered":
        memory[places] = 7
    else:
        memory[:] = 7
    seconds = time.perf_counter() - begin
    if Features.WP_ASYNC in features:
        assert _scan(address, plan.nbytes) == n_pages
    processor = time.process_time() - begin_processor
    channel.send(struct.pack("=Qdd", n_pages, seconds, processor))
    assert channel.recv(1) == b"e"  # until then the memory is there to be protected


def _scan(address: int, nbytes: int) -> int:
    """Find all pages that were written, and protect them again; return how many there were."""
    found = bytearray(_N_FOUND * 24)
    n_pages, at = 0, address
    with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
        while at < address + nbytes:
            argument = bytearray(
                _SCAN.pack(
                    _SCAN.size,
                    _WP_MATCHING | _CHECK_WPASYNC,
                    at,
                    address + nbytes,
                    0,
                    buffer_address(found),
                    _N_FOUND,
                    0,
                    0,
                    _WRITTEN,
                    0,
                    _WRITTEN,
                )
            )
            n_runs = ioctl(pagemap.fileno(), _PAGEMAP_SCAN, argument)
            ends = np.frombuffer(found, "u8")[: 3 * n_runs].reshape(-1, 3)
            n_pages += int((ends[:, 1] - ends[:, 0]).sum()) // PAGE_NBYTES
            at = _SCAN.unpack(argument)[4]
    return n_pages


def _try_each(uffd: Userfaultfd, address: int, nbytes: int) -> None:
    """Map whichever page is not mapped, and lift: the way that is not used."""
    map_resident(uffd, address, nbytes, PAGE_NBYTES, mode=int(InstallMode.DONTWAKE))
    uffd.writeprotect(address, nbytes, mode=0)


def _measure_calls(plan: TrackingPlan) -> Iterator[tuple[str, str, float]]:
    """Give the processor's time of the calls alone, a stretch at a time: nobody waits."""
    memfd = create_memfd("tracking", nbytes=plan.nbytes)
    address = map_shared(memfd, 0, plan.nbytes, writable=True)
    with mmap.mmap(memfd, plan.nbytes) as filled:
        filled[:] = bytes(plan.nbytes)
    with Userfaultfd.open(WRITE_BACK) as uffd:
        uffd.register(address, plan.nbytes, _MODE)
        uffd.continue_(address, plan.nbytes, mode=int(InstallMode.WP))
        acts = {
            "protect": lambda at, n: protect(uffd, at, n),
            "lift": lambda at, n: uffd.writeprotect(at, n, mode=0),
            "map the first run, and lift": lambda at, n: unprotect(uffd, at, n),
            "try each page, and lift": lambda at, n: _try_each(uffd, at, n),
        }
        for stretch_nbytes in sorted({n for n in _WAYS.values() if n}):
            for name, act in acts.items():
                times = []
                for _ in range(plan.repeats):
                    protect(uffd, address, plan.nbytes)
                    starts = range(address, address + plan.nbytes, _UNIT_NBYTES)
                    begin = time.process_time()
                    for start in starts:
                        act(start, stretch_nbytes)
                    times.append((time.process_time() - begin) / len(starts))
                yield name, f"{stretch_nbytes >> 10} KiB", statistics.median(times)
    unmap(address, plan.nbytes)
    os.close(memfd)


def measure(data: Path, run: Run) -> Section:  # noqa: ARG001 - it needs no data
    """Measure all ways for all patterns, and the calls alone."""
    plan = run.plan(_FULL, _QUICK)
    if not probe().write_back:
        return Section("Noting writes", [], ["This kernel lacks what writable arrays need."])
    found = []
    for tracked in measure_tracking(plan):
        tell(*tracked)
        found.append(tracked)
    rows = [
        (
            t.pattern,
            t.way,
            t.n_faults,
            f"{t.seconds / t.n_pages * 1e6:.2f}",
            f"{t.processor_seconds / t.n_pages * 1e6:.2f}",
        )
        for t in found
    ]
    head = ("pages", "noted by, and let go", "faults", "until written", "processor")
    lines = table(head, rows)
    calls = list(_measure_calls(plan))
    for call in calls:
        tell(*call)
    sizes = list(dict.fromkeys(size for _, size, _ in calls))
    times = {(name, size): f"{seconds * 1e6:.1f}" for name, size, seconds in calls}
    names = dict.fromkeys(name for name, _, _ in calls)
    call_rows = [(name, *(times[name, size] for size in sizes)) for name in names]
    title = "Microseconds of the processor for one call:"
    lines += [title, "", *table(("", *sizes), call_rows)]
    figures = [t._asdict() for t in found]
    figures += [{"call": name, "stretch": size, "seconds": s} for name, size, s in calls]
    return Section("Noting writes", figures, [_LEGEND, *lines])

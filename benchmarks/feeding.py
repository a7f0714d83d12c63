"""How many cores one pager can feed: what its own Python takes for a chunk."""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.codecs import CHUNK_NBYTES, make_chunks
from benchmarks.images import warm
from benchmarks.processes import processor_time
from benchmarks.report import Section, table
from benchmarks.running import Run, run_job, tell
from benchmarks.samples import IMAGES, LEVEL
from benchmarks.writers import CODECS, prepare_zarr

__all__ = ["Feeding", "FeedingPlan", "measure", "measure_feeding"]

_LEGEND = """\
Python runs one thread of a process at a time, so a pager can load no more chunks in a second than
its interpreter has time for, however many threads decompress.  Here chunks are uncompressed and
have no checksum: what is left of a load is the pager's Python, and the kernel's copying.  *User* is
the processor time of the pager's process outside of the kernel, from /proc/PID/stat, for each chunk
loaded.  It is taken for the time of the interpreter.  That is too much by what runs outside of the
kernel without the interpreter's lock (little here), and too little by system calls that are made
with it; those that move a chunk (pread, UFFDIO_COPY) are made without it, and they are nearly all
of *system*, which is not counted.  Calls of a decompressor and a checksum, which release the lock
while they work, are in the first rows alone, with chunks so small that the work itself is little.
The kernel tells user from system by sampling, so figures are good for a tenth or so.  What it costs
when many threads want the lock at once, two cores cannot show.

With more than four *threads* (`lazyarr.configure(threads=)`) chunks are read, decoded and
installed by processes beside the pager's worker, of which *user* is then the time; those have
interpreters of their own.  What the worker does for a chunk is the same however long that is; with
64 KiB it has no rest between two, as beside many cores, and its caches stay warm.

*Cores* is {decode:.0f} us, which one core takes to decompress a 512 KiB chunk of the 16-bit images
(zstd {level}, the median; no checksum), by *user*: with so many cores decompressing, the
interpreter is never idle.  *Asked for*: all chunks in one message (`prefetch`).  *Scanned*: the
plain array is touched in order, and read ahead.  *Touched at random*: every chunk is a page fault
of its own; one client thread waits for each.
"""


FEW, MANY = 2, 16
"""Threads: those of the worker alone, and enough for processes beside it."""


@dataclass(frozen=True, slots=True)
class FeedingPlan:
    """How much is measured: codec and size of chunks, bytes of all, and how often all are read.

    With each kind of chunks goes how many threads decode.
    """

    chunks: tuple[tuple[str, int, int], ...]
    array_nbytes: int
    repeats: int

    def n_chunks(self, chunk_nbytes: int) -> int:
        """How many chunks there are: not too many small ones, which take a while."""
        return min(self.array_nbytes // chunk_nbytes, 16384)


_FULL = FeedingPlan(
    (
        (CODECS[-1], 4 << 10, FEW),
        ("none", 4 << 10, FEW),
        ("none", 64 << 10, FEW),
        ("none", 64 << 10, MANY),
        ("none", CHUNK_NBYTES, FEW),
        ("none", CHUNK_NBYTES, MANY),
    ),
    512 << 20,
    repeats=5,
)
_QUICK = FeedingPlan(
    ((CODECS[-1], 4 << 10, FEW), ("none", CHUNK_NBYTES, FEW), ("none", CHUNK_NBYTES, MANY)),
    4 << 20,
    repeats=1,
)


class Feeding(NamedTuple):
    """What one way of reading cost the pager.

    Attributes
    ----------
    way, codec : str
        How chunks were asked for, and how they were stored.
    chunk_nbytes, n_chunks : int
        How large, and how many were loaded in all.
    threads : int
        How many could decode at once.
    user_seconds, system_seconds : float
        Of the pager's process, for each chunk.
    seconds : float
        Of the clock, for each chunk.
    cores : float
        How many cores decompress as fast as that lets the pager work.
    """

    way: str
    codec: str
    chunk_nbytes: int
    n_chunks: int
    threads: int
    user_seconds: float
    system_seconds: float
    seconds: float
    cores: float


# --- in a process of its own ------------------------------------------------------


def _scan(array: Any, rows: list[int]) -> None:
    raw = np.asarray(array)
    for row in rows:
        raw[row, 0]


def _touch(array: Any, rows: list[int]) -> None:
    _scan(array, random.Random(0).sample(rows, len(rows)))


WAYS: dict[str, Callable[[Any, list[int]], Any]] = {
    "asked for": lambda array, _: array.prefetch(),
    "scanned": _scan,
    "touched at random": _touch,
}


def main() -> None:
    """Read everything so many times, and print what that took."""
    import lazyarr

    job = json.loads(sys.argv[1])
    lazyarr.configure(threads=job["threads"])
    array: Any = lazyarr.open(job["store"])
    assert array[0, 0] == 1
    while job["threads"] == MANY and not lazyarr.stats()["decoders"]:
        array.evict()
        array.prefetch()
    pid, read, rows = lazyarr.stats()["pid"], WAYS[job["contestant"]], list(range(len(array)))
    user = system = seconds = 0.0
    n_chunks = 0
    for _ in range(job["repeats"]):
        array.evict()
        loaded, before = lazyarr.stats()["units_loaded"], processor_time(pid)
        begin = time.perf_counter()
        read(array, rows)
        seconds += time.perf_counter() - begin
        after, stats = processor_time(pid), lazyarr.stats()
        assert stats["pid"] == pid, "the pager's worker was replaced"
        n_chunks += stats["units_loaded"] - loaded
        user += after.user - before.user
        system += after.system - before.system
    print(json.dumps({"n_chunks": n_chunks, "user": user, "system": system, "seconds": seconds}))


# --- the driver ---------------------------------------------------------------------


def _prepare(data: Path, codec: str, chunk_nbytes: int, n_chunks: int) -> Path:
    """Return an array of chunks, made now where it is not there yet."""
    shape = (n_chunks, chunk_nbytes)
    path = prepare_zarr(
        data / f"feeding-{codec.replace(', ', '-')}-{chunk_nbytes}x{n_chunks}.zarr",
        lambda: np.broadcast_to(np.uint8(1), shape),
        chunks=(1, chunk_nbytes),
        shards=(min(n_chunks, (64 << 20) // chunk_nbytes), chunk_nbytes),
        codec=codec,
    )
    warm(path)
    return path


def _decode_seconds(n_rounds: int) -> float:
    """Return what decompressing a chunk of 16-bit images takes one core."""
    from zstandard import ZstdCompressor, ZstdDecompressor

    encoded = [ZstdCompressor(level=LEVEL).compress(chunk) for chunk in make_chunks(IMAGES, 8)]
    decompressor, out = ZstdDecompressor(), memoryview(bytearray(CHUNK_NBYTES))
    times = []
    for _ in range(n_rounds):
        for data in encoded:
            begin = time.perf_counter()
            with decompressor.stream_reader(data) as reader:
                assert reader.readinto(out) == CHUNK_NBYTES
            times.append(time.perf_counter() - begin)
    return statistics.median(times)


def measure_feeding(data: Path, plan: FeedingPlan, decode_seconds: float) -> Iterator[Feeding]:
    """Give what each way costs, for each size of chunks."""
    for codec, chunk_nbytes, threads in plan.chunks:
        store = _prepare(data, codec, chunk_nbytes, plan.n_chunks(chunk_nbytes))
        for way in WAYS:
            job = {"store": str(store), "contestant": way, "repeats": plan.repeats}
            job["threads"] = threads
            found = run_job("feeding", job)
            n = found["n_chunks"]
            user = max(found["user"], 0.01) / n  # no less than what the clock can tell
            cores = decode_seconds / user
            system, seconds = found["system"] / n, found["seconds"] / n
            yield Feeding(way, codec, chunk_nbytes, n, threads, user, system, seconds, cores)


def measure(data: Path, run: Run) -> Section:
    """Measure all ways for all sizes."""
    plan = run.plan(_FULL, _QUICK)
    decode_seconds = _decode_seconds(5 if run.is_quick else 50)
    found = []
    for feeding in measure_feeding(data, plan, decode_seconds):
        tell(*feeding)
        found.append(feeding)
    rows = [
        (
            f"{f.chunk_nbytes >> 10} KiB, {f.codec}",
            f.way,
            f"{f.threads}",
            f"{f.n_chunks:,}",
            *(f"{s * 1e6:.0f}" for s in (f.user_seconds, f.system_seconds, f.seconds)),
            f"{f.cores:.0f}",
        )
        for f in found
    ]
    head = ("chunk", "", "threads", "chunks", "user, us", "system, us", "clock, us", "cores")
    legend = _LEGEND.format(decode=decode_seconds * 1e6, level=LEVEL)
    body = [legend, *table(head, rows)]
    return Section("How many cores a pager feeds", [f._asdict() for f in found], body)


if __name__ == "__main__":
    main()

"""Ten million chunks in one array, ten thousand arrays in one store: time, and memory for each."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.processes import anonymous_nbytes, memory_object_nbytes
from benchmarks.report import Section, table
from benchmarks.running import Run, run_job, tell

__all__ = ["Phase", "ScalePlan", "measure"]

_CHUNK_NBYTES = 4096
_TINY = "scale-tiny.zarr"
_LEGEND = """\
Each table is one process, which has opened and read another small array before: neither starting
the pager nor what it needs by itself is in these figures.  *Client* and *pager* are what memory
they have to themselves grew by in that step, page tables included (RssAnon + VmPTE), in bytes for
each item; *shared* is what their memory objects grew by, less the data itself.  The kernel counts
in pages and allocators take more than they need: a few bytes for each of few items are noise.
"""
_CHUNKS_LEGEND = """\
One array of {n:,} chunks of 4 KiB, {gib:.1f} GiB, in shards of {shard:,}; {stored:,} chunks are
stored (uncompressed), the others are not, so that they are zeros.  Touched at random, one after
another, by page faults.
"""
_ARRAYS_LEGEND = """\
{n:,} arrays of 16 KiB in one group, one chunk each, with consolidated metadata.  The first step
opens the group, the second makes every array of it (maps its memory, tells the pager), the third
touches one element of each, the last lets go of all and waits until the pager has.
"""


@dataclass(frozen=True, slots=True)
class ScalePlan:
    """How much there is.

    Attributes
    ----------
    n_chunks, shard_chunks, n_shards : int
        Chunks in the array, chunks in a shard, and how many shards are stored.
    n_touches : int
        How many chunks are touched of those stored, and of those that are not.
    n_arrays : int
        Arrays in the store.
    """

    n_chunks: int
    shard_chunks: int
    n_shards: int
    n_touches: int
    n_arrays: int


_FULL = ScalePlan(10_000_000, 8192, n_shards=8, n_touches=50_000, n_arrays=10_000)
_QUICK = ScalePlan(10_000, 64, n_shards=2, n_touches=100, n_arrays=20)


class Phase(NamedTuple):
    """What one step took.

    Attributes
    ----------
    what : str
        "chunks" or "arrays".
    step : str
        Which step.
    n_items : int
        How many chunks or arrays it was about.
    seconds : float
        All of it.
    client_nbytes, pager_nbytes, shared_nbytes : int
        What the memory of the client, of the pager, and the memory objects (less the data that is
        resident in them) grew by.
    """

    what: str
    step: str
    n_items: int
    seconds: float
    client_nbytes: int
    pager_nbytes: int
    shared_nbytes: int


# --- the data ---------------------------------------------------------------------


def _prepare(data: Path, name: str, write: Callable[[Any], None]) -> Path:
    """Return a store, made now where it is not there yet."""
    import lazyarr

    path = data / name
    if not path.exists():
        part = path.with_name(f"part-{name}")
        shutil.rmtree(part, ignore_errors=True)
        with lazyarr.create(part) as writer:
            write(writer)
        part.rename(path)
    return path


def _stored_rows(plan: ScalePlan) -> range:
    """Return the first chunks of those shards that are stored."""
    n_shards = plan.n_chunks // plan.shard_chunks
    return range(0, n_shards * plan.shard_chunks, n_shards // plan.n_shards * plan.shard_chunks)


def _write_chunks(writer: Any, plan: ScalePlan) -> None:
    array = writer.create_array(
        "x",
        shape=(plan.n_chunks, _CHUNK_NBYTES),
        dtype="u1",
        chunks=(1, _CHUNK_NBYTES),
        shards=(plan.shard_chunks, _CHUNK_NBYTES),
        compressor="none",
    )
    rows = np.full((plan.shard_chunks, _CHUNK_NBYTES), 1, "u1")
    for start in _stored_rows(plan)[: plan.n_shards]:
        array[start : start + plan.shard_chunks] = rows


def _write_arrays(writer: Any, n_arrays: int) -> None:
    for number in range(n_arrays):
        array = writer.create_array(f"a{number:05}", shape=(64, 64), dtype="f4")
        array[...] = np.full((64, 64), number + 1, np.float32)


# --- in a process of its own ------------------------------------------------------


class _Recorder:
    """Takes down what each step took."""

    def __init__(self, what: str) -> None:
        self._what = what
        self.phases: list[Phase] = []
        self._before = self._memory()

    def _memory(self) -> tuple[int, int, int]:
        import lazyarr

        stats = lazyarr.stats()
        shared = memory_object_nbytes("self") - stats["resident_bytes"]
        return anonymous_nbytes("self"), anonymous_nbytes(stats["pid"]), shared

    def step(self, name: str, n_items: int, action: Callable[[], Any]) -> Any:
        """Do something and take down what it took."""
        begin = time.perf_counter()
        result = action()
        seconds = time.perf_counter() - begin
        after = self._memory()
        grown = (b - a for a, b in zip(self._before, after, strict=True))
        self.phases.append(Phase(self._what, name, n_items, seconds, *grown))
        self._before = after
        return result


def _touch(raw: Any, rows: Sequence[int], expected: int) -> None:
    total = 0
    for row in rows:
        total += int(raw[row, 0])
    assert total == expected * len(rows), "wrong data"


def _measure_chunks(store: str, plan: ScalePlan) -> list[Phase]:
    import lazyarr

    choose = random.Random(0)
    starts = _stored_rows(plan)[: plan.n_shards]
    stored = [row for start in starts for row in range(start, start + plan.shard_chunks)]
    is_stored = frozenset(stored)
    absent = (choose.randrange(plan.n_chunks) for _ in range(2 * plan.n_touches))
    holes = list(dict.fromkeys(row for row in absent if row not in is_stored))[: plan.n_touches]
    stored = choose.sample(stored, min(plan.n_touches, len(stored)))
    recorder = _Recorder("chunks")
    array = recorder.step("open", plan.n_chunks, lambda: lazyarr.open(store)["x"])
    raw = np.asarray(array)
    recorder.step("touch stored chunks", len(stored), lambda: _touch(raw, stored, 1))
    recorder.step("touch chunks that are not stored", len(holes), lambda: _touch(raw, holes, 0))
    return recorder.phases


def _measure_arrays(store: str, plan: ScalePlan) -> list[Phase]:
    import lazyarr

    n = plan.n_arrays
    recorder = _Recorder("arrays")
    n_regions = lazyarr.stats()["regions"]
    held = [recorder.step("open the group", n, lambda: lazyarr.open(store))]
    held += recorder.step("make every array", n, lambda: [*held[0].values()])
    total = recorder.step("touch every array", n, lambda: sum(int(a[3, 3]) for a in held[1:]))
    assert total == n * (n + 1) // 2, "wrong data"

    def let_go() -> None:
        held.clear()
        while lazyarr.stats()["regions"] > n_regions:
            time.sleep(0.01)

    recorder.step("let go of all", n, let_go)
    return recorder.phases


def main() -> None:
    """Measure what the driver says."""
    import lazyarr

    job = json.loads(sys.argv[1])
    tiny = lazyarr.open(job["tiny"])["a00000"]
    assert tiny[0, 0] == 1
    measure_one = {"chunks": _measure_chunks, "arrays": _measure_arrays}[job["contestant"]]
    phases = measure_one(job["store"], ScalePlan(**job["plan"]))
    print(json.dumps([phase._asdict() for phase in phases]))


# --- the driver ---------------------------------------------------------------------


def measure(data: Path, run: Run) -> Section:
    """Measure both, once: counts and sizes hardly differ from run to run."""
    plan = _QUICK if run.is_quick else _FULL
    tiny = _prepare(data, _TINY, lambda writer: _write_arrays(writer, 1))
    stores = {
        "chunks": _prepare(
            data, f"scale-chunks-{plan.n_chunks}.zarr", lambda writer: _write_chunks(writer, plan)
        ),
        "arrays": _prepare(
            data,
            f"scale-arrays-{plan.n_arrays}.zarr",
            lambda writer: _write_arrays(writer, plan.n_arrays),
        ),
    }
    legends = {
        "chunks": _CHUNKS_LEGEND.format(
            n=plan.n_chunks,
            gib=plan.n_chunks * _CHUNK_NBYTES / 2**30,
            shard=plan.shard_chunks,
            stored=plan.n_shards * plan.shard_chunks,
        ),
        "arrays": _ARRAYS_LEGEND.format(n=plan.n_arrays),
    }
    figures: list[dict[str, Any]] = []
    body = [_LEGEND]
    for what, store in stores.items():
        job = {
            "contestant": what,
            "store": str(store),
            "tiny": str(tiny),
            "plan": dataclasses.asdict(plan),
        }
        phases = [Phase(**phase) for phase in run_job("scale", job)]
        tell(*phases)
        figures += [phase._asdict() for phase in phases]
        body += [f"### Many {what}", "", legends[what], *_table(phases)]
    return Section("Scale", figures, body)


def _table(phases: Sequence[Phase]) -> list[str]:
    rows = [
        (
            p.step,
            f"{p.n_items:,}",
            f"{p.seconds:.3f}",
            f"{p.seconds / p.n_items * 1e6:.2f}",
            *(f"{n / p.n_items:.2f}" for n in (p.client_nbytes, p.pager_nbytes, p.shared_nbytes)),
        )
        for p in phases
    ]
    head = ("", "items", "seconds", "microseconds each", "client", "pager", "shared")
    return table(head, rows)


if __name__ == "__main__":
    main()

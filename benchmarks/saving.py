"""`lazyarr.save` beside compression alone, and beside what its peers take to write the same."""

from __future__ import annotations

import json
import math
import os
import resource
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.images import Images, ImageSize, prepare_images, stored_nbytes
from benchmarks.report import Section, table
from benchmarks.running import Run, in_turn, run_job, tell
from benchmarks.samples import LEVEL, Array
from benchmarks.writers import WRITERS

__all__ = ["Pair", "Saving", "SavingPlan", "measure", "measure_pairs", "measure_savings"]

_COMPRESSORS = ("zstd", "blosc", "none")
_PAIR_LEGEND = """\
Compression alone is the same chunks, the same compressor and as many threads as there are
processors, and what it makes is thrown away; for "none" it is a copy.  The two take turns on the
same data in one process; a ratio is the median of those of each pair (compression alone / save: 1
would be a save that costs nothing more).  Processor time counts what the wall clock cannot tell
apart on a machine with other work to do; writing the bytes is part of it.  Seconds.
"""
_PEER_LEGEND = """\
The same images, in memory, written by everybody in a process of its own, shard after shard where
the library does not take all at once; seconds, and how large the result is, where the data has 1.
Nobody waits for the disk.
"""


@dataclass(frozen=True, slots=True)
class SavingPlan:
    """How much is measured: the images, and how many pairs, of which peers take part in some."""

    size: ImageSize
    repeats: int
    peer_repeats: int


_FULL = SavingPlan(ImageSize(1024, 384, 384), repeats=5, peer_repeats=3)
_QUICK = SavingPlan(ImageSize(32, 64, 64, shard_rows=16), repeats=1, peer_repeats=1)


class Cost(NamedTuple):
    """What something took, in seconds of the wall clock and of all processors together."""

    wall: float
    processor: float


class Pair(NamedTuple):
    """One compressor: medians of the two, and the median ratio of pairs.

    Attributes
    ----------
    compressor : str
        As `lazyarr.save` takes it.
    alone, save : Cost
        Medians.
    ratio, processor_ratio : float
        How fast saving is, where compression alone is 1.
    """

    compressor: str
    alone: Cost
    save: Cost
    ratio: float
    processor_ratio: float


class Saving(NamedTuple):
    """What one contestant needed to write everything: the median, and how large that is."""

    contestant: str
    seconds: float
    stored: float


# --- beside compression alone ---------------------------------------------------


def _timed(action: Callable[[], object]) -> Cost:
    before = resource.getrusage(resource.RUSAGE_SELF)
    begin = time.perf_counter()
    action()
    wall = time.perf_counter() - begin
    after = resource.getrusage(resource.RUSAGE_SELF)
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    return Cost(wall, user + system)


class _ZstdEncoder(threading.local):
    """A compressor for each thread."""

    def __init__(self) -> None:
        from zstandard import ZstdCompressor

        self._compressor = ZstdCompressor(level=LEVEL)

    def __call__(self, data: memoryview) -> bytes:
        return self._compressor.compress(data)


def _encoder(compressor: str, itemsize: int) -> Callable[[memoryview], bytes]:
    if compressor == "zstd":
        return _ZstdEncoder()
    if compressor == "blosc":
        from numcodecs import blosc

        return lambda data: blosc.compress(data, b"zstd", 1, 1, 1 << 19, itemsize)
    return bytes


def _compress_alone(rows: Array, compressor: str, chunk_rows: int) -> None:
    encode = _encoder(compressor, rows.itemsize)
    starts = range(0, len(rows), chunk_rows)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        # A result is kept for as long as the pool wants, as little as it can be.
        for _ in threads.map(
            lambda a: len(encode(rows[a : a + chunk_rows].data.cast("B"))), starts
        ):
            pass


def measure_pairs(rows: Array, plan: SavingPlan, directory: Path) -> Iterator[Pair]:
    """Give what each compressor costs alone and in `save`."""
    import lazyarr

    path, chunk_rows = directory / "saved.zarr", plan.size.chunk_rows
    options: dict[str, Any] = {"chunks": plan.size.chunks, "shards": plan.size.shards}
    for compressor in _COMPRESSORS:
        costs: list[tuple[Cost, Cost]] = []
        for _ in range(plan.repeats + 1):
            alone = _timed(lambda: _compress_alone(rows, compressor, chunk_rows))  # noqa: B023
            save = _timed(lambda: lazyarr.save(path, rows, compressor=compressor, **options))  # noqa: B023
            shutil.rmtree(path)
            costs.append((alone, save))
        yield _summary(compressor, costs[1:])  # the first imports


def _summary(compressor: str, costs: Sequence[tuple[Cost, Cost]]) -> Pair:
    alone, save = (
        Cost(*(statistics.median(values) for values in zip(*side, strict=True)))
        for side in zip(*costs, strict=True)
    )
    ratio, processor_ratio = (
        statistics.median(a[part] / s[part] if s[part] else math.nan for a, s in costs)
        for part in (0, 1)
    )
    return Pair(compressor, alone, save, ratio, processor_ratio)


# --- beside peers -----------------------------------------------------------------


def measure_savings(images: Images, plan: SavingPlan, directory: Path) -> Iterator[Saving]:
    """Give what everybody takes to write the same; they take turns."""
    names = [name for name, writer in WRITERS.items() if find_spec(writer.needs)]
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for number in range(plan.peer_repeats):
        for name in in_turn(names, number):
            job = {**images.job(), "contestant": name, "target": str(directory / "saved")}
            runs[name].append(run_job("saving", job))
    for name, each in runs.items():
        seconds = statistics.median(run["seconds"] for run in each)
        yield Saving(name, seconds, each[0]["nbytes"] / images.size.nbytes)


def _write(job: dict[str, Any]) -> dict[str, Any]:
    """Write the images, once more after a few that load what must be loaded."""
    import numpy as np

    images, path = Images.of_job(job), Path(job["target"])
    write = WRITERS[job["contestant"]].write
    rows = np.load(images.path("npy"))
    few = ImageSize(images.size.chunk_rows, images.size.height, images.size.width)
    write(path, rows[: few.n_images], few)
    _remove(path)
    begin = time.perf_counter()
    write(path, rows, images.size)
    seconds = time.perf_counter() - begin
    nbytes = stored_nbytes(path)
    _remove(path)
    return {"seconds": seconds, "nbytes": nbytes}


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def measure(data: Path, run: Run) -> Section:
    """Measure `save` and its peers."""
    import numpy as np

    plan = run.plan(_FULL, _QUICK)
    images = prepare_images(data, plan.size, forms=())
    with tempfile.TemporaryDirectory(dir=data) as directory:
        pairs = list(measure_pairs(np.load(images.path("npy")), plan, Path(directory)))
        savings = list(measure_savings(images, plan, Path(directory)))
    tell(*pairs, *savings)
    head = (
        "compressor",
        "alone",
        "save",
        "ratio",
        "alone, processors",
        "save, processors",
        "ratio",
    )
    body = [f"{plan.size}; medians of {plan.repeats} pairs.", "", _PAIR_LEGEND]
    body += table(head, [(pair.compressor, *_cells(pair)) for pair in pairs])
    rows = [(s.contestant, f"{s.seconds:.2f}", f"{s.stored:.3f}") for s in savings]
    body += ["### Beside its peers", "", _PEER_LEGEND, *table(("", "seconds", "size"), rows)]
    figures = [{**p._asdict(), "alone": p.alone.wall, "save": p.save.wall} for p in pairs]
    return Section("Saving", [*figures, *(s._asdict() for s in savings)], body)


def _cells(pair: Pair) -> list[str]:
    wall = [f"{pair.alone.wall:.3f}", f"{pair.save.wall:.3f}", f"{pair.ratio:.2f}"]
    processor = [f"{pair.alone.processor:.3f}", f"{pair.save.processor:.3f}"]
    return [*wall, *processor, f"{pair.processor_ratio:.2f}"]


if __name__ == "__main__":
    print(json.dumps(_write(json.loads(sys.argv[1]))))

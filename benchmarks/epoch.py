"""A shuffled epoch: worker processes read every image once, in random order.

Every worker reads its share of a permutation; chunks hold several images, so who keeps no
decoded chunks decompresses each of them several times, and who shares none does so in
every worker.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.images import Images, ImageSize, prepare_images, warm
from benchmarks.readers import MANY, READERS, checksum, installed_readers
from benchmarks.report import Section, table
from benchmarks.running import Run, in_turn, run_job, tell

__all__ = ["Epoch", "EpochPlan", "measure", "measure_epochs"]

_LEGEND = """\
Worker processes read all images once, one by one, in random order; seconds from when all are ready.
lazyarr's workers are forked and share pages; the others, of which some do not survive fork, are
spawned and open the store themselves before that.  Nothing has been read when the clock starts.
"""


@dataclass(frozen=True, slots=True)
class EpochPlan:
    """How much is measured: the images, how many workers share them, how often, without whom."""

    size: ImageSize
    workers: tuple[int, ...]
    repeats: int
    without: tuple[str, ...] = ()


_FULL = EpochPlan(ImageSize(2048, 384, 384), (2, 4), repeats=3)
_QUICK = EpochPlan(ImageSize(256, 32, 32, shard_rows=128), (2,), repeats=1, without=MANY)


class Epoch(NamedTuple):
    """What one contestant needed for an epoch.

    Attributes
    ----------
    contestant : str
        Who.
    n_workers : int
        How many processes read.
    seconds : float
        From when all workers were ready until the last had read its share; the median.
    decoded_per_chunk : float or None
        How often a chunk was decompressed, where the library tells.
    checksum : int
        Of all that was read.
    """

    contestant: str
    n_workers: int
    seconds: float
    decoded_per_chunk: float | None
    checksum: int


def measure_epochs(images: Images, plan: EpochPlan) -> Iterator[Epoch]:
    """Give the results of all contestants, for one number of workers after the other."""
    warm(images.directory)
    for n_workers in plan.workers:
        runs: dict[str, list[dict[str, Any]]] = {
            name: [] for name in installed_readers(plan.without)
        }
        for number in range(plan.repeats):
            for name in in_turn([*runs], number):
                job = {**images.job(), "contestant": name, "workers": n_workers}
                runs[name].append(run_job("epoch", job))
        if len({run["checksum"] for each in runs.values() for run in each}) != 1:
            raise ValueError("not everybody has read the same")
        for name, each in runs.items():
            seconds = statistics.median(run["seconds"] for run in each)
            yield Epoch(name, n_workers, seconds, each[0]["decoded"], each[0]["checksum"])


def measure(data: Path, run: Run) -> Section:
    """Measure all contestants with each number of workers."""
    plan = run.plan(_FULL, _QUICK)
    found = []
    for epoch in measure_epochs(prepare_images(data, plan.size), plan):
        tell(*epoch)
        found.append(epoch)
    rows = [
        (
            e.contestant,
            e.n_workers,
            f"{e.seconds:.2f}",
            "-" if e.decoded_per_chunk is None else f"{e.decoded_per_chunk:.2f}",
        )
        for e in found
    ]
    head = ("", "workers", "seconds", "chunks decompressed, per chunk")
    return Section("A shuffled epoch", [e._asdict() for e in found], [_LEGEND, *table(head, rows)])


def _read_share(reader: Any, rows: list[int], gate: Any, answers: Any) -> None:
    """Read some images, once everybody is ready."""
    gate.wait()
    answers.put(sum(checksum(reader.row(row)) for row in rows) % 2**64)


def _open_and_read(name: str, images: Images, rows: list[int], gate: Any, answers: Any) -> None:
    _read_share(READERS[name](images), rows, gate, answers)


def main() -> None:
    """Measure what the driver says."""
    job = json.loads(sys.argv[1])
    images = Images.of_job(job)
    name, n_workers = job["contestant"], job["workers"]
    order = np.random.default_rng(0).permutation(images.size.n_images).tolist()
    shares = [order[worker::n_workers] for worker in range(n_workers)]
    method = "fork" if name.startswith("lazyarr") else "spawn"
    context = multiprocessing.get_context(method)
    gate, answers = context.Barrier(n_workers + 1), context.Queue()
    if method == "fork":
        reader = READERS[name](images)
        jobs = [(_read_share, (reader, share, gate, answers)) for share in shares]
    else:
        jobs = [(_open_and_read, (name, images, share, gate, answers)) for share in shares]
    processes = [context.Process(target=target, args=arguments) for target, arguments in jobs]
    for process in processes:
        process.start()
    gate.wait()
    begin = time.perf_counter()
    total = sum(answers.get() for _ in processes) % 2**64
    seconds = time.perf_counter() - begin
    decoded = None
    if method == "fork":
        import lazyarr

        n_chunks = -(-images.size.n_images // images.size.chunk_rows)
        decoded = lazyarr.stats()["units_loaded"] / n_chunks
    for process in processes:
        process.join()
    print(json.dumps({"seconds": seconds, "decoded": decoded, "checksum": total}))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()

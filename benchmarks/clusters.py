"""Tasks of dask in worker processes of one machine read images in random order, twice.

Who sends references has one decoded copy for all workers.  Who opens the store in each worker
decodes in each of them.  Who keeps no decoded chunks does so for each task.
"""

from __future__ import annotations

import functools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.images import Images, ImageSize, prepare_images, warm
from benchmarks.readers import checksum
from benchmarks.report import Section, table
from benchmarks.running import Run, in_turn, run_job, tell

__all__ = ["Cluster", "ClusterPlan", "measure"]

_SENT = "lazyarr, references"
_OPENED = "lazyarr, each worker opens"
_ZARR = "zarr-python, each worker opens"
_LEGEND = """\
A LocalCluster of dask, each worker a process with one thread.  Tasks of 32 images each, chosen at
random over the array, cover all images once, and then once more in another order.  A task computes
the standard deviation of each image.  Seconds from when all workers have read one image of another
array; the speed-up is to one worker of the same row.  lazyarr's pager decompresses in threads of
its own, as many as there are processors, also for one worker.
"""
_TASK_IMAGES = 32
_N_PASSES = 2


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """How much is measured: the images, how many workers share them, by whom, and how often."""

    size: ImageSize
    workers: tuple[int, ...]
    contestants: tuple[str, ...]
    repeats: int


_FULL = ClusterPlan(ImageSize(2048, 384, 384), (1, 2), (_SENT, _OPENED, _ZARR), repeats=3)
_QUICK = ClusterPlan(ImageSize(256, 32, 32, shard_rows=128), (2,), (_SENT,), repeats=1)


class Cluster(NamedTuple):
    """What one contestant needed.

    Attributes
    ----------
    contestant : str
        Who.
    n_workers : int
        How many processes computed.
    seconds : float
        For both passes; the median.
    decoded_per_chunk : float or None
        How often a chunk was decompressed, where the library tells.
    sent_nbytes : int
        What a task has in it, pickled.
    checksum : int
        Of all that was read.
    """

    contestant: str
    n_workers: int
    seconds: float
    decoded_per_chunk: float | None
    sent_nbytes: int
    checksum: int


def measure(data: Path, run: Run) -> Section:
    """Measure all contestants with each number of workers."""
    plan = run.plan(_FULL, _QUICK)
    images = prepare_images(data, plan.size, ("npy", "zarr"))
    warm(images.directory)
    found = []
    for cluster in _measure_clusters(images, plan):
        tell(*cluster)
        found.append(cluster)
    if len({cluster.checksum for cluster in found}) != 1:
        raise ValueError("not everybody has read the same")
    alone = {c.contestant: c.seconds for c in found if c.n_workers == 1}
    rows = [
        (
            c.contestant,
            c.n_workers,
            f"{c.seconds:.2f}",
            f"{alone[c.contestant] / c.seconds:.2f}" if c.contestant in alone else "-",
            "-" if c.decoded_per_chunk is None else f"{c.decoded_per_chunk:.2f}",
            c.sent_nbytes,
        )
        for c in found
    ]
    head = ("", "workers", "seconds", "speed-up", "chunks decompressed, per chunk", "bytes a task")
    body = [_LEGEND, *table(head, rows)]
    return Section("Workers of dask", [c._asdict() for c in found], body)


def _measure_clusters(images: Images, plan: ClusterPlan) -> Iterator[Cluster]:
    for n_workers in plan.workers:
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in plan.contestants}
        for number in range(plan.repeats):
            for name in in_turn(plan.contestants, number):
                job = {**images.job(), "contestant": name, "workers": n_workers}
                runs[name].append(run_job("clusters", job))
        for name, each in runs.items():
            seconds = statistics.median(run["seconds"] for run in each)
            one = each[0]
            yield Cluster(name, n_workers, seconds, one["decoded"], one["sent"], one["checksum"])


# --- in the process of the job, and in its workers ----------------------------------------


def work(array: Any, images: list[int]) -> int:
    """Compute on some images one by one, as a task; return their checksum."""
    total = 0
    for image in images:
        row = array[image]
        assert np.std(row, dtype=np.float64) > 0
        total += checksum(row)
    return total % 2**64


def open_and_work(name: str, path: str, images: list[int]) -> int:
    """Do the same on an array that this process has opened."""
    return work(_opened(name, path), images)


@functools.cache
def _opened(name: str, path: str) -> Any:
    if name == _ZARR:
        import zarr

        return zarr.open_array(path, mode="r")
    import lazyarr

    return lazyarr.open(path)


def _n_loaded() -> int:
    import lazyarr

    return lazyarr.stats().get("units_loaded", 0)


def main() -> None:
    """Measure what the driver says."""
    import distributed
    from distributed.protocol import dumps

    import lazyarr

    job = json.loads(sys.argv[1])
    images, name = Images.of_job(job), job["contestant"]
    path, n_images = str(images.path("zarr")), images.size.n_images
    random = np.random.default_rng(0)
    tasks = [
        part.tolist()
        for _ in range(_N_PASSES)
        for part in np.array_split(random.permutation(n_images), -(-n_images // _TASK_IMAGES))
    ]
    with tempfile.TemporaryDirectory() as place:
        lazyarr.save(f"{place}/warm", np.ones((_TASK_IMAGES, 8, 8)) * np.arange(8))
        with (
            distributed.LocalCluster(
                n_workers=job["workers"],
                threads_per_worker=1,
                dashboard_address="127.0.0.1:0",
                local_directory=place,
            ) as cluster,
            distributed.Client(cluster) as client,
        ):
            given: tuple[Any, ...]
            if name == _SENT:
                function, given = work, (lazyarr.open(path),)
                first: tuple[Any, ...] = (lazyarr.open(f"{place}/warm"),)
            else:
                function, given, first = open_and_work, (name, path), (name, f"{place}/warm")
            client.run(function, *first, [0])
            n_before = _count(client, name)
            begin = time.perf_counter()
            futures = [client.submit(function, *given, part, pure=False) for part in tasks]
            total = sum(client.gather(futures)) % 2**64
            seconds = time.perf_counter() - begin
            n_decoded = _count(client, name) - n_before
            sent = sum(map(len, dumps((function, *given, tasks[0]))))
    n_chunks = -(-n_images // images.size.chunk_rows)
    decoded = None if name == _ZARR else n_decoded / n_chunks
    print(json.dumps({"seconds": seconds, "decoded": decoded, "sent": sent, "checksum": total}))


def _count(client: Any, name: str) -> int:
    """Return how many units all pagers of a contestant have loaded so far."""
    return _n_loaded() if name == _SENT else sum(client.run(_n_loaded).values())


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()

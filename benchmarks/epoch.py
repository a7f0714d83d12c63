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
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.images import Images, ImageSize, prepare_images, warm
from benchmarks.readers import READERS, checksum, installed_readers

__all__ = ["Epoch", "measure_epochs"]

_START_METHOD = {"lazyarr": "fork", "lazyarr, plain ndarray": "fork"}
"""TensorStore and zarrs do not survive fork; everybody but lazyarr opens in the worker."""
_OTHERS = "spawn"


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


def measure_epochs(
    data: Path, size: ImageSize, workers: tuple[int, ...], repeats: int
) -> Iterator[Epoch]:
    """Give the results of all contestants, for one number of workers after the other."""
    images = prepare_images(data, size)
    warm(images.directory)
    for n_workers in workers:
        runs: dict[str, list[dict[str, Any]]] = {}
        for _ in range(repeats):
            for name in installed_readers():
                runs.setdefault(name, []).append(_run(images, name, n_workers))
        if len({run["checksum"] for each in runs.values() for run in each}) != 1:
            raise ValueError("not everybody has read the same")
        for name, each in runs.items():
            seconds = statistics.median(run["seconds"] for run in each)
            yield Epoch(name, n_workers, seconds, each[0]["decoded"], each[0]["checksum"])


def _run(images: Images, name: str, n_workers: int) -> dict[str, Any]:
    size = {"n_images": images.size.n_images, "height": images.size.height}
    size |= {"width": images.size.width, "shard_rows": images.size.shard_rows}
    job = {"directory": str(images.directory), "size": size, "contestant": name}
    command = [sys.executable, "-m", "benchmarks.epoch", json.dumps({**job, "workers": n_workers})]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _read_share(reader: Any, rows: list[int], gate: Any, answers: Any) -> None:
    """Read some images, once everybody is ready."""
    gate.wait()
    answers.put(sum(checksum(reader.row(row)) for row in rows) % 2**64)


def _open_and_read(name: str, images: Images, rows: list[int], gate: Any, answers: Any) -> None:
    _read_share(READERS[name](images), rows, gate, answers)


def main() -> None:
    """Measure what the driver says."""
    job = json.loads(sys.argv[1])
    images = Images(Path(job["directory"]), ImageSize(**job["size"]))
    name, n_workers = job["contestant"], job["workers"]
    order = np.random.default_rng(0).permutation(images.size.n_images).tolist()
    shares = [order[worker::n_workers] for worker in range(n_workers)]
    method = _START_METHOD.get(name, _OTHERS)
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

"""``python -m benchmarks.saving``: `lazyarr.save` beside compression alone.

Compression alone is the same chunks, the same compressor and as many threads, and what it makes
is thrown away.  The two take turns on the same data in one process; the ratio is that of each
pair, so that a machine with other work to do shows in both.  Processor time counts what the
wall clock can not tell apart on such a machine; writing the bytes is part of it.
"""

from __future__ import annotations

import argparse
import math
import os
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.images import make_images

__all__ = ["Pair", "measure_saving", "render_saving"]

_COMPRESSORS = ("zstd", "blosc", "none")


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


def _timed(action: Callable[[], object]) -> Cost:
    before = resource.getrusage(resource.RUSAGE_SELF)
    begin = time.perf_counter()
    action()
    wall = time.perf_counter() - begin
    after = resource.getrusage(resource.RUSAGE_SELF)
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    return Cost(wall, user + system)


def _encoder(compressor: str, itemsize: int) -> Callable[[memoryview], object]:
    if compressor == "zstd":
        import threading

        from zstandard import ZstdCompressor

        local = threading.local()

        def compress(data: memoryview) -> object:
            if not hasattr(local, "compressor"):
                local.compressor = ZstdCompressor(level=3)
            return local.compressor.compress(data)

        return compress
    if compressor == "blosc":
        from numcodecs import blosc

        return lambda data: blosc.compress(data, b"zstd", 1, 1, 1 << 19, itemsize)
    return bytes


def _compress_alone(data: np.ndarray[Any, Any], compressor: str, chunk_rows: int) -> None:
    encode = _encoder(compressor, data.itemsize)
    rows = range(0, len(data), chunk_rows)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        # A result is kept for as long as the pool wants, as little as it can be.
        for _ in threads.map(lambda a: len(encode(data[a : a + chunk_rows].data.cast("B"))), rows):
            pass


def _save(data: np.ndarray[Any, Any], compressor: str, chunk_rows: int, directory: Path) -> None:
    import lazyarr

    shape = data.shape[1:]
    lazyarr.save(
        directory / "saved.zarr",
        data,
        chunks=(chunk_rows, *shape),
        shards=(64 * chunk_rows, *shape),
        compressor=compressor,
    )


def measure_saving(
    directory: Path, *, n_images: int, side: int, repeats: int, chunk_rows: int = 4
) -> list[Pair]:
    """Return what each compressor costs alone and in `save`.

    Parameters
    ----------
    directory : Path
        Where stores are written, and removed.
    n_images, side : int
        How many 16-bit images, of how many rows and columns.
    repeats : int
        How many pairs.
    chunk_rows : int
        Images in a chunk.
    """
    data = make_images(n_images, side, side, seed=0)
    pairs = []
    for compressor in _COMPRESSORS:
        costs: list[tuple[Cost, Cost]] = []
        for _ in range(repeats + 1):
            alone = _timed(lambda: _compress_alone(data, compressor, chunk_rows))  # noqa: B023
            save = _timed(lambda: _save(data, compressor, chunk_rows, directory))  # noqa: B023
            shutil.rmtree(directory / "saved.zarr")
            costs.append((alone, save))
        pairs.append(_summary(compressor, costs[1:]))  # the first imports
    return pairs


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


def render_saving(pairs: Sequence[Pair]) -> str:
    """Return the figures as a Markdown table; seconds."""
    lines = [
        "| compressor | alone | save | ratio | alone, processors | save, processors | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {pair.compressor} | {pair.alone.wall:.3f} | {pair.save.wall:.3f} | {pair.ratio:.2f} "
        f"| {pair.alone.processor:.3f} | {pair.save.processor:.3f} "
        f"| {pair.processor_ratio:.2f} |"
        for pair in pairs
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.saving", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it works")
    parser.add_argument("--repeats", type=int, default=9, help="how many pairs")
    parser.add_argument("--directory", type=Path, help="where to write; a temporary directory")
    options = parser.parse_args()
    n_images, side = (16, 64) if options.quick else (1024, 384)
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        pairs = measure_saving(
            Path(directory), n_images=n_images, side=side, repeats=options.repeats
        )
    print(f"{n_images} x {side} x {side} uint16 images, chunks of four; seconds, medians of "
          f"{options.repeats} pairs\n")  # fmt: skip
    print(render_saving(pairs))


if __name__ == "__main__":
    main()

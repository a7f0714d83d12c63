"""Overlapping reads: the same volume of cubic chunks in thick slabs and in thin ones.

The workload of zarr-python issue 4306, of which the report says: 1.9 s in slabs of 256 rows,
28 s in slabs of 6, for neighbouring slabs decode the same chunks again.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.images import Images, ImageSize, warm
from benchmarks.readers import MANY, READERS, checksum, installed_readers
from benchmarks.report import Section, table
from benchmarks.running import Run, in_turn, run_job, tell
from benchmarks.samples import make_images
from benchmarks.writers import prepare_zarr

__all__ = ["SLABS", "SlabPlan", "Slabs", "measure", "measure_slabs"]

SLABS = (256, 6)
"""How many rows are read at a time."""

_CONTESTANTS = (
    "lazyarr",
    "lazyarr, plain ndarray",
    "zarr-python",
    "zarrs",
    "TensorStore",
    "TensorStore, 4 GiB cache",
)
_LEGEND = """\
A volume in cubic chunks (zstd 3, not sharded), read in slabs of 256 rows and of 6: the workload
of zarr-python issue 4306.  Seconds, from an array that is open and of which nothing has been read;
another small one has been, so that what a process does once is not in these figures.
"""


@dataclass(frozen=True, slots=True)
class SlabPlan:
    """How much is measured: voxels along an edge of the volume and of its chunks; how often."""

    side: int
    chunk: int
    repeats: int
    without: tuple[str, ...] = ()


_FULL = SlabPlan(384, 64, repeats=3)
_QUICK = SlabPlan(48, 16, repeats=1, without=MANY)


class Slabs(NamedTuple):
    """What one contestant needed for the volume.

    Attributes
    ----------
    contestant : str
        Who.
    rows : int
        How many rows it read at a time.
    seconds : float
        The median.
    checksum : int
        Of all that was read.
    """

    contestant: str
    rows: int
    seconds: float
    checksum: int


def measure_slabs(data: Path, plan: SlabPlan) -> Iterator[Slabs]:
    """Give the results of all contestants."""
    directory, other = (_prepare(data, side, plan.chunk) for side in (plan.side, plan.chunk))
    warm(directory)
    names = [name for name in installed_readers(plan.without) if name in _CONTESTANTS]
    runs: dict[tuple[int, str], list[dict[str, Any]]]
    runs = {(n, name): [] for n in SLABS for name in names}
    for number in range(plan.repeats):
        for rows in SLABS:
            for name in in_turn(names, number):
                job = {
                    "directory": str(directory),
                    "other": str(other),
                    "contestant": name,
                    "side": plan.side,
                    "rows": rows,
                }
                runs[rows, name].append(run_job("slabs", job))
    if len({run["checksum"] for each in runs.values() for run in each}) != 1:
        raise ValueError("not everybody has read the same")
    for (rows, name), each in runs.items():
        seconds = statistics.median(run["seconds"] for run in each)
        yield Slabs(name, rows, seconds, each[0]["checksum"])


def _prepare(data: Path, side: int, chunk: int) -> Path:
    """Return where the volume is, made now where it is not there yet."""
    directory = data / f"volume-{side}-{chunk}"
    prepare_zarr(
        directory / "images.zarr",
        lambda: make_images(side, side, side, seed=1),
        chunks=(chunk,) * 3,
        codec="zstd",
    )
    return directory


def measure(data: Path, run: Run) -> Section:
    """Measure all who read the volume."""
    found = []
    for slabs in measure_slabs(data, run.plan(_FULL, _QUICK)):
        tell(*slabs)
        found.append(slabs)
    seconds = {(s.contestant, s.rows): s.seconds for s in found}
    names = dict.fromkeys(s.contestant for s in found)
    rows = [(name, *(f"{seconds[name, n]:.2f}" for n in SLABS)) for name in names]
    lines = table(("", *(f"by {n} rows" for n in SLABS)), rows)
    return Section("Thick slabs and thin ones", [s._asdict() for s in found], [_LEGEND, *lines])


def main() -> None:
    """Measure what the driver says."""
    job = json.loads(sys.argv[1])
    side, rows = job["side"], job["rows"]
    size = ImageSize(side, side, side)
    # What a process does once, such as starting threads, is not in the figures.
    READERS[job["contestant"]](Images(Path(job["other"]), size)).row(0).sum()
    reader = READERS[job["contestant"]](Images(Path(job["directory"]), size))
    total = 0
    begin = time.perf_counter()
    for start in range(0, side, rows):
        total += checksum(np.ascontiguousarray(reader.rows(start, min(start + rows, side))))
    seconds = time.perf_counter() - begin
    print(json.dumps({"seconds": seconds, "checksum": total % 2**64}))


if __name__ == "__main__":
    main()

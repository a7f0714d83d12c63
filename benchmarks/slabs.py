"""Overlapping reads: the same volume of cubic chunks in thick slabs and in thin ones.

The workload of zarr-python issue 4306, of which the report says: 1.9 s in slabs of 256 rows,
28 s in slabs of 6, for neighbouring slabs decode the same chunks again.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.images import LEVEL, Images, ImageSize, make_images, warm
from benchmarks.readers import READERS, checksum

__all__ = ["SLABS", "Slabs", "measure_slabs"]

SLABS = (256, 6)
"""How many rows are read at a time."""

_CONTESTANTS = ("lazyarr", "lazyarr, plain ndarray", "zarr-python", "zarrs", "TensorStore")
_CACHED = "TensorStore, 4 GiB cache"


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


def measure_slabs(data: Path, side: int, chunk: int, repeats: int) -> Iterator[Slabs]:
    """Give the results of all contestants for a cube of so many voxels a side."""
    directory = _prepare(data, side, chunk)
    warm(directory)
    runs: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for _ in range(repeats):
        for rows in SLABS:
            for name in (*_CONTESTANTS, _CACHED):
                runs.setdefault((rows, name), []).append(_run(directory, name, side, rows))
    if len({run["checksum"] for each in runs.values() for run in each}) != 1:
        raise ValueError("not everybody has read the same")
    for (rows, name), each in runs.items():
        seconds = statistics.median(run["seconds"] for run in each)
        yield Slabs(name, rows, seconds, each[0]["checksum"])


def _prepare(data: Path, side: int, chunk: int) -> Path:
    """Return where the volume is, made now where it is not there yet."""
    import zarr
    from zarr.codecs import ZstdCodec

    directory = data / f"volume-{side}-{chunk}"
    store, part = directory / "images.zarr", directory / "part-images.zarr"
    if not store.exists():
        volume = make_images(side, side, side, seed=1)
        array = zarr.create_array(
            os.fspath(part),
            shape=volume.shape,
            dtype=volume.dtype,
            chunks=(chunk,) * 3,
            compressors=[ZstdCodec(level=LEVEL)],
            overwrite=True,
        )
        array[:] = volume
        part.rename(store)
    return directory


def _run(directory: Path, name: str, side: int, rows: int) -> dict[str, Any]:
    job = {"directory": str(directory), "contestant": name, "side": side, "rows": rows}
    command = [sys.executable, "-m", "benchmarks.slabs", json.dumps(job)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    """Measure what the driver says."""
    job = json.loads(sys.argv[1])
    side, rows = job["side"], job["rows"]
    reader = READERS[job["contestant"]](Images(Path(job["directory"]), ImageSize(side, side, side)))
    total = 0
    begin = time.perf_counter()
    for start in range(0, side, rows):
        total += checksum(np.ascontiguousarray(reader.rows(start, min(start + rows, side))))
    seconds = time.perf_counter() - begin
    print(json.dumps({"seconds": seconds, "checksum": total % 2**64}))


if __name__ == "__main__":
    main()

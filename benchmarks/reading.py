"""One contestant's measurements in a process of its own: ``python -m benchmarks.reading JSON``.

Prints a line of JSON: for each scenario seconds, and the checksum of what was read.
"""

from __future__ import annotations

import itertools
import json
import random
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.images import Images, ImageSize
from benchmarks.readers import READERS, Reader, checksum

if TYPE_CHECKING:
    from benchmarks.limit import Limit

__all__ = ["OPEN", "SCENARIOS", "Reading"]

OPEN = "open"
SCENARIOS = (OPEN, "scan by 4 rows", "scan by 64 rows", "single rows", "64 scattered rows")
"""What a process can measure; opening gives two figures, and single rows give two."""

_N_SINGLE = 32
_N_SCATTERED = 64


class Reading(NamedTuple):
    """What a process found.

    Attributes
    ----------
    seconds : dict
        By the name of the figure.
    checksum : int
        Of every row read.
    """

    seconds: dict[str, float]
    checksum: int


def _chosen_rows(size: ImageSize, wanted: int, seed: int) -> list[int]:
    """Return rows in ascending order, no two of one chunk, and none of the last."""
    choose = random.Random(seed)
    n_chunks = size.n_images // size.chunk_rows - 1
    chunks = sorted(choose.sample(range(n_chunks), min(wanted, n_chunks)))
    return [chunk * size.chunk_rows + choose.randrange(size.chunk_rows) for chunk in chunks]


# --- readers ------------------------------------------------------------------


def _scan(reader: Reader, size: ImageSize, step: int) -> Reading:
    begin = time.perf_counter()
    total = 0
    for start in range(0, size.n_images, step):
        total += checksum(reader.rows(start, min(start + step, size.n_images)))
    return Reading({f"scan by {step} rows": time.perf_counter() - begin}, total)


def _single_rows(reader: Reader, size: ImageSize, seed: int) -> Reading:
    rows = _chosen_rows(size, _N_SINGLE, seed)
    random.Random(seed).shuffle(rows)
    seconds = {}
    total = 0
    for name in ("a row of a new chunk", "a row read before"):
        times = []
        for row in rows:
            begin = time.perf_counter()
            total += checksum(reader.row(row))
            times.append(time.perf_counter() - begin)
        seconds[name] = statistics.median(times)
    return Reading(seconds, total)


def _scattered_rows(reader: Reader, size: ImageSize, seed: int) -> Reading:
    rows = _chosen_rows(size, _N_SCATTERED, seed)
    begin = time.perf_counter()
    total = checksum(reader.take(rows))
    return Reading({"64 scattered rows": time.perf_counter() - begin}, total)


def _open(name: str, images: Images) -> Reading:
    begin = time.perf_counter()
    total = checksum(READERS[name](images).row(0))
    end = time.perf_counter()
    # The driver takes the time at which it started this process away from "ended".
    return Reading({"open and first row": end - begin, "ended": time.monotonic()}, total)


def _measure_reader(name: str, images: Images, scenario: str, seed: int) -> Reading:
    if scenario == OPEN:
        return _open(name, images)
    reader = READERS[name](images)
    # What a process does once, such as starting threads, is in the figures of "open" alone.
    checksum(reader.row(images.size.n_images - 1))
    if scenario == "single rows":
        return _single_rows(reader, images.size, seed)
    if scenario == "64 scattered rows":
        return _scattered_rows(reader, images.size, seed)
    return _scan(reader, images.size, int(scenario.split()[2]))


# --- the limit ------------------------------------------------------------------


def _measure_limit(name: str, images: Images, scenario: str, seed: int) -> Reading:
    """Return what decompressing the chunks of a scenario takes; the sum is outside of that."""
    from benchmarks.limit import LIMITS

    size = images.size
    limit = LIMITS[name](images)
    if scenario == "single rows":
        return _limit_of_single_rows(limit, size, seed)
    rows: Sequence[int] = range(size.n_images)
    if scenario == "64 scattered rows":
        rows = _chosen_rows(size, _N_SCATTERED, seed)
    chunks = sorted({row // size.chunk_rows for row in rows})
    begin = time.perf_counter()
    limit.decode_all(chunks)
    seconds = time.perf_counter() - begin
    return Reading({scenario: seconds}, _limit_checksum(limit, size, rows))


def _limit_of_single_rows(limit: Limit, size: ImageSize, seed: int) -> Reading:
    rows = _chosen_rows(size, _N_SINGLE, seed)
    times = []
    for row in rows:
        begin = time.perf_counter()
        limit.decode(row // size.chunk_rows)
        times.append(time.perf_counter() - begin)
    seconds = {"a row of a new chunk": statistics.median(times)}
    return Reading(seconds, 2 * _limit_checksum(limit, size, rows))  # readers read them twice


def _limit_checksum(limit: Limit, size: ImageSize, rows: Iterable[int]) -> int:
    """Return the sum of `checksum` over rows in ascending order."""
    total = 0
    for chunk, of_chunk in itertools.groupby(rows, lambda row: row // size.chunk_rows):
        images = limit.chunk(chunk)
        total += sum(checksum(images[row % size.chunk_rows]) for row in of_chunk)
    return total


def main() -> None:
    """Measure what the driver says."""
    job = json.loads(sys.argv[1])
    images = Images.of_job(job)
    name, seed = job["contestant"], job["seed"]
    readings = {}
    for scenario in job["scenarios"]:
        if name in READERS:
            reading = _measure_reader(name, images, scenario, seed)
        else:
            reading = _measure_limit(name, images, scenario, seed)
        readings[scenario] = {
            "seconds": reading.seconds,
            "checksum": reading.checksum % 2**64,
        }
    print(json.dumps(readings))


if __name__ == "__main__":
    main()

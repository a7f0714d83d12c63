"""Scans and rows: lazyarr, its peers and the limit, in fresh processes that take turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.images import Images, ImageSize, prepare_images, warm
from benchmarks.limit import LIMITS
from benchmarks.readers import installed_readers
from benchmarks.reading import OPEN, SCENARIOS
from benchmarks.report import Section, seconds_and_ratio, table
from benchmarks.running import Run, in_turn, run_job, tell

__all__ = ["FIGURES", "PeerPlan", "PeerResult", "measure", "measure_peers"]

FIGURES = (
    "scan by 4 rows",
    "scan by 64 rows",
    "a row of a new chunk",
    "a row read before",
    "64 scattered rows",
    "open and first row",
    "process start to first row",
)
"""The columns."""

_LEGEND = """\
Seconds, and in brackets how many times the limit (the first row).  Every contestant gives the rows
as an array, and all of their bytes are added up, which is in the figures but for the limits'; the
checksums of all contestants were the same.  *lazyarr* asks for rows through the array's own
indexing and methods; *plain ndarray* is `numpy.asarray` of it: everything comes by page faults.
One row has been read by everybody before the clock runs, but for the last two columns: *open and
first row* begins with NumPy imported and the library not; *process start* is everything.
"""

_BLOSC = "blosc2, own format"
_BLOSC_LEGEND = """\
The same table once more for `compressor="blosc"`: how many times what blosc2 takes for its own
format, so that less than 1 is faster.  blosc2 decompresses only the blocks of a chunk that a row
needs, and again each time; lazyarr decompresses the chunk, and keeps it.
"""


@dataclass(frozen=True, slots=True)
class PeerPlan:
    """How much is measured.

    Attributes
    ----------
    size : ImageSize
        The rows.
    repeats : int
        How often each figure is measured.
    is_fresh : bool
        Whether each scenario has a process of its own, so that none finds what
        another one has left in a cache.
    scenarios : tuple of str
        What is measured.
    without : tuple of str
        Who does not take part.
    """

    size: ImageSize
    repeats: int
    is_fresh: bool = True
    scenarios: tuple[str, ...] = SCENARIOS
    without: tuple[str, ...] = ()

    def groups(self) -> list[tuple[str, ...]]:
        """Return the scenarios, by process."""
        return [(scenario,) for scenario in self.scenarios] if self.is_fresh else [self.scenarios]


_FULL = PeerPlan(ImageSize(2048, 384, 384), repeats=5)
_QUICK = PeerPlan(ImageSize(256, 32, 32, shard_rows=128), repeats=1, is_fresh=False)


class PeerResult(NamedTuple):
    """What one contestant needed.

    Attributes
    ----------
    contestant : str
        Who.
    seconds : dict
        The median of each figure, by its name.
    spread : dict
        The smallest and the largest that the median was taken of.
    checksums : dict
        By scenario, one for each repetition: the same for every contestant.
    """

    contestant: str
    seconds: dict[str, float]
    spread: dict[str, tuple[float, float]]
    checksums: dict[str, list[int]]


def measure_peers(images: Images, plan: PeerPlan) -> Iterator[PeerResult]:
    """Give the results of all contestants, after all of them have run."""
    warm(images.directory)
    names = [name for name in (*LIMITS, *installed_readers()) if name not in plan.without]
    times: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    checksums: dict[str, dict[str, list[int]]] = {name: {} for name in names}
    for seed in range(plan.repeats):
        for scenarios in plan.groups():
            for name in in_turn(names, seed):
                for scenario, reading in _read(images, name, scenarios, seed).items():
                    checksums[name].setdefault(scenario, []).append(reading["checksum"])
                    for figure, value in reading["seconds"].items():
                        times[name].setdefault(figure, []).append(value)
    _require_same(checksums)
    for name in names:
        result = PeerResult(
            name,
            {figure: statistics.median(values) for figure, values in times[name].items()},
            {figure: (min(values), max(values)) for figure, values in times[name].items()},
            checksums[name],
        )
        tell(images.size.kind, name, result.seconds)
        yield result


def _require_same(checksums: dict[str, dict[str, list[int]]]) -> None:
    """Raise unless all contestants have read the same: who has not has measured nothing."""
    first: dict[str, list[int]] = {}
    for name, by_scenario in checksums.items():
        for scenario, found in by_scenario.items():
            if found != first.setdefault(scenario, found):
                raise ValueError(f"{name} has read something else than the others in {scenario!r}")


def _read(images: Images, name: str, scenarios: tuple[str, ...], seed: int) -> dict[str, Any]:
    """Return what a fresh process measures, by scenario."""
    wanted = [s for s in scenarios if s != OPEN or name not in LIMITS]
    if not wanted:
        return {}
    job = {**images.job(), "contestant": name, "scenarios": wanted, "seed": seed}
    begin = time.monotonic()
    readings: dict[str, Any] = run_job("reading", job)
    if OPEN in readings:
        # CLOCK_MONOTONIC is one clock for all processes (clock_gettime(2)).
        seconds = readings[OPEN]["seconds"]
        seconds["process start to first row"] = seconds.pop("ended") - begin
    return readings


def measure(data: Path, run: Run) -> Section:
    """Measure all contestants on the 16-bit images."""
    plan = run.plan(_FULL, _QUICK)
    results = list(measure_peers(prepare_images(data, plan.size), plan))
    limit = results[0].seconds
    rows = [
        (r.contestant, *(seconds_and_ratio(r.seconds.get(f), limit.get(f)) for f in FIGURES))
        for r in results
    ]
    body = [
        f"{plan.size}, zstd 3 with crc32c; medians of {plan.repeats}, page cache warm.",
        *("", _LEGEND, *table(("", *FIGURES), rows), *_blosc_table(results)),
    ]
    return Section("Scans and rows", [result._asdict() for result in results], body)


def _blosc_table(results: list[PeerResult]) -> list[str]:
    by_name = {result.contestant: result.seconds for result in results}
    if _BLOSC not in by_name:
        return []
    own = by_name[_BLOSC]
    rows = [
        (name, *(f"{by_name[name][figure] / own[figure]:.2f}" for figure in FIGURES))
        for name in ("lazyarr, blosc", "lazyarr, blosc, plain ndarray")
    ]
    return ["### blosc beside blosc2", "", _BLOSC_LEGEND, *table(("", *FIGURES), rows)]

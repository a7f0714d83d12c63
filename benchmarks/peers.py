"""Scans and rows: lazyarr, its peers and the limit, in fresh processes that take turns."""

from __future__ import annotations

import dataclasses
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.images import Images, ImageSize, prepare_images, warm
from benchmarks.limit import LIMITS
from benchmarks.readers import installed_readers
from benchmarks.reading import OPEN, SCENARIOS

__all__ = ["FIGURES", "FULL", "QUICK", "PeerPlan", "PeerResult", "measure_peers"]

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


@dataclass(frozen=True, slots=True)
class PeerPlan:
    """How much is measured.

    Attributes
    ----------
    size : ImageSize
        The images.
    repeats : int
        How often each figure is measured.
    is_fresh : bool
        Whether each scenario has a process of its own, so that none finds what
        another one has left in a cache.
    """

    size: ImageSize
    repeats: int
    is_fresh: bool = True

    def groups(self) -> list[tuple[str, ...]]:
        """Return the scenarios, by process."""
        return [(scenario,) for scenario in SCENARIOS] if self.is_fresh else [SCENARIOS]


FULL = PeerPlan(ImageSize(2048, 384, 384), repeats=5)
QUICK = PeerPlan(ImageSize(256, 32, 32, shard_rows=128), repeats=1, is_fresh=False)


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


def measure_peers(data: Path, plan: PeerPlan) -> Iterator[PeerResult]:
    """Give the results of all contestants, after all of them have run."""
    images = prepare_images(data, plan.size)
    warm(images.directory)
    names = [*LIMITS, *installed_readers()]
    times: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    checksums: dict[str, dict[str, list[int]]] = {name: {} for name in names}
    for seed in range(plan.repeats):
        turn = seed % len(names)
        for scenarios in plan.groups():
            for name in names[turn:] + names[:turn]:
                for scenario, reading in _read(images, name, scenarios, seed).items():
                    checksums[name].setdefault(scenario, []).append(reading["checksum"])
                    for figure, value in reading["seconds"].items():
                        times[name].setdefault(figure, []).append(value)
    _require_same(checksums)
    for name in names:
        yield PeerResult(
            name,
            {figure: statistics.median(values) for figure, values in times[name].items()},
            {figure: (min(values), max(values)) for figure, values in times[name].items()},
            checksums[name],
        )


def _require_same(checksums: dict[str, dict[str, list[int]]]) -> None:
    """Raise unless all contestants have read the same: who has not has measured nothing."""
    first: dict[str, list[int]] = {}
    for name, by_scenario in checksums.items():
        for scenario, found in by_scenario.items():
            if found != first.setdefault(scenario, found):
                raise ValueError(f"{name} has read something else than the others in {scenario!r}")


def _read(images: Images, name: str, scenarios: tuple[str, ...], seed: int) -> dict[str, Any]:
    """Return what a fresh process measures, by scenario."""
    job: dict[str, Any] = {
        "directory": str(images.directory),
        "size": dataclasses.asdict(images.size),
        "contestant": name,
        "scenarios": [s for s in scenarios if s != OPEN or name not in LIMITS],
        "seed": seed,
    }
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.reading", json.dumps(job)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    readings: dict[str, Any] = json.loads(done.stdout)
    if OPEN in readings:
        # CLOCK_MONOTONIC is one clock for all processes (clock_gettime(2)).
        seconds = readings[OPEN]["seconds"]
        seconds["process start to first row"] = seconds.pop("ended") - begin
    return readings

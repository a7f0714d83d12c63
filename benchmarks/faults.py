"""How long a touch of a missing unit takes: lazyarr's pager, a handler in C, the bare sum."""

from __future__ import annotations

import json
import random
import statistics
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.handler import can_decompress, compile_handler
from benchmarks.report import Section, table
from benchmarks.running import Run, tell
from benchmarks.samples import make_images
from benchmarks.touching import CONTESTANTS
from benchmarks.writers import CODECS, prepare_zarr
from lazyarr.testing import ServerProcess

__all__ = ["FaultPlan", "Latency", "measure", "measure_faults"]

_KIB = 1024
_SIDE = 256  # of the images that the units are filled with

_LEGEND = """\
Medians and, in brackets, 90th percentiles in microseconds, from before one element is read to after
it has been; the median over the repetitions.  *sum* is `pread` + decompress + copy of the same
chunk in one thread of Python, into memory that is there already; *sum, new pages* copies it into a
memory object that has to find its pages first, as every install has to.  *lazyarr / sum* and
*lazyarr / C* are ratios of medians.  The C handler reads uncompressed chunks only where libzstd's
header was not there to compile against.  crc32c is checked by lazyarr alone.
"""


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """How much is measured.

    Attributes
    ----------
    units_nbytes : tuple of int
        Sizes of units.
    array_nbytes, max_units, min_units : int
        The array is so large, but has no more and no fewer units.
    n_rounds, max_touches : int
        In each round each contestant touches so many units, at most half of them,
        and then it is the next one's turn.
    repeats : int
        How often all of it is done, each time with fresh processes.
    """

    units_nbytes: tuple[int, ...]
    array_nbytes: int
    max_units: int
    min_units: int
    n_rounds: int
    max_touches: int
    repeats: int

    def n_units(self, unit_nbytes: int) -> int:
        """How many units the array has."""
        return min(self.max_units, max(self.min_units, self.array_nbytes // unit_nbytes))


_FULL = FaultPlan(
    units_nbytes=tuple(n * _KIB for n in (4, 16, 64, 256, 1024, 4096)),
    array_nbytes=64 * _KIB**2,
    max_units=2048,
    min_units=16,
    n_rounds=20,
    max_touches=64,
    repeats=5,
)
_QUICK = FaultPlan(
    units_nbytes=(4 * _KIB, 64 * _KIB),
    array_nbytes=_KIB**2,
    max_units=16,
    min_units=4,
    n_rounds=2,
    max_touches=4,
    repeats=1,
)


class Latency(NamedTuple):
    """What one contestant needed for units of one size.

    Attributes
    ----------
    codec, contestant : str
        Of which chunks, and who.
    unit_nbytes : int
        Size of a unit.
    median_seconds, p90_seconds : float
        Over the touches of one repetition; of those, the median over the repetitions.
    n_touches : int
        How many there were in all.
    checksum : int
        Sum of the elements touched.
    """

    codec: str
    unit_nbytes: int
    contestant: str
    median_seconds: float
    p90_seconds: float
    n_touches: int
    checksum: int


def measure_faults(data: Path, plan: FaultPlan) -> Iterator[Latency]:
    """Give the latencies of every contestant, for one kind and size of units after the other."""
    library = compile_handler(data)
    for codec in CODECS:
        for unit_nbytes in plan.units_nbytes:
            store = _prepare(data, codec, unit_nbytes, plan.n_units(unit_nbytes))
            names = [name for name in CONTESTANTS if _can_run(name, codec, library)]
            runs = [
                _run_once(names, _setup(store, codec, unit_nbytes, library), plan, seed)
                for seed in range(plan.repeats)
            ]
            for name in names:
                yield _summary(codec, unit_nbytes, name, [run[name] for run in runs])


def _can_run(name: str, codec: str, library: Path | None) -> bool:
    if name != "C handler":
        return True
    return library is not None and (codec == "none" or can_decompress(library))


def _setup(store: Path, codec: str, unit_nbytes: int, library: Path | None) -> dict[str, Any]:
    return {
        "store": str(store),
        "unit_nbytes": unit_nbytes,
        "codec": codec,
        "library": library and str(library),
    }


def _prepare(data: Path, codec: str, unit_nbytes: int, n_units: int) -> Path:
    """Return an array of units, all in one shard, made now where it is not there yet."""
    n_items = unit_nbytes * n_units // 2
    n_images = -(-n_items // _SIDE**2)
    return prepare_zarr(
        data / f"units-{codec.replace(', ', '-')}-{unit_nbytes}x{n_units}.zarr",
        lambda: make_images(n_images, _SIDE, _SIDE, seed=0).reshape(-1)[:n_items],
        chunks=(unit_nbytes // 2,),
        shards=(n_items,),
        codec=codec,
    )


class _Samples(NamedTuple):
    nanoseconds: list[int]
    checksum: int


def _run_once(
    names: list[str], setup: dict[str, Any], plan: FaultPlan, seed: int
) -> dict[str, _Samples]:
    """Return what each contestant needed, all of them taking turns for the same touches."""
    choose = random.Random(seed)
    per_unit = setup["unit_nbytes"] // 2
    n_units = plan.n_units(setup["unit_nbytes"])
    samples: dict[str, _Samples] = {name: _Samples([], 0) for name in names}
    with ExitStack() as stack:
        contestants = {
            name: stack.enter_context(_process({**setup, "contestant": name})) for name in names
        }
        for number in range(plan.n_rounds):
            units = choose.sample(range(n_units), min(plan.max_touches, n_units // 2))
            elements = [unit * per_unit + choose.randrange(per_unit) for unit in units]
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                answer = contestants[name].ask({"elements": elements})
                times, checksum = samples[name]
                samples[name] = _Samples(
                    times + answer["nanoseconds"], checksum + answer["checksum"]
                )
    if len({sample.checksum for sample in samples.values()}) != 1:
        raise ValueError(f"contestants have read different elements: {setup}")
    return samples


def _process(setup: dict[str, Any]) -> ServerProcess:
    return ServerProcess(["-m", "benchmarks.touching", json.dumps(setup)])


def _summary(codec: str, unit_nbytes: int, name: str, runs: list[_Samples]) -> Latency:
    medians = [statistics.median(run.nanoseconds) for run in runs]
    p90s = [statistics.quantiles(run.nanoseconds, n=10)[-1] for run in runs]
    return Latency(
        codec,
        unit_nbytes,
        name,
        statistics.median(medians) / 1e9,
        statistics.median(p90s) / 1e9,
        sum(len(run.nanoseconds) for run in runs),
        sum(run.checksum for run in runs),
    )


def measure(data: Path, run: Run) -> Section:
    """Measure all contestants on units of all sizes."""
    found = []
    for latency in measure_faults(data, run.plan(_FULL, _QUICK)):
        tell(*latency[:5])
        found.append(latency)
    body = [_LEGEND]
    for codec in CODECS:
        body += [f"### Compression: {codec}", "", *_codec_table(found, codec)]
    return Section("From touch to data", [latency._asdict() for latency in found], body)


def _codec_table(latencies: Sequence[Latency], codec: str) -> list[str]:
    by_unit: dict[int, dict[str, Latency]] = {}
    for latency in latencies:
        if latency.codec == codec:
            by_unit.setdefault(latency.unit_nbytes, {})[latency.contestant] = latency
    rows = [
        (
            f"{unit_nbytes >> 10} KiB",
            *(_microseconds(row.get(name)) for name in CONTESTANTS),
            *(_ratio(row, other) for other in ("C handler", "sum")),
        )
        for unit_nbytes, row in by_unit.items()
    ]
    return table(("unit", *CONTESTANTS, "lazyarr / C", "lazyarr / sum"), rows)


def _ratio(row: dict[str, Latency], other: str) -> str:
    if other not in row:
        return "-"
    return f"{row['lazyarr'].median_seconds / row[other].median_seconds:.2f}"


def _microseconds(latency: Latency | None) -> str:
    if latency is None:
        return "-"
    return f"{latency.median_seconds * 1e6:.1f} ({latency.p90_seconds * 1e6:.1f})"

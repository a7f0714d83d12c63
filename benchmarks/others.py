"""What is measured beside faults, scans and rows: epochs, slabs, memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.epoch import measure_epochs
from benchmarks.images import ImageSize
from benchmarks.peak import measure_peaks
from benchmarks.report import table
from benchmarks.slabs import measure_slabs

__all__ = ["FULL", "PARTS", "QUICK", "OtherPlan"]


@dataclass(frozen=True, slots=True)
class OtherPlan:
    """How much is measured.

    Attributes
    ----------
    size : ImageSize
        The images that epochs and memory are measured with.
    workers : tuple of int
        How many processes share an epoch.
    side, chunk : int
        Voxels along an edge of the volume that is read in slabs, and of its chunks.
    repeats : int
        How often each figure is measured.
    """

    size: ImageSize
    workers: tuple[int, ...]
    side: int
    chunk: int
    repeats: int


FULL = OtherPlan(ImageSize(2048, 384, 384), (2, 4), 384, 64, repeats=3)
QUICK = OtherPlan(ImageSize(256, 32, 32, shard_rows=128), (2,), 48, 16, repeats=1)

_EPOCH = """\
Worker processes read all images once, one by one, in random order; seconds from when all are ready.
lazyarr's workers are forked and share pages; the others are spawned and open the store themselves.
"""
_SLABS = """\
A volume in cubic chunks (zstd 3, not sharded), read in slabs of 256 rows and of 6: the workload
of zarr-python issue 4306.  Seconds.
"""
_PEAK = """\
The most memory that all processes of a contestant had together during a scan by 64 rows, shared
pages counted once (MiB), and what they had with the array open.
"""


def _epochs(data: Path, plan: OtherPlan) -> tuple[list[Any], str]:
    found = list(measure_epochs(data, plan.size, plan.workers, plan.repeats))
    rows = [
        (e.contestant, e.n_workers, f"{e.seconds:.2f}", _count(e.decoded_per_chunk)) for e in found
    ]
    head = ("", "workers", "seconds", "chunks decompressed, per chunk")
    return found, _section("A shuffled epoch", _EPOCH, head, rows)


def _slabs(data: Path, plan: OtherPlan) -> tuple[list[Any], str]:
    found = list(measure_slabs(data, plan.side, plan.chunk, plan.repeats))
    names = dict.fromkeys(s.contestant for s in found)
    seconds = {(s.contestant, s.rows): s.seconds for s in found}
    sizes = sorted({s.rows for s in found}, reverse=True)
    rows = [(name, *(f"{seconds[name, size]:.2f}" for size in sizes)) for name in names]
    head = ("", *(f"by {size} rows" for size in sizes))
    return found, _section("Thick slabs and thin ones", _SLABS, head, rows)


def _peaks(data: Path, plan: OtherPlan) -> tuple[list[Any], str]:
    found = list(measure_peaks(data, plan.size))
    rows = [(p.contestant, p.nbytes >> 20, p.before_nbytes >> 20) for p in found]
    return found, _section("Memory", _PEAK, ("", "peak", "before"), rows)


PARTS: dict[str, Callable[[Path, OtherPlan], tuple[list[Any], str]]] = {
    "epochs": _epochs,
    "slabs": _slabs,
    "memory": _peaks,
}
"""By name, what measures and returns the figures and a section of Markdown."""


def _section(title: str, legend: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    return "\n".join([f"## {title}", "", legend, *table(head, rows), ""])


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def measure(
    names: Sequence[str], data: Path, plan: OtherPlan
) -> Iterator[tuple[str, list[Any], str]]:
    """Give name, figures and Markdown of each part."""
    for name in names:
        yield (name, *PARTS[name](data, plan))

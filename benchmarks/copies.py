"""From decompressed bytes to pages, by different ways, in one process and one thread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from zstandard import ZstdCompressor, ZstdDecompressor

from benchmarks.report import Section, table
from benchmarks.running import Run, tell
from benchmarks.samples import LEVEL, make_images
from lazyarr.kernel import (
    Advice,
    Features,
    RegisterMode,
    ScratchBuffer,
    Userfaultfd,
    create_memfd,
    madvise,
    map_shared,
    memory_view,
    punch_hole,
    unmap,
)

__all__ = ["CopyPlan", "Copying", "measure", "measure_copies"]

_N_UNITS = 16
_HUGE_NBYTES = 2 << 20
_LEGEND = """\
From zstd to pages that a client sees, by different ways; microseconds for each unit, of the clock
and, in brackets, of the processor.  The way of the bytes is compared, not the waking of threads.
"""


@dataclass(frozen=True, slots=True)
class CopyPlan:
    """How much is measured: the sizes of units, and how often."""

    units_nbytes: tuple[int, ...]
    repeats: int


_FULL = CopyPlan(tuple(n << 10 for n in (64, 256, 1024, 4096)), repeats=7)
_QUICK = CopyPlan((64 << 10,), repeats=1)


class Copying(NamedTuple):
    """What one way took for units of one size.

    Attributes
    ----------
    way : str
        Which.
    unit_nbytes : int
        Size of a unit.
    seconds, processor_seconds : float
        For each unit; medians over the rounds.
    """

    way: str
    unit_nbytes: int
    seconds: float
    processor_seconds: float


class _Place:
    """Memory that fills by userfaultfd, and the same memory again for the one who fills it."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self.memfd = create_memfd("copies", nbytes=nbytes)
        self.uffd = Userfaultfd.open(Features.MISSING_SHMEM | Features.MINOR_SHMEM)
        self.address = map_shared(self.memfd, 0, nbytes, writable=False)
        self.uffd.register(self.address, nbytes, RegisterMode.MISSING | RegisterMode.MINOR)
        self.own = map_shared(self.memfd, 0, nbytes, writable=True)
        self.view = memory_view(self.own, nbytes, writable=True)
        self.scratch = ScratchBuffer(nbytes)

    def empty(self) -> None:
        """Give all pages back."""
        punch_hole(self.memfd, 0, self.nbytes)

    def close(self) -> None:
        """Give everything back."""
        self.view.release()
        unmap(self.own, self.nbytes)
        self.uffd.close()
        unmap(self.address, self.nbytes)


_Fill = Callable[[_Place, int, int, Callable[[memoryview], None]], None]


def _copy(place: _Place, start: int, nbytes: int, decode: Callable[[memoryview], None]) -> None:
    """Decompress to scratch memory, UFFDIO_COPY."""
    decode(place.scratch.view[:nbytes])
    place.uffd.copy(place.address + start, place.scratch.address, nbytes)


def _continue(place: _Place, start: int, nbytes: int, decode: Callable[[memoryview], None]) -> None:
    """Decompress into the memory object, UFFDIO_CONTINUE."""
    decode(place.view[start : start + nbytes])
    place.uffd.continue_(place.address + start, nbytes)


def _populate(place: _Place, start: int, nbytes: int, decode: Callable[[memoryview], None]) -> None:
    """The same, with all pages made by one call before (MADV_POPULATE_WRITE)."""
    madvise(place.own + start, nbytes, Advice.POPULATE_WRITE)
    _continue(place, start, nbytes, decode)


_WAYS: dict[str, tuple[_Fill, bool]] = {
    "scratch + COPY": (_copy, False),
    "memory object + CONTINUE": (_continue, False),
    "populated memory object + CONTINUE": (_populate, False),
    "memory object in huge pages + CONTINUE": (_continue, True),
}


def measure_copies(plan: CopyPlan) -> Iterator[Copying]:
    """Give the times of every way, for each size; the ways take turns."""
    for unit_nbytes in plan.units_nbytes:
        images = make_images(-(-unit_nbytes // (2 * 256 * 256)), 256, 256, seed=0)
        data = images.tobytes()[:unit_nbytes]
        encoded = ZstdCompressor(level=LEVEL).compress(data)
        decompressor = ZstdDecompressor()

        def decode(view: memoryview, encoded: bytes = encoded, d: Any = decompressor) -> None:
            with d.stream_reader(encoded) as reader:
                assert reader.readinto(view) == len(view)

        times: dict[str, list[tuple[float, float]]] = {way: [] for way in _WAYS}
        for _ in range(plan.repeats):
            for way in _WAYS:
                times[way].append(_measure(way, unit_nbytes, decode, data))
        for way, each in times.items():
            wall = statistics.median(t for t, _ in each)
            yield Copying(way, unit_nbytes, wall, statistics.median(t for _, t in each))


def _measure(
    way: str, unit_nbytes: int, decode: Callable[[memoryview], None], data: bytes
) -> tuple[float, float]:
    fill, is_huge = _WAYS[way]
    place = _Place(-(-_N_UNITS * unit_nbytes // _HUGE_NBYTES) * _HUGE_NBYTES)
    if is_huge:
        madvise(place.own, place.nbytes, Advice.HUGEPAGE)
    begin, begin_processor = time.perf_counter(), time.process_time()
    for number in range(_N_UNITS):
        fill(place, number * unit_nbytes, unit_nbytes, decode)
    seconds = (time.perf_counter() - begin) / _N_UNITS
    processor_seconds = (time.process_time() - begin_processor) / _N_UNITS
    filled = memory_view(place.address, _N_UNITS * unit_nbytes, writable=False)
    assert np.array_equal(np.frombuffer(filled[-unit_nbytes:], "u1"), np.frombuffer(data, "u1"))
    filled.release()
    place.close()
    return seconds, processor_seconds


def measure(data: Path, run: Run) -> Section:  # noqa: ARG001 - it needs no data
    """Measure all ways for all sizes."""
    plan = run.plan(_FULL, _QUICK)
    found = []
    for copying in measure_copies(plan):
        tell(*copying)
        found.append(copying)
    cells = {
        (c.way, c.unit_nbytes): f"{c.seconds * 1e6:.0f} ({c.processor_seconds * 1e6:.0f})"
        for c in found
    }
    rows = [(way, *(cells[way, nbytes] for nbytes in plan.units_nbytes)) for way in _WAYS]
    lines = table(("", *(f"{nbytes >> 10} KiB" for nbytes in plan.units_nbytes)), rows)
    return Section("Ways into memory", [c._asdict() for c in found], [_LEGEND, *lines])

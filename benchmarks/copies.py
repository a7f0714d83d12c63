"""``python -m benchmarks.copies``: from decompressed bytes to pages, by different ways.

In one process and one thread: the way of the bytes is compared, not the waking of threads.
Processor time is counted as well as time: it is steadier on a machine that does other things.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from zstandard import ZstdCompressor, ZstdDecompressor

from benchmarks.images import LEVEL, make_images
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

__all__ = ["SIZES", "Copying", "measure_copies"]

SIZES = tuple(n << 10 for n in (64, 256, 1024, 4096))
_N_UNITS = 16
_N_ROUNDS = 7
_HUGE_NBYTES = 2 << 20


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


def measure_copies(sizes: tuple[int, ...] = SIZES) -> Iterator[Copying]:
    """Give the times of every way, for each size; the ways take turns."""
    for unit_nbytes in sizes:
        images = make_images(-(-unit_nbytes // (2 * 256 * 256)), 256, 256, seed=0)
        data = images.tobytes()[:unit_nbytes]
        encoded = ZstdCompressor(level=LEVEL).compress(data)
        decompressor = ZstdDecompressor()

        def decode(view: memoryview, encoded: bytes = encoded, d: Any = decompressor) -> None:
            with d.stream_reader(encoded) as reader:
                assert reader.readinto(view) == len(view)

        times: dict[str, list[tuple[float, float]]] = {way: [] for way in _WAYS}
        for _ in range(_N_ROUNDS):
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


def main() -> None:
    """Print a table."""
    print("| unit | way | microseconds | of processor |", "| --- | --- | --- | --- |", sep="\n")
    for found in measure_copies():
        unit, wall = found.unit_nbytes >> 10, found.seconds * 1e6
        print(f"| {unit} KiB | {found.way} | {wall:.0f} | {found.processor_seconds * 1e6:.0f} |")


if __name__ == "__main__":
    main()

"""How much of an array is in memory."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from lazyarr.kernel import PAGE_NBYTES, buffer_address, in_core
from lazyarr.units import Span
from lazyarr.values import Value

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lazyarr.client.arrays.indexing import Holder
    from lazyarr.client.session.region import Region
    from lazyarr.layout.geometry import Geometry

    _Integers: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]

__all__ = ["Residency", "await_arriving", "residency_of"]

# Decoding a large chunk may take so long on a busy machine.  The wait has an end, for a unit that
# fails or is evicted meanwhile never comes.
_ARRIVAL_SECONDS = 1.0
_LOOK_SECONDS = 0.0002

# A residency map of this size is read as it is.  Of a larger one, the kernel is asked first which
# of its pages exist, for so many bytes at a time.
_SMALL_NBYTES = 1 << 20
_PART_NBYTES = 1 << 30


class Residency(Value):
    """How much of an array, or of a view into it, is in memory, and where.

    Attributes
    ----------
    resident_nbytes, total_nbytes : int
        Bytes of the resident units, and of all units.
    resident_units, total_units : int
        Number of resident units, and of all units.
    runs : ndarray of int
        Where runs of resident units begin and end, a pair for each run, counted in the order of
        memory from the first unit of the array or view on.
    map : ndarray of bool
        One element for each unit, in the order of memory.
    """

    resident_nbytes: int
    total_nbytes: int
    resident_units: int
    total_units: int
    runs: _Integers

    def __repr__(self) -> str:
        return (
            f"<Residency: {self.resident_nbytes} of {self.total_nbytes} bytes, "
            f"{self.resident_units} of {self.total_units} units>"
        )

    @property
    def map(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """One element for each unit; made when it is asked for."""
        found = np.zeros(self.total_units, np.bool_)
        for start, stop in self.runs.tolist():
            found[start:stop] = True
        return found

    def count(self, start: int, stop: int) -> int:
        """Return how many units of a range are resident."""
        clipped = self.runs.clip(start, stop)
        return int((clipped[:, 1] - clipped[:, 0]).sum())


def await_arriving(region: Region) -> None:
    """Wait a moment for the units of which a row was read while the rest was on its way."""
    deadline = time.monotonic() + _ARRIVAL_SECONDS
    while not all(region.residency[unit] for unit in region.arriving):
        if time.monotonic() > deadline:
            break
        time.sleep(_LOOK_SECONDS)
    region.arriving = ()


def residency_of(region: Holder | None, units: Iterable[Span]) -> Residency:
    """Return the residency of some units; an empty one for an array of no bytes."""
    found: list[_Integers] = [np.zeros((0, 2), np.int64)]
    resident_nbytes = total_nbytes = total_units = 0
    for span in units:
        if region is None or not span.size:
            continue
        runs = _resident_runs(region.residency, span)
        total_nbytes += int(_nbytes(region.geometry, *span))
        resident_nbytes += int(np.sum(_nbytes(region.geometry, runs[:, 0], runs[:, 1])))
        found.append(runs + (total_units - span.start))
        total_units += span.size
    runs = np.concatenate(found)
    resident_units = int((runs[:, 1] - runs[:, 0]).sum())
    return Residency(resident_nbytes, total_nbytes, resident_units, total_units, runs)


def _resident_runs(residency: memoryview, span: Span) -> _Integers:
    """Return where runs of resident units begin and end."""
    bounds = []
    for part in _parts(residency, span):
        there = np.frombuffer(residency[part.start : part.stop], np.int8).copy()
        edges = np.flatnonzero(np.diff(there, prepend=0, append=0)) + part.start
        bounds.append(edges.reshape(-1, 2))
    runs: _Integers = np.concatenate([np.zeros((0, 2), np.int64), *bounds])
    # A run that ends with one part may go on in the next.
    is_new = np.r_[True, runs[1:, 0] != runs[:-1, 1]][: len(runs)]
    is_last = np.r_[is_new[1:], True][: len(runs)]
    return np.stack([runs[is_new, 0], runs[is_last, 1]], axis=1)


def _parts(residency: memoryview, span: Span) -> Iterator[Span]:
    """Yield the parts of a residency map that may show a resident unit."""
    # The map of a sparse array is mostly hole.  Reading a hole through a mapping makes pages of
    # it: eight gigabytes for 2**33 units.  So only pages that exist are read (mincore(2)).
    if span.size <= _SMALL_NBYTES:
        yield span
        return
    address = buffer_address(residency)
    first = (address + span.start) // PAGE_NBYTES * PAGE_NBYTES
    for start in range(first, address + span.stop, _PART_NBYTES):
        nbytes = min(_PART_NBYTES, address + span.stop - start)
        pages = np.frombuffer(in_core(start, nbytes), np.int8) & 1
        edges = np.flatnonzero(np.diff(pages, prepend=0, append=0)).reshape(-1, 2)
        for begin, end in (edges * PAGE_NBYTES + (start - address)).tolist():
            yield Span(begin, end) & span


def _nbytes(geometry: Geometry, starts: Any, stops: Any) -> Any:
    """Return how many bytes runs of units have: all the same, but for the last of each run."""
    run_units = geometry.run_units
    short_nbytes = geometry.unit_nbytes - geometry.unit_bytes(run_units - 1).size
    n_last = stops // run_units - starts // run_units
    return (stops - starts) * geometry.unit_nbytes - n_last * short_nbytes

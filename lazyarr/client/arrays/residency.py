"""How much of an array is in memory."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from lazyarr.client.session.residency_map import parts_of_map
from lazyarr.units import DIRTY, RESIDENT, Span
from lazyarr.values import Value

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lazyarr.client.arrays.indexing import Holder
    from lazyarr.client.session.region import Region
    from lazyarr.layout.geometry import Geometry

    _Integers: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]

__all__ = ["Residency", "await_arriving", "residency_of"]

# Decoding a large chunk may take so long on a busy machine.  The wait has an end, for a unit that
# fails or is evicted meanwhile never comes.
_ARRIVAL_SECONDS = 1.0
_LOOK_SECONDS = 0.0002


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
    dirty_nbytes, dirty_units : int
        Bytes and number of the units that were written to in mode ``"r+"``, and of which the
        store does not have everything yet.
    map : ndarray of bool
        One element for each unit, in the order of memory.
    """

    resident_nbytes: int
    total_nbytes: int
    resident_units: int
    total_units: int
    runs: _Integers
    dirty_nbytes: int = 0
    dirty_units: int = 0

    def __repr__(self) -> str:
        dirty = f", {self.dirty_units} of them not written back" if self.dirty_units else ""
        return (
            f"<Residency: {self.resident_nbytes} of {self.total_nbytes} bytes, "
            f"{self.resident_units} of {self.total_units} units{dirty}>"
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
    resident_nbytes = total_nbytes = total_units = dirty_nbytes = dirty_units = 0
    for span in units:
        if region is None or not span.size:
            continue
        runs, dirty = (_runs_of(region.residency, span, bit) for bit in (RESIDENT, DIRTY))
        total_nbytes += int(_nbytes(region.geometry, *span))
        resident_nbytes += _sum_nbytes(region.geometry, runs)
        dirty_nbytes += _sum_nbytes(region.geometry, dirty)
        dirty_units += _count(dirty)
        found.append(runs + (total_units - span.start))
        total_units += span.size
    runs = np.concatenate(found)
    return Residency(
        resident_nbytes=resident_nbytes,
        total_nbytes=total_nbytes,
        resident_units=_count(runs),
        total_units=total_units,
        runs=runs,
        dirty_nbytes=dirty_nbytes,
        dirty_units=dirty_units,
    )


def _count(runs: _Integers) -> int:
    return int((runs[:, 1] - runs[:, 0]).sum())


def _sum_nbytes(geometry: Geometry, runs: _Integers) -> int:
    return int(np.sum(_nbytes(geometry, runs[:, 0], runs[:, 1])))


def _runs_of(residency: memoryview, span: Span, bit: int) -> _Integers:
    """Return where runs of units begin and end that have a bit on the residency map."""
    bounds = []
    for part in parts_of_map(residency, span):
        there = np.frombuffer(residency[part.start : part.stop], np.int8) & bit
        edges = np.flatnonzero(np.diff(there, prepend=0, append=0)) + part.start
        bounds.append(edges.reshape(-1, 2))
    runs: _Integers = np.concatenate([np.zeros((0, 2), np.int64), *bounds])
    # A run that ends with one part may go on in the next.
    is_new = np.r_[True, runs[1:, 0] != runs[:-1, 1]][: len(runs)]
    is_last = np.r_[is_new[1:], True][: len(runs)]
    return np.stack([runs[is_new, 0], runs[is_last, 1]], axis=1)


def _nbytes(geometry: Geometry, starts: Any, stops: Any) -> Any:
    """Return how many bytes runs of units have: all the same, but for the last of each run."""
    run_units = geometry.run_units
    short_nbytes = geometry.unit_nbytes - geometry.unit_bytes(run_units - 1).size
    n_last = stops // run_units - starts // run_units
    return (stops - starts) * geometry.unit_nbytes - n_last * short_nbytes

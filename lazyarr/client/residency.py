"""How much of an array is in memory."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from lazyarr.values import Value

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lazyarr.client.picking import Holder
    from lazyarr.client.region import Region
    from lazyarr.units import Span

__all__ = ["Residency", "await_arriving", "residency_of"]

# Decoding a large chunk may take that long on a busy machine.  What fails, or is evicted
# meanwhile, never comes.
_ARRIVAL_SECONDS = 1.0
_LOOK_SECONDS = 0.0002


class Residency(Value):
    """What of an array, or of a view into it, is in memory.

    Attributes
    ----------
    resident_nbytes, total_nbytes : int
        Bytes of the units that are resident, and of all of them.
    resident_units, total_units : int
        How many units that is.
    map : ndarray of bool
        One element for each unit, in the order of memory.
    """

    resident_nbytes: int
    total_nbytes: int
    resident_units: int
    total_units: int
    map: np.ndarray[Any, np.dtype[np.bool_]]

    def __repr__(self) -> str:
        return (
            f"<Residency: {self.resident_nbytes} of {self.total_nbytes} bytes, "
            f"{self.resident_units} of {self.total_units} units>"
        )


def await_arriving(region: Region) -> None:
    """Wait until what is on its way is there, for a moment; then do not wait for it again."""
    deadline = time.monotonic() + _ARRIVAL_SECONDS
    while not all(region.residency[unit] for unit in region.arriving):
        if time.monotonic() > deadline:
            break
        time.sleep(_LOOK_SECONDS)
    region.arriving = ()


def residency_of(region: Holder | None, units: Iterable[Span]) -> Residency:
    """Return the residency of some units; nothing at all for an array of no bytes."""
    if region is None:
        return Residency(0, 0, 0, 0, np.zeros(0, np.bool_))
    spans = [span for span in units if span.size]
    resident = np.frombuffer(region.residency, np.bool_)
    indexes = [np.arange(*span) for span in spans]
    wanted = np.concatenate(indexes) if indexes else np.zeros(0, np.intp)
    here = resident[wanted]
    sizes = _unit_sizes(region, wanted)
    return Residency(
        int(sizes[here].sum()), int(sizes.sum()), int(here.sum()), len(wanted), here.copy()
    )


def _unit_sizes(
    region: Holder, units: np.ndarray[Any, np.dtype[np.intp]]
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return how many bytes each unit has: all the same, but for the last of each run."""
    sizes = np.full(len(units), region.geometry.unit_nbytes, np.int64)
    last = units % region.geometry.run_units == region.geometry.run_units - 1
    sizes[last] = region.geometry.unit_bytes(region.geometry.run_units - 1).size
    return sizes

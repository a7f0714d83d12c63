"""In which order units are come to for the first time, in bounded memory."""

from __future__ import annotations

from array import array

from lazyarr.layout.geometry import Geometry
from lazyarr.plan.marks import Marks
from lazyarr.units import Span

__all__ = ["MAX_RUNS", "Recorder"]

MAX_RUNS = 1 << 20
"""So many runs of neighbouring units are kept: twelve mebibytes, for a random order of as many."""

_MAX_ARRAYS = 1 << 16
# Units below these are one array's.  2**40 units of a page are more than there are addresses.
_UNIT_BITS = 40
# Sixty-four million units, in eight mebibytes.  Beyond them an old unit may be noted once more.
_MAX_BLOCKS = 1 << 14
_MAX_COUNT = (1 << 32) - 1


class Recorder:
    """Notes units in the order in which somebody comes to them for the first time.

    Units that come one after the other in memory too are one run.

    Parameters
    ----------
    max_runs : int
        How many runs are kept.

    Attributes
    ----------
    regions : list of (int, Geometry)
        The arrays of the runs: number of the region, and arithmetic.  They stay when the region
        is gone.
    n_left_out : int
        How many units have not been kept, for want of room.

    Examples
    --------
    >>> recorder, geometry = Recorder(), Geometry((8192 * 9,), (8192,), 1, 4096)
    >>> for unit in (4, 5, 2, 4):
    ...     recorder.note(7, geometry, Span(unit, unit + 1))
    >>> recorder.runs(0, 9)
    [(0, Span(start=32768, stop=49152)), (0, Span(start=16384, stop=24576))]
    """

    def __init__(self, max_runs: int = MAX_RUNS) -> None:
        self.regions: list[tuple[int, Geometry]] = []
        self.n_left_out = 0
        self._max_runs = max_runs
        self._places: dict[int, int] = {}
        # The first unit of each run, with its array in front, and how many units it has.
        self._firsts = array("Q")
        self._counts = array("I")
        self._seen = Marks(_MAX_BLOCKS)

    def __repr__(self) -> str:
        return f"<Recorder: {len(self)} runs of {len(self.regions)} arrays>"

    def __len__(self) -> int:
        """How many runs there are."""
        return len(self._firsts)

    def __contains__(self, region: object) -> bool:
        """Whether units of a region have been noted."""
        return region in self._places

    def note(self, region: int, geometry: Geometry, units: Span) -> None:
        """Take down that somebody has come to units of a region, unless they are known."""
        place = self._places.get(region)
        if place is None:
            if len(self.regions) >= _MAX_ARRAYS:
                self.n_left_out += units.size
                return
            place = self._places[region] = len(self.regions)
            self.regions.append((region, geometry))
        for unit in range(*units):
            key = place << _UNIT_BITS | unit
            if self._seen.add(key):
                self._append(key)

    def _append(self, key: int) -> None:
        firsts, counts = self._firsts, self._counts
        if firsts and firsts[-1] + counts[-1] == key and counts[-1] < _MAX_COUNT:
            counts[-1] += 1
        elif len(firsts) < self._max_runs:
            firsts.append(key)
            counts.append(1)
        else:
            self.n_left_out += 1

    def runs(self, start: int, stop: int) -> list[tuple[int, Span]]:
        """Return some runs, in order: place of the array in `regions`, and bytes of its memory."""
        found = []
        for key, count in zip(self._firsts[start:stop], self._counts[start:stop], strict=True):
            place, unit = key >> _UNIT_BITS, key & (1 << _UNIT_BITS) - 1
            geometry = self.regions[place][1]
            first, last = geometry.unit_bytes(unit), geometry.unit_bytes(unit + count - 1)
            found.append((place, Span(first.start, last.stop)))
        return found

"""What somebody will come to, in which order, as it was recorded; and how far readers are.

A schedule is gone through ahead of its readers, a batch of units at a time.  The first unit of
each batch is a mark, as in `readahead`: its first touch is heard of, and the next batch is asked
for.  So what lies ahead of the readers is two batches at most.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable

from lazyarr.plan.eviction import Key
from lazyarr.units import Span

__all__ = ["Schedule"]

_UNIT_BITS = 40
# Several processes that share the work come to units in another order than was recorded, but not
# by more places than that, and twice what was asked for last.
_REACH = 64
# Who has come to so many units elsewhere, and for each batch that was asked for to so many more,
# does not follow the schedule.
_STRAYS_TO_DOUBT = 8
_STRAYS_TO_FORGET = 64
_STRAYS_PER_UNIT = 8
_MAX_STRAYS = 8
# The least part of a batch that is left when batches are evicted before they are read.
_LEAST_SCALE = 1 / 64
_ROUNDING = 1e-6


class Schedule:
    """Runs of units in the order in which they will be wanted.

    Places are counted in units from the first one on.  What lies behind `frontier` was asked for,
    or was there already.

    Parameters
    ----------
    client : int
        Who has given it, and with whom it ends.

    Attributes
    ----------
    reader : int
        The client that followed it last.
    is_whole : bool
        Whether all of its runs are known.
    is_queued : bool
        Whether a batch is being asked for.
    frontier : int
        The first place that was not looked at yet.
    n_given : int
        How many runs have been told of, those among them that are not known here.
    room_nbytes : int
        For how many bytes more the batch has room.
    regions : list of int
        Which regions it has units of.
    """

    def __init__(self, client: int) -> None:
        self.client = self.reader = client
        self.is_whole = False
        self.is_queued = False
        self.frontier = self.n_given = self.room_nbytes = 0
        self.regions: list[int] = []
        self._places: dict[int, int] = {}
        # The first unit of each run, with its array in front, and its place; and the end.
        self._firsts = array("Q")
        self._starts = array("Q", [0])
        # The same runs as they were added, a slice at a time: sorted by unit, to find one by.
        self._sorted: list[tuple[array[int], array[int]]] = []
        self._run = 0  # that the frontier is in
        self._at = 0
        # By unit, the places of what was asked for and nobody has come to.  In order.
        self._unread: dict[int, int] = {}
        self._mark = -1
        self._n_asked = self._n_last = 0
        self._share = 0.0
        self._scale = 1.0
        self._strays: deque[int] = deque(maxlen=_MAX_STRAYS)
        self._n_strays = 0

    def __repr__(self) -> str:
        return f"<Schedule: {self.n_runs} runs, asked for {self.frontier} of {self.n_units} units>"

    @property
    def n_runs(self) -> int:
        """How many runs are known."""
        return len(self._firsts)

    @property
    def n_units(self) -> int:
        """How many units the runs have."""
        return self._starts[-1]

    @property
    def is_at_last(self) -> bool:
        """Whether the unit at the frontier is the last one."""
        return self.is_whole and self.frontier == self.n_units - 1

    @property
    def is_over(self) -> bool:
        """Whether all was asked for, and readers have come to the last of it."""
        is_read = self._at >= self.n_units or not self._unread
        return self.is_whole and self.frontier == self.n_units and is_read

    @property
    def is_followed(self) -> bool:
        """Whether nothing says that readers have left it."""
        return self._n_strays < _STRAYS_TO_DOUBT

    @property
    def is_forsaken(self) -> bool:
        """Whether readers have come to so many other units that nobody follows it any more."""
        return self._n_strays > _STRAYS_TO_FORGET + _STRAYS_PER_UNIT * self._n_last

    def __contains__(self, region: object) -> bool:
        """Whether it has units of a region."""
        return region in self._places

    def add(self, runs: Iterable[tuple[int, Span]]) -> None:
        """Add runs at the end: of each the region, and its units."""
        first = self.n_runs
        for region, units in runs:
            if not units.size:
                continue
            place = self._places.get(region)
            if place is None:
                place = self._places[region] = len(self.regions)
                self.regions.append(region)
            self._firsts.append(place << _UNIT_BITS | units.start)
            self._starts.append(self.n_units + units.size)
        order = sorted(range(first, self.n_runs), key=self._firsts.__getitem__)
        if order:
            keys = array("Q", map(self._firsts.__getitem__, order))
            self._sorted.append((keys, array("I", order)))

    # --- batches ------------------------------------------------------------------

    def begin_batch(self) -> None:
        """Begin to ask for a batch."""
        self.is_queued = True
        self._share, self._n_asked, self._mark = 0.0, 0, -1

    def end_batch(self) -> None:
        """Take down that the batch is as long as it can be now."""
        self.is_queued = False
        if self._n_asked:
            self._n_last = self._n_asked
            self._scale = min(1.0, 2 * self._scale)
        else:
            # Nothing that could be marked.  Whoever comes to the frontier is heard of.
            self._mark = self.frontier

    def next_unit(self) -> Key | None:
        """Return region and unit at the frontier; None behind the last one that is known."""
        if self.frontier == self.n_units:
            return None
        while self.frontier >= self._starts[self._run + 1]:
            self._run += 1
        return self._key(self._firsts[self._run] + self.frontier - self._starts[self._run])

    def _key(self, key: int) -> Key:
        return self.regions[key >> _UNIT_BITS], key & (1 << _UNIT_BITS) - 1

    def skip(self) -> None:
        """Pass over the unit at the frontier: it is there already, or cannot be had."""
        self.frontier += 1

    def takes(self, part: float) -> bool:
        """Return whether a batch takes a unit that is such a part of it."""
        return not self._n_asked or self._share + part <= self._scale + _ROUNDING

    def ask(self, part: float, *, is_left: bool) -> None:
        """Take down that the unit at the frontier is asked for, or left to whoever comes there."""
        if self._mark < 0:
            self._mark = self.frontier
        if not is_left:
            key = self._firsts[self._run] + self.frontier - self._starts[self._run]
            self._unread[key] = self.frontier
        self._share += part
        self._n_asked += 1
        self.frontier += 1

    @property
    def is_unmarked(self) -> bool:
        """Whether the batch has no mark yet."""
        return self._mark < 0

    # --- readers ------------------------------------------------------------------

    def came(self, client: int, region: int, unit: int, *, is_lost: bool) -> tuple[list[Key], bool]:
        """Take down that somebody has come to a unit.

        Parameters
        ----------
        client, region, unit : int
            Who, and to which unit.
        is_lost : bool
            Whether the unit is neither there nor on its way.

        Returns
        -------
        passed : list of (int, int)
            Units that were asked for and that readers have come to, or gone past.
        is_due : bool
            Whether the next batch is to be asked for.
        """
        place = self._places.get(region)
        if place is None:
            return [], False
        key = place << _UNIT_BITS | unit
        found = self._unread.get(key)
        if found is None:
            found = self._place_of_lost(key) if is_lost else None
            if found is None:
                return [], False
        elif is_lost:
            # It was evicted before it was read: there was less room than there seemed to be.
            self._scale = max(_LEAST_SCALE, self._scale / 4)
        self.reader, self._n_strays = client, 0
        passed = []
        while self._unread:
            first = next(iter(self._unread))
            if self._unread[first] > found:
                break
            del self._unread[first]
            passed.append(self._key(first))
        self._at = max(self._at, found + 1)
        if found >= self.frontier:
            self._move_to(found + 1)
        return passed, found >= self._mark

    def _place_of_lost(self, key: int) -> int | None:
        """Return the place of a unit that was not asked for, if whoever comes there follows.

        Who is near follows.  Who comes to a place elsewhere, and then to one right behind it, has
        jumped there, and is followed.
        """
        place = self._find(key)
        reach = _REACH + 2 * self._n_last
        if place is None:
            self._n_strays += 1
            return None
        if self._at <= place <= self.frontier + reach:
            return place
        # One who is late: the unit has been evicted since, or was never asked for.
        if self._at - reach <= place < self._at:
            return None
        if any(0 < place - stray <= reach for stray in self._strays):
            self._strays.clear()
            self._unread.clear()
            self._at = self._mark = place
            self._move_to(place)
            return place
        self._strays.append(place)
        self._n_strays += 1
        return None

    def _find(self, key: int) -> int | None:
        """Return the place of a unit; where it has several, the one that is nearest."""
        best = None
        for keys, order in self._sorted:
            found = bisect_right(keys, key) - 1
            if found < 0:
                continue
            run = order[found]
            place = self._starts[run] + key - keys[found]
            is_nearer = best is None or abs(place - self._at) < abs(best - self._at)
            if place < self._starts[run + 1] and is_nearer:
                best = place
        return best

    def _move_to(self, place: int) -> None:
        self.frontier = place
        self._run = max(0, min(bisect_right(self._starts, place) - 1, self.n_runs - 1))

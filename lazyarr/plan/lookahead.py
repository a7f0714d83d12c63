"""Readahead over all arrays: what has been read ahead, and what came of it."""

from __future__ import annotations

from collections import Counter, deque

from lazyarr.plan.eviction import Key
from lazyarr.plan.readahead import Advice, Ahead, Readahead
from lazyarr.plan.regions import RegionState
from lazyarr.units import Span

__all__ = ["Lookahead"]

# What may be asked for at once, however small the units are: each costs the pager a moment;
# over a network, and in chunks of small ones.
_MAX_UNITS = 128
_MAX_REMOTE_UNITS = 4096
_MAX_CHUNKS = 4096
# A disk needs no more than this part of what may be read ahead.
_USUAL_PART = 4
# The part of the window that the first batch over a network has.
_REMOTE_PART = 4
_LEAST_REMOTE_UNITS = 4
_LEAST_REMOTE_NBYTES = 2 << 20


class Lookahead:
    """The readahead of each array, and the units that no reader has come to yet.

    Parameters
    ----------
    counters : Counter
        Where it is counted what was read ahead, came to be read, and was evicted unread.

    Attributes
    ----------
    window_nbytes : int
        How much may be asked for at once where that much is needed; nothing is read ahead
        while it is 0.
    unread_nbytes : int
        How much has been read ahead of late that no reader has come to.
    """

    def __init__(self, counters: Counter[str]) -> None:
        self.window_nbytes = 0
        self.unread_nbytes = 0
        self._counters = counters
        self._arrays: dict[int, Readahead] = {}
        # Of each array's units, when each was asked for, and its size for as long as that counts
        # as of late; and the sum of these sizes.
        self._unread: dict[int, dict[int, tuple[int, int]]] = {}
        self._unread_nbytes: Counter[int] = Counter()
        # By the time at which they were asked for, over all arrays.  An entry is not
        # searched when a unit is read: it is found to be out of date when its turn
        # comes.
        self._order: deque[tuple[int, Key]] = deque()

    def __repr__(self) -> str:
        return f"<Lookahead: {len(self._arrays)} arrays, {self.unread_nbytes} bytes unread>"

    def _array(self, region: int, state: RegionState) -> Readahead:
        array = self._arrays.get(region)
        if array is None:
            array = self._arrays[region] = Readahead(state.geometry.n_units)
        return array

    def advise(self, region: int, state: RegionState, units: Span, advice: Advice) -> None:
        """Take down how a part of an array will be read."""
        self._array(region, state).advise(units, advice)

    def after(
        self, region: int, state: RegionState, units: Span, *, is_lost: bool, room_nbytes: int
    ) -> Ahead:
        """Return what to read ahead when somebody has come to some units."""
        unit_nbytes = state.geometry.unit_nbytes
        max_units = self.max_units(state)
        ahead = self._array(region, state).accessed(
            units,
            is_lost=is_lost,
            is_absent=state.is_absent,
            # Over a network each batch takes a round trip: doubling from one would take many.
            min_units=max_units // _REMOTE_PART if state.remote else 1,
            max_units=max_units,
            room_units=room_nbytes // unit_nbytes,
        )
        for unit in ahead.passed:
            self.passed((region, unit))
        return ahead

    def passed(self, key: Key) -> None:
        """Take down that a reader has come to a unit, if it was read ahead."""
        # It is no longer one of those that may be evicted unread.
        if self.remove(key):
            self._counters["ahead_read"] += 1

    def max_units(self, state: RegionState) -> int:
        """Return how many units of an array may be asked for at once.

        Over a network as many as are on their way while its bandwidth is made use of: fewer
        than elsewhere if it is slow, for they would be in the way of what is wanted next.
        """
        unit_nbytes = state.geometry.unit_nbytes
        most = min(
            max(1, self.window_nbytes // unit_nbytes),
            _MAX_REMOTE_UNITS,
            max(1, _MAX_CHUNKS // state.geometry.unit_chunks),
        )
        least = max(1, min(most // _USUAL_PART, _MAX_UNITS))
        # On a slow network a large batch is in the way of what the reader asks for
        # next, and for nothing where it stops.  So it gets a few units, and not what a
        # disk gets.
        if state.is_pipe_full:
            least = min(least, max(_LEAST_REMOTE_UNITS, _LEAST_REMOTE_NBYTES // unit_nbytes))
        return min(max(least, state.pipe_units), most)

    def add(self, key: Key, nbytes: int, now: int) -> None:
        """Take down that a unit is read ahead, at a time of the policy's.

        It has no bytes if it cannot be evicted.
        """
        self._counters["units_ahead"] += 1
        region, unit = key
        self._unread.setdefault(region, {})[unit] = (now, nbytes)
        if nbytes:
            self._order.append((now, key))
            self._count(region, nbytes)

    def _count(self, region: int, nbytes: int) -> None:
        self.unread_nbytes += nbytes
        self._unread_nbytes[region] += nbytes

    def forget_before(self, time: int) -> None:
        """Have what was asked for before a time, and is there still, not count any more."""
        while self._order and self._order[0][0] < time:
            asked, (region, unit) = self._order.popleft()
            unread = self._unread.get(region, {})
            found, nbytes = unread.get(unit, (0, 0))
            if found == asked and nbytes:
                self._count(region, -nbytes)
                unread[unit] = (asked, 0)

    def remove(self, key: Key) -> bool:
        """Take down that a unit is unread no more; return whether it was."""
        # Called for each unit that is evicted or fails, most of which were never read
        # ahead.
        unread = self._unread.get(key[0]) if self._unread else None
        found = unread.pop(key[1], None) if unread else None
        if found is not None:
            self._count(key[0], -found[1])
        return found is not None

    def evict(self, key: Key) -> None:
        """Take down that a unit is out for want of room."""
        if self.remove(key):
            self._counters["ahead_evicted"] += 1

    def forget(self, region: int) -> None:
        """Forget an array."""
        self._arrays.pop(region, None)
        self._unread.pop(region, None)
        self.unread_nbytes -= self._unread_nbytes.pop(region, 0)

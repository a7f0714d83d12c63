"""Which unit goes when memory is short: two queues, over all arrays.

Nobody sees a thread touch a page that is there, so use shows in two ways only: a
request, or a fault of another process, for a unit that is resident; and a fault on one that
has gone not long ago.  The policy is made for that, of parts that are known to work:

- New units pass through a short queue, and only what comes back gets into the long one, so
  that a scan flushes nothing but the short one (Johnson and Shasha, 2Q, VLDB 1994; Yang et
  al., S3-FIFO, SOSP 2023).
- A unit that has gone counts as coming back when it would still be here had the long
  queue's room been its own: less was loaded meanwhile (Linux, mm/workingset.c).
- Without such evidence the long queue is filled once and then changes slowly, by one unit
  in 32: a loop over more than there is room for finds part of it there every time, where
  first in, first out finds nothing (Qureshi et al., bimodal insertion, ISCA 2007).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

__all__ = ["Key", "TwoQueues"]

Key: TypeAlias = tuple[int, int]
"""Region and unit."""

# The nursery's part of what is resident, and how many units it has room for at least, for
# a thread that was woken needs a moment to get to its page.
_NURSERY_PART = 8
_NURSERY_UNITS = 8
# So many units are looked at for one that may go; after that, use is no reason to stay.  Each
# look is paid for by a use, but all of them at once would be a pause for everybody.
_MAX_LOOKS = 256
# One unit in so many is kept without evidence, for what is kept may be useless by now.
_CHANCE = 32


class Statistics(NamedTuple):
    """What a policy holds."""

    n_units: int
    resident_nbytes: int
    n_nursery: int
    n_remembered: int


class TwoQueues:
    """Resident units, in the order in which they came to the *nursery* or to the *main* queue.

    Time is counted in bytes loaded.  Units that left the nursery are remembered for as
    long as their coming back would mean anything; of each the key, and when it left.
    """

    def __init__(self) -> None:
        # Of each unit how many bytes it has, and how many had been loaded when it came.
        self._nursery: OrderedDict[Key, tuple[int, int]] = OrderedDict()
        self._main: OrderedDict[Key, tuple[int, int]] = OrderedDict()
        # Those that may not go for now, out of the queues: a search for one that may go does not
        # come past them.  Of each whether it was in the main queue, too.
        self._pinned: dict[Key, tuple[int, int, bool]] = {}
        self._used: set[Key] = set()
        self._gone: OrderedDict[Key, int] = OrderedDict()
        self._nursery_nbytes = 0
        self._resident_nbytes = 0
        self._loaded_nbytes = 0
        # Of the last unit that came.  Arrays have units of different sizes; the
        # nursery's room for some units is a rule of thumb, and follows what is loaded
        # now.
        self._unit_nbytes = 0
        # How much was resident when something had to go for the last time.  Below it
        # there is room, and what leaves the nursery may stay.
        self._full_nbytes: float = math.inf
        self._n_chances = 0

    def __repr__(self) -> str:
        n_main, n_new = len(self._main), len(self._nursery)
        return f"<TwoQueues: {n_new} + {n_main} units, {self._resident_nbytes} bytes>"

    def __contains__(self, key: object) -> bool:
        return key in self._nursery or key in self._main or key in self._pinned

    def statistics(self) -> Statistics:
        """Return how much is held."""
        n_new = len(self._nursery)
        n_units = n_new + len(self._main) + len(self._pinned)
        return Statistics(n_units, self._resident_nbytes, n_new, len(self._gone))

    @property
    def resident_nbytes(self) -> int:
        """Bytes of all units held."""
        return self._resident_nbytes

    @property
    def now(self) -> int:
        """How many bytes have been loaded."""
        return self._loaded_nbytes

    @property
    def nursery_nbytes(self) -> int:
        """How many bytes of new units are safe from newer ones."""
        some_nbytes = min(_NURSERY_UNITS * self._unit_nbytes, self._resident_nbytes // 2)
        return max(self._resident_nbytes // _NURSERY_PART, some_nbytes)

    def add(self, key: Key, nbytes: int) -> None:
        """Take down that a unit has become resident."""
        nursery = self._nursery
        if key in nursery or key in self._main or key in self._pinned:
            return
        self._loaded_nbytes = loaded_nbytes = self._loaded_nbytes + nbytes
        # The evidence that it is worth keeping.  Only what left the nursery is
        # remembered: what was in the main queue had its chance, and has lost it by not
        # being used.
        if key in self._gone and self._is_soon(self._gone.pop(key)):
            self._main[key] = (nbytes, loaded_nbytes)
        else:
            nursery[key] = (nbytes, loaded_nbytes)
            self._nursery_nbytes += nbytes
        self._resident_nbytes = resident_nbytes = self._resident_nbytes + nbytes
        self._unit_nbytes = nbytes
        if (
            resident_nbytes < self._full_nbytes
            and self._nursery_nbytes * _NURSERY_PART > resident_nbytes
        ):
            # There is room: what is no longer new fills the main queue.
            self._promote()

    def _is_soon(self, left: int) -> bool:
        """Return whether a unit that left then would still be here with the main queue's room."""
        # Had it been in the main queue, it would have gone after so many bytes at the
        # earliest.  What comes back later than that would not have been found there
        # either.
        room_nbytes = self._resident_nbytes - self._resident_nbytes // _NURSERY_PART
        return self._loaded_nbytes - left <= room_nbytes

    def touch(self, key: Key) -> None:
        """Mark a unit as used; use right after it came is but the use that it came for."""
        new = self._nursery.get(key)
        if new is not None:
            # A thread that waits for a unit uses it at once, perhaps several times: a
            # request for each row of it.  That is one use.  Only one that comes after an
            # eighth of what is resident was loaded says something.
            age_nbytes = self._loaded_nbytes - new[1]
            if age_nbytes >= self._resident_nbytes // _NURSERY_PART:
                self._used.add(key)
        elif key in self._main:
            self._used.add(key)

    def remove(self, key: Key) -> None:
        """Take down that a unit is out, not for want of room; unknown ones are ignored."""
        self.unpin(key)
        held = self._nursery.pop(key, None)
        if held is not None:
            self._nursery_nbytes -= held[0]
        else:
            held = self._main.pop(key, None)
        if held is not None:
            self._resident_nbytes -= held[0]
            self._used.discard(key)

    def pin(self, key: Key) -> None:
        """Have a resident unit stay until `unpin`; unknown ones are ignored."""
        held = self._nursery.pop(key, None)
        if held is not None:
            self._nursery_nbytes -= held[0]
            self._pinned[key] = (*held, False)
        elif key in self._main:
            self._pinned[key] = (*self._main.pop(key), True)
        self._used.discard(key)

    def unpin(self, key: Key) -> None:
        """Put a unit back to the end of the queue that it was in."""
        held = self._pinned.pop(key, None)
        if held is None:
            return
        nbytes, loaded_nbytes, is_main = held
        if is_main:
            self._main[key] = (nbytes, loaded_nbytes)
        else:
            self._nursery[key] = (nbytes, loaded_nbytes)
            self._nursery_nbytes += nbytes

    def evict(self, key: Key) -> None:
        """Take down that a unit is out for want of room; it is remembered if it was new."""
        gone = self._gone
        if key in self._nursery:
            gone[key] = self._loaded_nbytes
        self.remove(key)
        # A bounded look each time: the list of what has gone may be long, and what is
        # too old there costs memory only.
        for _ in range(_MAX_LOOKS):
            if not gone or self._is_soon(next(iter(gone.values()))):
                break
            gone.popitem(last=False)

    def victim(self, must_stay: Callable[[Key], bool], recent_nbytes: int = 0) -> Key | None:
        """Return the unit to take out next, without removing it; None when all must stay.

        Parameters
        ----------
        must_stay : callable
            Whether a unit may not go.
        recent_nbytes : int
            So much of what came last is taken only after everything else.
        """
        # Asked for a victim: so there is no room beyond what is here now.
        self._full_nbytes = self._resident_nbytes
        # A request for more than the nursery holds would evict its own first units,
        # before it is answered.  So as much of the newest as requests wait for goes
        # last.
        room_nbytes = max(self.nursery_nbytes, recent_nbytes)
        found = self._oldest_new(must_stay, room_nbytes)
        if found is None:
            found = self._oldest_kept(must_stay)
        if found is None:
            found = self._oldest_new(must_stay, 0)
        return found if found is not None else self._oldest_kept(must_stay)

    def _oldest_new(self, must_stay: Callable[[Key], bool], room_nbytes: int) -> Key | None:
        """Return the unit that the nursery has no room for; on the way, promote what was used."""
        for n_looks in range(min(len(self._nursery), 2 * _MAX_LOOKS)):
            if self._nursery_nbytes <= room_nbytes:
                return None
            key = next(iter(self._nursery))
            # To the end, not past: it is in the way of each look otherwise.
            if must_stay(key):
                self._nursery.move_to_end(key)
                continue
            self._n_chances += 1
            # One in 32 as it comes, so that the main queue changes even without evidence.
            # What is there may be of a program that has gone on to other arrays.
            is_kept = key in self._used or not self._n_chances % _CHANCE
            if not is_kept or n_looks >= _MAX_LOOKS:
                return key
            self._promote()
            self._used.discard(key)
        return None

    def _promote(self) -> None:
        """Move the nursery's oldest unit to the main queue."""
        key, held = self._nursery.popitem(last=False)
        self._nursery_nbytes -= held[0]
        self._main[key] = held

    def _oldest_kept(self, must_stay: Callable[[Key], bool]) -> Key | None:
        """Return the main queue's next; one that was used goes to the end instead."""
        for n_looks in range(min(2 * len(self._main), 2 * _MAX_LOOKS)):
            key = next(iter(self._main))
            is_kept = key in self._used and n_looks < _MAX_LOOKS
            if not is_kept and not must_stay(key):
                return key
            self._used.discard(key)
            self._main.move_to_end(key)
        return None

"""How much memory there is, and how much of it is taken."""

from __future__ import annotations

from lazyarr.plan.regions import RegionState
from lazyarr.values import Struct

__all__ = ["Room"]


class Room(Struct):
    """The memory limit, and what counts towards it.

    Attributes
    ----------
    limit_nbytes : int
        How much may be taken.
    shared_nbytes : int
        Pages in memory objects, and shares of pages that are not whole yet: what eviction
        can give back.
    private_nbytes : int
        Pages of private memory that were installed.  They may hold what the process has
        written, so they stay until it unmaps them; shared memory gives way to them.
    loading_nbytes : int
        Shared units that are on their way.
    scratch_nbytes : int
        Memory that units are decoded in.
    """

    limit_nbytes: int
    shared_nbytes: int = 0
    private_nbytes: int = 0
    loading_nbytes: int = 0
    scratch_nbytes: int = 0

    def take(self, state: RegionState, nbytes: int) -> None:
        """Count bytes of a region; negative ones are given back."""
        state.taken_nbytes += nbytes
        if state.kind.is_evictable:
            self.shared_nbytes += nbytes
        else:
            self.private_nbytes += nbytes

    @property
    def taken_nbytes(self) -> int:
        """How much counts towards the limit."""
        return self.shared_nbytes + self.private_nbytes + self.loading_nbytes + self.scratch_nbytes

    @property
    def free_nbytes(self) -> int:
        """How much more fits without anything being evicted."""
        return max(0, self.limit_nbytes - self.taken_nbytes)

    @property
    def is_short(self) -> bool:
        """Whether something must be evicted.

        Loads that wait in a queue must not drive out what has just come, so one half of
        the limit is for what is there: with as many threads waiting as the limit has units,
        1. a unit is loaded, and the thread that waited for it is woken;
        2. the unit is evicted in favour of those still on their way;
        3. the thread finds its page gone and asks for it again, and so for ever.
        """
        # The cost: where private memory and loads on their way take more than half, all
        # of it together may be more than the limit.
        others_nbytes = self.private_nbytes + self.loading_nbytes + self.scratch_nbytes
        allowed_nbytes = max(self.limit_nbytes - others_nbytes, self.limit_nbytes // 2)
        return self.shared_nbytes > allowed_nbytes

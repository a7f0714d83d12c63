"""What is wanted of remote stores and waits for its turn."""

from __future__ import annotations

import enum
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from lazyarr.plan.coalescing import RangeQueue

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazyarr.reading.locator import IndexRead, ObjectRange
    from lazyarr.reading.unit_reader import UnitReader
    from lazyarr.reading.workspace import Fetched

__all__ = ["Backlog", "OnFetched", "ReadQueue", "Part", "Urgency", "Wanted"]

# What is not wanted is read along where that is cheaper than a request of its own:
# a request takes half a millisecond of the processor, as long as copying this twice.
_MAX_GAP_NBYTES = 64 << 10

OnFetched: TypeAlias = "Callable[[Fetched | BaseException], None]"
"""Told of the chunks of a unit, or of why they cannot be had."""


class Urgency(enum.IntEnum):
    """Who waits for a unit, and so whose turn is first."""

    FAULT = 0  # a thread waits, with the GIL held
    REQUEST = 1  # somebody waits
    READAHEAD = 2  # nobody waits


@dataclass(eq=False, slots=True)
class Wanted:
    """A unit on its way."""

    source: UnitReader
    unit: int
    urgency: Urgency
    done: OnFetched
    chunks: list[memoryview | None] = field(default_factory=list)
    n_missing: int = 0
    error: BaseException | None = None


@dataclass(eq=False, slots=True)
class Part:
    """A chunk of a unit on its way.

    Attributes
    ----------
    owner : Wanted
        The unit.
    position : int
        Which of its chunks.
    chunk : tuple of int
        The chunk's place in the grid.
    is_retry : bool
        Whether its bytes were wrong once, so that it is read for the second time.
    must_read_alone : bool
        Whether a read of it together with others has failed.
    is_not_cached : bool
        Whether it is known not to be in the cache on disk, or that is not believed any more.
    """

    owner: Wanted
    position: int
    chunk: tuple[int, ...]
    is_retry: bool = False
    must_read_alone: bool = False
    is_not_cached: bool = False


class ReadQueue:
    """What waits to be read and is of one urgency: indexes, chunks alone, ranges of objects.

    Indexes that nobody waits for yet come last.
    """

    def __init__(self) -> None:
        self.indexes: deque[tuple[UnitReader, IndexRead]] = deque()
        self.foreseen: deque[tuple[UnitReader, IndexRead]] = deque()
        self.alone: deque[tuple[UnitReader, ObjectRange, Part]] = deque()
        self.ranges: RangeQueue[tuple[UnitReader, str], Part] = RangeQueue(
            max_gap_nbytes=_MAX_GAP_NBYTES
        )

    def __repr__(self) -> str:
        return f"<ReadQueue: {len(self.indexes)} indexes, {len(self.alone)} alone, {self.ranges!r}>"


class Backlog:
    """How much was handed out and has not been decoded yet.

    Parameters
    ----------
    limit_nbytes : int
        More than that and no more is asked for.
    """

    def __init__(self, limit_nbytes: int) -> None:
        self._limit_nbytes = limit_nbytes
        self._lock = threading.Lock()
        self._handed_nbytes = 0
        self._released_nbytes = 0
        self._is_full = False

    def __repr__(self) -> str:
        return f"<Backlog: {self._handed_nbytes - self._released_nbytes} bytes>"

    def hand_over(self, fetched: Fetched) -> None:
        """Take down what is handed out; in one thread only."""
        self._handed_nbytes += _nbytes(fetched)

    def release(self, fetched: Fetched) -> bool:
        """Take down what is decoded, in any thread; return whether somebody held back for it."""
        with self._lock:
            self._released_nbytes += _nbytes(fetched)
        return self._is_full

    def hold_back_if_full(self) -> bool:
        """Return whether to hold back; if so, take down that `release` has to say when to go on."""
        # Written down before looking, so that what is released after that is heard of.
        self._is_full = True
        self._is_full = self._handed_nbytes - self._released_nbytes > self._limit_nbytes
        return self._is_full


def _nbytes(fetched: Fetched) -> int:
    return sum(len(data) for data in fetched if data is not None)

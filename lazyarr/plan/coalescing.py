"""Which byte ranges of an object are read together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from lazyarr.units import Span

__all__ = ["Group", "RangeQueue", "coalesce"]

_Key = TypeVar("_Key", bound=Hashable)
_Item = TypeVar("_Item")


def coalesce(
    ranges: Sequence[Span], *, max_gap_nbytes: int, max_nbytes: int
) -> list[tuple[int, ...]]:
    """Return which of some ranges are read together, by their places, in the order of their bytes.

    Parameters
    ----------
    ranges : sequence of Span
        Ranges of one object, in any order; they may overlap.
    max_gap_nbytes : int
        How much that nobody wants may be read between two of them.
    max_nbytes : int
        How much may be read at once; a longer range is read alone.

    Examples
    --------
    >>> ranges = [Span(900, 950), Span(0, 10), Span(10, 30), Span(35, 40)]
    >>> coalesce(ranges, max_gap_nbytes=5, max_nbytes=1000)
    [(1, 2, 3), (0,)]
    """
    groups: list[list[int]] = []
    start = stop = 0
    # Neighbours in the order of bytes, however they were asked for: a round trip costs
    # more than the bytes of a gap, and each range that is joined saves one.
    for place in sorted(range(len(ranges)), key=ranges.__getitem__):
        span = ranges[place]
        # Ranges may overlap, as where two arrays are asked for chunks of one shard.
        # What is read is their hull, and each is cut out of it.
        further = max(stop, span.stop)
        if groups and span.start - stop <= max_gap_nbytes and further - start <= max_nbytes:
            groups[-1].append(place)
            stop = further
        else:
            groups.append([place])
            start, stop = span
    return [tuple(group) for group in groups]


class Group(NamedTuple, Generic[_Key, _Item]):
    """What is read at once: of which object, from where to where, and for whom."""

    key: _Key
    span: Span
    items: tuple[tuple[Span, _Item], ...]


@dataclass(slots=True)
class _Object(Generic[_Item]):
    """What is wanted of one object: what has come since it was grouped, and the groups."""

    fresh: list[tuple[Span, _Item]] = field(default_factory=list)
    groups: deque[tuple[tuple[Span, _Item], ...]] = field(default_factory=deque)


class RangeQueue(Generic[_Key, _Item]):
    """Ranges that are waiting to be read, object after object.

    Ranges of one object that wait at the same time are read together where they are
    neighbours, whenever they came.

    Parameters
    ----------
    max_gap_nbytes : int
        As of `coalesce`.

    Attributes
    ----------
    nbytes : int
        The sum of what waits.
    """

    def __init__(self, *, max_gap_nbytes: int) -> None:
        self._max_gap_nbytes = max_gap_nbytes
        self._objects: dict[_Key, _Object[_Item]] = {}
        self.nbytes = 0

    def __repr__(self) -> str:
        return f"<RangeQueue: {self.nbytes} bytes of {len(self._objects)} objects>"

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self._objects)

    def add(self, key: _Key, span: Span, item: _Item) -> None:
        """Queue a range of an object."""
        self._objects.setdefault(key, _Object()).fresh.append((span, item))
        self.nbytes += span.size

    def take(self, is_wanted: Callable[[_Item], bool]) -> list[tuple[_Key, Span, _Item]]:
        """Take out, and return, the ranges of some items."""
        taken: list[tuple[_Key, Span, _Item]] = []
        for key, wanted in list(self._objects.items()):
            # Groups that were made and not yet read are undone: one of them may have a
            # place for what has come since, or lose what is taken here.
            waiting = [item for group in wanted.groups for item in group] + wanted.fresh
            chosen = [(key, span, item) for span, item in waiting if is_wanted(item)]
            if not chosen:
                continue
            taken += chosen
            wanted.groups.clear()
            wanted.fresh = [(span, item) for span, item in waiting if not is_wanted(item)]
            if not wanted.fresh:
                del self._objects[key]
        self.nbytes -= sum(span.size for _, span, _ in taken)
        return taken

    def pop(self, max_nbytes: int) -> Group[_Key, _Item]:
        """Return what is to be read next: ranges of the object that has waited longest.

        Raises
        ------
        LookupError
            When nothing waits.
        """
        if not self._objects:
            raise LookupError("no range is waiting")
        # The object that has waited longest, whatever came for others since: with the
        # newest first, an object could wait for ever behind a scan.
        key, wanted = next(iter(self._objects.items()))
        # Grouped as late as can be, when somebody is free to read: until then each new
        # range may join its neighbours.
        if wanted.fresh:
            self._group(wanted, max_nbytes)
        items = wanted.groups.popleft()
        if not wanted.groups:
            del self._objects[key]
        self.nbytes -= sum(span.size for span, _ in items)
        span = Span(items[0][0].start, max(span.stop for span, _ in items))
        return Group(key, span, items)

    def _group(self, wanted: _Object[_Item], max_nbytes: int) -> None:
        waiting = [item for group in wanted.groups for item in group] + wanted.fresh
        places = coalesce(
            [span for span, _ in waiting],
            max_gap_nbytes=self._max_gap_nbytes,
            max_nbytes=max_nbytes,
        )
        wanted.groups = deque(tuple(waiting[i] for i in group) for group in places)
        wanted.fresh = []

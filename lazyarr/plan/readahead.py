"""What to read before it is touched: the access pattern of one array.

Pages that are there are touched without a word, so when readahead is right the pager hears
nothing.  So one unit of each batch that is read ahead, its first, is a *mark*: whoever
loads it takes care that its first touch is heard of (as PG_readahead is for the page cache,
Linux, mm/readahead.c).  When the reader has come to the mark, the next batch is asked for,
while the reader has this one to go.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from lazyarr.units import Span
from lazyarr.values import Struct

__all__ = ["Advice", "Ahead", "Readahead"]

# Readers of one array that are told apart, and accesses that belong to none of them and may
# be where one begins: the fewer the fewer units there are, for then they are neighbours by
# chance more often.
_MAX_STREAMS = 16
_MAX_STRAYS = 8
_MIN_STRAYS = 4
_UNITS_PER_STRAY = 128
# Units between the places of a strided reader; farther apart it is chance more often.
_MAX_STRIDE = 256
# A reader that has not been heard of while so many others were is none, or has gone; one with
# a window is not heard of until it has come to the next.
_STRAYS_TO_FORGET = 8
_STRAYS_PER_PLACE = 8
_MAX_ADVICE = 64


class Advice(enum.Enum):
    """How an array, or a part of it, will be read (as for `mmap.madvise`)."""

    NORMAL = "normal"
    SEQUENTIAL = "sequential"
    RANDOM = "random"


class Ahead(NamedTuple):
    """What follows from an access.

    Attributes
    ----------
    passed : tuple of int
        Units that the reader has come to or gone past, as far as they were read ahead.
    units : tuple of int
        Absent units to read now, in the order in which they will be wanted.
    mark : int or None
        The one of them whose first touch must be heard of.
    """

    passed: tuple[int, ...] = ()
    units: tuple[int, ...] = ()
    mark: int | None = None


class _Stream(Struct):
    """One reader.  Its places are counted from where it was first seen, in its own direction.

    Attributes
    ----------
    origin : int
        The unit of place 0, the first one for a strided reader.
    step : int
        Units from place to place.
    width : int
        Units that it wants at each place.
    at : int
        The farthest place that it is known to have come to.
    frontier : int
        The first place for which nothing has been asked yet.
    mark : int
        The place at which the next batch is asked for.
    window : int
        How many places the last batch had.
    n_strays : int
        How many accesses had belonged to no reader when it was last heard of.
    """

    origin: int
    step: int
    width: int
    at: int
    frontier: int
    mark: int
    n_strays: int
    window: int = 0

    def places(self, span: Span) -> tuple[int, int] | None:
        """Return the first and the last place of some units; None if they are not of its kind."""
        if self.step in (1, -1):
            first = (span.start - self.origin) * self.step
            last = (span.stop - 1 - self.origin) * self.step
            return min(first, last), max(first, last)
        place, rest = divmod(span.start - self.origin, self.step)
        return None if rest or span.size > self.width else (place, place)

    def units(self, place: int) -> range:
        """Return the units of a place."""
        first = self.origin + place * self.step
        return range(first, first + self.width)

    def accepts(self, first: int, last: int, *, is_lost: bool) -> bool:
        """Return whether an access to places fits: in what was asked for, or right behind it.

        An access a little behind is that of another process that reads along, unless the
        unit is absent: then somebody begins there.
        """
        if last <= self.at:
            return not is_lost and first > self.at - 2 * max(1, self.window)
        return first <= self.frontier


class Readahead:
    """Follows the readers of one array.

    Parameters
    ----------
    n_units : int
        How many units the array has.
    """

    def __init__(self, n_units: int) -> None:
        self._n_units = n_units
        # The last one that was heard of first.  When there are too many the one goes
        # that has been silent longest.
        self._streams: deque[_Stream] = deque(maxlen=_MAX_STREAMS)
        # Random accesses to a few units are side by side by chance.  Two of them would
        # look like a reader, and read ahead for nothing.
        n_strays = max(_MIN_STRAYS, min(_MAX_STRAYS, n_units // _UNITS_PER_STRAY))
        self._strays: deque[Span] = deque(maxlen=n_strays)
        self._n_strays = 0
        self._advice: deque[tuple[Span, Advice]] = deque(maxlen=_MAX_ADVICE)

    def __repr__(self) -> str:
        windows = [stream.window for stream in self._streams]
        return f"<Readahead: {len(windows)} readers, windows {windows}>"

    def advise(self, span: Span, advice: Advice) -> None:
        """Take down how some units will be read; what was said later holds."""
        if span.size >= self._n_units:
            self._advice.clear()
        self._advice.appendleft((span, advice))

    def _advice_at(self, unit: int) -> Advice:
        return next((advice for span, advice in self._advice if unit in span), Advice.NORMAL)

    def accessed(
        self,
        span: Span,
        *,
        is_lost: bool,
        is_absent: Callable[[int], bool],
        max_units: int,
        room_units: int,
        min_units: int = 1,
    ) -> Ahead:
        """Return what follows from somebody's coming to some units.

        Parameters
        ----------
        span : Span
            The units.
        is_lost : bool
            Whether one of them is neither there nor on its way.
        is_absent : callable
            Whether a unit, of the array, is neither there nor on its way.
        min_units, max_units : int
            How many units a batch should have at least, and may have.
        room_units : int
            How many units there is memory for now.
        """
        advice = self._advice_at(span.start) if self._advice else Advice.NORMAL
        # Not even noted: what is read at random says nothing of where a reader will go.
        if advice is Advice.RANDOM:
            return Ahead()
        stream, first, last = self._find(span, is_lost=is_lost)
        if stream is None:
            stream = self._begin(span, advice)
            if stream is None:
                return Ahead()
            passed: tuple[int, ...] = ()
            is_due = True
        else:
            passed, is_due = self._follow(stream, first, last, is_lost=is_lost)
        if not is_due:
            return Ahead(passed)
        most = max_units // stream.width
        least = min(most, -(-span.size // stream.width) if stream.window == 0 else 1)
        least = max(least, min(most, min_units // stream.width))
        if advice is Advice.SEQUENTIAL:
            least = max(least, most // 4)
        # Doubled each time that the reader has come to a mark: so a short run costs
        # little, and a long one soon has the most.
        stream.window = max(least, min(2 * stream.window, most))
        # Not more than there is memory for: what is evicted before it is read was read
        # for nothing, and has driven out something else.
        units = self._ask(stream, is_absent, min(stream.window * stream.width, room_units))
        return Ahead(passed, units, units[0] if units else None)

    def _find(self, span: Span, *, is_lost: bool) -> tuple[_Stream | None, int, int]:
        """Return the reader whose next place is nearest, and the places; the reader comes first."""
        best, found = None, (0, 0)
        for stream in self._streams:
            # Not by time: the machine has no clock, and a reader may be slow.  What says
            # that one has gone is that others are heard of and it is not.
            patience = _STRAYS_TO_FORGET + _STRAYS_PER_PLACE * stream.window
            if self._n_strays - stream.n_strays > patience:
                continue
            places = stream.places(span)
            if places is None or not stream.accepts(*places, is_lost=is_lost):
                continue
            # Two readers may be near each other.  The access belongs to the one whose next
            # place it is, or the windows of both would be wrong.
            if best is None or abs(places[0] - stream.at - 1) < abs(found[0] - best.at - 1):
                best, found = stream, places
        if best is not None and best is not self._streams[0]:
            self._streams.remove(best)
            self._streams.appendleft(best)
        return best, *found

    def _follow(
        self, stream: _Stream, first: int, last: int, *, is_lost: bool
    ) -> tuple[tuple[int, ...], bool]:
        """Take down where a reader has come to; return what it has passed, and if it is due more.

        What was read ahead and is absent again has been evicted unread: the window was more
        than there is memory for.
        """
        stream.n_strays = self._n_strays
        # A second process that reads along, or the same one again: nothing new is
        # wanted.
        if last <= stream.at:
            return (), False
        # Beyond the frontier nothing was asked for, so nothing was read ahead.
        stop = min(last + 1, stream.frontier)
        passed = tuple(u for place in range(stream.at + 1, stop) for u in stream.units(place))
        stream.at = last
        if is_lost and first < stream.frontier and not first <= stream.mark <= last:
            # What was read ahead has been evicted unread.  A quarter, for the batch that
            # follows doubles it: so the window is halved.
            stream.window //= 4
            stream.frontier = last + 1
            return passed, True
        return passed, last >= stream.mark or last >= stream.frontier

    def _begin(self, span: Span, advice: Advice) -> _Stream | None:
        """Return a new reader when one shows: two places side by side, or three as far apart."""
        step = 1 if advice is Advice.SEQUENTIAL else self._step_to(span)
        if step is None:
            self._strays.append(span)
            self._n_strays += 1
            return None
        if step in (1, -1):
            origin, width, at = (span.start if step > 0 else span.stop - 1), 1, span.size - 1
        else:
            origin, width, at = span.start, span.size, 0
        stream = _Stream(origin, step, width, at, at + 1, at + 1, self._n_strays)
        self._streams.appendleft(stream)
        return stream

    def _step_to(self, span: Span) -> int | None:
        """Return the step of a reader that has come from a stray access to this one."""
        for stray in reversed(self._strays):
            # They touch or overlap: a request for several units is one access, and the next
            # one of the same reader begins where it ended, or in its last unit.
            if stray.start < span.start <= stray.stop < span.stop:
                return 1
            if span.start < stray.start <= span.stop < stray.stop:
                return -1
        # Three as far apart: two places have some distance between them in any case.
        starts = {stray.start for stray in self._strays}
        for stray in reversed(self._strays):
            step = span.start - stray.start
            if span.size < abs(step) <= _MAX_STRIDE and stray.start - step in starts:
                return step
        return None

    def _ask(
        self, stream: _Stream, is_absent: Callable[[int], bool], n_units: int
    ) -> tuple[int, ...]:
        """Return the next absent units on a reader's way, and move its frontier behind them."""
        # A reader may have jumped past what was asked for.
        first = max(stream.frontier, stream.at + 1)
        units: list[int] = []
        place = first
        mark = -1
        # Units that are there are passed over, up to a point: they may be all there is.
        while place < first + 2 * stream.window and len(units) + stream.width <= n_units:
            absent = [u for u in self._within(stream.units(place)) if is_absent(u)]
            if absent and mark < 0:
                mark = place
            units += absent
            place += 1
        stream.frontier = place
        # Where all of the batch was there already nothing is loaded, and so nothing can
        # be marked.  The middle is looked at then, for requests are heard of even where
        # units are resident.
        stream.mark = mark if mark >= 0 else (first + place) // 2
        return tuple(units)

    def _within(self, units: range) -> Iterator[int]:
        return (unit for unit in units if 0 <= unit < self._n_units)

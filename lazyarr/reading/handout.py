"""Handing out the parts of a read, each as soon as it is there."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lazyarr.reading.read_queue import Part
    from lazyarr.units import Span

__all__ = ["Handout"]


class Handout:
    """The parts of one read that have not been handed out.

    Parameters
    ----------
    span : Span
        What is read of the object.
    items : sequence of (Span, Part)
        What of it belongs to whom.
    deliver : callable
        Told of each part and its bytes, once.
    failed : callable
        Told of an exception of `deliver`, which must not happen.
    """

    def __init__(
        self,
        span: Span,
        items: Sequence[tuple[Span, Part]],
        deliver: Callable[[Part, memoryview], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._start = span.start
        self._waiting = deque(sorted(items, key=lambda item: item[0].stop))
        self._deliver = deliver
        self._failed = failed

    def __repr__(self) -> str:
        return f"<Handout: {len(self._waiting)} parts to come>"

    def hand_out(self, view: memoryview) -> None:
        """Hand out what is in the beginning of the read, and has not been yet."""
        try:
            while self._waiting and self._waiting[0][0].stop - self._start <= len(view):
                place, part = self._waiting.popleft()
                self._deliver(part, self.cut(view, place))
        except BaseException as error:  # noqa: BLE001 - nobody else would hear of it
            self._failed(error)

    def cut(self, view: memoryview, place: Span) -> memoryview:
        """Return the bytes of a place in the object."""
        return view[place.start - self._start : place.stop - self._start]

    def waiting(self) -> list[Part]:
        """Return the parts that have not been handed out."""
        return [part for _, part in self._waiting]

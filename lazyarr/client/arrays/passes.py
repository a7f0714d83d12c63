"""Reading an array that is too large for one request: one part after the other.

Each part is requested before it is read, so that a chunk that cannot be had is a `ChunkError`
and no signal.  While the caller computes on one part, the pager decodes the next one.  Between
two parts Python runs signal handlers, so that Ctrl-C takes effect.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from lazyarr import settings
from lazyarr.cgroups import memory_nbytes
from lazyarr.client.arrays import indexing
from lazyarr.client.arrays.own_chunks import read_own_chunks
from lazyarr.errors import ChunkError
from lazyarr.plan.passes import plan_passes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lazyarr.client.session.region import Region
    from lazyarr.client.session.rpc import PendingRequest
    from lazyarr.layout.geometry import Geometry
    from lazyarr.plan.passes import Box
    from lazyarr.units import Span

__all__ = ["MappedOperand", "Operand", "blocks", "copy_of", "fill", "part_of", "room_nbytes"]

# Two parts are in memory at a time: the one that is computed on, and the next one.  Together
# they take a quarter of the memory limit, as a single request may.
_SHARE = 8
# One processor decodes that much in about 50 ms, so Ctrl-C takes effect after about that time.
_MAX_NBYTES = 64 << 20


def room_nbytes() -> int:
    """Return how many bytes the units of one part may have together."""
    return min(settings.current().memory_limit // _SHARE, _MAX_NBYTES)


class Operand(ABC):
    """A large array in place of an argument of a NumPy function, to be read in parts.

    Parameters
    ----------
    view : ndarray
        An array with the operand's shape and strides.  Its elements may be touched only after
        a request for them.
    dtype : dtype
        The data type of the elements.
    """

    is_operand = True

    def __init__(self, view: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> None:
        self.view = view
        self.dtype = dtype

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.view.shape} {self.dtype}>"

    @property
    @abstractmethod
    def geometry(self) -> Geometry:
        """Where the units of the stored array lie."""

    def passes(self) -> Iterator[Box]:
        """Yield boxes that together are the whole operand, each small enough for one part."""
        return plan_passes(
            self.view.shape,
            self.view.strides,
            unit_nbytes=max(self.geometry.unit_nbytes, self.geometry.page_nbytes),
            room_nbytes=self._part_nbytes(),
        )

    def _part_nbytes(self) -> int:
        """Return how many bytes the units of one part may have together."""
        return room_nbytes()

    @abstractmethod
    def begin_request(self, box: Box) -> PendingRequest | None:
        """Request the units of a part that are not resident, without waiting for them.

        None where nothing is requested.
        """

    @abstractmethod
    def read(self, box: Box) -> np.ndarray[Any, Any]:
        """Return the elements of one of the boxes that `passes` yields, ready to be read.

        Raises
        ------
        ChunkError
            When a chunk cannot be had.
        """

    def to_write(self, box: Box) -> np.ndarray[Any, Any]:
        """Return the elements of any box as a view, ready to be written to.

        Raises
        ------
        LazyarrError
            When they cannot be written to.
        """
        raise NotImplementedError

    @abstractmethod
    def gather(self, box: Box) -> np.ndarray[Any, Any]:
        """Return the elements of any box, ready to be read; the box may be larger than a part."""

    @abstractmethod
    def flat(self) -> Operand | None:
        """Return the operand in one dimension; None where that would need a copy."""

    @abstractmethod
    def whole(self) -> np.ndarray[Any, Any]:
        """Return the whole operand as a plain array, which the caller must not write to."""


class MappedOperand(Operand):
    """A view of a `LazyArray`'s memory, which the pager fills.

    Parameters
    ----------
    region : Region
        The stored array's memory.
    view : ndarray
        A plain view of that memory.
    """

    def __init__(self, region: Region, view: np.ndarray[Any, Any]) -> None:
        super().__init__(view, view.dtype)
        self.region = region

    @property
    def geometry(self) -> Geometry:
        """Where the units of the stored array lie."""
        return self.region.geometry

    def begin_request(self, box: Box) -> PendingRequest | None:
        """Request the units of a part that are not resident, without waiting for them."""
        units = self._units(indexing.basic_view(self.view, box))
        n_units = sum(span.size for span in units)
        if n_units * self.region.geometry.unit_nbytes > indexing.whole_nbytes():
            return None  # loading so much could evict the part that is computed on
        absent = indexing.absent_units(self.region, units)
        return self.region.owner.begin_request(self.region, absent) if absent else None

    def _units(self, part: np.ndarray[Any, Any]) -> list[Span]:
        return indexing.units_of_view(self.region, part)

    def read(self, box: Box) -> np.ndarray[Any, Any]:
        """Return one of the boxes that `passes` yields, as a view."""
        part = indexing.basic_view(self.view, box)
        try:
            indexing.request_all(self.region, self._units(part))
        except ChunkError:
            return read_own_chunks(self.region, part)
        return part

    def gather(self, box: Box) -> np.ndarray[Any, Any]:
        """Return any box: a view, or a copy where the box is too large for one request."""
        part = indexing.basic_view(self.view, box)
        try:
            if indexing.request(self.region, self._units(part)):
                return part
        except ChunkError:
            return read_own_chunks(self.region, part)
        return copy_of(MappedOperand(self.region, part), "K")

    def flat(self) -> Operand | None:
        """Return the operand in one dimension; None where that would need a copy."""
        is_flat = self.view.flags.c_contiguous
        return MappedOperand(self.region, self.view.reshape(-1)) if is_flat else None

    def whole(self) -> np.ndarray[Any, Any]:
        """Return the whole operand as a plain array, which the caller must not write to.

        Private memory is not evicted: it is loaded, and the view itself returned.  Of shared
        memory a copy is returned.  Where there is no room for a copy, each part is requested
        once and the view itself returned.  NumPy then loads evicted parts again by faults, so
        that a chunk that was damaged meanwhile is SIGBUS.
        """
        if self.region.kind.is_shared and self.view.nbytes <= memory_nbytes() // 2:
            with suppress(MemoryError):
                copy = copy_of(self, "K")
                copy.flags.writeable = False
                return copy
        self.require()
        return self.view

    def require(self) -> None:
        """Load each part once; raise `ChunkError` where a chunk cannot be had.

        Parts of shared memory may be evicted again before the last one is loaded.
        """
        for _ in blocks(self):
            pass


def blocks(main: Operand, *others: Any) -> Iterator[tuple[Box, tuple[np.ndarray[Any, Any], ...]]]:
    """Yield each box of an operand with its part, while the next part is being loaded.

    Parameters
    ----------
    main : Operand
        The operand whose `passes` are the boxes.
    *others : Operand, ndarray or scalar
        Values that are broadcast with `main`.  With each part of `main` the part of each of
        these is yielded that belongs to the same box.

    Raises
    ------
    ChunkError
        When a chunk cannot be had.
    """
    operands = [value for value in (main, *others) if isinstance(value, Operand)]
    boxes = main.passes()
    box = next(boxes, None)
    ahead = _PendingRequests(main, operands, box)
    try:
        while box is not None:
            following = next(boxes, None)
            here, ahead = ahead, _PendingRequests(main, operands, following)
            with suppress(ChunkError):  # which `read` comes upon again, and sees to
                here.wait()
            rest = tuple(part_of(value, box, main.view.shape) for value in others)
            yield box, (main.read(box), *rest)
            box = following
    finally:
        ahead.cancel()


class _PendingRequests:
    """The requests for one box of several operands, not yet waited for."""

    def __init__(self, main: Operand, operands: Sequence[Operand], box: Box | None) -> None:
        self._asked: list[PendingRequest] = []
        if box is None:
            return
        with ExitStack() as stack:
            stack.callback(self.cancel)
            for operand in operands:
                asked = operand.begin_request(_box_in(operand.view.shape, box, main.view.shape))
                if asked is not None:
                    self._asked.append(asked)
            stack.pop_all()

    def wait(self) -> None:
        """Wait for all of them; raise `ChunkError` where a chunk cannot be had."""
        try:
            while self._asked:
                self._asked.pop(0).wait()
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Give up what was not waited for."""
        while self._asked:
            self._asked.pop().cancel()


def part_of(value: Any, box: Box, shape: Sequence[int]) -> Any:
    """Return the part of a value that is broadcast with one box of an array.

    Parameters
    ----------
    value : Operand, ndarray or scalar
        The value; a scalar is returned as it is.
    box : Box
        The box of the array.
    shape : sequence of int
        The array's shape.
    """
    if isinstance(value, Operand):
        return value.gather(_box_in(value.view.shape, box, shape))
    if isinstance(value, np.ndarray) and value.ndim:
        return value[_box_in(value.shape, box, shape)]
    return value


def _box_in(own: Sequence[int], box: Box, shape: Sequence[int]) -> Box:
    """Return the box of an array of shape `own` that is broadcast with a box in `shape`."""
    behind = len(shape) - len(own)
    places = range(behind, len(shape))
    return tuple(
        box[place] if place >= 0 and n == shape[place] else slice(0, n)
        for n, place in zip(own, places, strict=True)
    )


def fill(target: np.ndarray[Any, Any], operand: Operand) -> None:
    """Copy all elements of an operand to an array of the same shape."""
    for box, (part,) in blocks(operand):
        indexing.basic_view(target, box)[...] = part


def copy_of(operand: Operand, order: Any, dtype: Any = None) -> np.ndarray[Any, Any]:
    """Return a copy of an operand, with `order` and `dtype` as `numpy.ndarray.astype` has them."""
    dtype = operand.dtype if dtype is None else dtype
    copy: np.ndarray[Any, Any] = np.empty_like(operand.view, dtype, order=order, subok=False)
    fill(copy, operand)
    return copy

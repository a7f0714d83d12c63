"""Where bytes, pages, units and chunks of one array lie in one another.

An array's memory is its elements in C order.  A *unit* is the smallest run of
those bytes that is contiguous and made of whole chunks: with chunks along the
leading axis one chunk, with tiles the row of tiles that closes into a run.
Where that is less than a page, several of them are a unit: a page cannot be there
before all that lies in it is, and what is kept and done for each unit would cost more
than the bytes.  So there are never many more units than pages.
Units are counted in C order, so a unit's place is arithmetic, never a table:
a sparse terabyte costs nothing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

from lazyarr.units import Span
from lazyarr.values import Value

__all__ = ["Geometry", "Piece"]

# The most chunks in a unit, unless a page needs more: a thread that touches one of them waits
# for all, and over a network each chunk is a request.
_GROUP_CHUNKS = 64


class Piece(NamedTuple):
    """One chunk's share of a unit.

    Attributes
    ----------
    chunk : tuple of int
        Place in the grid of smallest chunks, one number per axis.
    start, stop : tuple of int
        The box that the chunk fills inside the unit's own box, in elements.
    """

    chunk: tuple[int, ...]
    start: tuple[int, ...]
    stop: tuple[int, ...]


class Geometry(Value):
    """The arithmetic of one array.

    Parameters
    ----------
    shape : tuple of int
        The array's shape, axes in the order in which they lie in memory.
    chunk_shape : tuple of int
        The smallest chunks' shape, same axes; every number at least 1.
    itemsize : int
        Bytes of one element.
    page_nbytes : int
        Bytes of one page of the system.
    group_nbytes : int
        Chunks that are less than a page are grouped to units of a page at least, and of up to
        so many bytes or 64 chunks, whichever is less; 0 to group none.

    Attributes
    ----------
    nbytes : int
        Bytes of the array.
    n_units, n_pages : int
        How many units and pages it has.
    unit_nbytes, unit_rows, unit_chunks : int
        How many bytes a whole unit has, how many places along the unit axis, how many chunks.
    unit_axis : int
        The axis along which units follow one another.
    run_units : int
        How many units follow one another before the axes in front of the unit axis move on;
        the last of them may be shorter.
    unit_pages : int
        How many pages each unit is; 0 where units are not whole pages.
    is_one_chunk : bool
        Whether each unit is how its one chunk begins.
    is_grouped : bool
        Whether several runs of chunks are a unit.
    is_flat : bool
        Whether the chunks of a unit lie in memory one after the other.

    Examples
    --------
    >>> g = Geometry((100, 64), (8, 64), itemsize=8, page_nbytes=4096)
    >>> g.n_units, g.unit_nbytes, g.unit_bytes(12)
    (13, 4096, Span(start=49152, stop=51200))
    >>> g = Geometry((1_000_000,), (1,), itemsize=1, page_nbytes=4096, group_nbytes=1 << 16)
    >>> g.n_units, g.unit_chunks
    (245, 4096)
    """

    shape: tuple[int, ...]
    chunk_shape: tuple[int, ...]
    itemsize: int
    page_nbytes: int
    group_nbytes: int
    nbytes: int
    n_units: int
    n_pages: int
    unit_nbytes: int
    unit_rows: int
    unit_chunks: int
    unit_axis: int
    is_one_chunk: bool
    is_grouped: bool
    is_flat: bool
    unit_pages: int
    _run_nbytes: int
    run_units: int

    def __init__(
        self,
        shape: tuple[int, ...],
        chunk_shape: tuple[int, ...],
        itemsize: int,
        page_nbytes: int,
        group_nbytes: int = 0,
    ) -> None:
        chunk = tuple(min(c, s) for c, s in zip(chunk_shape, shape, strict=True))
        axis = _unit_axis(shape, chunk)
        nbytes = math.prod(shape) * itemsize
        step = chunk[axis] if shape else 1
        is_grouped = False
        if group_nbytes and nbytes and step * math.prod(shape[axis + 1 :]) * itemsize < page_nbytes:
            axis, step = _grouped(shape, chunk, axis, itemsize, page_nbytes, group_nbytes)
            is_grouped = True
        rows = shape[axis] if shape else 1
        row_nbytes = math.prod(shape[axis + 1 :]) * itemsize
        run_units = -(-rows // step) if nbytes else 0
        behind = zip(shape[axis + 1 :], chunk_shape[axis + 1 :], strict=True)
        n_chunks = -(-step // chunk[axis]) if nbytes and shape else 1
        # A chunk that is thicker than the array, in front of the unit axis, has padding between
        # its elements and those of the next chunk.
        is_thin = n_chunks == 1 or all(c == 1 for c in chunk_shape[:axis])
        is_flat = is_thin and chunk_shape[axis + 1 :] == shape[axis + 1 :]
        is_one_chunk = is_flat and n_chunks == 1
        super().__init__(
            shape=shape,
            chunk_shape=chunk_shape,
            itemsize=itemsize,
            page_nbytes=page_nbytes,
            group_nbytes=group_nbytes,
            nbytes=nbytes,
            n_units=math.prod(shape[:axis]) * run_units,
            n_pages=-(-nbytes // page_nbytes),
            unit_nbytes=step * row_nbytes,
            unit_rows=step,
            unit_chunks=n_chunks * math.prod(-(-n // c) for n, c in behind),
            unit_axis=axis,
            is_one_chunk=is_one_chunk,
            is_grouped=is_grouped and not is_one_chunk,
            is_flat=is_flat,
            unit_pages=_whole_pages(step * row_nbytes, rows * row_nbytes, nbytes, page_nbytes),
            _run_nbytes=rows * row_nbytes,
            run_units=run_units,
        )

    def unit_bytes(self, unit: int) -> Span:
        """Return the bytes that a unit fills."""
        if self.unit_pages:
            start = unit * self.unit_nbytes
            return Span(start, min(start + self.unit_nbytes, self.nbytes))
        run, place = divmod(unit, self.run_units)
        start = run * self._run_nbytes + place * self.unit_nbytes
        return Span(start, min(start + self.unit_nbytes, (run + 1) * self._run_nbytes))

    def unit_at(self, offset: int) -> int:
        """Return the unit that fills the byte at `offset`."""
        run, rest = divmod(offset, self._run_nbytes)
        return run * self.run_units + rest // self.unit_nbytes

    def units_of_bytes(self, span: Span) -> Span:
        """Return the units that fill any byte of `span`."""
        span &= Span(0, self.nbytes)
        if not span.size:
            return Span(0, 0)
        return Span(self.unit_at(span.start), self.unit_at(span.stop - 1) + 1)

    def page_bytes(self, page: int) -> Span:
        """Return the bytes of the array in a page; the last page may be short."""
        start = page * self.page_nbytes
        return Span(start, min(start + self.page_nbytes, self.nbytes))

    def units_of_page(self, page: int) -> Span:
        """Return the units that fill any byte of a page."""
        if self.unit_pages:
            unit = page // self.unit_pages
            return Span(unit, unit + 1)
        return self.units_of_bytes(self.page_bytes(page))

    def pages_of_bytes(self, span: Span) -> Span:
        """Return the pages that hold any byte of `span`."""
        if not span.size:
            return Span(0, 0)
        return Span(span.start // self.page_nbytes, -(-span.stop // self.page_nbytes))

    def units_to_load(self, span: Span) -> Span:
        """Return the units that must be there before every byte of `span` can be read.

        More than fill it: a page is installed when all of its units are there.
        """
        pages = self.pages_of_bytes(span)
        page = self.page_nbytes
        return self.units_of_bytes(Span(pages.start * page, pages.stop * page))

    def body_pages(self, unit: int) -> Span:
        """Return the pages that a unit fills alone; padding behind the array counts as filled."""
        if self.unit_pages:
            start = unit * self.unit_pages
            return Span(start, min(start + self.unit_pages, self.n_pages))
        span = self.unit_bytes(unit)
        start = -(-span.start // self.page_nbytes)
        stop = self.n_pages if span.stop == self.nbytes else span.stop // self.page_nbytes
        return Span(start, max(start, stop))

    def edge_pages(self, unit: int) -> tuple[int, ...]:
        """Return the pages, at most two, that a unit fills together with others."""
        if self.unit_pages:
            return ()
        pages = self.pages_of_bytes(self.unit_bytes(unit))
        body = self.body_pages(unit)
        if not body.size:
            return tuple(range(pages.start, pages.stop))
        return (*range(pages.start, body.start), *range(body.stop, pages.stop))

    def unit_box(self, unit: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the first element's index of a unit, and its shape."""
        if not self.shape:
            return (), ()
        axis = self.unit_axis
        run, place = divmod(unit, self.run_units)
        lead = _unravel(run, self.shape[:axis])
        first = place * self.unit_rows
        rows = Span(first, min(first + self.unit_rows, self.shape[axis]))
        start = (*lead, rows.start, *(0 for _ in self.shape[axis + 1 :]))
        return start, (*(1 for _ in lead), rows.size, *self.shape[axis + 1 :])

    def first_chunk(self, unit: int) -> tuple[int, ...]:
        """Return the place in the grid of the first chunk of a unit; of many its only one."""
        if not self.shape:
            return ()
        run, place = divmod(unit, self.run_units)
        place = place * self.unit_rows // self.chunk_shape[self.unit_axis]
        behind = (0,) * (len(self.shape) - self.unit_axis - 1)
        return (*_unravel(run, self.shape[: self.unit_axis]), place, *behind)

    def chunk_counts(self, unit: int) -> tuple[int, ...]:
        """Return how many chunks of a unit lie along each axis, from `first_chunk` on."""
        _, extent = self.unit_box(unit)
        return tuple(-(-n // c) for n, c in zip(extent, self.chunk_shape, strict=True))

    def pieces(self, unit: int) -> Iterator[Piece]:
        """Yield the chunks that a unit is made of, each with its place in the unit."""
        _, extent = self.unit_box(unit)
        first = self.first_chunk(unit)
        counts = self.chunk_counts(unit)
        for step in itertools.product(*(range(n) for n in counts)):
            chunk = tuple(a + b for a, b in zip(first, step, strict=True))
            low = tuple(b * c for b, c in zip(step, self.chunk_shape, strict=True))
            high = tuple(
                min(a + c, n) for a, c, n in zip(low, self.chunk_shape, extent, strict=True)
            )
            yield Piece(chunk, low, high)


def _unit_axis(shape: tuple[int, ...], chunk: tuple[int, ...]) -> int:
    """Return the axis along which units follow one another.

    Axes before it have chunks of one element, axes behind it belong to the unit
    whole.  The last axis that is cut decides, unless an earlier one takes
    several elements at a time: then tiles close into a run along that one.
    """
    cut = [axis for axis, (s, c) in enumerate(zip(shape, chunk, strict=True)) if c < s]
    thick = [axis for axis, c in enumerate(chunk) if c > 1]
    return min((*cut[-1:], *thick[:1]), default=0)


def _grouped(
    shape: tuple[int, ...],
    chunk: tuple[int, ...],
    axis: int,
    itemsize: int,
    page_nbytes: int,
    group_nbytes: int,
) -> tuple[int, int]:
    """Return the axis, and the places along it, of units that are no less than a page.

    Axes in front of the unit axis have chunks of one element, so that several whole runs lie
    side by side too.  A unit is whole pages where that does not make it longer than a group.
    """
    if not shape:
        return axis, 1
    few_nbytes = _GROUP_CHUNKS * math.prod(chunk) * itemsize
    least_nbytes = max(page_nbytes, min(group_nbytes, few_nbytes))
    while axis and math.prod(shape[axis:]) * itemsize < least_nbytes:
        axis -= 1
    row_nbytes = chunk[axis] * math.prod(shape[axis + 1 :]) * itemsize
    n_rows = -(-least_nbytes // row_nbytes)
    n_whole = page_nbytes // math.gcd(page_nbytes, row_nbytes)
    if n_whole * row_nbytes <= max(page_nbytes, group_nbytes):
        n_rows = -(-n_rows // n_whole) * n_whole
    return axis, min(n_rows * chunk[axis], shape[axis])


def _whole_pages(unit_nbytes: int, run_nbytes: int, nbytes: int, page_nbytes: int) -> int:
    """Return how many pages each unit is; 0 unless every unit but the last is as long.

    Then where a unit lies is one multiplication, and it shares no page.
    """
    if not unit_nbytes or unit_nbytes % page_nbytes:
        return 0
    is_even = run_nbytes == nbytes or run_nbytes % unit_nbytes == 0
    return unit_nbytes // page_nbytes if is_even else 0


def _unravel(index: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the C-order coordinates of a flat index."""
    coordinates: list[int] = []
    for size in reversed(shape):
        index, place = divmod(index, size)
        coordinates.append(place)
    return tuple(reversed(coordinates))

"""One array as it is written: boxes of elements become chunks, chunks become objects."""

from __future__ import annotations

import functools
import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lazyarr.errors import FormatError
from lazyarr.format import SHARD_NBYTES, ArrayMetadata
from lazyarr.units import Span
from lazyarr.writer.boxes import Box, cells, count_cells, meet, plan_reads, slices_in, whole
from lazyarr.writer.coder import ChunkCoder
from lazyarr.writer.objects import OpenObject, StoredObject, assemble

if TYPE_CHECKING:
    import numpy

    from lazyarr.format import Buffer
    from lazyarr.writer.place import Place
    from lazyarr.writer.pump import Pump
    from lazyarr.writer.source import Source

__all__ = ["ArraySink"]

_JOB_NBYTES = 1 << 20
"""What is encoded by one job: small enough to spread, large enough to be worth a thread switch."""

_OPEN_NBYTES = 2 * SHARD_NBYTES
"""What objects that wait for more elements may hold together."""


class ArraySink:
    """Takes elements of one array and puts its objects.

    Parameters
    ----------
    metadata : ArrayMetadata
        The array as the store has it, or will have it.
    place : Place
        Where its objects go.
    encoding, putting : Pump
        Threads that encode chunks, and threads that put objects.

    Attributes
    ----------
    metadata : ArrayMetadata
        The array with the shape that it has now.

    Raises
    ------
    FormatError
        The array has shards in shards, which lazyarr only reads.

    Notes
    -----
    Belongs to one thread at a time.
    """

    def __init__(
        self, metadata: ArrayMetadata, place: Place, *, encoding: Pump, putting: Pump
    ) -> None:
        layout = metadata.layout()
        if len(layout.levels) > 1:
            raise FormatError(
                f"cannot write to {metadata.path!r}: its shards hold shards, which lazyarr only "
                "reads; run 'lazyarr convert'",
                path=metadata.path,
            )
        self.metadata = metadata
        self._place = place
        self._encoding = encoding
        self._putting = putting
        self._level = layout.levels[0] if layout.levels else None
        self._chunks = metadata.chunks
        self._coder = ChunkCoder(metadata)
        self._open: OrderedDict[tuple[int, ...], OpenObject] = OrderedDict()
        self._keys_in_flight: set[str] = set()
        # What the store holds outside of this is of a writer that died before it
        # could say so in the array's document.
        self._valid = whole(metadata.shape)
        self._extend(metadata.shape)

    def __repr__(self) -> str:
        path, shape = self.metadata.path, self.metadata.shape
        return f"<ArraySink {path!r} {shape}, {len(self._open)} open objects>"

    @property
    def dtype(self) -> numpy.dtype[Any]:
        """The elements as they are stored."""
        return self._coder.dtype

    def append(self, source: Source) -> None:
        """Add rows; objects stay open until their last row is there."""
        shape = self.metadata.shape
        grown = (shape[0] + source.shape[0], *shape[1:])
        n_rows = self.metadata.chunk_shape[0]
        self.metadata = replace(self.metadata, shape=grown)
        self._extend((-(-grown[0] // n_rows) * n_rows, *shape[1:]))
        box = (Span(shape[0], grown[0]), *whole(shape[1:]))
        self.assign(box, source)

    def fill(
        self, box: Box, source: Source, *, report: Callable[[int], None] | None = None
    ) -> None:
        """Give the elements of a box new values; objects that lie in it whole are put.

        Parameters
        ----------
        box : Box
            Inside of the array.
        source : Source
            As many elements.  Where they are in memory they must not change before
            the next `settle`.
        report : callable, optional
            Called with the size, in bytes, of what has been encoded.
        """
        self._extend(self.metadata.shape)
        self.assign(box, source, report=report)

    def assign(
        self, box: Box, source: Source, *, report: Callable[[int], None] | None = None
    ) -> None:
        """Encode a box, a read at a time; see `fill` and `append`."""
        itemsize = self._coder.dtype.itemsize
        whole_source = whole(source.shape)
        for region in plan_reads(box, self.metadata.chunk_shape, self._chunks, itemsize):
            nbytes = math.prod(span.size for span in region) * itemsize
            self._encoding.make_room(nbytes)
            inner = tuple(
                Span(span.start - b.start, span.stop - b.start)
                for span, b in zip(region, box, strict=True)
            )
            block = source.read(meet(inner, whole_source))
            for place, cell in cells(region, self.metadata.chunk_shape):
                self._assign_object(place, meet(cell, region), block, region, report)
                self._close_oldest()

    def settle(self) -> None:
        """Wait until nothing needs the sources any more."""
        self._encoding.drain()

    def flush(self) -> None:
        """Put all objects that are open, and wait for them."""
        for opened in self._open.values():
            self._encode_dense(opened)
        self._encoding.drain()
        while self._open:
            _, opened = self._open.popitem(last=False)
            self._put_incomplete(opened)
        self._putting.drain()

    def _extend(self, extent: tuple[int, ...]) -> None:
        """Say up to where elements are expected; a chunk is done when all of those are there."""
        self._extent = whole(extent)
        self._layout = replace(self.metadata, shape=extent).layout()

    def _assign_object(
        self,
        place: tuple[int, ...],
        part: Box,
        block: numpy.ndarray[Any, Any],
        region: Box,
        report: Callable[[int], None] | None,
    ) -> None:
        opened = self._open_object(place)
        batch: list[tuple[int, numpy.ndarray[Any, Any]]] = []
        batch_nbytes = 0
        for chunk, cell in cells(part, self._chunks):
            inside = meet(cell, self._extent)
            piece = meet(cell, part)
            elements = block[slices_in(piece, region)]
            entry = self._entry(chunk)
            if piece == inside:
                batch.append((entry, elements))
                batch_nbytes += elements.nbytes
                if batch_nbytes >= _JOB_NBYTES:
                    self._submit(place, opened, batch, report)
                    batch, batch_nbytes = [], 0
                continue
            self._patch(opened, entry, cell)[slices_in(piece, cell)] = elements
            if piece[0].stop == inside[0].stop:
                # The last row: rows come in order, as a rule.
                self._submit(place, opened, [(entry, self._cut(opened, entry, cell))], report)
        if batch:
            self._submit(place, opened, batch, report)

    def _open_object(self, place: tuple[int, ...]) -> OpenObject:
        opened = self._open.get(place)
        corner = tuple(
            c * length // n
            for c, length, n in zip(place, self.metadata.chunk_shape, self._chunks, strict=True)
        )
        if opened is None:
            key = self._layout.locate(self._in_memory_order(corner)).key
            path = self.metadata.path
            opened = self._open[place] = OpenObject(f"{path}/{key}" if path else key)
        self._open.move_to_end(place)
        cell = tuple(
            Span(c * length, (c + 1) * length)
            for c, length in zip(place, self.metadata.chunk_shape, strict=True)
        )
        opened.n_chunks = count_cells(meet(cell, self._extent), self._chunks)
        return opened

"""One array as it is written: elements become chunks, chunks become objects."""

from __future__ import annotations

import functools
import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy

from lazyarr.committing.coder import ChunkCoder
from lazyarr.errors import FormatError
from lazyarr.formats.zarr import SHARD_NBYTES, ArrayMetadata
from lazyarr.units import Span
from lazyarr.writer.boxes import Box, box_shape, cells, meet, plan_reads, slices_in, whole
from lazyarr.writer.grid import Piece, array_grid
from lazyarr.writer.objects import OpenObject
from lazyarr.writer.outbox import Outbox
from lazyarr.writer.source import as_source
from lazyarr.writer.stored import StoredArray

if TYPE_CHECKING:
    from lazyarr.codecs import Buffer
    from lazyarr.committing.objects import StoredObject
    from lazyarr.writer.place import Place
    from lazyarr.writer.pump import Pump
    from lazyarr.writer.source import Source

__all__ = ["ArraySink"]

_JOB_NBYTES = 1 << 20
"""What one job encodes: small enough to spread, large enough to be worth a thread switch."""

_OPEN_NBYTES = 2 * SHARD_NBYTES
"""What objects that wait for more elements may hold together."""

_Array: TypeAlias = "numpy.ndarray[Any, Any]"
_Coordinates: TypeAlias = tuple[int, ...]


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
    choose : callable, optional
        For an array that the store does not have yet: gives its final metadata, of
        the same shape and chunks, once the first elements are there.

    Attributes
    ----------
    metadata : ArrayMetadata
        The array with the shape that it has now.
    has_grown : bool
        Whether that is another shape than it had.
    dtype : numpy.dtype
        Its elements as they are stored.
    report : callable or None
        Called with the size, in bytes, of every part that has been encoded, or was there.
    n_kept : int
        How many objects a stopped writer had put, which are not written again.

    Raises
    ------
    FormatError
        The array has shards in shards, which lazyarr only reads.

    Notes
    -----
    Belongs to one thread at a time.
    """

    def __init__(
        self,
        metadata: ArrayMetadata,
        place: Place,
        *,
        encoding: Pump,
        putting: Pump,
        choose: Callable[[Source], ArrayMetadata] | None = None,
    ) -> None:
        self.has_grown = False
        self.report: Callable[[int], object] | None = None
        self.n_kept = 0
        self._place = place
        self._encoding = encoding
        self._outbox = Outbox(place, putting)
        self._choose = choose
        self._looked_at: tuple[_Coordinates | None, bool] = (None, False)
        self._open: OrderedDict[_Coordinates, OpenObject] = OrderedDict()
        self._adopt(metadata)

    def _adopt(self, metadata: ArrayMetadata) -> None:
        levels = metadata.layout().levels
        if len(levels) > 1:
            raise FormatError(
                f"cannot write to {metadata.path or '/'!r}: its shards hold shards, which lazyarr "
                "only reads; run 'lazyarr convert'",
                path=metadata.path,
            )
        self.metadata = metadata
        self._level = levels[0] if levels else None
        self._coder = ChunkCoder(metadata.layout(), metadata.dtype.to_numpy())
        self._stored = StoredArray(metadata.path, self._place, coder=self._coder, level=self._level)
        self.dtype = self._coder.dtype
        self._grid = array_grid(metadata, metadata.shape)
        # What the store holds outside of this is of a writer that died before it
        # could say so in the array's document.
        self._valid = self._grid.extent

    def __repr__(self) -> str:
        path, shape = self.metadata.path, self.metadata.shape
        return f"<ArraySink {path!r} {shape}, {len(self._open)} open objects>"

    def append(self, source: Source) -> None:
        """Add rows; an object is open until its last row is there, or `flush`."""
        self._decide(source)
        n_before, *rest = self.metadata.shape
        n_rows = n_before + source.shape[0]
        self.metadata = self.metadata._replace(shape=(n_rows, *rest))
        self.has_grown = True
        object_rows = self.metadata.chunk_shape[0]
        self._expect((-(-n_rows // object_rows) * object_rows, *rest))
        self._assign((Span(n_before, n_rows), *whole(tuple(rest))), source)

    def fill(self, box: Box, source: Source) -> None:
        """Give the elements of a box, which lies in the array, new values.

        Parameters
        ----------
        box : Box
            Which elements.
        source : Source
            As many elements.  Where they are in memory they must not change before
            the next `settle`.
        """
        self._decide(source)
        self._expect(self.metadata.shape)
        self._assign(box, source)

    def blank(self, boxes: Sequence[Box], extent: _Coordinates) -> None:
        """Have boxes beyond the array's end be the fill value, in the objects that it cuts.

        Parameters
        ----------
        boxes : sequence of Box
            Which elements, up to the extent.
        extent : tuple of int
            How long the array is taken to be; it is not written anywhere.
        """
        inside, self.metadata = self._grid.extent, self.metadata._replace(shape=extent)
        self._expect(extent)
        fill = numpy.frombuffer(self.metadata.fill, self.dtype).reshape((1,) * len(extent))
        for box in boxes:
            for place, cell in cells(box, self._grid.object_shape):
                part = meet(cell, box)
                if self._has_values(place, part, inside):
                    values = numpy.broadcast_to(fill, box_shape(part))
                    self._assign(part, as_source(values))

    def _has_values(self, place: _Coordinates, box: Box, inside: Box) -> bool:
        """Return whether an object has something but the fill value outside of a box."""
        key = self._grid.key(place)
        opened = self._stored.read(key)
        if opened is None:
            return False
        for piece in self._grid.pieces(box):
            chunk = opened.chunk(piece.entry)
            if chunk is not None:
                found = self._stored.decode(key, piece, chunk, valid=piece.cell)
                blank = self._stored.decode(key, piece, chunk, valid=inside)
                if not is_same(found, blank):
                    return True
        return False

    def _decide(self, source: Source) -> None:
        if self._choose is not None and source.nbytes:
            self._adopt(self._choose(source))
            self._choose = None

    def settle(self) -> None:
        """Wait until no source is needed any more."""
        self._encoding.drain()

    def flush(self) -> None:
        """Put all objects that are open, and wait for them."""
        for place in list(self._open):
            self._finish(place)
        self._encoding.drain()
        for place in list(self._open):
            self._put_incomplete(place)
        self._outbox.drain()

    def find_difference(self, source: Source) -> Box | None:
        """Read back what was put; return elements that are not the source's, None without any.

        Parameters
        ----------
        source : Source
            What every element should be, bit by bit.

        Raises
        ------
        ChunkError
            An object or a chunk is damaged.
        """
        grid, itemsize = array_grid(self.metadata, self.metadata.shape), self.dtype.itemsize
        different: list[Box] = []
        last: tuple[str, StoredObject | None] = ("", None)
        for region in plan_reads(grid.extent, grid.object_shape, grid.chunk_shape, itemsize):
            self._encoding.make_room(math.prod(box_shape(region)) * itemsize)
            block = source.read(region)
            for place, cell in cells(region, grid.object_shape):
                key = grid.key(place)
                if key != last[0]:  # a large object is compared in several regions
                    last = (key, self._stored.read(key))
                pieces = grid.pieces(meet(cell, region))
                self._compare(last, pieces, block, region, different)
            if different:
                break
        self._encoding.drain()
        return min(different, default=None)

    def _compare(
        self,
        stored: tuple[str, StoredObject | None],
        pieces: Iterator[Piece],
        block: _Array,
        region: Box,
        different: list[Box],
    ) -> None:
        """Have the chunks of an object compared with the elements of a region."""
        key, opened = stored

        def job(batch: list[Piece]) -> list[Box]:
            return [
                piece.box
                for piece in batch
                if not is_same(
                    self._stored.decode(
                        key,
                        piece,
                        None if opened is None else opened.chunk(piece.entry),
                        valid=self._grid.extent,
                    )[slices_in(piece.box, piece.cell)],
                    block[slices_in(piece.box, region)].astype(self.dtype, copy=False),
                )
            ]

        def finish(nbytes: int, found: list[Box]) -> None:
            different.extend(found)
            if self.report is not None:
                self.report(nbytes)

        n_pieces = max(1, _JOB_NBYTES // self._coder.nbytes)
        for batch in _batches(pieces, n_pieces):
            nbytes = sum(math.prod(box_shape(piece.box)) for piece in batch) * self.dtype.itemsize
            run = functools.partial(job, batch)
            self._encoding.submit(run, functools.partial(finish, nbytes), nbytes=nbytes)

    def _expect(self, extent: _Coordinates) -> None:
        """Say up to where elements come: a chunk is done when it has those."""
        if whole(extent) != self._grid.extent:
            self._grid = array_grid(self.metadata, extent)

    def _assign(self, box: Box, source: Source) -> None:
        grid, itemsize = self._grid, self.dtype.itemsize
        for region in plan_reads(box, grid.object_shape, grid.chunk_shape, itemsize):
            missing = list(self._missing(region))
            if not missing:
                continue
            self._encoding.make_room(math.prod(box_shape(region)) * itemsize)
            slices = slices_in(region, box)
            block = source.read(tuple(Span(s.start, s.stop) for s in slices))
            for place, part in missing:
                self._assign_object(place, part, block, region)
            self._put_oldest()

    def _missing(self, region: Box) -> Iterator[tuple[_Coordinates, Box]]:
        """Yield the objects of a region, and its part in each, but those that are there already.

        Only where a stopped writer is gone on with: it put no object before it was complete, for
        all elements of an array came in the order of its objects.
        """
        for place, cell in cells(region, self._grid.object_shape):
            part = meet(cell, region)
            if not self._place.is_resumed or not self._is_kept(place):
                yield place, part
            elif self.report is not None:
                self.report(math.prod(box_shape(part)) * self.dtype.itemsize)

    def _is_kept(self, place: _Coordinates) -> bool:
        # A large object is read in several regions, and put by this writer after the last one.
        is_first = place != self._looked_at[0]
        if is_first:
            self._looked_at = (place, self._place.has(self._grid.key(place)))
            self.n_kept += self._looked_at[1]
        return self._looked_at[1]

    def _assign_object(self, place: _Coordinates, part: Box, block: _Array, region: Box) -> None:
        pieces = list(self._grid.pieces(part))
        opened = self._open.get(place)
        if opened is not None and opened.n_encoding and not all(p.is_whole for p in pieces):
            # What is being encoded is needed now.  It may also be what completes the
            # object, which is put then and has to be opened again.
            self._encoding.drain()
        opened = self._opened(place)
        ready = []
        for piece in pieces:
            elements = block[slices_in(piece.box, region)]
            if not piece.is_whole:
                dense = self._dense(opened, piece)
                dense[slices_in(piece.box, piece.cell)] = elements
                if not piece.has_last_row:
                    continue
                elements = dense[slices_in(piece.inside, piece.cell)]
            ready.append((piece.entry, elements))
        self._encode(place, ready)

    def _opened(self, place: _Coordinates) -> OpenObject:
        opened = self._open.get(place)
        if opened is None:
            opened = self._open[place] = OpenObject(self._grid.key(place))
        self._open.move_to_end(place)
        opened.n_chunks = self._grid.n_chunks(place)
        return opened

    def _encode(self, place: _Coordinates, ready: list[tuple[int, _Array]]) -> None:
        opened = self._open[place]
        # All of them before the first job: an object must not count as complete with
        # chunks that are about to be replaced.
        for entry, _ in ready:
            opened.begin_encoding(entry)
        batch: list[tuple[int, _Array]] = []
        nbytes = 0
        for entry, elements in ready:
            batch.append((entry, elements))
            nbytes += elements.size * self.dtype.itemsize
            if nbytes >= _JOB_NBYTES:
                self._submit(place, batch, nbytes)
                batch, nbytes = [], 0
        if batch:
            self._submit(place, batch, nbytes)

    def _submit(self, place: _Coordinates, batch: list[tuple[int, _Array]], nbytes: int) -> None:
        coder = self._coder

        def job() -> list[tuple[int, bytes | None]]:
            return [(entry, coder.encode(elements)) for entry, elements in batch]

        finish = functools.partial(self._take, place, nbytes)
        self._encoding.submit(job, finish, nbytes=nbytes)

    def _take(
        self, place: _Coordinates, nbytes: int, encoded: list[tuple[int, bytes | None]]
    ) -> None:
        opened = self._open[place]
        for entry, chunk in encoded:
            opened.finish_encoding(entry, chunk)
        if self.report is not None:
            self.report(nbytes)
        if opened.is_complete:
            del self._open[place]
            self._put(opened.key, opened.encoded)

    def _dense(self, opened: OpenObject, piece: Piece) -> _Array:
        """Return a chunk, decoded, in which elements can be replaced."""
        dense = opened.dense.get(piece.entry)
        if dense is None:
            valid = self._grid.extent
            if piece.entry in opened.encoded:
                chunk: Buffer | None = opened.encoded[piece.entry]
            else:
                valid = self._valid
                chunk = self._stored_chunk(opened, piece.entry)
            dense = self._stored.decode(opened.key, piece, chunk, valid=valid)
            opened.begin_patching(piece.entry, dense)
        return dense

    def _stored_chunk(self, opened: OpenObject, entry: int) -> Buffer | None:
        if not opened.is_stored_known:
            self._outbox.wait_for(opened.key)
            opened.stored = self._stored.read(opened.key)
            opened.is_stored_known = True
        return None if opened.stored is None else opened.stored.chunk(entry)

    def _finish(self, place: _Coordinates) -> None:
        """Have the chunks of an object encoded of which only some elements have come."""
        # With elements to come left out: they are padding until they do.
        dense = self._open[place].dense
        self._encode(place, list(dense.items()))

    def _put_oldest(self) -> None:
        while len(self._open) > 1:
            if sum(opened.nbytes for opened in self._open.values()) <= _OPEN_NBYTES:
                return
            oldest = next(iter(self._open))
            self._finish(oldest)
            self._encoding.drain()
            if oldest in self._open:
                self._put_incomplete(oldest)

    def _put_incomplete(self, place: _Coordinates) -> None:
        """Put an object of which the store may have chunks that did not come."""
        assert not self._place.is_resumable, "one who goes on would take it for complete"
        opened = self._open[place]
        chunks: dict[int, Buffer | None] = dict(opened.encoded)
        earlier = meet(self._grid.inside(place), self._valid)
        for piece in self._grid.pieces(earlier):
            if piece.entry not in chunks:
                chunks[piece.entry] = self._stored_chunk(opened, piece.entry)
        del self._open[place]
        self._put(opened.key, chunks)

    def _put(self, key: str, chunks: Mapping[int, Buffer | None]) -> None:
        self._valid = whole(self.metadata.shape)
        alignment_nbytes = self._coder.alignment_nbytes
        self._outbox.put(key, chunks, self._level, alignment_nbytes=alignment_nbytes)


def is_same(first: _Array, second: _Array) -> bool:
    """Return whether two arrays have the same bits: NaN equals itself, and 0.0 is not -0.0."""
    one, other = (numpy.ascontiguousarray(a).reshape(-1).view(numpy.uint8) for a in (first, second))
    return numpy.array_equal(one, other)


def _batches(pieces: Iterator[Piece], n: int) -> Iterator[list[Piece]]:
    while batch := list(itertools.islice(pieces, n)):
        yield batch

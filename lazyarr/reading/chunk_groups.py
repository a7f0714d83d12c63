"""The many small chunks of one unit, read and decoded together.

For a chunk of few bytes, the fixed costs of a read and an index lookup are more than the cost
of its bytes.  So the chunks of one shard, or those of one object that a table lists, are read in
one go, in the order in which they lie, and decoded in one loop.  That loop handles no special
case.  Where anything fails, `ChunkReader` decodes the same chunks again, one by one: it heals
what can be healed, such as a shard that was replaced, and names the chunk that cannot be had.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from lazyarr.errors import LazyarrError
from lazyarr.layout.placement import ChunkTable
from lazyarr.reading.chunk_reader import UNREAD, Unread
from lazyarr.units import Span

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np

    from lazyarr.layout import Layout, ShardIndex
    from lazyarr.layout.geometry import Geometry
    from lazyarr.reading.chunk_reader import ChunkReader
    from lazyarr.reading.workspace import Fetched, Share, Workspace

    _Integers: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]

__all__ = ["GroupReader"]

# All chunks of a unit are decoded to one buffer.  Chunks at an array's edge are padded; where
# that makes the buffer larger than this, each chunk is decoded by itself.
_MAX_FLAT_NBYTES = 1 << 20
# A gap of so many bytes between two chunks is read along: that costs less than another read.
_MAX_GAP_NBYTES = 4 << 10
_MAX_READ_NBYTES = 4 << 20
# How many chunks a thread decodes before it takes more.
_CHUNKS_PER_PART = 64


class _Group:
    """The chunks of one unit: numbered in C order, decoded one after the other.

    Attributes
    ----------
    flat : memoryview
        The buffer to which the chunks are decoded.
    n_chunks : int
        How many chunks the unit has.
    """

    def __init__(self, geometry: Geometry, unit: int, flat: memoryview, chunk_nbytes: int) -> None:
        self._first = geometry.first_chunk(unit)
        self._counts = geometry.chunk_counts(unit)
        self._chunk_nbytes = chunk_nbytes
        self.flat = flat
        self.n_chunks = math.prod(self._counts)

    def __repr__(self) -> str:
        return f"<_Group: {self.n_chunks} chunks from {self._first} on>"

    def out(self, place: int) -> memoryview:
        """Return the part of the buffer to which a chunk is decoded, by its number."""
        return self.flat[place * self._chunk_nbytes : (place + 1) * self._chunk_nbytes]

    def chunk(self, place: int) -> tuple[int, ...]:
        """Return a chunk's place in the array's grid of chunks, by its number."""
        steps = []
        for count in reversed(self._counts):
            place, step = divmod(place, count)
            steps.append(step)
        return tuple(a + b for a, b in zip(self._first, reversed(steps), strict=True))

    def boxes(self, chunks_per_object: Sequence[int]) -> Iterator[tuple[Span, ...]]:
        """Yield boxes of the chunk grid, each with the unit's chunks of one stored object."""
        sides = zip(self._first, self._counts, chunks_per_object, strict=True)
        return itertools.product(*(_cut(Span(f, f + n), step) for f, n, step in sides))

    def listed(self, table: ChunkTable) -> list[list[tuple[int, int, int, int]]]:
        """Return what a table says of the chunks that are stored, object by object.

        Of each chunk: its number, where its bytes start, how many there are, and which codecs
        were left out.
        """
        import numpy as np

        rows: _Integers = np.zeros(1, np.int64)
        for first, count, n in zip(self._first, self._counts, table.grid_shape, strict=True):
            rows = np.add.outer(rows * n, np.arange(first, first + count)).ravel()
        found: dict[int, list[tuple[int, int, int, int]]] = {}
        for place, row in enumerate(rows.tolist()):
            entry = table.entries[row]
            if entry is not None:
                number, start, stop, *left_out = entry
                listed = (place, start, stop - start, sum(left_out))
                found.setdefault(number, []).append(listed)
        return list(found.values())

    def places(self, box: tuple[Span, ...]) -> _Integers:
        """Return the numbers of the chunks of a box, in C order."""
        import numpy as np

        places: _Integers = np.zeros(1, np.int64)
        for side, first, count in zip(box, self._first, self._counts, strict=True):
            places = np.add.outer(places * count, np.arange(*side) - first).ravel()
        return places


def _cut(span: Span, step: int) -> list[Span]:
    """Return a span cut at the multiples of a step."""
    starts = [span.start, *range(span.start // step * step + step, span.stop, step)]
    return [Span(*ends) for ends in itertools.pairwise([*starts, span.stop])]


class _Read(NamedTuple):
    """Chunks of one shard that are read in one call.

    Attributes
    ----------
    start, stop : int
        The byte range of the read, in the shard.
    places : list of int
        The numbers of the chunks in the unit.
    offsets, sizes : list of int
        Where each chunk begins in the bytes that were read, and its length.
    """

    start: int
    stop: int
    places: list[int]
    offsets: list[int]
    sizes: list[int]


class GroupReader:
    """Decodes units of many small chunks.

    Safe to use from several threads.

    Parameters
    ----------
    layout : Layout
        How chunks are decoded.
    geometry : Geometry
        Which chunks make a unit.
    stored : ChunkReader
        Finds, reads and decodes single chunks.
    share : callable
        Divides a load's parts among threads; see `lazyarr.reading.workspace.Share`.
    """

    def __init__(
        self, layout: Layout, geometry: Geometry, stored: ChunkReader, share: Share
    ) -> None:
        self._layout = layout
        self._geometry = geometry
        self._stored = stored
        self._share = share

    def __repr__(self) -> str:
        return f"<GroupReader: {self._geometry.unit_chunks} chunks to a unit>"

    @staticmethod
    def is_for(layout: Layout, geometry: Geometry) -> bool:
        """Return whether a unit has several chunks, small enough to be decoded together."""
        flat_nbytes = geometry.unit_chunks * layout.chunk_nbytes
        return geometry.is_grouped and flat_nbytes <= _MAX_FLAT_NBYTES

    def decode(
        self, unit: int, flat: memoryview, fetched: Fetched | None, workspace: Workspace
    ) -> bool:
        """Decode the chunks of a unit; return whether any of them is stored.

        Parameters
        ----------
        unit : int
            The unit's number.
        flat : memoryview
            The buffer for the decoded chunks, in the order of the unit's pieces.  It holds the
            fill value, which stays where a chunk is not stored.
        fetched, workspace
            As for `UnitReader.load`.

        Raises
        ------
        ChunkError
            When a chunk cannot be had or is not what it should be.
        """
        group = _Group(self._geometry, unit, flat, self._layout.chunk_nbytes)
        if fetched is not None:
            return self._decode_fetched(group, fetched, workspace)
        if isinstance(self._layout.placement, ChunkTable):
            return self._decode_listed(group, self._layout.placement, workspace)
        if len(self._layout.levels) != 1:
            return self._decode_alone(group, range(group.n_chunks), workspace)
        is_there = False
        for box in group.boxes(self._layout.chunks_per_object):
            is_there |= self._decode_shard(group, box, workspace)
        return is_there

    def _decode_fetched(self, group: _Group, fetched: Fetched, workspace: Workspace) -> bool:
        for place, data in enumerate(fetched):
            if data is not None:
                try:
                    self._layout.decode_chunk(group.chunk(place), data, group.out(place))
                except LazyarrError:
                    self._decode_one(group, place, data, workspace)
        return any(data is not None for data in fetched)

    def _decode_one(
        self, group: _Group, place: int, data: memoryview | Unread, workspace: Workspace
    ) -> bool:
        """Decode one chunk as `ChunkReader` does any; return False when it is not stored."""
        out = group.out(place)
        is_there = self._stored.decode(group.chunk(place), data, out, workspace)
        if not is_there:
            # A try before this one may have decoded the chunk from a shard that was replaced
            # since, and left its elements there.
            out[:] = self._layout.fill * (len(out) // self._layout.itemsize)
        return is_there

    def _decode_alone(self, group: _Group, places: Sequence[int], workspace: Workspace) -> bool:
        """Decode chunks one by one."""
        there: list[int] = []

        def do_part(part: int, workspace: Workspace) -> None:
            start = part * _CHUNKS_PER_PART
            some = places[start : start + _CHUNKS_PER_PART]
            there.extend(p for p in some if self._decode_one(group, p, UNREAD, workspace))

        self._share(-(-len(places) // _CHUNKS_PER_PART), do_part, workspace)
        return bool(there)

    def _decode_listed(self, group: _Group, table: ChunkTable, workspace: Workspace) -> bool:
        """Decode the unit's chunks that a table lists; return whether any of them is stored."""
        import numpy as np

        objects = group.listed(table)
        for listed in objects:
            places, offsets, sizes, left_out = np.array(listed, np.int64).T
            try:
                reads = self._plan_reads(offsets, sizes, places)
                key = self._stored.key(group.chunk(listed[0][0]))
                are_alike = table.is_padded and not left_out.any()
                for read in reads:
                    self._decode_read(group, key, read, workspace, are_alike=are_alike)
            except LazyarrError:
                # Chunk by chunk, which heals or names the one that failed.
                self._decode_alone(group, places.tolist(), workspace)
        return bool(objects)

    def _decode_shard(self, group: _Group, box: tuple[Span, ...], workspace: Workspace) -> bool:
        """Decode the unit's chunks of one shard; return whether any of them is stored."""
        places = group.places(box)
        first = tuple(side.start for side in box)
        try:
            is_known, index = self._stored.index_of(first)
            if is_known and index is None:
                return False
            if index is not None:
                reads = self._plan(index, self._entries(box), places)
                for read in reads:
                    self._decode_read(group, self._stored.key(first), read, workspace)
                return bool(reads)
        except LazyarrError:
            pass  # decoded again below, chunk by chunk, which heals or names the one that failed
        return self._decode_alone(group, places.tolist(), workspace)

    def _entries(self, box: tuple[Span, ...]) -> _Integers:
        """Return the index entries of the chunks of a box, by their places in the shard's index."""
        import numpy as np

        entries: _Integers = np.zeros(1, np.int64)
        for side, *level in zip(box, *self._layout.places[0], strict=True):
            size, step, stride = level
            entries = np.add.outer(entries, np.arange(*side) % size // step * stride).ravel()
        return entries

    def _plan(self, index: ShardIndex, entries: _Integers, places: _Integers) -> list[_Read]:
        """Return the reads for some chunks of a shard, in the order in which their bytes lie.

        Raises
        ------
        FormatError
            When the index gives a chunk more bytes than any codec would make of it.
        """
        import numpy as np

        pairs = np.frombuffer(index.pairs, np.uint64).reshape(-1, 2)[entries]
        is_there = ~(pairs == np.uint64(2**64 - 1)).all(axis=1)
        pairs, places = pairs[is_there].astype(np.int64), places[is_there]
        if not len(pairs):
            return []
        return self._plan_reads(pairs[:, 0], pairs[:, 1], places)

    def _plan_reads(self, offsets: _Integers, sizes: _Integers, places: _Integers) -> list[_Read]:
        """Return the reads for some chunks of an object, in the order in which their bytes lie.

        Raises
        ------
        FormatError
            When a chunk has more bytes than any codec would make of it.
        """
        import numpy as np

        self._stored.check_size(int(sizes.max()))
        order = np.argsort(offsets, kind="stable")
        offsets, sizes, places = offsets[order], sizes[order], places[order]
        stops = np.maximum.accumulate(offsets + sizes)
        gaps = np.flatnonzero(offsets[1:] - stops[:-1] > _MAX_GAP_NBYTES) + 1
        n_each = max(1, _MAX_READ_NBYTES // max(1, int(sizes.max())))
        reads = []
        for group in _cut_at([0, *gaps.tolist(), len(places)], n_each):
            part = slice(*group)
            start, stop = int(offsets[part][0]), int((offsets[part] + sizes[part]).max())
            reads.append(
                _Read(
                    start,
                    stop,
                    places[part].tolist(),
                    (offsets[part] - start).tolist(),
                    sizes[part].tolist(),
                )
            )
        return reads

    def _decode_read(
        self, group: _Group, key: str, read: _Read, workspace: Workspace, *, are_alike: bool = True
    ) -> None:
        """Read some chunks of an object in one call, and decode each of them.

        Chunks are alike that all went through the same codecs and are padded.
        """
        data = self._stored.read_range(key, read.start, read.stop, workspace)
        decode, decode_chunk, out = self._layout.decode, self._layout.decode_chunk, group.out
        for place, offset, nbytes in zip(read.places, read.offsets, read.sizes, strict=True):
            encoded = data[offset : offset + nbytes]
            if are_alike:
                decode(encoded, out(place))
            else:
                decode_chunk(group.chunk(place), encoded, out(place))
        self._stored.count_fetched(sum(read.sizes))


def _cut_at(edges: Sequence[int], n_each: int) -> Iterator[Span]:
    """Yield spans between consecutive edges, cut to at most `n_each` items."""
    for start, stop in itertools.pairwise(edges):
        for first in range(start, stop, n_each):
            yield Span(first, min(first + n_each, stop))

"""Where the bytes of each smallest chunk are stored: the three ways that formats have.

A key for each chunk, a shard with an index, a table, or one run of bytes.  Which one an array
has is data, so that whatever reads chunks needs to know no format.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from lazyarr.layout.entries import Entry
from lazyarr.layout.grid import KeyEncoding
from lazyarr.layout.shard import ShardLevel
from lazyarr.values import Value

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "ChunkAddress",
    "ChunkTable",
    "Entry",
    "KeyPerChunk",
    "Level",
    "OneRun",
    "Placement",
    "inner_nbytes",
    "is_run",
]


class ChunkAddress(NamedTuple):
    """Where a smallest chunk is stored.

    Attributes
    ----------
    key : str
        The object's key, relative to the array; "" for the object that has the array's own path.
    entries : tuple of int
        Its place in the index of each level of shards, outermost first.
    start, stop : int, int or None
        The half-open range of bytes that the chunk, or the outermost shard, takes of the object;
        `stop` is None where it goes on to the object's end.
    """

    key: str
    entries: tuple[int, ...] = ()
    start: int = 0
    stop: int | None = None


class Level(NamedTuple):
    """How the coordinates of a smallest chunk give its place in one shard index.

    Attributes
    ----------
    sizes : tuple of int
        Smallest chunks in the shard along each memory axis.
    steps : tuple of int
        Smallest chunks in one of its inner chunks along each memory axis.
    strides : tuple of int
        How much one inner chunk further along each memory axis adds to the place.
    """

    sizes: tuple[int, ...]
    steps: tuple[int, ...]
    strides: tuple[int, ...]

    def entry(self, chunk: tuple[int, ...]) -> int:
        """Return the place of a smallest chunk."""
        entry = 0
        for k, c in enumerate(chunk):
            entry += c % self.sizes[k] // self.steps[k] * self.strides[k]
        return entry


class Placement(Value):
    """Where chunks are stored.

    Attributes
    ----------
    chunks_per_object : tuple of int
        How many smallest chunks an object, or a shard, holds along each memory axis.  All are 1
        where objects hold chunks in no order that follows from the grid.
    levels : tuple of ShardLevel
        The levels of shards, outermost first; empty without shards.
    places : tuple of Level
        For each level of shards, which entry belongs to which chunk.
    is_padded : bool
        Whether a chunk at the edge of the array is stored with what it has beyond the array.
    """

    chunks_per_object: tuple[int, ...]
    levels: tuple[ShardLevel, ...]
    places: tuple[Level, ...]

    # Not at run time: a field of a subclass, which a property would hide.
    if TYPE_CHECKING:

        @property
        def is_padded(self) -> bool: ...  # noqa: D102 - see above

    is_padded = True  # type: ignore[assignment]

    def locate(self, chunk: tuple[int, ...]) -> ChunkAddress | None:
        """Return where a chunk of the grid is stored; None where it is known not to be."""
        raise NotImplementedError

    def left_out(self, chunk: tuple[int, ...]) -> int:  # noqa: ARG002
        """Return which codecs a chunk did not go through: a bit for each, the first one lowest."""
        return 0


class KeyPerChunk(Placement):
    """Each chunk, or each shard, is an object, and its key follows from its place in the grid.

    Attributes
    ----------
    key_encoding : KeyEncoding
        How coordinates become keys.
    axes : tuple of int
        Memory axis `k` is logical axis `axes[k]`: keys have the coordinates in logical order.
    """

    key_encoding: KeyEncoding
    axes: tuple[int, ...]

    def locate(self, chunk: tuple[int, ...]) -> ChunkAddress:
        """Return the key of a chunk's object, and the chunk's entries in shard indexes."""
        coordinates = [0] * len(chunk)
        for k, c in enumerate(chunk):
            coordinates[self.axes[k]] = c // self.chunks_per_object[k]
        entries = tuple(place.entry(chunk) for place in self.places)
        return ChunkAddress(self.key_encoding.key(tuple(coordinates)), entries)


class ChunkTable(Placement):
    """A table says where each chunk is.

    Attributes
    ----------
    grid_shape : tuple of int
        How many chunks there are along each memory axis.
    objects : tuple of str
        Keys, relative to the array.
    entries : sequence of ((int, int, int) or (int, int, int, int) or None)
        For each chunk, in C order of the grid: the number of its object in `objects`, the
        half-open range of bytes in it, and, where it did not go through all codecs, `left_out`.
        None for a chunk that is not stored.  `Entries` have room for millions.
    is_padded : bool
        As of `Placement`.  Where it is not, chunks are runs of the array; see `is_run`.

    Examples
    --------
    >>> table = ChunkTable(
    ...     chunks_per_object=(1,), levels=(), places=(),
    ...     grid_shape=(2,), objects=("file",), entries=((0, 100, 180), None),
    ... )
    >>> table.locate((0,)), table.locate((1,))
    (ChunkAddress(key='file', entries=(), start=100, stop=180), None)
    """

    grid_shape: tuple[int, ...]
    objects: tuple[str, ...]
    entries: Sequence[Entry]
    is_padded: bool = True

    def locate(self, chunk: tuple[int, ...]) -> ChunkAddress | None:
        """Return the bytes of a chunk; None where it is not stored."""
        entry = self._entry(chunk)
        if entry is None:
            return None
        return ChunkAddress(self.objects[entry[0]], (), entry[1], entry[2])

    def left_out(self, chunk: tuple[int, ...]) -> int:
        """Return which codecs a chunk did not go through; see `Placement.left_out`."""
        entry = self._entry(chunk)
        return entry[3] if entry is not None and len(entry) == 4 else 0

    def _entry(self, chunk: tuple[int, ...]) -> Entry:
        place = 0
        for c, n in zip(chunk, self.grid_shape, strict=True):
            place = place * n + c
        return self.entries[place]


class OneRun(Placement):
    """All elements lie in one object, one after the other in the order of memory.

    A chunk is a part of that run, so it has no padding.

    Attributes
    ----------
    key : str
        The object, relative to the array; "" for the object that has the array's own path.
    start : int
        Where the first element lies in the object, in bytes.
    shape, chunk_shape : tuple of int
        Of the array and of its chunks, along the memory axes; see `is_run`.
    itemsize : int
        Size of an element in bytes.

    Examples
    --------
    >>> run = OneRun(
    ...     chunks_per_object=(1, 1), levels=(), places=(),
    ...     key="", start=128, shape=(5, 3), chunk_shape=(2, 3), itemsize=8,
    ... )
    >>> run.locate((2, 0))
    ChunkAddress(key='', entries=(), start=224, stop=248)
    """

    key: str
    start: int
    shape: tuple[int, ...]
    chunk_shape: tuple[int, ...]
    itemsize: int

    is_padded = False

    def locate(self, chunk: tuple[int, ...]) -> ChunkAddress:
        """Return the bytes of a chunk."""
        element = 0
        for c, length, n in zip(chunk, self.chunk_shape, self.shape, strict=True):
            element = element * n + c * length
        start = self.start + element * self.itemsize
        nbytes = inner_nbytes(chunk, self.chunk_shape, self.shape, self.itemsize)
        return ChunkAddress(self.key, (), start, start + nbytes)


def inner_nbytes(
    chunk: tuple[int, ...], chunk_shape: tuple[int, ...], shape: tuple[int, ...], itemsize: int
) -> int:
    """Return the bytes of those elements of a chunk that are in the array.

    Examples
    --------
    >>> inner_nbytes((2, 0), (2, 3), (5, 3), 8)
    24
    """
    sides = zip(chunk, chunk_shape, shape, strict=True)
    return math.prod(min(length, n - c * length) for c, length, n in sides) * itemsize


def is_run(shape: tuple[int, ...], chunk_shape: tuple[int, ...]) -> bool:
    """Return whether the elements of each chunk lie one after the other in C order.

    They do where chunks have one element along the leading axes, any number along the next one,
    and the array's length along the others, or one where that is none.

    Examples
    --------
    >>> is_run((8, 6, 4), (1, 2, 4)), is_run((8, 6, 4), (2, 2, 4))
    (True, False)
    """
    lengths = list(zip(chunk_shape, shape, strict=True))
    while lengths and lengths[0][0] == 1:
        lengths.pop(0)
    return all(length == (n or 1) for length, n in lengths[1:])

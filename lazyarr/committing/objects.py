"""Objects as bytes: shards with their index, or chunks that are objects of their own.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lazyarr.codecs import Buffer
    from lazyarr.layout import ShardLevel

__all__ = ["StoredObject", "assemble"]


def assemble(
    chunks: Mapping[int, Buffer], level: ShardLevel | None, *, alignment_nbytes: int = 1
) -> list[Buffer]:
    """Return what an object consists of, in order, without copying any of it.

    Parameters
    ----------
    chunks : mapping of int to bytes-like
        Encoded chunks by their place in the index; those that are all fill value are
        left out.
    level : ShardLevel or None
        How the index is written; None where the object is a chunk.
    alignment_nbytes : int
        Where in the object chunks and index begin: at multiples of this.

    Examples
    --------
    >>> from lazyarr.layout import ShardLevel
    >>> [len(part) for part in assemble({1: b"abc"}, ShardLevel(grid_shape=(2,)))]
    [3, 36]
    """
    if level is None:
        return [chunks[0]]
    at_start = level.index_location == "start"
    offset = level.index_nbytes if at_start else 0
    entries: list[tuple[int, int] | None] = [None] * level.n_entries
    parts: list[Buffer] = []
    for entry in sorted(chunks):
        offset += _align(parts, offset, alignment_nbytes)
        entries[entry] = (offset, len(chunks[entry]))
        parts.append(chunks[entry])
        offset += len(chunks[entry])
    if not at_start:
        _align(parts, offset, alignment_nbytes)
    index = level.build_index(entries)
    return [index, *parts] if at_start else [*parts, index]


def _align(parts: list[Buffer], offset: int, alignment_nbytes: int) -> int:
    """Add the zeros that are missing up to a multiple; return how many they are."""
    gap = -offset % alignment_nbytes
    if gap:
        parts.append(bytes(gap))
    return gap


class StoredObject:
    """An object as the store has it, from which single chunks can be taken.

    Parameters
    ----------
    data : bytes
        All of it.
    level : ShardLevel or None
        How its chunks are found; None where it is a chunk.

    Raises
    ------
    DamagedChunkError
        Its index is not what Zarr allows.
    """

    def __init__(self, data: bytes, level: ShardLevel | None) -> None:
        self._data = memoryview(data)
        self._index = None
        if level is not None:
            start, stop = level.index_range(len(data))
            index = self._data[start:stop]
            self._index = level.parse_index(index, object_nbytes=len(data))

    @property
    def nbytes(self) -> int:
        """Its size, in bytes."""
        return len(self._data)

    def chunk(self, entry: int) -> memoryview | None:
        """Return a chunk as it is stored; None when it is not there."""
        if self._index is None:
            return self._data
        place = self._index.entry(entry)
        return None if place is None else self._data[place[0] : place[0] + place[1]]

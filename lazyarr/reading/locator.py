"""Where a chunk lies, and which shard indexes must be read to know that."""

from __future__ import annotations

import enum
import itertools
from typing import TYPE_CHECKING, NamedTuple

from lazyarr.errors import FormatError
from lazyarr.reading.index_cache import IndexCache

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazyarr.layout import Layout, ShardIndex
    from lazyarr.store import Buffer

__all__ = ["Locator", "IndexRead", "ObjectRange"]


class ObjectRange(NamedTuple):
    """Where an encoded chunk lies: bytes ``[start, stop)`` of an object, or all of it."""

    key: str
    start: int
    stop: int | None


class IndexRead(NamedTuple):
    """A shard index that must be read before a chunk in its shard can be found.

    Attributes
    ----------
    key : str
        The object.
    entries : tuple of int
        Which entries of the indexes around it lead to the shard, outermost first.
    start, stop : int, int or None
        The bytes of the object that are the shard; ``(0, None)`` for the outermost one.
    """

    key: str
    entries: tuple[int, ...]
    start: int
    stop: int | None


class _Unknown(enum.Enum):
    """Stands for an index that is not here; None is one that is known not to exist."""

    UNKNOWN = "unknown"


class Locator:
    """The way from chunks to bytes for one array, as far as its shard indexes are known.

    Safe to use from several threads.

    Parameters
    ----------
    layout : Layout
        Which chunk belongs where.
    path : str
        The array in its store: where its objects lie, unless the layout names another place.
    foresees : bool
        Whether `foresee` names anything.
    """

    def __init__(self, layout: Layout, path: str, *, foresees: bool = True) -> None:
        self._layout = layout
        self._path = path if layout.place is None else layout.place
        self._indexes = IndexCache()
        self._foresees = foresees
        self._foreseen = 0

    def __repr__(self) -> str:
        return f"<Locator: array {self._path!r}, {self._indexes!r}>"

    def key(self, chunk: tuple[int, ...]) -> str:
        """Return the key of the object that holds a chunk, or would."""
        address = self._layout.locate(chunk)
        return self._full(address.key if address is not None else "")

    def _full(self, key: str) -> str:
        """Return a key in the store for one relative to the array, "" for the array itself."""
        return f"{self._path}/{key}" if self._path and key else self._path or key

    def find(
        self,
        chunk: tuple[int, ...],
        arrived: IndexRead | None = None,
        index: ShardIndex | None = None,
    ) -> ObjectRange | IndexRead | None:
        """Return where a chunk lies, or what to read to know it; None when it is not stored.

        Parameters
        ----------
        chunk : tuple of int
            Its place in the grid.
        arrived, index : IndexRead, ShardIndex or None, optional
            What this method has returned before for this chunk, and the index that was
            read: the way goes on from there.
        """
        address = self._layout.locate(chunk)
        if address is None:
            return None
        key, all_entries = self._full(address.key), address.entries
        if not all_entries:
            return ObjectRange(key, address.start, address.stop)
        start, stop = (arrived.start, arrived.stop) if arrived else (0, None)
        first = len(arrived.entries) if arrived else 0
        for depth in range(first, len(all_entries)):
            entries = all_entries[:depth]
            known: ShardIndex | _Unknown | None = index
            if arrived is None or depth > first:
                known = self._indexes.known((key, *entries), _Unknown.UNKNOWN)
            if isinstance(known, _Unknown):
                return IndexRead(key, entries, start, stop)
            place = known.entry(all_entries[depth]) if known is not None else None
            if place is None:
                return None
            start, stop = start + place[0], start + place[0] + place[1]
        return ObjectRange(key, start, stop)

    def foresee(self, chunk: tuple[int, ...]) -> IndexRead | None:
        """Return the index that a reader who goes on behind a chunk will need next, once.

        None when it is known, or there is none, or it was returned when this was asked last.
        """
        layout = self._layout
        if not (layout.levels and self._foresees):
            return None
        following = chunk[0] + layout.chunks_per_object[0]
        shard = following // layout.chunks_per_object[0]
        if shard == self._foreseen or following >= layout.grid_shape[0]:
            return None
        self._foreseen = shard
        found = self.find((following, *chunk[1:]))
        return found if isinstance(found, IndexRead) else None

    @property
    def witnesses(self) -> tuple[str, ...]:
        """Keys of which the store has one as long as the array is in it."""
        return tuple(self._full(key) for key in self._layout.witnesses)

    @property
    def limit_nbytes(self) -> int:
        """How long an encoded chunk may be: no codec would make more of it."""
        return self._layout.pipeline.limit_nbytes

    def check_size(self, nbytes: int) -> None:
        """Refuse to read what is longer than any codec would make of a chunk."""
        if nbytes > self.limit_nbytes:
            found = f"chunk expected to have up to {self.limit_nbytes} bytes, found {nbytes}"
            raise FormatError(found)

    def index_place(self, read: IndexRead) -> ObjectRange:
        """Return where an index lies, as a slice: from ``-n`` to None at its object's end."""
        level = self._layout.levels[len(read.entries)]
        nbytes = level.index_nbytes
        if level.index_location == "start":
            return ObjectRange(read.key, read.start, read.start + nbytes)
        if read.stop is None:
            return ObjectRange(read.key, -nbytes, None)
        return ObjectRange(read.key, max(read.start, read.stop - nbytes), read.stop)

    def keep(
        self, read: IndexRead, data: Buffer | None, object_nbytes: int | None
    ) -> ShardIndex | None:
        """Return the index that was read, and know it from now on; None when there is no shard.

        Parameters
        ----------
        read : IndexRead
            Which one.
        data : bytes-like or None
            Its bytes; None when the object does not exist.
        object_nbytes : int or None
            The object's size, where it is known.

        Raises
        ------
        FormatError
            When it is no index, or its object existed a moment ago.
        """
        index = self._parse(read, data, object_nbytes)
        self._indexes.put((read.key, *read.entries), index)
        return index

    def _parse(
        self, read: IndexRead, data: Buffer | None, object_nbytes: int | None
    ) -> ShardIndex | None:
        if data is None and read.entries:
            raise FormatError("the object is gone, though its index was read from it")
        if data is None:
            return None
        nbytes = object_nbytes if read.stop is None else read.stop - read.start
        return self._layout.levels[len(read.entries)].parse_index(data, object_nbytes=nbytes)

    def known_index(self, chunk: tuple[int, ...]) -> tuple[bool, ShardIndex | None]:
        """Return whether the outermost index on the way to a chunk is known, and the index.

        It is None also where it is known that there is none.
        """
        found = self._indexes.known((self.key(chunk),), _Unknown.UNKNOWN)
        return (False, None) if isinstance(found, _Unknown) else (True, found)

    def get(self, read: IndexRead, fetch: Callable[[], ShardIndex | None]) -> ShardIndex | None:
        """Return an index, fetched by one thread while others that want it wait."""
        return self._indexes.get((read.key, *read.entries), fetch)

    def shards_of(self, first: tuple[int, ...], counts: tuple[int, ...]) -> tuple[str, ...]:
        """Return the keys of the shards in which the chunks of a box lie; none without shards.

        Parameters
        ----------
        first, counts : tuple of int
            The first chunk of the box, and how many there are along each axis.
        """
        if not self._layout.levels:
            return ()
        steps = self._layout.chunks_per_object
        sides = [
            range(start - start % step, start + count, step)
            for start, count, step in zip(first, counts, steps, strict=True)
        ]
        return tuple(self.key(chunk) for chunk in itertools.product(*sides))

    def forget_shard(self, key: str) -> None:
        """Forget the index of a shard that has been replaced.

        Nobody may be about to read the shard: what is read of it and kept later (`keep`) is
        believed.
        """
        # Of shards that lie in others nothing is forgotten: lazyarr does not write these.
        self._indexes.forget((key,))

    def forget(self) -> None:
        """Forget every index: one of them may be what is wrong."""
        self._indexes.clear()

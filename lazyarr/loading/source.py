"""From a unit of an array to its decoded bytes."""

from __future__ import annotations

import enum
import functools
import threading
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar

from lazyarr.errors import ChunkError, FormatError, KernelError, LazyarrError, StoreError
from lazyarr.loading.held import HeldShards, units_per_shard
from lazyarr.loading.indexes import IndexCache

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazyarr.format import ChunkAddress, Layout, ShardIndex
    from lazyarr.loading.workspace import Workspace
    from lazyarr.plan.geometry import Geometry
    from lazyarr.store import BorrowedFile, Store

__all__ = ["Fetched", "Source"]

_T = TypeVar("_T")


Fetched: TypeAlias = "tuple[memoryview | None, ...]"
"""The encoded chunks of a unit, in the order of its pieces; None for a missing one."""

Share: TypeAlias = "Callable[[int, Callable[[int, Workspace], None], Workspace], None]"
"""Does the parts of a load: how many, what does one by its number, and where."""


class _Place(NamedTuple):
    """Where an encoded chunk lies: bytes ``[start, stop)`` of an object, or all of it."""

    key: str
    start: int
    stop: int | None


class Source:
    """The stored chunks of one array.

    Safe to use from several threads.

    Parameters
    ----------
    open_store : callable
        Opens the store, when it is first needed.
    layout : Layout
        Which chunk lies where, and how it is decoded.
    geometry : Geometry
        Which chunks make a unit.
    url, path : str
        The store and the array in it, for messages.
    count_fetched : callable, optional
        Told of how many bytes were read from the store.
    share : callable, optional
        Does the parts of a load, by several threads where it can.
    """

    def __init__(
        self,
        open_store: Callable[[], Store],
        layout: Layout,
        geometry: Geometry,
        *,
        url: str,
        path: str,
        count_fetched: Callable[[int], None] = lambda _: None,
        share: Share | None = None,
    ) -> None:
        self._count_fetched = count_fetched
        self._share = share or _do_alone
        self._open_store = open_store
        self._opened: Store | None = None
        self._opening = threading.Lock()
        self._layout = layout
        self._geometry = geometry
        self._url = url
        self._path = path
        self._indexes = IndexCache()
        n_units = units_per_shard(layout, geometry)
        self._held = HeldShards(layout, n_units, self._hold) if n_units else None

    def __repr__(self) -> str:
        return f"<Source: array {self._path!r} in {self._url}>"

    def close(self) -> None:
        """Let go of the store."""
        if self._held is not None:
            self._held.release()
        if self._opened is not None:
            self._opened.close()

    @property
    def _store(self) -> Store:
        if self._opened is None:
            with self._opening:
                if self._opened is None:
                    self._opened = self._open_store()
        return self._opened

    def fetch(self, unit: int) -> Fetched:
        """Return the encoded chunks of a unit.

        Raises
        ------
        ChunkError
            When one of them can not be had.
        """
        return tuple(
            self._heal(chunk, functools.partial(self._read, chunk, None))
            for chunk in self._chunks(unit)
        )

    def _chunks(self, unit: int) -> list[tuple[int, ...]]:
        """Return the places in the grid of the chunks of a unit."""
        if self._geometry.is_contiguous:
            return [self._geometry.first_chunk(unit)]
        return [piece.chunk for piece in self._geometry.pieces(unit)]

    def load(self, unit: int, workspace: Workspace, fetched: Fetched | None = None) -> bool:
        """Decode a unit into ``workspace.unit``; return False when it is all zero bits.

        Parameters
        ----------
        unit : int
            Which one.
        workspace : Workspace
            This thread's buffers; behind the unit's bytes there are zeros up to
            the end of a page.
        fetched : tuple of memoryview or None, optional
            Its encoded chunks; read from the store when not given.

        Raises
        ------
        ChunkError
            When a chunk can not be had or is not what it should be.
        """
        nbytes = self._geometry.unit_bytes(unit).size
        page_nbytes = self._geometry.page_nbytes
        try:
            workspace.unit.grow(max(nbytes, self._layout.chunk_nbytes) + page_nbytes)
        except KernelError as error:
            raise self._chunk_error(self._geometry.first_chunk(unit), error) from error
        load = self._load_whole if self._geometry.is_contiguous else self._load_tiles
        if not load(unit, nbytes, fetched, workspace):
            return False
        if self._geometry.unit_bytes(unit).stop % page_nbytes:
            workspace.unit.view[nbytes : nbytes + page_nbytes] = bytes(page_nbytes)
        return True

    def load_quickly(self, unit: int, workspace: Workspace, *, may_wait: bool) -> bool:
        """Decode a unit as `load` does, if it is one chunk of a shard that is open; else False.

        What is out of the ordinary is left to `load`: a missing chunk, a damaged one,
        and, unless it may wait, bytes that are not in the page cache.
        """
        if self._held is None:
            return False
        nbytes = self._held.load(unit, workspace, may_wait=may_wait)
        if nbytes:
            self._count_fetched(nbytes)
        return nbytes > 0

    def _hold(self, unit: int) -> tuple[BorrowedFile, ShardIndex] | None:
        """Return the shard of a unit when a load has opened it and read its index."""
        key = self._key(self._layout.locate(self._geometry.first_chunk(unit)))
        index = self._indexes.known((key,))
        file = self._store.borrow(key) if index is not None else None
        return None if index is None or file is None else (file, index)

    def _load_whole(
        self, unit: int, nbytes: int, fetched: Fetched | None, workspace: Workspace
    ) -> bool:
        """Decode the one chunk of a unit in place: the unit is how it begins."""
        out = workspace.unit.view[: self._layout.chunk_nbytes]
        data = fetched[0] if fetched else _UNREAD
        if self._decode(self._geometry.first_chunk(unit), data, out, workspace):
            return True
        if self._layout.fill_is_zero:
            return False
        self._fill(workspace.unit.view[:nbytes])
        return True

    def _load_tiles(
        self, unit: int, nbytes: int, fetched: Fetched | None, workspace: Workspace
    ) -> bool:
        """Decode the tiles of a unit and put each in its place."""
        import numpy as np

        layout = self._layout
        view = workspace.unit.view[:nbytes]
        kind = "u" if layout.itemsize in (1, 2, 4, 8) else "V"
        item = np.dtype(f"{kind}{layout.itemsize}")
        target = np.frombuffer(view, item).reshape(self._geometry.unit_box(unit)[1])
        self._fill(view)
        pieces = list(self._geometry.pieces(unit))
        there: list[int] = []

        def put(place: int, workspace: Workspace) -> None:
            piece = pieces[place]
            workspace.tile.grow(layout.chunk_nbytes)
            out = workspace.tile.view[: layout.chunk_nbytes]
            data = fetched[place] if fetched else _UNREAD
            if self._decode(piece.chunk, data, out, workspace):
                there.append(place)
                tile = np.frombuffer(out, item).reshape(layout.chunk_shape)
                sides = list(zip(piece.start, piece.stop, strict=True))
                box = tuple(slice(a, b) for a, b in sides)
                target[box] = tile[tuple(slice(b - a) for a, b in sides)]

        self._share(len(pieces), put, workspace)
        return bool(there) or not layout.fill_is_zero

    def _fill(self, view: memoryview) -> None:
        """Write the fill value all over a view."""
        view[:] = self._layout.fill * (len(view) // self._layout.itemsize)

    def _decode(
        self,
        chunk: tuple[int, ...],
        data: memoryview | _Unread | None,
        out: memoryview,
        workspace: Workspace,
    ) -> bool:
        """Decode one chunk into `out`; return False when the store does not have it."""
        first = [data]

        def step() -> bool:
            given = first.pop() if first else _UNREAD
            if isinstance(given, _Unread):
                data = self._read(chunk, workspace, out)
                if data is not None and data.obj is out.obj and len(data) == len(out):
                    return True  # uncompressed, read to where it belongs
            else:
                data = given
            if data is not None:
                self._layout.decode(data, out)
            return data is not None

        return self._heal(chunk, step)

    def _heal(self, chunk: tuple[int, ...], step: Callable[[], _T]) -> _T:
        """Take a step, once more when the bytes were wrong: a bad transfer heals.

        Raises
        ------
        ChunkError
            When it fails for good; the error names everything.
        """
        try:
            try:
                return step()
            except (FormatError, StoreError) as error:
                if not (isinstance(error, FormatError) or self._is_suspect(chunk, error)):
                    raise
                self._look_again(chunk)
                return step()
        except (LazyarrError, MemoryError) as error:
            raise self._chunk_error(chunk, error) from error

    def _is_suspect(self, chunk: tuple[int, ...], error: StoreError) -> bool:
        """Return whether a read may have failed because of an index that is kept.

        One of another version of its shard may name bytes that are not there.
        """
        has_index = bool(self._layout.levels) and self._find(chunk, only_known=True) is not None
        return has_index and not error.transient

    def _look_again(self, chunk: tuple[int, ...]) -> None:
        """Keep neither indexes nor the object's open file: it may be another one now."""
        self._indexes.clear()
        if self._held is not None:
            self._held.release()
        forget = getattr(getattr(self._store, "inner", self._store), "forget", None)
        if forget is not None:
            forget(self._key(self._layout.locate(chunk)))

    def _read(
        self,
        chunk: tuple[int, ...],
        workspace: Workspace | None,
        out: memoryview | None = None,
    ) -> memoryview | None:
        """Return the encoded chunk, in `out` if it is not compressed; None when it is missing."""
        data = self._read_uncounted(chunk, workspace, out)
        if data is not None:
            self._count_fetched(len(data))
        return data

    def _read_uncounted(
        self, chunk: tuple[int, ...], workspace: Workspace | None, out: memoryview | None
    ) -> memoryview | None:
        place = self._find(chunk)
        if place is None:
            return None
        if place.stop is None:
            return self._read_object(place.key, workspace)
        self._check_size(place.stop - place.start)
        into = None
        if workspace is not None:
            workspace.encoded.grow(place.stop - place.start)
            into = workspace.encoded.view
        if out is not None and not self._layout.pipeline.codecs:
            into = out if place.stop - place.start == len(out) else into
        data = self._store.read_range(place.key, place.start, place.stop, into=into)
        if data is None:
            raise FormatError("the object is gone, though its index was read from it")
        return data

    def _read_object(self, key: str, workspace: Workspace | None) -> memoryview | None:
        """Return a whole object; None when the store does not have it.

        With a workspace the store is a local one: looking up the size first is
        cheap there, and lets the bytes go to memory that is used again.
        """
        if workspace is None:
            whole = self._store.read(key)
            return None if whole is None else memoryview(whole)
        nbytes = self._store.size(key)
        if nbytes is None:
            return None
        self._check_size(nbytes)
        workspace.encoded.grow(nbytes)
        return self._store.read_range(key, 0, nbytes, into=workspace.encoded.view)

    def _check_size(self, nbytes: int) -> None:
        """Refuse to read what is longer than any codec would make of a chunk."""
        limit_nbytes = self._layout.pipeline.limit_nbytes
        if nbytes > limit_nbytes:
            raise FormatError(f"chunk expected to have up to {limit_nbytes} bytes, found {nbytes}")

    def _find(self, chunk: tuple[int, ...], *, only_known: bool = False) -> _Place | None:
        """Return where an encoded chunk lies; None when it is not stored, or not known."""
        address = self._layout.locate(chunk)
        key = self._key(address)
        if not self._layout.levels:
            return _Place(key, 0, None)
        start, stop = 0, -1
        for depth, entry in enumerate(address.entries):
            entries = address.entries[:depth]
            if only_known:
                index = self._indexes.known((key, *entries))
            else:
                index = self._index(key, entries, start, stop)
            place = index.entry(entry) if index is not None else None
            if place is None:
                return None
            start, stop = start + place[0], start + place[0] + place[1]
        return _Place(key, start, stop)

    def _key(self, address: ChunkAddress) -> str:
        return f"{self._path}/{address.key}" if self._path else address.key

    def _index(
        self, key: str, entries: tuple[int, ...], start: int, stop: int
    ) -> ShardIndex | None:
        """Return the index of the shard that `entries` lead to; None when there is none."""
        return self._indexes.get(
            (key, *entries), lambda: self._read_index(key, len(entries), start, stop)
        )

    def _read_index(self, key: str, depth: int, start: int, stop: int) -> ShardIndex | None:
        level = self._layout.levels[depth]
        nbytes = level.index_nbytes
        size: int | None = stop - start if depth else None
        data: bytes | memoryview | None
        if level.index_location == "start":
            data = self._store.read_range(key, start, start + nbytes)
        elif depth:
            data = self._store.read_range(key, max(start, stop - nbytes), stop)
        else:
            suffix = self._store.read_suffix(key, nbytes)
            data, size = suffix if suffix is not None else (None, None)
        if data is not None:
            return level.parse_index(data, object_nbytes=size)
        if depth:
            raise FormatError("the object is gone, though its index was read from it")
        return None

    def unit_error(self, unit: int, reason: str) -> ChunkError:
        """Return the error for a unit that can not be loaded for another reason than its bytes."""
        return self._chunk_error(self._geometry.first_chunk(unit), StoreError(reason))

    def _chunk_error(self, chunk: tuple[int, ...], error: Exception) -> ChunkError:
        """Return the error that names array, chunk, key, byte range and cause."""
        key = self._key(self._layout.locate(chunk))
        # No new attempt to read an index: one that failed has taken its time already.
        place = self._find(chunk, only_known=True)
        byte_range = None if place is None or place.stop is None else (place.start, place.stop)
        where = f"bytes [{byte_range[0]}, {byte_range[1]}) of {key}" if byte_range else key
        return ChunkError(
            f"chunk {chunk} of {self._path!r} in {self._url}: {error} in {where}; "
            "run 'lazyarr verify' to list every damaged chunk",
            url=self._url,
            array=self._path,
            chunk=chunk,
            key=key,
            byte_range=byte_range,
            reason=str(error),
        )


def _do_alone(n_parts: int, work: Callable[[int, Workspace], None], workspace: Workspace) -> None:
    for part in range(n_parts):
        work(part, workspace)


class _Unread(enum.Enum):
    """Stands for an encoded chunk that nobody has read yet."""

    UNREAD = "unread"


_UNREAD = _Unread.UNREAD

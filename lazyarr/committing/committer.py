"""Changed units of one array become objects in its store."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy

from lazyarr.codecs import DamagedChunkError
from lazyarr.committing.coder import ChunkCoder
from lazyarr.committing.objects import StoredObject, assemble
from lazyarr.errors import ChunkError, FormatError
from lazyarr.layout.placement import KeyPerChunk
from lazyarr.store.base import ANYTHING, Anything, ChangedError

if TYPE_CHECKING:
    from lazyarr.codecs import Buffer
    from lazyarr.layout import Layout
    from lazyarr.layout.geometry import Geometry
    from lazyarr.store import WritableStore
    from lazyarr.store.base import Expected

__all__ = ["Committer", "require_committable"]

_Array: TypeAlias = "numpy.ndarray[Any, Any]"
_Place: TypeAlias = tuple[int, ...]

_MAX_VERSIONS = 1 << 16


def require_committable(layout: Layout, path: str, url: str) -> None:
    """Refuse an array whose changed chunks cannot be written one by one.

    Raises
    ------
    FormatError
        It has shards in shards, or its chunks are parts of a file.
    """
    problem = None
    if not isinstance(layout.placement, KeyPerChunk):
        problem = "its chunks are parts of a file, which lazyarr only reads"
    elif len(layout.levels) > 1:
        problem = "its shards hold shards, which lazyarr only reads"
    if problem is not None:
        raise FormatError(
            f"cannot write to {path or '/'!r} in {url}: {problem}; run 'lazyarr convert'", path=path
        )


class Committer:
    """Writes changed units of one array into its store.

    Parameters
    ----------
    store : WritableStore
        Where the array is.
    path : str
        The array in it.
    layout : Layout
        How its chunks are stored.
    geometry : Geometry
        Which chunks make a unit.
    url : str
        The store, for messages.

    Raises
    ------
    FormatError
        The array is not of those that can be written.

    Notes
    -----
    Safe from several threads, also for units of one object.  A chunk that reaches beyond the
    array is stored with what the store has beyond it: another writer may have appended there.
    For the same reason a shard keeps all chunks that are not given.

    The version of each object that was read or put is remembered.  Where another writer has put
    the object since, nothing is written: the error says so.  After that it may be tried again,
    on top of what is there then: the other's chunks of a shard stay, but for those given here.
    """

    def __init__(
        self, store: WritableStore, path: str, layout: Layout, geometry: Geometry, *, url: str
    ) -> None:
        require_committable(layout, path, url)
        self._store = store
        self._path = path
        self._root = path if layout.place is None else layout.place
        self._url = url
        self._layout = layout
        self._geometry = geometry
        self._level = layout.levels[0] if layout.levels else None
        # Units come as they lie in memory, and their elements are only copied.
        in_memory = layout._replace(axes=tuple(range(len(layout.shape))))
        self._item = numpy.dtype(f"V{layout.itemsize}")
        self._coder = ChunkCoder(in_memory, self._item)
        self._turns = _Turns()
        self._versions = _Versions()

    def __repr__(self) -> str:
        return f"<Committer: array {self._path!r} in {self._url}>"

    def group(self, units: Iterable[int]) -> list[tuple[int, ...]]:
        """Return units together whose chunks lie in the same objects, in order.

        Each group is best put at once: an object that is put is written whole.
        """
        if self._level is None:
            return [(unit,) for unit in units]
        given = list(units)
        leaders = list(range(len(given)))
        owners: dict[_Place, int] = {}
        for number, unit in enumerate(given):
            for place in self._objects_of(unit):
                one = _leader(leaders, number)
                other = _leader(leaders, owners.setdefault(place, number))
                leaders[max(one, other)] = min(one, other)
        groups: dict[int, list[int]] = {}
        for number, unit in enumerate(given):
            groups.setdefault(_leader(leaders, number), []).append(unit)
        return [tuple(members) for members in groups.values()]

    def _objects_of(self, unit: int) -> Iterator[_Place]:
        """Yield the places, in the grid of objects, of the objects of a unit."""
        first = self._geometry.first_chunk(unit)
        counts = self._geometry.chunk_counts(unit)
        sides = zip(first, counts, self._layout.chunks_per_object, strict=True)
        yield from product(*(range(c // n, (c + count - 1) // n + 1) for c, count, n in sides))

    def encode(self, unit: int, data: Buffer) -> dict[tuple[int, ...], bytes | None]:
        """Return the chunks of a unit as they are stored.

        Parameters
        ----------
        unit : int
            Which one.
        data : bytes-like
            All of its bytes, as they lie in memory.  Nothing of it is kept.

        Returns
        -------
        dict of tuple of int to (bytes or None)
            By place in the grid of smallest chunks; None for a chunk that is all fill value, and
            so is not stored.

        Raises
        ------
        ChunkError
            A chunk reaches beyond the array, and what the store has of it is damaged.
        StoreError
            That cannot be read.
        """
        _, extent = self._geometry.unit_box(unit)
        elements = numpy.frombuffer(data, self._item).reshape(extent)
        chunks: dict[tuple[int, ...], bytes | None] = {}
        for piece in self._geometry.pieces(unit):
            sides = zip(piece.start, piece.stop, strict=True)
            part = elements[tuple(slice(start, stop) for start, stop in sides)]
            if part.shape != self._layout.chunk_shape:
                part = self._completed(piece.chunk, part)
            chunks[piece.chunk] = self._coder.encode(part)
        return chunks

    def put(self, chunks: Mapping[tuple[int, ...], bytes | None]) -> tuple[str, ...]:
        """Put encoded chunks, each object whole and in one step.

        Parameters
        ----------
        chunks : mapping of tuple of int to (bytes or None)
            As `encode` gave them, of any number of units.

        Returns
        -------
        tuple of str
            Keys, relative to the store, of all objects that were written or deleted.

        Raises
        ------
        ChunkError
            A shard is damaged, so that its other chunks cannot be kept.
        StoreError
            The store did not take an object; those before it were put, and can be put again.
            As `ChangedError`: another writer has changed one; all others were put.
        """
        objects: dict[str, dict[int, bytes | None]] = {}
        for chunk, stored in chunks.items():
            key, entry = self._address(chunk)
            objects.setdefault(key, {})[entry] = stored
        changed: ChangedError | None = None
        for key, entries in objects.items():
            try:
                with self._turns.of(key):
                    self._put_object(key, entries)
            except ChangedError as error:
                # The others too, so that one more attempt is enough for all that have changed.
                self._versions.forget(key)
                changed = changed or error
        if changed is not None:
            raise changed
        return tuple(objects)

    def sync(self) -> None:
        """Let what was put outlast a power failure."""
        self._store.sync()

    def _address(self, chunk: _Place) -> tuple[str, int]:
        """Return the key of a chunk's object, and the chunk's place in its index."""
        address = self._layout.locate(chunk)
        assert address is not None  # each chunk has a key
        key = f"{self._root}/{address.key}" if self._root else address.key
        return key, address.entries[0] if address.entries else 0

    def _put_object(self, key: str, entries: Mapping[int, bytes | None]) -> None:
        kept: dict[int, Buffer] = {}
        if self._level is not None and len(entries) < self._level.n_entries:
            kept = self._kept(key, entries)
        kept.update({entry: data for entry, data in entries.items() if data is not None})
        expected = self._versions.expected(key, url=self._store.url)
        if kept:
            parts = assemble(kept, self._level, alignment_nbytes=self._coder.alignment_nbytes)
            version = self._store.write(key, parts, expected=expected)
            if version is None:
                version = self._store.version(key)
        else:
            if not isinstance(expected, Anything) and self._store.version(key) != expected:
                raise ChangedError(self._store.url, key)
            self._store.delete(key)
            version = None
        self._versions.put(key, version)

    def _kept(self, key: str, replaced: Mapping[int, object]) -> dict[int, Buffer]:
        """Return the chunks of a shard that stay as they are stored."""
        assert self._level is not None
        opened = self._read(key)
        if opened is None:
            return {}
        entries = (entry for entry in range(self._level.n_entries) if entry not in replaced)
        chunks = ((entry, opened.chunk(entry)) for entry in entries)
        return {entry: chunk for entry, chunk in chunks if chunk is not None}

    def _completed(self, chunk: _Place, part: _Array) -> _Array:
        """Return a whole chunk, with what the store has of it beyond the array."""
        key, entry = self._address(chunk)
        with self._turns.of(key):
            opened = self._read(key)
        stored = opened.chunk(entry) if opened is not None else None
        if stored is None:
            return part  # padded with the fill value when it is encoded
        try:
            whole = self._coder.decode(stored)
        except DamagedChunkError as error:
            raise self._damaged(key, chunk, error) from error
        whole[tuple(slice(length) for length in part.shape)] = part
        return whole

    def _read(self, key: str) -> StoredObject | None:
        """Return what the store has now, which must be there still when the object is put."""
        found = self._store.read_version(key)
        data, version = found if found is not None else (None, None)
        self._versions.see(key, version)
        try:
            return None if data is None else StoredObject(data, self._level)
        except DamagedChunkError as error:
            raise self._damaged(key, (), error) from error

    def _damaged(self, key: str, chunk: _Place, error: DamagedChunkError) -> ChunkError:
        what = f"chunk {chunk}" if chunk else "a shard"
        return ChunkError(
            f"cannot write to {self._path or '/'!r} in {self._url}: {what} is damaged, of which "
            f"some must be kept: {error.reason} in {key}; run 'lazyarr verify' to list every "
            "damaged chunk",
            url=self._url,
            array=self._path,
            chunk=chunk,
            key=key,
            byte_range=None,
            reason=error.reason,
        )


def _leader(leaders: list[int], number: int) -> int:
    """Return the leader of the group that a unit was joined to (union-find)."""
    while leaders[number] != number:
        leaders[number] = leaders[leaders[number]]
        number = leaders[number]
    return number


class _Versions:
    """The versions of objects as this writer has read or made them last, as many as are kept.

    Of those that are not, nobody can tell whether somebody else has written them since.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._versions: OrderedDict[str, str | Anything | None] = OrderedDict()

    def see(self, key: str, version: str | None) -> None:
        """Take down what was read, on top of which the object is going to be put."""
        with self._lock:
            before = self._versions.get(key, version)
            # What was put together with the old one is not right any more: `expected` says so.
            self._keep(key, version if before == version else ANYTHING)

    def put(self, key: str, version: str | None) -> None:
        """Take down what was put."""
        with self._lock:
            self._keep(key, version)

    def expected(self, key: str, *, url: str) -> Expected:
        """Return what must be there for an object to be put.

        Raises
        ------
        ChangedError
            It was read more than once, and was not the same.
        """
        with self._lock:
            if key not in self._versions:
                return ANYTHING
            version = self._versions[key]
        if isinstance(version, Anything):
            raise ChangedError(url, key)
        return version

    def forget(self, key: str) -> None:
        """Take whatever is there next as it is."""
        with self._lock:
            self._versions.pop(key, None)

    def _keep(self, key: str, version: str | Anything | None) -> None:
        self._versions[key] = version
        self._versions.move_to_end(key)
        if len(self._versions) > _MAX_VERSIONS:
            self._versions.popitem(last=False)


class _Turns:
    """A lock for each object that somebody works on now."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users: dict[str, tuple[threading.Lock, int]] = {}

    @contextlib.contextmanager
    def of(self, key: str) -> Iterator[None]:
        """Be the only one who works on an object."""
        with self._lock:
            turn, n_users = self._users.get(key, (threading.Lock(), 0))
            self._users[key] = turn, n_users + 1
        try:
            with turn:
                yield
        finally:
            with self._lock:
                turn, n_users = self._users.pop(key)
                if n_users > 1:
                    self._users[key] = turn, n_users - 1

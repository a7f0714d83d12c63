"""One stored chunk: found, read, decoded; a bad transfer heals, and an error names everything."""

from __future__ import annotations

import enum
import functools
import math
import time
from typing import TYPE_CHECKING, TypeVar

from lazyarr.errors import ChunkError, FormatError, LazyarrError, StoreError
from lazyarr.reading.locator import IndexRead, Locator, ObjectRange

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazyarr.layout import Layout, ShardIndex
    from lazyarr.reading.workspace import Workspace
    from lazyarr.store import Store
    from lazyarr.store.cache import StoreCache
    from lazyarr.store.local import LocalStore

__all__ = ["UNREAD", "ChunkReader", "Unread"]

_T = TypeVar("_T")
_CONFIRMED_SECONDS = 1.0
_MAX_ATTEMPTS = 8


class Unread(enum.Enum):
    """Stands for an encoded chunk that nobody has read yet."""

    UNREAD = "unread"


UNREAD = Unread.UNREAD
"""Given for an encoded chunk that is to be read."""


class ChunkReader:
    """Reads and decodes the chunks of one array.

    Safe to use from several threads.

    Parameters
    ----------
    layout : Layout
        How they are decoded.
    finder : Locator
        Where they lie.
    store : callable
        Returns the store, opened when it is first needed.
    url, path : str
        The store and the array in it, for messages.
    cache : StoreCache, optional
        Keeps what was fetched of the store.
    count_fetched : callable, optional
        Told of how many bytes were read.
    distrusted : callable, optional
        Called when nothing that is kept of the store's objects is to be believed.

    Attributes
    ----------
    count_fetched : callable
        As given.
    witnesses : tuple of str
        Keys of which the store has one as long as the array is in it: those of the layout, from
        the store's root.

    Notes
    -----
    A chunk that is not stored means the fill value, so where the store itself is gone, or
    is another one as seen from this process, all would be zeros: before anything is
    believed to be missing, the array is looked for, once in a second.
    """

    def __init__(
        self,
        layout: Layout,
        finder: Locator,
        store: Callable[[], Store],
        *,
        url: str,
        path: str,
        cache: StoreCache | None = None,
        count_fetched: Callable[[int], None] = lambda _: None,
        distrusted: Callable[[], None] = lambda: None,
    ) -> None:
        self._layout = layout
        self._finder = finder
        self._store = store
        self._url = url
        self._path = path
        self._cache = cache
        self.count_fetched = count_fetched
        self._distrusted = distrusted
        self.witnesses = finder.witnesses
        self._confirmed_at = -math.inf

    def __repr__(self) -> str:
        return f"<ChunkReader: array {self._path!r} in {self._url}>"

    def decode(
        self,
        chunk: tuple[int, ...],
        data: memoryview | Unread | None,
        out: memoryview,
        workspace: Workspace,
    ) -> bool:
        """Decode one chunk into `out`; return False when the store does not have it."""
        first = [data]
        nbytes = self._layout.unpadded_nbytes(chunk)
        if nbytes is not None:
            out = out[:nbytes]

        def step() -> bool:
            given = first.pop() if first else UNREAD
            if isinstance(given, Unread):
                data = self.read(chunk, workspace, out)
                if data is not None and data.obj is out.obj and len(data) == len(out):
                    return True  # uncompressed, read to where it belongs
            else:
                data = given
            if data is not None:
                self._layout.decode_chunk(chunk, data, out)
            return data is not None

        return self.heal(chunk, step)

    def heal(self, chunk: tuple[int, ...], step: Callable[[], _T]) -> _T:
        """Take a step, once more when the bytes were wrong: a bad transfer heals.

        Again where the chunk's file has been replaced meanwhile: a writer that puts it may come
        between the reading of an index and of what it names.

        Raises
        ------
        ChunkError
            When it fails for good; the error names everything.
        """
        try:
            seen: str | None = None
            for attempt in range(_MAX_ATTEMPTS):
                try:
                    return step()
                except (FormatError, StoreError) as error:
                    if not (isinstance(error, FormatError) or self._is_suspect(chunk, error)):
                        raise
                    now = self._version(chunk)
                    if attempt and (now == seen or attempt == _MAX_ATTEMPTS - 1):
                        raise
                    seen = now
                    self.distrust(chunk)
            raise AssertionError("the last attempt returns or raises")
        except (LazyarrError, MemoryError) as error:
            raise self.chunk_error(chunk, error) from error

    def _version(self, chunk: tuple[int, ...]) -> str | None:
        """Return what differs once a chunk's object was replaced; None where that is not told."""
        # Of files alone: over a network that would be two more requests for each damaged chunk.
        local: LocalStore | None = getattr(self._store(), "local", None)
        try:
            return None if local is None else local.version(self._finder.key(chunk))
        except StoreError:
            return None

    def _is_suspect(self, chunk: tuple[int, ...], error: StoreError) -> bool:
        """Return whether a read may have failed because of an index that is kept.

        One of another version of its shard may name bytes that are not there.
        """
        has_index = bool(self._layout.levels) and self._known_range(chunk) is not None
        return has_index and not error.transient

    def distrust(self, chunk: tuple[int, ...]) -> None:
        """Forget all that was kept of a chunk's object, and where it is said to lie.

        Something is wrong with it; or it is another object by now.
        """
        place = self._finder.find(chunk)
        if self._cache is not None and isinstance(place, ObjectRange):
            self._cache.drop(*place)
        self._finder.forget()
        self._distrusted()
        self._store().forget(self._finder.key(chunk))

    def read(
        self,
        chunk: tuple[int, ...],
        workspace: Workspace,
        out: memoryview | None = None,
    ) -> memoryview | None:
        """Return the encoded chunk, in `out` if it is not compressed; None when it is missing."""
        data = self._read_uncounted(chunk, workspace, out)
        if data is not None:
            self.count_fetched(len(data))
        return data

    def _read_uncounted(
        self, chunk: tuple[int, ...], workspace: Workspace, out: memoryview | None
    ) -> memoryview | None:
        place = self.find(chunk)
        if place is None:
            return None
        if place.stop is None:
            return self._read_object(place.key, workspace)
        workspace.encoded.grow(place.stop - place.start)
        into = workspace.encoded.view
        if out is not None and self._layout.pipeline.is_plain:
            into = out if place.stop - place.start == len(out) else into
        data = self._store().read_range(place.key, place.start, place.stop, into=into)
        if data is None:
            raise self.gone()
        return data

    def key(self, chunk: tuple[int, ...]) -> str:
        """Return the key of the object that holds a chunk, or would."""
        return self._finder.key(chunk)

    def check_size(self, nbytes: int) -> None:
        """Refuse to read what is longer than any codec would make of a chunk."""
        self._finder.check_size(nbytes)

    def index_of(self, chunk: tuple[int, ...]) -> tuple[bool, ShardIndex | None]:
        """Return whether the index of a chunk's shard is known, read if need be, and the index.

        Raises
        ------
        FormatError, StoreError
            When it cannot be read, or the chunk's entry cannot be right.
        """
        self.find(chunk)
        return self._finder.known_index(chunk)

    def read_range(self, key: str, start: int, stop: int, workspace: Workspace) -> memoryview:
        """Return bytes of an object that is there.

        Raises
        ------
        FormatError, StoreError
            When they cannot be had.
        """
        workspace.encoded.grow(stop - start)
        data = self._store().read_range(key, start, stop, into=workspace.encoded.view)
        if data is None:
            raise self.gone()
        return data

    def _read_object(self, key: str, workspace: Workspace) -> memoryview | None:
        """Return a whole object; None when the store does not have it.

        Looking up the size first is cheap in local stores, and lets the bytes go to
        memory that is used again.
        """
        nbytes = self._store().size(key)
        if nbytes is None:
            self._confirm()
            return None
        self._finder.check_size(nbytes)
        workspace.encoded.grow(nbytes)
        try:
            return self._store().read_range(key, 0, nbytes, into=workspace.encoded.view)
        except StoreError as error:
            if error.transient:
                raise
        # A shorter one may have been put in its place since its size was looked up.
        data = self._store().read(key, limit_nbytes=self._finder.limit_nbytes)
        return None if data is None else memoryview(data)

    def find(self, chunk: tuple[int, ...]) -> ObjectRange | None:
        """Return where an encoded chunk lies, and read the indexes that say so; None if nowhere."""
        found = self._finder.find(chunk)
        while isinstance(found, IndexRead):
            index = self._finder.get(found, functools.partial(self._read_index, found))
            found = self._finder.find(chunk, found, index)
        if found is not None and found.stop is not None:
            self._finder.check_size(found.stop - found.start)
        return found

    def _read_index(self, read: IndexRead) -> ShardIndex | None:
        _, start, stop = self._finder.index_place(read)
        data: bytes | memoryview | None
        size: int | None = None
        if stop is None:
            suffix = self._store().read_suffix(read.key, -start)
            data, size = suffix if suffix is not None else (None, None)
        else:
            data = self._store().read_range(read.key, start, stop)
        if data is None:
            self._confirm()
        return self._finder.keep(read, data, size)

    @property
    def is_confirmed(self) -> bool:
        """Whether the array was seen in its store a moment ago."""
        return time.monotonic() - self._confirmed_at < _CONFIRMED_SECONDS

    def confirm(self) -> None:
        """Take down that the array is in its store."""
        self._confirmed_at = time.monotonic()

    def _confirm(self) -> None:
        """Raise StoreError when not only a chunk is missing."""
        if not self.is_confirmed:
            if all(self._store().size(key) is None for key in self.witnesses):
                raise self.vanished()
            self.confirm()

    def gone(self) -> FormatError:
        """Return the error for an object that was there, and is not any more."""
        before = "its index was read" if self._layout.levels else "the array was opened"
        return FormatError(f"the object is gone, though {before} from it")

    def vanished(self) -> StoreError:
        """Return the error for a store that does not have the array any more."""
        message = (
            f"the array is not there any more, no {' or '.join(self.witnesses)} in {self._url}: "
            "it was moved or deleted after it was opened, or its URL means something else elsewhere"
        )
        return StoreError(message, url=self._url, key=None, transient=False)

    def chunk_error(self, chunk: tuple[int, ...], error: Exception) -> ChunkError:
        """Return the error that names array, chunk, key, byte range and cause."""
        key = self._finder.key(chunk)
        byte_range = self._known_range(chunk)
        where = f"bytes [{byte_range[0]}, {byte_range[1]}) of {key}" if byte_range else key
        reason = str(error) or type(error).__name__
        # What a store has said ends with what to do.
        advice = "" if "; " in reason else "; run 'lazyarr verify' to list every damaged chunk"
        return ChunkError(
            f"chunk {chunk} of {self._path or '/'!r} in {self._url}, {where}: {reason}{advice}",
            url=self._url,
            array=self._path,
            chunk=chunk,
            key=key,
            byte_range=byte_range,
            reason=reason,
        )

    def _known_range(self, chunk: tuple[int, ...]) -> tuple[int, int] | None:
        """Return where a chunk lies in its object, without a new attempt to read an index.

        One that failed has taken its time already.
        """
        place = self._finder.find(chunk)
        if not isinstance(place, ObjectRange) or place.stop is None:
            return None
        return place.start, place.stop

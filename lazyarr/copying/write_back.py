"""Writing what users have changed back to stores, by the process that has changed it."""

from __future__ import annotations

import atexit
import os
import threading
import time
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from lazyarr import settings
from lazyarr.client.session.failures import raise_together
from lazyarr.client.session.last_words import say_lost
from lazyarr.copying.loader import loader
from lazyarr.copying.rooms import Rooms
from lazyarr.errors import LazyarrError, StoreError
from lazyarr.flush_report import FlushReport
from lazyarr.kernel import renew_in_child
from lazyarr.plan.objects import ObjectGrid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from lazyarr.client.array_ref import ArrayRef
    from lazyarr.committing import Committer
    from lazyarr.copying.cache import Shelf
    from lazyarr.layout.geometry import Geometry
    from lazyarr.units import Span

__all__ = ["WriteBack", "make_room"]

_LOADS, _PUTS = 0, 1

# How many bytes of units may be copied, and encoded, at a time; a shard that needs more goes alone.
_COPIED_NBYTES = 64 << 20

# Of the memory limit: with more dirty bytes than that they are written back, and with more than
# that nobody writes before it is done.
_SHARE_TO_BEGIN = 4
_SHARE_TO_WAIT = 2

# After a failure it is tried again when there is so much more to write.
_SHARE_TO_RETRY = 16


class WriteBack:
    """The dirty units of one array, and their way to the store.

    It lives for as long as there are any, also when nobody has the array any more.  Safe to use
    from several threads.

    Parameters
    ----------
    node : ArrayRef
        Which array, with the right to write to it.
    geometry : Geometry
        Which chunks make a unit.
    shelf : Shelf
        Where its units are.
    is_remote : bool
        Whether to write waits for a network.
    forget : callable
        Told of units whose objects were replaced, before anybody reads from those.
    """

    def __init__(
        self,
        node: ArrayRef,
        geometry: Geometry,
        shelf: Shelf,
        *,
        is_remote: bool,
        forget: Callable[[Sequence[int]], None],
    ) -> None:
        self.node = node
        self.is_remote = is_remote
        self._geometry = geometry
        self._shelf = shelf
        self._forget = forget
        # Reentrant: a signal handler may flush while its thread does.
        self._turn = threading.RLock()
        self._copied = _Budget(_COPIED_NBYTES)
        self._committer: Committer | None = None
        self._pid = os.getpid()
        layout = node.metadata.layout()
        # An index of a shard must not be used with the shard that has taken its place.
        self._rooms = Rooms() if layout.levels else None
        self._objects = ObjectGrid(geometry, layout.chunks_per_object if layout.levels else ())
        # What was written to an array that is gone must be in the store before this one reads.
        for other in list(_all):
            if other.place == self.place:
                other.flush()
        _all.add(self)

    def __repr__(self) -> str:
        return f"<WriteBack of {self.node.metadata.path!r} in {self.node.store_url}>"

    @property
    def place(self) -> tuple[object, str]:
        """Which array this is, whoever has opened it."""
        writing = self.node.writing
        assert writing is not None
        return writing.claimed, writing.path(self.node.metadata.path)

    # As `Loader.run` asks for it.
    @property
    def residency(self) -> memoryview:
        """One byte for each unit."""
        return self._shelf.residency

    def load(self, unit: int) -> object:
        """Return a unit that is here."""
        return self._shelf.find(unit)

    @property
    def is_inherited(self) -> bool:
        """Whether this process was forked from the one that writes back."""
        return self._pid != os.getpid()

    def loading(self) -> AbstractContextManager[None]:
        """Have no object of the array replaced while something is read from them."""
        # A forked child puts nothing, and may have been forked while somebody was in a room.
        if self._rooms is None or self.is_inherited:
            return nullcontext()
        return self._rooms.inside(_LOADS)

    def flush(
        self,
        spans: Sequence[Span] | None = None,
        *,
        progress: bool = False,
        leaves_newest: bool = False,
    ) -> FlushReport:
        """Have the dirty units of some spans, or all, be in the store, durably.

        With `leaves_newest` those of the shard that was written to last stay dirty, unless it is
        dirty from end to end: who fills shards in order has each of them put once.

        Raises
        ------
        LazyarrError
            When one of them could not be written.  It stays dirty, and the next flush tries
            again.
        """
        began_at = time.monotonic()
        if self.is_inherited:
            return FlushReport(0, 0, 0.0)
        with self._turn:
            dirty = list(self._shelf.dirty)
            units = [u for u in dirty if spans is None or any(u in span for span in spans)]
            if leaves_newest:
                units = self._settled(units)
            try:
                nbytes = self._write(units, progress=progress)
            except LazyarrError as error:
                left = [unit for unit in units if unit in self._shelf.dirty]
                error.add_note(
                    f"{len(left)} units of array {self.node.metadata.path or '/'!r}, "
                    f"{self._nbytes_of(left)} bytes, are not in the store; they stay in memory, "
                    "and flush() tries again"
                )
                raise
        return FlushReport(len(units), nbytes, time.monotonic() - began_at)

    def _settled(self, units: Sequence[int]) -> list[int]:
        """Return units without those of the newest object, if that is not whole."""
        places = [self._objects.place_of(unit) for unit in units]
        newest = [unit for unit, place in zip(units, places, strict=True) if place == places[-1]]
        if not newest or self._nbytes_of(newest) >= self._objects.nbytes_of(places[-1]):
            return list(units)
        return [unit for unit, place in zip(units, places, strict=True) if place != places[-1]]

    def _nbytes_of(self, units: Sequence[int]) -> int:
        return sum(self._geometry.unit_bytes(unit).size for unit in units)

    def _write(self, units: Sequence[int], *, progress: bool) -> int:
        """Write units back; return how many bytes were put into the store for that."""
        if not units:
            return 0
        committer = self._committer = self._committer or self._make_committer()
        # Threads append to these.
        done: list[int] = []
        put_nbytes: list[int] = []
        errors: list[LazyarrError] = []

        with _bar(len(units), is_shown=progress) as advance:

            def put(group: tuple[int, ...]) -> None:
                try:
                    put_nbytes.append(self._put(committer, group))
                except LazyarrError as error:
                    # Of a store that does not answer each object would be waited for in vain.
                    if isinstance(error, StoreError) and error.transient:
                        raise
                    errors.append(error)
                else:
                    done.extend(group)
                advance(len(group))

            try:
                loader.run(self, iter(committer.group(units)), put)
            finally:
                if done:
                    committer.sync()
                    loader.cache.end_writing_back(self._shelf, done)
        raise_together(errors)
        return sum(put_nbytes)

    def _put(self, committer: Committer, group: tuple[int, ...]) -> int:
        """Put the objects that some units are in; return how many bytes of chunks that were."""
        chunks: dict[tuple[int, ...], bytes | None] = {}

        def encode(unit: int) -> None:
            data = loader.cache.copy_dirty(self._shelf, unit)
            chunks.update(committer.encode(unit, data.data))

        with self._copied.taking(self._nbytes_of(group)):
            loader.run(self, iter(group), encode)
            with self._rooms.inside(_PUTS) if self._rooms is not None else nullcontext():
                try:
                    committer.put(chunks)
                finally:
                    # After an error too: some of them may have been replaced.
                    self._forget(group)
        return sum(len(data) for data in chunks.values() if data is not None)

    def _make_committer(self) -> Committer:
        # Imported here: readers do without.
        from lazyarr.committing import Committer

        writing, metadata = self.node.writing, self.node.metadata
        assert writing is not None
        layout = metadata.layout()
        return Committer(
            writing.store, metadata.path, layout, self._geometry, url=self.node.store_url
        )

    def end(self) -> None:
        """Write back what nobody refers to any more; say on stderr what is lost."""
        try:
            if not self.is_inherited:
                self._flush_or_say()
        finally:
            _all.discard(self)

    def _flush_or_say(self, *, is_at_end: bool = False) -> None:
        for is_last in (False, True):
            try:
                self.flush()
            except LazyarrError as error:
                if is_last:
                    self._say_lost(error, is_at_end=is_at_end)
            else:
                return

    def _say_lost(self, error: LazyarrError, *, is_at_end: bool) -> None:
        name, n_units = self.node.metadata.path or "/", len(self._shelf.dirty)
        what = f"{n_units} units of array {name!r} of {self.node.store_url}"
        say_lost(f"{what} could not be written back: {error}", is_at_end=is_at_end)


class _Budget:
    """Bytes that several threads share; who needs more than there are goes alone."""

    def __init__(self, nbytes: int) -> None:
        self._changed = threading.Condition()
        self._nbytes = nbytes
        self._taken = 0

    @contextmanager
    def taking(self, nbytes: int) -> Iterator[None]:
        """Have so many bytes."""
        nbytes = min(nbytes, self._nbytes)
        with self._changed:
            self._changed.wait_for(lambda: self._taken + nbytes <= self._nbytes)
            self._taken += nbytes
        try:
            yield
        finally:
            with self._changed:
                self._taken -= nbytes
                self._changed.notify_all()


# Those of all arrays of mode "r+" that somebody has, or that have dirty units.
_all: set[WriteBack] = set()
_retry_nbytes = 0


def make_room(nbytes: int) -> None:
    """Write dirty units of all arrays back where so many more bytes would be too many.

    Raises
    ------
    LazyarrError
        When they could not be written, and there is no room for more.
    """
    global _retry_nbytes
    limit_nbytes, dirty_nbytes = settings.current().memory_limit, loader.cache.dirty_nbytes
    wanted_nbytes = dirty_nbytes + nbytes
    if not dirty_nbytes or wanted_nbytes <= limit_nbytes // _SHARE_TO_BEGIN:
        return
    has_room = wanted_nbytes <= limit_nbytes // _SHARE_TO_WAIT
    if has_room and dirty_nbytes < _retry_nbytes:
        return  # a moment ago it failed
    errors: list[LazyarrError] = []
    for each in list(_all):
        try:
            each.flush(leaves_newest=has_room)
        except LazyarrError as error:
            errors.append(error)
    _retry_nbytes = dirty_nbytes + limit_nbytes // _SHARE_TO_RETRY if errors else 0
    if errors and loader.cache.dirty_nbytes + nbytes > limit_nbytes // _SHARE_TO_WAIT:
        raise_together(errors)


@contextmanager
def _bar(n_units: int, *, is_shown: bool) -> Iterator[Callable[[int], Any]]:
    """Give what moves a progress bar on by some units."""
    if not is_shown:
        yield lambda _: None
        return
    # Imported here: few programs show a bar.
    from tqdm.auto import tqdm

    with tqdm(total=n_units, unit="unit", desc="flush") as bar:
        yield bar.update


def _flush_at_exit() -> None:
    for each in list(_all):
        each._flush_or_say(is_at_end=True)  # noqa: SLF001 - a part of the class


def _begin_anew() -> None:
    # What is dirty is the parent's to write back.
    _all.clear()


atexit.register(_flush_at_exit)
renew_in_child(_begin_anew)

"""Decoded units of all arrays, up to a limit; the least recently used go first."""

from __future__ import annotations

import itertools
import threading
import weakref
from collections import Counter, OrderedDict
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING

import numpy as np

from lazyarr import settings
from lazyarr.client.session.fork_hooks import release_all
from lazyarr.units import DIRTY, RESIDENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lazyarr.copying.transfers import Decoded
    from lazyarr.units import Span

__all__ = ["Changed", "Shelf", "UnitCache"]

_numbers = itertools.count()


class Changed:
    """A dirty unit: its bytes, and whether they are being changed.

    Attributes
    ----------
    data : ndarray
        The bytes, which threads change without a lock.
    n_writers : int
        How many threads are changing them now.
    is_newer : bool
        Whether they may have changed since they were copied for the store.
    """

    __slots__ = ("data", "is_newer", "n_writers")

    def __init__(self, data: Decoded) -> None:
        self.data = data
        self.n_writers = 0
        self.is_newer = True

    def __repr__(self) -> str:
        return f"<Changed: {self.data.nbytes} bytes, {self.n_writers} writers>"


class Shelf:
    """The units of one array that are kept.  A `UnitCache` alone puts them there.

    Attributes
    ----------
    residency : memoryview
        One byte for each unit: whether it is here, and whether it is dirty.
    kept : OrderedDict of int to (int, ndarray)
        When a unit was used last, and its bytes; in that order.
    written : dict of int to ndarray
        Units that the user has changed for this process alone; they stay.
    dirty : dict of int to Changed
        Units that the user has changed and the store has not; those that were changed first come
        first.  They stay until they are written back.
    n_changed : int
        How often a unit has become dirty.
    nbytes, dirty_nbytes : int
        How many bytes are kept or dirty, and how many are dirty.
    loading : dict of int to Future
        Units on their way.
    """

    def __init__(self, n_units: int) -> None:
        # Not bytearray: of a sparse array with very many units nothing is touched here.
        self.residency = np.zeros(n_units, np.uint8).data
        self.kept: OrderedDict[int, tuple[int, Decoded]] = OrderedDict()
        self.written: dict[int, Decoded] = {}
        self.dirty: dict[int, Changed] = {}
        self.n_changed = 0
        self.loading: dict[int, Future[Decoded]] = {}
        self.nbytes = 0
        self.dirty_nbytes = 0

    def __repr__(self) -> str:
        n_units = len(self.kept) + len(self.dirty)
        return f"<Shelf: {n_units} units, {self.nbytes} bytes, {len(self.dirty)} units dirty>"

    def find(self, unit: int) -> Decoded | None:
        """Return a unit that is here."""
        written = self.written.get(unit)
        if written is not None:
            return written
        changed = self.dirty.get(unit)
        if changed is not None:
            return changed.data
        kept = self.kept.get(unit)
        return None if kept is None else kept[1]


class UnitCache:
    """Units of any number of arrays, within ``settings.memory_limit`` together.

    Safe to use from several threads.  The lock is never held while a unit is loaded.
    What an array holds ends with the array: the cache does not keep it alive.
    """

    def __init__(self) -> None:
        # Reentrant: a thread holds it while it forks.  A signal handler that interrupts the
        # thread then may take it again.
        self._lock = threading.RLock()
        self._shelves: dict[int, weakref.ref[Shelf]] = {}
        self._clock = itertools.count()
        self.counters: Counter[str] = Counter(
            units_loaded=0, bytes_installed=0, evictions=0, errors=0
        )

    def __repr__(self) -> str:
        return f"<UnitCache: {self.resident_nbytes} bytes>"

    @property
    def resident_nbytes(self) -> int:
        """How many bytes are kept."""
        with self._lock:
            return sum(shelf.nbytes for shelf in self._living())

    @property
    def n_shelves(self) -> int:
        """How many arrays there are."""
        with self._lock:
            return len(self._living())

    @property
    def dirty_nbytes(self) -> int:
        """How many bytes of those the stores do not have yet."""
        with self._lock:
            return sum(shelf.dirty_nbytes for shelf in self._living())

    @property
    def n_dirty(self) -> int:
        """How many units the stores do not have yet."""
        with self._lock:
            return sum(len(shelf.dirty) for shelf in self._living())

    def add_shelf(self, n_units: int) -> Shelf:
        """Return a place for the units of another array."""
        shelf = Shelf(n_units)
        with self._lock:
            self._shelves[next(_numbers)] = weakref.ref(shelf)
        return shelf

    def _living(self) -> list[Shelf]:
        """Return the shelves whose arrays are still used, and forget the others."""
        found = {number: shelf() for number, shelf in self._shelves.items()}
        for number, shelf in found.items():
            if shelf is None:
                del self._shelves[number]
        return [shelf for shelf in found.values() if shelf is not None]

    def get(
        self, shelf: Shelf, unit: int, load: Callable[[], Decoded], *, is_kept: bool = True
    ) -> Decoded:
        """Return a unit, loaded by one thread while others that want it wait.

        Parameters
        ----------
        shelf : Shelf
            The array's.
        unit : int
            Which one.
        load : callable
            Gives its bytes.
        is_kept : bool
            Whether it is kept once it is loaded.

        Raises
        ------
        ChunkError
            From `load`; those who wait get the same.
        """
        while True:
            mine = None
            try:
                with self._lock:
                    found = self._find(shelf, unit)
                    if found is not None:
                        return found
                    under_way = shelf.loading.get(unit)
                    if under_way is None:
                        mine = shelf.loading[unit] = Future()
                if mine is not None:
                    return self._load(shelf, unit, load, mine, is_kept=is_kept)
            except BaseException as error:
                if mine is not None:
                    self._give_up(shelf, unit, mine, error)
                raise
            assert under_way is not None
            try:
                return under_way.result()
            except CancelledError:
                continue  # its thread was interrupted; this one was not

    def _find(self, shelf: Shelf, unit: int) -> Decoded | None:
        found = shelf.find(unit)
        if found is not None and unit in shelf.kept:
            shelf.kept[unit] = next(self._clock), found
            shelf.kept.move_to_end(unit)
        return found

    def _load(
        self,
        shelf: Shelf,
        unit: int,
        load: Callable[[], Decoded],
        mine: Future[Decoded],
        *,
        is_kept: bool,
    ) -> Decoded:
        data = load()
        data.flags.writeable = False
        with self._lock:
            self.counters["units_loaded"] += 1
            self.counters["bytes_installed"] += data.nbytes
            if self._is_wanted(shelf, unit, mine) and is_kept:
                self._keep(shelf, unit, data)
        mine.set_result(data)
        return data

    def _give_up(
        self, shelf: Shelf, unit: int, mine: Future[Decoded], error: BaseException
    ) -> None:
        """Let those who wait for a load know that it failed; after an interrupt they try."""
        with self._lock:
            self.counters["errors"] += isinstance(error, Exception)
            self._is_wanted(shelf, unit, mine)
        if isinstance(error, Exception):
            mine.set_exception(error)
        elif not mine.done():
            mine.cancel()

    def _is_wanted(self, shelf: Shelf, unit: int, mine: Future[Decoded]) -> bool:
        """End a load; return whether nobody has evicted the unit meanwhile."""
        if shelf.loading.get(unit) is not mine:
            return False
        del shelf.loading[unit]
        return True

    def _keep(self, shelf: Shelf, unit: int, data: Decoded) -> None:
        limit_nbytes = settings.current().memory_limit
        if data.nbytes > limit_nbytes or self._trim(limit_nbytes - data.nbytes) < 0:
            return
        shelf.kept[unit] = next(self._clock), data
        shelf.nbytes += data.nbytes
        shelf.residency[unit] = RESIDENT

    def trim(self, limit_nbytes: int) -> None:
        """Evict until no more than so many bytes are left."""
        with self._lock:
            self._trim(limit_nbytes)

    def _trim(self, limit_nbytes: int) -> int:
        """Evict what can be; return how many bytes there is room for then, less than 0 for none."""
        shelves = self._living()
        nbytes = sum(shelf.nbytes for shelf in shelves)
        while nbytes > limit_nbytes:
            evictable = [shelf for shelf in shelves if shelf.kept]
            if not evictable:
                break
            oldest = min(evictable, key=_last_use)
            nbytes -= self._evict(oldest, next(iter(oldest.kept)))
        return limit_nbytes - nbytes

    def _evict(self, shelf: Shelf, unit: int) -> int:
        """Take one unit out; return how many bytes it had."""
        _, data = shelf.kept.pop(unit)
        shelf.nbytes -= data.nbytes
        shelf.residency[unit] = 0
        self.counters["evictions"] += 1
        return data.nbytes

    def evict(self, shelf: Shelf, units: Span) -> None:
        """Take units out, but for those that the user has changed."""
        with self._lock:
            for unit in [unit for unit in shelf.kept if unit in units]:
                self._evict(shelf, unit)
            # What is on its way was read before now.
            for unit in [unit for unit in shelf.loading if unit in units]:
                del shelf.loading[unit]

    def own(self, shelf: Shelf, unit: int, load: Callable[[], Decoded]) -> Decoded:
        """Return a unit that the user may change."""
        data = self.get(shelf, unit, load)
        with self._lock:
            if unit not in shelf.written:
                shelf.written[unit] = data.copy()
                shelf.residency[unit] = 1
                if shelf.kept.pop(unit, None) is not None:
                    shelf.nbytes -= data.nbytes
            return shelf.written[unit]

    # --- units that are written back ------------------------------------------------------

    def begin_change(self, shelf: Shelf, unit: int, load: Callable[[], Decoded]) -> Changed:
        """Make a unit dirty, and return it to a thread that changes it and calls `end_change` then.

        Raises
        ------
        ChunkError
            From `load`; nothing is dirty then.
        """
        while True:
            n_changed = shelf.n_changed
            data = self.get(shelf, unit, load)
            with self._lock:
                changed = shelf.dirty.get(unit)
                if changed is None:
                    # It may have become dirty and clean again since it was loaded.  What was
                    # loaded is what the store has where it is kept, and where no unit became dirty.
                    kept = shelf.kept.get(unit)
                    is_kept = kept is not None and kept[1] is data
                    if not (is_kept or n_changed == shelf.n_changed):
                        continue
                    changed = self._make_dirty(shelf, unit, data)
                changed.n_writers += 1
                return changed

    def replace(self, shelf: Shelf, unit: int, data: Decoded) -> bool:
        """Let a unit that is not dirty have other bytes; return whether that was done."""
        with self._lock:
            if unit in shelf.dirty:
                return False
            self._make_dirty(shelf, unit, data)
            return True

    def _make_dirty(self, shelf: Shelf, unit: int, data: Decoded) -> Changed:
        kept = shelf.kept.pop(unit, None)
        if kept is not None:
            shelf.nbytes -= kept[1].nbytes
        # What is on its way is not what the unit is going to be.
        shelf.loading.pop(unit, None)
        self._trim(settings.current().memory_limit - data.nbytes)
        data.flags.writeable = True
        changed = shelf.dirty[unit] = Changed(data)
        shelf.n_changed += 1
        shelf.nbytes += data.nbytes
        shelf.dirty_nbytes += data.nbytes
        shelf.residency[unit] = RESIDENT | DIRTY
        return changed

    def end_change(self, changed: Changed) -> None:
        """Note that a thread has changed a unit."""
        with self._lock:
            changed.n_writers -= 1
            changed.is_newer = True

    def copy_dirty(self, shelf: Shelf, unit: int) -> Decoded:
        """Return a copy of a dirty unit; what is changed from now on is not in it."""
        with self._lock:
            changed = shelf.dirty[unit]
            changed.is_newer = False
        return changed.data.copy()

    def end_writing_back(self, shelf: Shelf, units: Iterable[int]) -> None:
        """Note that the store has what was copied of units: those not changed since are clean."""
        with self._lock:
            for unit in units:
                changed = shelf.dirty[unit]
                if not (changed.is_newer or changed.n_writers):
                    self._make_clean(shelf, unit)

    def _make_clean(self, shelf: Shelf, unit: int) -> None:
        data = shelf.dirty.pop(unit).data
        shelf.nbytes -= data.nbytes
        shelf.dirty_nbytes -= data.nbytes
        shelf.residency[unit] = 0
        data.flags.writeable = False
        self._keep(shelf, unit, data)

    # --- fork -------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Stand still, so that the child gets nothing that is half changed."""
        self._lock.acquire()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        release_all(self._lock)

    def after_fork_in_child(self) -> None:
        """Begin anew with what was kept, and without what other threads were loading."""
        self._lock = threading.RLock()
        for shelf in self._living():
            shelf.loading = {}


def _last_use(shelf: Shelf) -> int:
    return next(iter(shelf.kept.values()))[0]

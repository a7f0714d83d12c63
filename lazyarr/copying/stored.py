"""A stored array, and the way from its units to the user's memory."""

from __future__ import annotations

import functools
import itertools
import os
import time
import weakref
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from lazyarr import settings
from lazyarr.client.arrays import indexing
from lazyarr.client.arrays.attributes import READ_ONLY, RETIRED
from lazyarr.client.pickling.changes import check_size
from lazyarr.client.session import finalizers
from lazyarr.copying.loader import loader
from lazyarr.copying.phantom import ADDRESS
from lazyarr.copying.transfers import Piece as WrittenPiece
from lazyarr.copying.transfers import plan_picked, plan_view
from lazyarr.copying.write_back import WriteBack, make_room
from lazyarr.errors import ChunkError
from lazyarr.flush_report import FlushReport
from lazyarr.reading.unit_reader import UnitReader
from lazyarr.store import RetryingStore
from lazyarr.units import Span

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from lazyarr.client.array_ref import ArrayRef, StoreHolder
    from lazyarr.client.pickling.changes import Changes
    from lazyarr.copying.indexing import Picked
    from lazyarr.copying.loader import Loader
    from lazyarr.copying.phantom import Phantom
    from lazyarr.copying.transfers import Decoded, Transfer
    from lazyarr.layout.geometry import Geometry, Piece
    from lazyarr.reading.workspace import Fetched

__all__ = ["StoredArray"]

# What is loaded for a part of an assignment, of the memory limit; no more than is decoded in a
# moment, so that Ctrl-C takes effect.
_SHARE_TO_LOAD = 16
_MAX_LOADED_NBYTES = 64 << 20


class StoredArray:
    """What an array and all views of it share; for picking it is what a region is.

    Safe to use from several threads.

    Parameters
    ----------
    node : ArrayRef
        Which array.
    holder : StoreHolder
        Its store, which stays open for as long as this lives.

    Raises
    ------
    FormatError
        When one unit would not fit the memory limit.
    """

    address = ADDRESS
    is_retired = False
    """Whether another array has taken the place of this one, as after `append`."""

    def __init__(self, node: ArrayRef, holder: StoreHolder) -> None:
        self.node = node
        self.geometry = node.geometry()
        self._holder = holder
        self._name = ""
        self._layout = node.metadata.layout()
        self._shelf = loader.cache.add_shelf(self.geometry.n_units)
        self._source: tuple[int, UnitReader] | None = None
        self._store = holder.store.inner
        self._policy = holder.store.policy
        # Local files are read by the thread that decodes them, by whatever kind of store.
        self.is_remote = not self._store.url.startswith("file://")
        self._pid = os.getpid()
        self._back: WriteBack | None = None
        if node.mode == "r+":
            self._back = WriteBack(
                *(node, self.geometry, self._shelf),
                is_remote=self.is_remote,
                forget=functools.partial(_forget, weakref.ref(self)),
            )
            # At the end of the process `write_back` writes what there is.
            weakref.finalize(self, finalizers.defer, self._back.end, is_end=True).atexit = False
            finalizers.expect()

    def __repr__(self) -> str:
        return f"<StoredArray {self.node.metadata.path!r} of {self.node.store_url}>"

    def name_of_opening(self) -> str:
        """Return what this array is called in references, of which others share what they open."""
        from lazyarr.client.pickling.references import name_opening

        self._name = self._name or name_opening()
        return self._name

    @property
    def residency(self) -> memoryview:
        """One byte for each unit: whether it is kept."""
        return self._shelf.residency

    @property
    def owner(self) -> Loader:
        """Who loads units."""
        return loader

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return self.geometry.itemsize

    # --- units --------------------------------------------------------------------------

    def source(self) -> UnitReader:
        """Return the source of the units, made anew after a fork."""
        known = self._source
        if known is None or known[0] != loader.generation:
            with loader.lock:
                known = self._source
                if known is None or known[0] != loader.generation:
                    known = self._source = (loader.generation, self._make_source())
        return known[1]

    def _make_source(self) -> UnitReader:
        store = RetryingStore(
            self._store,
            self._policy,
            on_retry=lambda *_: loader.measurements.count("retries", 1),
        )
        return UnitReader(
            lambda: store,
            self._layout,
            self.geometry,
            url=self.node.store_url,
            path=self.node.metadata.path,
            count_fetched=lambda nbytes: loader.measurements.count("bytes_fetched", nbytes),
            cache=loader.cache_of(self._store),
        )

    def _decode(self, unit: int) -> Decoded:
        """Return a unit, read from the store."""
        begin = time.perf_counter()
        source = self.source()
        nbytes = self.geometry.unit_bytes(unit).size
        with (
            self._loading(),
            self._fetched(source, unit) as fetched,
            loader.workspace() as workspace,
        ):
            if source.load(unit, workspace, fetched):
                data = np.frombuffer(workspace.unit.view, np.uint8, nbytes).copy()
            else:
                data = np.zeros(nbytes, np.uint8)
        loader.measurements.add("load", time.perf_counter() - begin)
        return data

    def _loading(self) -> AbstractContextManager[None]:
        return nullcontext() if self._back is None else self._back.loading()

    def _fetched(self, source: UnitReader, unit: int) -> AbstractContextManager[Fetched | None]:
        return loader.fetched(source, unit) if self.is_remote else nullcontext()

    def load(self, unit: int, *, is_kept: bool = True) -> Decoded:
        """Return a unit.

        Raises
        ------
        ChunkError
            When it cannot be had.
        """
        return loader.cache.get(self._shelf, unit, lambda: self._decode(unit), is_kept=is_kept)

    def evict(self, units: Span) -> None:
        """Take units out of memory, but for those that the user has changed."""
        loader.cache.evict(self._shelf, units)

    # --- elements -----------------------------------------------------------------------

    def is_too_much(self, view: Phantom) -> bool:
        """Return whether a view is more than is kept at once."""
        steps = zip(view.shape, view.strides, strict=True)
        span_nbytes = sum((n - 1) * abs(stride) for n, stride in steps)
        if span_nbytes + 2 * self.geometry.unit_nbytes <= indexing.whole_nbytes():
            return False
        return indexing.is_too_much(self, indexing.units_of_view(self, view))

    def read_view(
        self, view: Phantom, dtype: np.dtype[Any], *, is_kept: bool = True
    ) -> np.ndarray[Any, Any]:
        """Return the elements of a view as a new array.

        Parameters
        ----------
        view : Phantom
            Where they are.
        dtype : dtype
            What they are.
        is_kept : bool
            Whether what is loaded is kept, unless it is too much for that.

        Raises
        ------
        ChunkError
            When a chunk cannot be had.
        """
        plain = np.empty_like(view, dtype)
        # What is more than fits is used up at once: to keep it would put out all else.
        is_kept = is_kept and not self.is_too_much(view)
        self._read(plan_view(self.geometry, view, plain), is_kept=is_kept)
        return plain

    def read_picked(self, picked: Picked, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        """Return the elements that an advanced index picks as a new array."""
        plain = np.empty((picked.offsets.size, *picked.inner.shape), dtype)
        self._read(plan_picked(self.geometry, picked, plain, self.itemsize), is_kept=True)
        result = plain.reshape(picked.offsets.shape + picked.inner.shape)
        n_axes = picked.offsets.ndim
        return np.moveaxis(result, range(n_axes), range(picked.place, picked.place + n_axes))

    def _read(self, transfers: Iterator[Transfer], *, is_kept: bool) -> None:
        loader.count_request()
        by_unit = (list(group) for _, group in itertools.groupby(transfers, _unit_of))
        for group in by_unit:
            found = self._shelf.find(group[0].unit)
            if found is None:
                break
            self._read_group(group, is_kept=is_kept)
        else:
            return
        loader.run(
            self,
            itertools.chain((group,), by_unit),
            lambda group: self._read_group(group, is_kept=is_kept),
        )

    def _read_group(self, group: list[Transfer], *, is_kept: bool) -> None:
        """Read what is wanted of a unit; if the unit cannot be had, its own chunks alone."""
        unit = group[0].unit
        try:
            data = self.load(unit, is_kept=is_kept)
        except ChunkError:
            pieces = list(self.geometry.pieces(unit))
            places = _pieces_of(group, pieces, self.geometry, unit)
            if len(places) == len(pieces):
                raise
            with self._loading(), loader.workspace() as workspace:
                self.source().load_pieces(unit, places, workspace)
                nbytes = self.geometry.unit_bytes(unit).size
                data = np.frombuffer(workspace.unit.view, np.uint8, nbytes).copy()
        _read_all(group, data)

    def write_view(self, view: Phantom, plain: np.ndarray[Any, Any]) -> None:
        """Change the elements of a view."""
        self._write(plan_view(self.geometry, view, plain))

    def write_picked(self, picked: Picked, plain: np.ndarray[Any, Any]) -> None:
        """Change the elements that an advanced index picks."""
        flat = picked.points_first(plain).reshape(picked.offsets.size, *picked.inner.shape)
        self._write(plan_picked(self.geometry, picked, flat, self.itemsize))

    def _write(self, transfers: Iterator[Transfer]) -> None:
        # One after the other: of several values for one place the last one counts.
        loader.count_request()
        if self._back is not None:
            self.require_writable()
            for part in self._parts(transfers):
                self._write_part(part)
            return
        for transfer in transfers:
            decode = functools.partial(self._decode, transfer.unit)
            transfer.write(loader.cache.own(self._shelf, transfer.unit, decode))

    # --- what is written back ------------------------------------------------------------

    def require_writable(self) -> None:
        """Raise `ValueError` where nothing that is written would come into the store."""
        if self.is_retired:
            raise ValueError(RETIRED)
        if self._back is None and self.node.mode != "c":
            raise ValueError(READ_ONLY)
        if self._back is not None and self._back.is_inherited:
            raise ValueError(
                "assignment destination is read-only: this process was forked from process "
                f"{self._pid}, which writes the array back and does not see what is written here; "
                "write there, or to a copy, x.copy()"
            )

    def _parts(self, transfers: Iterator[Transfer]) -> Iterator[list[Transfer]]:
        """Yield transfers, so many at a time as there is room for what has to be loaded for them.

        Units that are dirty already have their room.
        """
        limit_nbytes = min(settings.current().memory_limit // _SHARE_TO_LOAD, _MAX_LOADED_NBYTES)
        part: list[Transfer] = []
        units: set[int] = set()
        for transfer in transfers:
            unit = transfer.unit
            if unit not in units and unit not in self._shelf.dirty:
                if units and (len(units) + 1) * self.geometry.unit_nbytes > limit_nbytes:
                    yield part
                    part, units = [], set()
                units.add(unit)
            part.append(transfer)
        if part:
            yield part

    def _write_part(self, transfers: list[Transfer]) -> None:
        """Change units, after all of them were loaded: a chunk that cannot be had changes nothing.

        They may be written back, and go, in between, where there is very little room.
        """
        clean = {t.unit for t in transfers if t.unit not in self._shelf.dirty}
        if clean:
            make_room(sum(self.geometry.unit_bytes(unit).size for unit in clean))
            replaced = {t.unit for t in transfers if self._is_whole(t)}
            absent = [unit for unit in sorted(clean - replaced) if not self._shelf.residency[unit]]
            loader.run(self, iter(absent), self.load)
        for transfer in transfers:
            self._write_one(transfer)

    def _write_one(self, transfer: Transfer) -> None:
        unit = transfer.unit
        if self._is_whole(transfer) and unit not in self._shelf.dirty:
            data = np.empty(self.geometry.unit_bytes(unit).size, np.uint8)
            transfer.write(data)
            if loader.cache.replace(self._shelf, unit, data):
                return
        decode = functools.partial(self._decode, unit)
        changed = loader.cache.begin_change(self._shelf, unit, decode)
        try:
            transfer.write(changed.data)
        finally:
            loader.cache.end_change(changed)

    def _is_whole(self, transfer: Transfer) -> bool:
        """Return whether all of a unit is changed, so that what it was need not be loaded."""
        if not isinstance(transfer, WrittenPiece):
            return False
        plain = transfer.plain
        if plain.nbytes != self.geometry.unit_bytes(transfer.unit).size:
            return False
        # With strides of 0 several elements would be at one place.
        nbytes = plain.itemsize
        for length, stride in zip(plain.shape[::-1], transfer.strides[::-1], strict=True):
            if length > 1 and stride != nbytes:
                return False
            nbytes *= length
        return True

    def flush(self, units: Sequence[Span] | None = None, *, progress: bool = False) -> FlushReport:
        """Have what was written to some units, or to all, be in the store, durably.

        Raises
        ------
        LazyarrError
            When something could not be written.  It stays in memory.
        """
        if self._back is None:
            return FlushReport(0, 0, 0.0)
        return self._back.flush(units, progress=progress)

    def retire(self) -> None:
        """Have what was written be in the store, and let nobody write any more.

        Raises
        ------
        LazyarrError
            When something could not be written.  It can be written to then as before.
        """
        self.is_retired = True
        try:
            self.flush()
        except BaseException:
            self.is_retired = False
            raise

    def forget(self, units: Sequence[int]) -> None:
        """Read units, and what is in the same objects, from now on as they are in the store now."""
        known = self._source
        if known is not None:
            known[1].forget(units)

    # --- what was written ----------------------------------------------------------------

    def changes_in(self, view: Phantom) -> Changes:
        """Return the units that were written in which a view has elements.

        Raises
        ------
        ValueError
            When they are more than goes into a pickle.
        """
        written = self._shelf.written
        if not written:
            return ()
        spans = indexing.units_of_view(self, view, to_load=False)
        units = [unit for unit in sorted(written) if any(unit in span for span in spans)]
        nbytes = sum(self.geometry.unit_bytes(unit).size for unit in units)
        check_size(nbytes, f"array {self.node.metadata.path!r}")
        return tuple((self.geometry.unit_bytes(u).start, written[u].tobytes()) for u in units)

    def write_changes(self, changes: Changes) -> None:
        """Change bytes to what they were in another process.

        Raises
        ------
        ChunkError
            When a unit cannot be had of which a part is written.
        """
        for start, data in changes:
            span = Span(start, start + len(data))
            units = self.geometry.units_of_bytes(span)
            for unit in range(units.start, units.stop):
                bounds = self.geometry.unit_bytes(unit)
                part = span & bounds
                new = np.frombuffer(data, np.uint8)[part.start - start : part.stop - start]
                decode = new.copy if part == bounds else functools.partial(self._decode, unit)
                place = slice(part.start - bounds.start, part.stop - bounds.start)
                loader.cache.own(self._shelf, unit, decode)[place] = new


def _forget(stored: weakref.ref[StoredArray], units: Sequence[int]) -> None:
    found = stored()
    if found is not None:
        found.forget(units)


def _unit_of(transfer: Transfer) -> int:
    return transfer.unit


def _pieces_of(
    group: list[Transfer], pieces: Sequence[Piece], geometry: Geometry, unit: int
) -> list[int]:
    """Return which pieces of a unit transfers carry bytes of: those that a marker changes."""
    marked = np.zeros(geometry.unit_bytes(unit).size, np.uint8)
    for transfer in group:
        plain = transfer.plain
        ones = np.full(plain.nbytes, 255, np.uint8).view(plain.dtype).reshape(plain.shape)
        transfer._replace(plain=ones).write(marked)
    elements = marked.reshape(*geometry.unit_box(unit)[1], geometry.itemsize)
    boxes = (
        tuple(slice(a, b) for a, b in zip(piece.start, piece.stop, strict=True)) for piece in pieces
    )
    return [place for place, box in enumerate(boxes) if elements[box].any()]


def _read_all(transfers: list[Transfer], data: Decoded) -> None:
    for transfer in transfers:
        transfer.read(data)

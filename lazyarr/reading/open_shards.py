"""Shards that stay open, so that to load a unit of theirs is one read and one decode.

Decoders do the read and the decode alone, for a shard that the worker has opened.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol

from lazyarr.values import Struct

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazyarr.layout import Layout, ShardIndex
    from lazyarr.layout.geometry import Geometry
    from lazyarr.layout.pipeline import Pipeline
    from lazyarr.reading.workspace import Workspace
    from lazyarr.store import BorrowedFile, OpenFile

__all__ = ["FileChunkReader", "OpenShard", "OpenShards", "Progress", "units_per_shard"]

_MAX_HELD = 32


class Progress(Protocol):
    """Whoever uses a chunk while it is decoded."""

    @property
    def first(self) -> int:
        """From which byte on it is wanted."""
        ...

    def advance(self, nbytes: int, /) -> None:
        """Hear that all is decoded from `first` up to a byte, and certainly right."""
        ...


class FileChunkReader:
    """Reads and decodes the chunks of one array that need nothing but that.

    Parameters
    ----------
    pipeline : Pipeline
        How they are decoded.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._chunk_nbytes = pipeline.chunk_nbytes
        self._limit_nbytes = pipeline.limit_nbytes
        self._is_plain = pipeline.is_plain
        self._checks_first = pipeline.checks_first

    def __repr__(self) -> str:
        return f"<FileChunkReader: {self._chunk_nbytes} bytes>"

    def load(
        self,
        file: OpenFile,
        start: int,
        nbytes: int,
        workspace: Workspace,
        *,
        may_wait: bool,
        progress: Progress | None = None,
    ) -> bool:
        """Decode a chunk into ``workspace.unit``; return whether that was done.

        `progress` is told how much is decoded, where that is right before all of it is.
        """
        # Asked before they are grown, which they seldom are: each fault comes this way.
        if workspace.unit.nbytes < self._chunk_nbytes:
            workspace.unit.grow(self._chunk_nbytes)
        out = workspace.unit.view[: self._chunk_nbytes]
        if self._is_plain:
            return nbytes == len(out) and file.read(out, start, may_wait=may_wait)
        if nbytes > self._limit_nbytes:
            return False
        if workspace.encoded.nbytes < nbytes:
            workspace.encoded.grow(nbytes)
        encoded = workspace.encoded.view[:nbytes]
        if not file.read(encoded, start, may_wait=may_wait):
            return False
        try:
            if progress is None or not self._checks_first:
                self._pipeline.decode(encoded, out)
            else:
                parts = self._pipeline.decode_in_parts(encoded, out, progress.first)
                for decoded_nbytes in parts:
                    progress.advance(decoded_nbytes)
        except Exception:  # noqa: BLE001 - the long way comes upon it again, and tells
            return False
        return True


class OpenShard(Struct):
    """An open shard, its index, and how many threads read from it.

    Without file and index where it is known that the store has no such shard.
    """

    file: BorrowedFile | None
    index: ShardIndex | None
    n_users: int = 0
    is_kept: bool = True


class OpenShards:
    """The fast path from a unit to its bytes: one read of a shard that is open, and one decode.

    Safe to use from several threads.

    Parameters
    ----------
    layout : Layout
        How chunks are decoded.
    n_units : int
        How many units, one after the other, are the entries of a shard.
    hold : callable
        Returns a shard, by a unit in it, when all that is needed is there already; else None.
    """

    def __init__(
        self,
        layout: Layout,
        n_units: int,
        hold: Callable[[int], OpenShard | None],
    ) -> None:
        self._fill_is_zero = layout.fill_is_zero
        self._reader = FileChunkReader(layout.pipeline)
        self._n_units = n_units
        self._hold = hold
        self._lock = threading.Lock()
        self._held: dict[int, OpenShard] = {}

    def __repr__(self) -> str:
        return f"<OpenShards: {len(self._held)} open>"

    def load(
        self,
        unit: int,
        workspace: Workspace,
        *,
        may_wait: bool,
        progress: Progress | None = None,
    ) -> int | None:
        """Decode a unit; return how many bytes were read for it, None when it was not done.

        It is not where the shard is not open yet, the chunk is damaged, or reading it would wait
        and must not: the long way deals with all that.  Nothing is read for a chunk that
        the shard does not have, where that means zeros.  `progress` is told how much is
        decoded, where that is right before all of it is.
        """
        shard, entry = divmod(unit, self._n_units)
        held = self._take(shard, unit)
        if held is None:
            return None
        try:
            place = held.index.entry(entry) if held.index is not None else None
            if place is None or held.file is None:
                return 0 if self._fill_is_zero else None
            is_done = self._reader.load(
                held.file, *place, workspace, may_wait=may_wait, progress=progress
            )
            return place[1] if is_done else None
        finally:
            self._give_back(held)

    def lend(self, unit: int, use: Callable[[int, int, int], bool]) -> bool:
        """Have a chunk read elsewhere, by the descriptor of its shard, its start and its length.

        Returns
        -------
        bool
            What `use` returns; False where it was not called, since the shard is not open or
            does not have the chunk.
        """
        shard, entry = divmod(unit, self._n_units)
        held = self._take(shard, unit)
        if held is None:
            return False
        try:
            place = held.index.entry(entry) if held.index is not None else None
            if place is None or held.file is None:
                return False
            return use(held.file.fileno(), *place)
        finally:
            self._give_back(held)

    def release(self) -> None:
        """Give back the shards that nobody reads from, and the others when they are done."""
        with self._lock:
            held, self._held = self._held, {}
            for each in held.values():
                self._drop(each)

    def forget(self, unit: int) -> None:
        """Give back the shard of a unit, which has been replaced."""
        with self._lock:
            held = self._held.pop(unit // self._n_units, None)
            if held is not None:
                self._drop(held)

    def _take(self, shard: int, unit: int) -> OpenShard | None:
        with self._lock:
            held = self._held.get(shard)
            if held is None:
                found = self._hold(unit)
                if found is None:
                    return None
                if len(self._held) >= _MAX_HELD:
                    self._drop(self._held.pop(next(iter(self._held))))
                held = self._held[shard] = found
            held.n_users += 1
            return held

    def _give_back(self, held: OpenShard) -> None:
        with self._lock:
            held.n_users -= 1
            if not held.is_kept:
                self._drop(held)

    def _drop(self, held: OpenShard) -> None:
        held.is_kept = False
        if held.file is not None and not held.n_users:
            held.file.release()


def units_per_shard(layout: Layout, geometry: Geometry) -> int:
    """Return how many units, one after the other, are the entries of a shard; 0 if it is not so."""
    is_plain = len(layout.levels) == 1 and geometry.n_units == layout.grid_shape[0]
    if not (is_plain and geometry.is_one_chunk):
        return 0
    n_units = layout.chunks_per_object[0]
    return n_units if layout.levels[0].n_entries == n_units else 0

"""The stored chunks of one array, checked one at a time."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from lazyarr.errors import FormatError, StoreError
from lazyarr.reading.chunk_reader import ChunkReader
from lazyarr.reading.locator import Locator
from lazyarr.reading.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lazyarr.formats.base import ArrayDescription
    from lazyarr.layout import ShardIndex
    from lazyarr.reading.locator import IndexRead
    from lazyarr.store import Store

__all__ = ["Checker"]

# Codecs whose output tells whether it was changed; zstd has it as an option.
_CHECKSUMS = frozenset(
    {"crc32c", "crc32", "adler32", "fletcher32", "jenkins_lookup3", "gzip", "zlib", "bz2", "lzma"}
)

# A bad transfer heals the second time; what fails twice is damaged.
_MAX_INDEX_READS = 2


class Checker(ChunkReader):
    """The stored chunks of one array, one at a time.

    Safe to use from several threads.

    Parameters
    ----------
    store : Store
        The store; it stays the caller's.
    metadata : ArrayDescription
        What the array says of itself.
    """

    def __init__(self, store: Store, metadata: ArrayDescription) -> None:
        layout = metadata.layout()
        finder = Locator(layout, metadata.path)
        super().__init__(layout, finder, lambda: store, url=store.url, path=metadata.path)
        self.layout = layout
        self.path = metadata.path
        self.is_guarded = _has_checksum(metadata.document)
        self._failures: dict[tuple[object, ...], tuple[FormatError | StoreError, ...]] = {}

    def check(self, chunk: tuple[int, ...], workspace: Workspace) -> int | None:
        """Return the stored size of a chunk that is intact; None when it is not stored.

        Raises
        ------
        ChunkError
            When it cannot be had.
        """

        def step() -> int | None:
            data = self.read(chunk, workspace)
            if data is None:
                return None
            workspace.unit.grow(self.layout.chunk_nbytes)
            self.layout.decode_chunk(chunk, data, workspace.unit.view[: self.layout.chunk_nbytes])
            return len(data)

        return self.heal(chunk, step)

    def chunks(self) -> Iterator[tuple[int, ...]]:
        """Yield all chunks, object after object, so that each index is needed once."""
        sizes, grid = self.layout.chunks_per_object, self.layout.grid_shape
        objects = tuple(-(-n // size) for n, size in zip(grid, sizes, strict=True))
        for place in _coordinates(objects):
            first = tuple(p * size for p, size in zip(place, sizes, strict=True))
            extent = (min(s, n - f) for s, n, f in zip(sizes, grid, first, strict=True))
            for step in _coordinates(tuple(extent)):
                yield tuple(a + b for a, b in zip(first, step, strict=True))

    def _read_index(self, read: IndexRead) -> ShardIndex | None:
        """Read a shard's index, unless that failed before: it would for each of its chunks."""
        place = (read.key, len(read.entries), read.start)
        failures = self._failures.get(place, ())
        if len(failures) >= _MAX_INDEX_READS:
            raise copy.copy(failures[0])  # a copy has no traceback that holds bytes
        try:
            index = super()._read_index(read)
        except (FormatError, StoreError) as error:
            self._failures[place] = (*failures, copy.copy(error))
            raise
        self._failures.pop(place, None)
        return index


def _has_checksum(document: dict[str, Any]) -> bool:
    """Return whether chunks go through a codec with a checksum; the document was parsed before."""
    stages = [*(document.get("filters") or ()), document.get("compressor")]
    for codec in (*document.get("codecs", ()), *(stage for stage in stages if stage)):
        members = {"name": codec} if isinstance(codec, str) else codec
        configuration = members.get("configuration", members)
        name = str(members.get("name", members.get("id"))).removeprefix("numcodecs.")
        if name == "sharding_indexed" and _has_checksum({"codecs": configuration["codecs"]}):
            return True
        if name in _CHECKSUMS or (name == "zstd" and configuration.get("checksum") is True):
            return True
    return False


def _coordinates(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Yield the places of a grid in C order; itertools.product would list every axis first."""
    place = [0] * len(shape)
    if 0 in shape:
        return
    while True:
        yield tuple(place)
        for axis in reversed(range(len(shape))):
            place[axis] += 1
            if place[axis] < shape[axis]:
                break
            place[axis] = 0
        else:
            return

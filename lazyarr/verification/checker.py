"""The stored chunks of one array, checked one at a time."""

from __future__ import annotations

import copy
import zlib
from typing import TYPE_CHECKING, Any

from lazyarr.codecs.errors import DamagedChunkError
from lazyarr.codecs.zip_member import ZipMember
from lazyarr.errors import ChunkError, FormatError, StoreError
from lazyarr.layout.placement import KeyPerChunk, inner_nbytes
from lazyarr.reading.chunk_reader import ChunkReader
from lazyarr.reading.locator import Locator
from lazyarr.reading.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lazyarr.formats.base import ArrayDescription, Crc32Range
    from lazyarr.layout import Layout, ShardIndex
    from lazyarr.reading.locator import IndexRead
    from lazyarr.store import Store

__all__ = ["Checker"]

# Codecs whose output tells whether it was changed; zstd has it as an option.
_CHECKSUMS = frozenset(
    {"crc32c", "crc32", "adler32", "fletcher32", "jenkins_lookup3", "gzip", "zlib", "bz2", "lzma"}
)

# A bad transfer heals the second time; what fails twice is damaged.
_MAX_INDEX_READS = 2

# Of bytes that have one checksum together, read at once.
_STEP_NBYTES = 1 << 20


class Checker(ChunkReader):
    """The stored chunks of one array, one at a time.

    Safe to use from several threads.

    Parameters
    ----------
    store : Store
        The store; it stays the caller's.
    metadata : ArrayDescription
        What the array says of itself.
    url : str, optional
        What errors name; by default the store.
    """

    def __init__(self, store: Store, metadata: ArrayDescription, *, url: str | None = None) -> None:
        layout = metadata.layout()
        finder = Locator(layout, metadata.path)
        super().__init__(layout, finder, lambda: store, url=url or store.url, path=metadata.path)
        self.layout = layout
        self.path = metadata.path
        self._checked_whole = metadata.checked_whole
        self.is_guarded = (
            metadata.checked_whole is not None
            or _has_checksum(metadata.document)
            or any(isinstance(codec, ZipMember) for codec in layout.pipeline.codecs)
            or _is_zip_member(store, layout)
        )
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

    def decoded_nbytes(self, chunk: tuple[int, ...]) -> int:
        """Return the size in memory of what a chunk has of the array, in bytes."""
        layout = self.layout
        return inner_nbytes(chunk, layout.chunk_shape, layout.shape, layout.itemsize)

    def check_whole(self) -> None:
        """Check the bytes that all chunks are part of, where these have one checksum together.

        Raises
        ------
        ChunkError
            When they are not those that their checksum is of, or cannot be had; its `chunk`
            is ``()``.
        """
        whole = self._checked_whole
        if whole is None:
            return
        try:
            found = self._crc32(whole)
            if found != whole.crc:
                found = self._crc32(whole)  # a bad transfer heals the second time
            if found == whole.crc:
                return
            raise DamagedChunkError(f"CRC-32 expected {whole.crc:08x}, found {found:08x}")
        except (FormatError, StoreError) as error:
            place = f"bytes [{whole.start}, {whole.stop}) of {whole.key}"
            raise ChunkError(
                f"{self.path or '/'!r} in {self._url}, {place}: {error}",
                url=self._url,
                array=self.path,
                chunk=(),
                key=whole.key,
                byte_range=(whole.start, whole.stop),
                reason=str(error),
            ) from error

    def _crc32(self, whole: Crc32Range) -> int:
        crc = 0
        for start in range(whole.start, whole.stop, _STEP_NBYTES):
            stop = min(start + _STEP_NBYTES, whole.stop)
            data = self._store().read_range(whole.key, start, stop)
            if data is None:
                raise self.gone()
            crc = zlib.crc32(data, crc)
        return crc

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


def _is_zip_member(store: Store, layout: Layout) -> bool:
    """Return whether each chunk is a member of a zip archive, whose CRC-32 the library checks.

    It does not where a part of a member is read.
    """
    is_whole = isinstance(layout.placement, KeyPerChunk) and not layout.levels
    return is_whole and store.url.startswith("zip:")


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

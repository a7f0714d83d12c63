"""The limit: the chunks decompressed on all processors by python-zstandard, and nothing else."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from benchmarks.images import Images
from benchmarks.places import ChunkPlace, chunk_places
from benchmarks.samples import Array

__all__ = ["LIMITS", "Limit"]

_CRC32C_NBYTES = 4


class _Scratch(threading.local):
    """What a thread keeps from chunk to chunk, so that no memory is made anew."""

    def __init__(self, encoded_nbytes: int, decoded_nbytes: int) -> None:
        from zstandard import ZstdDecompressor

        self.decompressor = ZstdDecompressor()
        self.encoded = memoryview(bytearray(encoded_nbytes))
        self.decoded = memoryview(bytearray(decoded_nbytes))


class Limit:
    """The encoded chunks of the images, in memory before the clock runs.

    Parameters
    ----------
    images : Images
        The images; their Zarr form is read.
    """

    def __init__(self, images: Images) -> None:
        size = images.size
        self._shape, self._dtype = size.chunks, size.dtype
        self._places = chunk_places(images.path("zarr"), trailer_nbytes=_CRC32C_NBYTES)
        self._files = {p.path: os.open(p.path, os.O_RDONLY) for p in self._places}
        longest = max(place.nbytes for place in self._places)
        self._scratch = _Scratch(longest, size.chunk_nbytes)
        self._pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
        self._hold()

    def _hold(self) -> None:
        self._chunks = [memoryview(self._pread(place)) for place in self._places]

    def _pread(self, place: ChunkPlace) -> bytes:
        return os.pread(self._files[place.path], place.nbytes, place.offset)

    def _encoded(self, number: int) -> memoryview:
        return self._chunks[number]

    def decode(self, number: int) -> memoryview:
        """Decompress one chunk into this thread's scratch memory."""
        scratch = self._scratch
        with scratch.decompressor.stream_reader(self._encoded(number)) as reader:
            assert reader.readinto(scratch.decoded) == len(scratch.decoded)
        return scratch.decoded

    def decode_all(self, numbers: Sequence[int]) -> None:
        """Decompress chunks on all processors."""
        for _ in self._pool.map(self.decode, numbers):
            pass

    def chunk(self, number: int) -> Array:
        """Return a chunk's images, valid until this thread decodes another."""
        return np.frombuffer(self.decode(number), self._dtype).reshape(self._shape)


class _LimitFromFiles(Limit):
    """The same, with each chunk read from its file first."""

    def _hold(self) -> None:
        pass

    def _encoded(self, number: int) -> memoryview:
        place = self._places[number]
        into = self._scratch.encoded[: place.nbytes]
        assert os.preadv(self._files[place.path], [into], place.offset) == place.nbytes
        return into


LIMITS: dict[str, type[Limit]] = {
    "limit: decompress": Limit,
    "limit: pread + decompress": _LimitFromFiles,
}

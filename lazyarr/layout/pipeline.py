"""One smallest chunk, through all of its codecs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lazyarr.codecs.base import Buffer, BytesCodec, as_view, copy_into
from lazyarr.codecs.checksum import Crc32c
from lazyarr.values import Value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lazyarr.layout.swap import Swap

__all__ = ["Pipeline"]

_SLACK_NBYTES = 64 * 1024
_GROWTH = 4  # a filter may widen elements, from float16 to float64 at most


class Pipeline(Value):
    """The codecs of the smallest chunks.

    Attributes
    ----------
    chunk_nbytes : int
        Size of a whole chunk in memory, in bytes.
    codecs : tuple of BytesCodec
        In the order of encoding.
    swap : Swap or None
        What elements go through between memory and the first codec.
    """

    chunk_nbytes: int
    codecs: tuple[BytesCodec, ...]
    swap: Swap | None = None

    @property
    def is_plain(self) -> bool:
        """Whether a chunk is stored as it lies in memory."""
        return not self.codecs and self.swap is None

    @property
    def limit_nbytes(self) -> int:
        """How much any step but the last may make of a chunk, in bytes.

        Compressors may make data a little longer, and filters wider.
        """
        return _GROWTH * self.chunk_nbytes + _SLACK_NBYTES

    def without(self, left_out: int) -> Pipeline:
        """Return the pipeline of a chunk that did not go through some codecs.

        Parameters
        ----------
        left_out : int
            Which ones: a bit for each, the first one lowest.
        """
        kept = (codec for k, codec in enumerate(self.codecs) if not left_out >> k & 1)
        return self._replace(codecs=tuple(kept))

    def decode(self, data: Buffer, out: memoryview) -> None:
        """Decode a chunk straight into memory.

        Parameters
        ----------
        data : bytes-like
            The chunk as it is stored.
        out : memoryview
            Writable, contiguous, of `chunk_nbytes` bytes.  What it holds after
            an error is not defined.

        Raises
        ------
        DamagedChunkError
            The data is not what the codecs wrote, or not as long.
        """
        if len(out) != self.chunk_nbytes:
            raise ValueError(f"out has {len(out)} bytes, a chunk {self.chunk_nbytes}")
        if self.codecs:
            for codec in self.codecs[:0:-1]:
                data = codec.decode(data, self.limit_nbytes)
            self.codecs[0].decode_into(data, out)
        else:
            copy_into(data, out)
        if self.swap is not None:
            self.swap.apply(out)

    @property
    def checks_first(self) -> bool:
        """Whether all of a chunk is checked before any of it is decompressed.

        What has been decompressed can be used then while the rest is not.
        """
        return len(self.codecs) == 2 and isinstance(self.codecs[1], Crc32c)

    def decode_in_parts(self, data: Buffer, out: memoryview, first: int = 0) -> Iterator[int]:
        """Decode a chunk as `decode` does; yield now and then how far it is there.

        Only where `checks_first`.

        Parameters
        ----------
        data, out
            As for `decode`.
        first : int
            From which byte on it is wanted.  Where the compressor has blocks that stand by
            themselves, what lies before that is decoded last.

        Yields
        ------
        int
            All bytes from `first` up to this one are there.
        """
        compressor, checksum = self.codecs
        parts = compressor.decode_in_parts(checksum.decode(data, self.limit_nbytes), out, first)
        return parts if self.swap is None else self.swap.follow(parts, out, first)

    def encode(self, data: Buffer) -> bytes:
        """Return a chunk as it is stored.

        Parameters
        ----------
        data : bytes-like
            A whole chunk, padded at the array's edges.
        """
        if len(as_view(data)) != self.chunk_nbytes:
            raise ValueError(f"data has {len(as_view(data))} bytes, a chunk {self.chunk_nbytes}")
        if self.swap is not None:
            data = self.swap.apply_to(bytes(data))
        for codec in self.codecs:
            data = codec.encode(data)
        return bytes(data)

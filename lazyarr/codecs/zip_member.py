"""What a deflated member of a zip archive holds, behind a header of its own."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

from lazyarr.checks import as_integer
from lazyarr.codecs.base import Buffer, BytesCodec, as_view, check_length
from lazyarr.codecs.errors import DamagedChunkError
from lazyarr.values import Value

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ZipMember"]

_STEP_NBYTES = 1 << 18
_MAX_HEADER_NBYTES = 1 << 20


class ZipMember(Value, BytesCodec):
    """Raw deflate (RFC 1951), with the CRC-32 that the archive has of the content.

    Parameters
    ----------
    header_nbytes : int
        How much of the content comes before the chunk, in bytes.
    crc : int
        CRC-32 of the content, its header included.
    """

    name = "zip_member"

    header_nbytes: int
    crc: int

    @classmethod
    def from_parameters(cls, parameters: dict[str, Any]) -> ZipMember:
        """Return the codec with some parameters, each of them checked."""
        what = "of codec 'zip_member'"
        header = as_integer(
            parameters["header_nbytes"], f"header_nbytes {what}", maximum=_MAX_HEADER_NBYTES
        )
        return cls(header, as_integer(parameters["crc"], f"crc {what}", maximum=2**32 - 1))

    def decode(self, data: Buffer, limit_nbytes: int) -> Buffer:
        """Return the chunk, up to a number of bytes."""
        out = bytearray()
        for piece in self._pieces(as_view(data)):
            check_length(self.name, len(out) + len(piece), limit_nbytes)
            out += piece
        return out

    def decode_into(self, data: Buffer, out: memoryview) -> None:
        """Fill `out` with the chunk, a part at a time: the whole may be larger than memory."""
        at = 0
        for piece in self._pieces(as_view(data)):
            check_length(self.name, at + len(piece), len(out))
            out[at : at + len(piece)] = piece
            at += len(piece)
        if at != len(out):
            raise DamagedChunkError(f"chunk expected to have {len(out)} bytes, found {at}")

    def _pieces(self, data: memoryview) -> Iterator[bytes]:
        stream = zlib.decompressobj(-zlib.MAX_WBITS)
        rest: Buffer = data
        crc, to_skip = 0, self.header_nbytes
        while not stream.eof:
            try:
                # What is given is copied where it is not used, so a little at a time.
                piece = stream.decompress(rest[:_STEP_NBYTES], _STEP_NBYTES)
            except zlib.error as error:
                raise DamagedChunkError(f"deflated member is damaged: {error}") from error
            n_used = min(len(rest), _STEP_NBYTES) - len(stream.unconsumed_tail)
            rest = rest[n_used:]
            if not (piece or n_used):
                raise DamagedChunkError(
                    f"deflated member expected to end within {len(data)} bytes, found no end"
                )
            crc = zlib.crc32(piece, crc)
            skipped, to_skip = to_skip, max(0, to_skip - len(piece))
            if piece[skipped:]:
                yield piece[skipped:]
        if crc != self.crc:
            raise DamagedChunkError(
                f"CRC-32 of the member expected {self.crc:08x}, found {crc:08x}"
            )

    def encode(self, data: Buffer) -> Buffer:
        """Return the member that has the chunk behind a header of zeros.

        Raises
        ------
        ValueError
            That is not the content which the archive has the CRC-32 of.
        """
        content = bytes(self.header_nbytes) + bytes(data)
        if zlib.crc32(content) != self.crc:
            raise ValueError(f"the content has the CRC-32 {zlib.crc32(content):08x}")
        stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        return stream.compress(content) + stream.flush()

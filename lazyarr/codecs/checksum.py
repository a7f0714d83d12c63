"""crc32c (Castagnoli), as RFC 3720 defines it."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from lazyarr.codecs.base import Buffer, BytesCodec, as_view, check_length
from lazyarr.codecs.errors import DamagedChunkError
from lazyarr.values import Value

if TYPE_CHECKING:
    from zstandard import BufferSegment

__all__ = ["Crc32c", "crc32c"]

_COPIED_NBYTES = 32 * 1024
"""Up to here a copy costs less than doing without one."""


def crc32c(data: Buffer) -> int:
    """Return the crc32c of some bytes, an unsigned 32-bit number.

    Examples
    --------
    >>> f"{crc32c(b'123456789'):08x}"
    'e3069283'
    """
    # Not at the top: the library costs start-up time that most processes do not need.
    import google_crc32c

    if isinstance(data, bytes):
        return int(google_crc32c.value(data))
    view = as_view(data)
    if len(view) <= _COPIED_NBYTES:
        return int(google_crc32c.value(bytes(view)))
    return int(google_crc32c.value(_without_release(view)))


def _without_release(view: memoryview) -> BufferSegment:
    """Return the same memory as an object that google_crc32c takes, without a copy.

    It refuses whatever wants to hear when a buffer is released (1.9: the format "y#" of
    PyArg_ParseTuple), as memoryview does.  A segment of python-zstandard does not.  With
    a copy the checksum of a chunk takes twice the time, all of it with the GIL.
    """
    from zstandard import BufferWithSegments

    return BufferWithSegments(view, struct.pack("=QQ", 0, len(view)))[0]


class Crc32c(Value, BytesCodec):
    """Four bytes of crc32c, little endian, after the data (zarr-specs v3, "crc32c")."""

    name = "crc32c"

    @classmethod
    def from_parameters(cls, parameters: dict[str, Any]) -> Crc32c:  # noqa: ARG003 - it has none
        """Return the codec, which has no parameters."""
        return cls()

    def decode(self, data: Buffer, limit_nbytes: int) -> Buffer:
        """Return the data without its checksum, as a view."""
        view = as_view(data)
        if len(view) < 4:
            raise DamagedChunkError(f"crc32c expected in the last 4 bytes, found {len(view)} bytes")
        content = view[:-4]
        expected, found = int.from_bytes(view[-4:], "little"), crc32c(content)
        if found != expected:
            raise DamagedChunkError(f"crc32c expected {expected:08x}, found {found:08x}")
        check_length("crc32c", len(content), limit_nbytes)
        return content

    def encode(self, data: Buffer) -> Buffer:
        """Return the data with its checksum."""
        return b"".join((data, crc32c(data).to_bytes(4, "little")))

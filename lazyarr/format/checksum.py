"""crc32c (Castagnoli), as RFC 3720 defines it."""

from __future__ import annotations

from dataclasses import dataclass

from lazyarr.format.buffers import Buffer, as_view
from lazyarr.format.codec import BytesCodec, check_length
from lazyarr.format.errors import DamagedChunkError

__all__ = ["Crc32c", "crc32c"]

_STEP_NBYTES = 64 * 1024


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
    # google_crc32c 1.9 takes no memoryview, and a copy of the whole would come
    # from fresh memory.  A copy of 64 KiB at a time stays in the L2 cache.
    view = as_view(data)
    checksum = 0
    for start in range(0, len(view), _STEP_NBYTES):
        checksum = google_crc32c.extend(checksum, bytes(view[start : start + _STEP_NBYTES]))
    return int(checksum)


@dataclass(frozen=True, slots=True)
class Crc32c(BytesCodec):
    """Four bytes of crc32c, little endian, after the data (zarr-specs v3, "crc32c")."""

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

"""What chunks are compressed and checked with: bytes to bytes, in bounded memory.

Public: the names below; each codec is a class in a module of its own.
Not here: anything that depends on a file format, on arrays, or on where bytes are stored.
"""

from typing import TYPE_CHECKING

from lazyarr.parts import import_on_use

if TYPE_CHECKING:
    from lazyarr.codecs.base import Buffer, BytesCodec, as_view
    from lazyarr.codecs.errors import DamagedChunkError

__all__ = [
    "Buffer",
    "BytesCodec",
    "DamagedChunkError",
    "as_view",
]

__getattr__ = import_on_use(
    globals(),
    {
        "base": "Buffer BytesCodec as_view",
        "errors": "DamagedChunkError",
    },
)

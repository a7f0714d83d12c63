"""What a chunk that does not decode raises."""

from __future__ import annotations

from lazyarr.errors import FormatError

__all__ = ["DamagedChunkError"]


class DamagedChunkError(FormatError):
    """The bytes of a chunk or of a shard index are not what their codecs wrote.

    Reading the same bytes once more may help where a transfer was bad; a
    chunk that is damaged in the store stays so.

    Attributes
    ----------
    reason : str
        What was expected and what was found, without the place: the caller
        knows array, chunk, key and byte range and adds them.

    Examples
    --------
    >>> DamagedChunkError("crc32c expected 5d1f09aa, found 00000000").reason
    'crc32c expected 5d1f09aa, found 00000000'
    """

    reason: str = ""

    def __init__(self, reason: str, **fields: object) -> None:
        super().__init__(reason, reason=reason, **fields)

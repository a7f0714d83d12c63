"""What is taken of an answer's body, which may be longer than what was asked for, or have no end.

A body is a stream of pieces, no more of which are kept than are wanted.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from lazyarr.store.failure import UnusableAnswerError, too_long

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lazyarr.store.base import Arrived

__all__ = ["read_end", "read_part", "read_range", "read_whole"]


async def read_whole(pieces: AsyncIterator[bytes], limit_nbytes: int | None) -> bytes:
    """Return all of a body.

    Raises
    ------
    UnusableAnswerError
        When it has more than `limit_nbytes`; the rest is left unread.
    """
    kept: list[bytes] = []
    nbytes = 0
    async for piece in pieces:
        kept.append(piece)
        nbytes += len(piece)
        if limit_nbytes is not None and nbytes > limit_nbytes:
            raise too_long(limit_nbytes)
    return kept[0] if len(kept) == 1 else b"".join(kept)


async def read_part(pieces: AsyncIterator[bytes], start: int, stop: int) -> tuple[bytes, int]:
    """Return ``body[start:stop]``, as far as it goes, and how much has come for it.

    The rest is left unread.
    """
    kept: list[bytes] = []
    position = 0
    async for piece in pieces:
        kept.append(piece[max(0, start - position) : max(0, stop - position)])
        position += len(piece)
        if position >= stop:
            break
    return b"".join(kept), position


async def read_range(
    pieces: AsyncIterator[bytes], nbytes: int, arrived: Arrived | None = None
) -> memoryview:
    """Return all of a body that is a range of an object, which may have broken off.

    Parameters
    ----------
    pieces : asynchronous iterator of bytes
        The body.
    nbytes : int
        How long it is said to be, which has been checked against what was asked for.
    arrived : callable, optional
        Told of the beginning whenever more of it is there.

    Raises
    ------
    UnusableAnswerError
        When there is more than the answer has said.
    """
    body = memoryview(bytearray(nbytes))
    position = 0
    async for piece in pieces:
        stop = position + len(piece)
        if stop > nbytes:
            raise UnusableAnswerError(f"the server gave more than the {nbytes} bytes that it named")
        body[position:stop] = piece
        position = stop
        if arrived is not None:
            arrived(body[:position])
    return body[:position]


async def read_end(pieces: AsyncIterator[bytes], nbytes: int) -> tuple[bytes, int]:
    """Return the last `nbytes` of a body, and how many it has."""
    kept: deque[bytes] = deque()
    kept_nbytes = total_nbytes = 0
    async for piece in pieces:
        kept.append(piece)
        kept_nbytes += len(piece)
        total_nbytes += len(piece)
        while kept and kept_nbytes - len(kept[0]) >= nbytes:
            kept_nbytes -= len(kept.popleft())
    end = b"".join(kept)
    return end[max(0, len(end) - nbytes) :], total_nbytes

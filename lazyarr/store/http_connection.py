"""A connection to an HTTP server, on which ranges are received where they stay."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from lazyarr.store.http_headers import Head, UnusualAnswerError, check_ordinary, parse_head

if TYPE_CHECKING:
    from lazyarr.store.base import Arrived

__all__ = ["Connection"]

_HEAD_NBYTES = 16 << 10


class Connection(asyncio.BufferedProtocol):
    """A connection, on which one range is asked for after the other."""

    def __init__(self) -> None:
        self._transport: Any = None
        self._buffer = memoryview(bytearray(_HEAD_NBYTES))
        self._n_read = 0
        self._body: memoryview | None = None
        self._range = (0, 0)
        self._answer: asyncio.Future[tuple[Head, memoryview]] | None = None
        self._head: Head | None = None
        self._arrived: Arrived | None = None
        self.idle_since = 0.0

    @property
    def is_open(self) -> bool:
        """Whether another range can be asked for."""
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take down where requests go."""
        self._transport = transport

    async def ask(
        self, request: bytes, start: int, stop: int, arrived: Arrived | None
    ) -> tuple[Head, memoryview]:
        """Return the head of the answer, and the range unless the server has refused.

        Raises
        ------
        UnusualAnswerError
            When it is not what was asked for.
        ConnectionError
            When the connection broke off; `has_begun` says whether there was an answer.
        """
        self._answer = asyncio.get_running_loop().create_future()
        self._range, self._arrived = (start, stop), arrived
        self._n_read, self._body, self._head = 0, None, None
        try:
            self._transport.write(request)
            return await self._answer
        except BaseException:
            self.abort()
            raise
        finally:
            self._answer = self._arrived = self._body = None

    @property
    def has_begun(self) -> bool:
        """Whether a byte of the last answer has come."""
        return self._n_read > 0 or self._head is not None

    def abort(self) -> None:
        """Close the connection at once."""
        self._transport.abort()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - what fits is read
        """Return where the next bytes go: into the range itself, and no further."""
        if self._answer is None or self._answer.done():
            return self._buffer
        return (self._buffer if self._body is None else self._body)[self._n_read :]

    def buffer_updated(self, nbytes: int) -> None:
        """Go on with what has come."""
        if self._answer is None or self._answer.done():
            self.abort()  # nobody has asked
            return
        self._n_read += nbytes
        try:
            if self._body is None:
                self._read_head()
            self._read_body()
        except UnusualAnswerError as error:
            self._fail(error)
            self.abort()

    def _read_head(self) -> None:
        content = bytes(self._buffer[: self._n_read])
        end = content.find(b"\r\n\r\n")
        if end < 0:
            if self._n_read == len(self._buffer):
                raise UnusualAnswerError
            return
        self._head = head = parse_head(content[:end])
        if head.status >= 400:
            self._finish(memoryview(b""))
            return
        check_ordinary(head, *self._range)
        begun = content[end + 4 :]
        body = memoryview(bytearray(self._range[1] - self._range[0]))
        if len(begun) > len(body):
            raise UnusualAnswerError
        body[: len(begun)] = begun
        self._body, self._n_read = body, len(begun)

    def _read_body(self) -> None:
        body = self._body
        if body is None:
            return
        if self._n_read == len(body):
            self._body, self._n_read = None, 0
            self._finish(body)
        elif self._arrived is not None and self._n_read:
            self._arrived(body[: self._n_read])

    def _finish(self, body: memoryview) -> None:
        if self._answer is not None and not self._answer.done():
            assert self._head is not None
            self._answer.set_result((self._head, body))

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        self._fail(ConnectionResetError(f"the connection broke off: {exc}" if exc else "closed"))

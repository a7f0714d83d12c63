"""HTTP, where each answer says what it is: status, Content-Range, Content-Length."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from lazyarr.store.base import UNCHANGED, Answer
from lazyarr.store.failure import UnusableAnswerError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["ContentRange", "HttpTransport", "parse_content_range"]

_CONTENT_RANGE = re.compile(r"bytes (?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18}|\*)")
# Refused, or not understood: there are servers without suffix ranges (Azure Blob Storage).
_NO_SUFFIX = frozenset({400, 416, 501})


class ContentRange(NamedTuple):
    """Which bytes an answer holds, half open, and the size of the whole object."""

    start: int
    stop: int
    total_nbytes: int | None


def parse_content_range(header: str | None) -> ContentRange:
    """Return what a Content-Range header says (RFC 9110, section 14.4).

    Raises
    ------
    UnusableAnswerError
        When it is missing or not understood.

    Examples
    --------
    >>> parse_content_range("bytes 10-19/100")
    ContentRange(start=10, stop=20, total_nbytes=100)
    >>> parse_content_range("bytes */100")
    ContentRange(start=0, stop=0, total_nbytes=100)
    """
    match = _CONTENT_RANGE.fullmatch((header or "").strip())
    if match is None:
        found = f"the server answered a range with the header Content-Range: {header!r}"
        raise UnusableAnswerError(found)
    first, last, total = match.groups()
    stop = 0 if last is None else int(last) + 1
    return ContentRange(int(first or 0), stop, None if total == "*" else int(total))


class HttpTransport:
    """Ranges over fsspec's HTTP session.

    A server that ignores Range sends the whole object with status 200: the right part of
    it is taken, and the rest left unread.

    Parameters
    ----------
    fs : fsspec.implementations.http.HTTPFileSystem
        Whose session, headers and options are used.
    timeout_seconds : float
        How long one call may take.
    """

    def __init__(self, fs: Any, timeout_seconds: float) -> None:
        self.fs = fs
        self._timeout_seconds = timeout_seconds

    def fetch(self, path: str, start: int | None = None, stop: int | None = None) -> Answer:
        """Return a range of an object, or all of it."""
        return self._run(lambda: self._fetch(path, start, stop))

    def fetch_suffix(self, path: str, nbytes: int) -> Answer:
        """Return the last bytes of an object and its size, in one request if the server can."""
        return self._run(lambda: self._fetch_suffix(path, nbytes))

    def size(self, path: str) -> int:
        """Return an object's size in bytes.

        Notes
        -----
        Asks for one byte: HEAD is refused by some servers, and fsspec's `info` takes every
        failure for a missing object.
        """
        answer = self.fetch(path, 0, 1)
        if answer.total_nbytes is None:
            answer = self.fetch(path)
        return len(answer.data) if answer.total_nbytes is None else answer.total_nbytes

    def list_paths(self, path: str) -> list[str]:
        """Return the links of a directory page that lie directly below it.

        Raises
        ------
        UnusableAnswerError
            When there are none: no page, or a page that is no listing.  A node that
            exists has at least its own metadata in its listing.
        """
        from urllib.parse import unquote

        advice = "name the arrays by path, or write consolidated metadata"
        url = path.rstrip("/") + "/"
        try:
            links = self.fs.ls(url, detail=False, timeout=self._timeout_seconds)
        except FileNotFoundError:
            raise UnusableAnswerError(f"the server lists no directories; {advice}") from None
        names = [link[len(url) :].rstrip("/") for link in links if link.startswith(url)]
        # Links such as "?C=N;O=D" sort the page.
        names = [name for name in names if name and name[0] not in "?#" and "/" not in name]
        if not names:
            raise UnusableAnswerError(f"the server lists nothing there; {advice}")
        return [url + unquote(name) for name in names]

    async def read(
        self, path: str, start: int, stop: int | None, unless: str | None = None
    ) -> Answer:
        """Return ``object[start:stop]``; ``(-n, None)`` are the last `n` bytes."""
        if start < 0:
            return await self._fetch_suffix(path, -start)
        return await self._fetch(path, start, stop, unless)

    async def _fetch(
        self, path: str, start: int | None, stop: int | None, unless: str | None = None
    ) -> Answer:
        if start is None or stop is None:
            async with await self._get(path, None, unless) as response:
                if response.status == 304 and unless is not None:
                    return UNCHANGED
                _require_status(response, path, 200)
                data = await response.read()
                return Answer(data, len(data), _version(response, len(data)))
        async with await self._get(path, f"bytes={start}-{stop - 1}") as response:
            if response.status == 200:
                return await _read_part(response, start, stop)
            if response.status == 416 and "Content-Range" in response.headers:
                total = parse_content_range(response.headers["Content-Range"]).total_nbytes
                return Answer(b"", total)
            _require_status(response, path, 206)
            answer, given = await _read_partial(response)
            if given.start != start or given.stop > stop:
                found = f"the server gave bytes [{given.start}, {given.stop}) instead"
                raise UnusableAnswerError(found)
            return answer

    async def _fetch_suffix(self, path: str, nbytes: int) -> Answer:
        total: int | None
        async with await self._get(path, f"bytes=-{nbytes}") as response:
            if response.status == 206:
                answer, given = await _read_partial(response)
                total = given.total_nbytes
                if total == given.stop and given.start == max(0, given.stop - nbytes):
                    return answer
                found = f"the server gave bytes [{given.start}, {given.stop}) of {total} instead"
                raise UnusableAnswerError(found)
            if response.status not in _NO_SUFFIX:
                _require_status(response, path, 200)
            total = _content_length(response) if response.status == 200 else None
        # Not a suffix, and the whole object is not read for it where that can be avoided.
        if total is None:
            total = (await self._fetch(path, 0, 1)).total_nbytes
        if total is None:
            whole = (await self._fetch(path, None, None)).data
            return Answer(whole[-nbytes:], len(whole))
        if total == 0:
            return Answer(b"", 0)
        return await self._fetch(path, max(0, total - nbytes), total)

    async def _get(self, path: str, byte_range: str | None, unless: str | None = None) -> Any:
        session = await self.fs.set_session()
        # An answer that is compressed for the journey has other ranges than the object.
        headers = {**self.fs.kwargs.get("headers", {}), "Accept-Encoding": "identity"}
        if byte_range is not None:
            headers["Range"] = byte_range
        if unless is not None and unless.startswith('"'):
            headers["If-None-Match"] = unless
        return session.get(self.fs.encode_url(path), **{**self.fs.kwargs, "headers": headers})

    def _run(self, make: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
        from fsspec.asyn import sync

        answer: Answer = sync(self.fs.loop, make, timeout=self._timeout_seconds)
        return answer


def _require_status(response: Any, path: str, wanted: int) -> None:
    if response.status == 404:
        raise FileNotFoundError(path)
    response.raise_for_status()
    if response.status != wanted:
        raise UnusableAnswerError(f"the server answered with status {response.status}")


async def _read_partial(response: Any) -> tuple[Answer, ContentRange]:
    given = parse_content_range(response.headers.get("Content-Range"))
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise UnusableAnswerError(f"the server gave a range of the {encoding} encoded object")
    data = await response.read()
    if len(data) > given.stop - given.start:
        found = f"the server gave {len(data)} bytes as [{given.start}, {given.stop})"
        raise UnusableAnswerError(found)
    return Answer(data, given.total_nbytes, _version(response, given.total_nbytes)), given


async def _read_part(response: Any, start: int, stop: int) -> Answer:
    part = bytearray()
    position = 0
    async for piece in response.content.iter_any():
        part += piece[max(0, start - position) : max(0, stop - position)]
        position += len(piece)
        if position >= stop:
            # Unread bytes are still on their way: this connection is of no more use.
            response.close()
            break
    return Answer(bytes(part), _content_length(response))


def _version(response: Any, total_nbytes: int | None) -> str | None:
    """Return what says that an object has not changed by a byte, if the server gives that.

    A weak entity tag says less.  A date alone does if it has passed for some time when it is
    told: what is written in the same second has the same (RFC 9110, section 8.8.2.2).
    """
    tag: str | None = response.headers.get("ETag")
    if tag is not None:
        return tag if tag.startswith('"') else None
    from email.utils import parsedate_to_datetime

    try:
        modified, now = (response.headers[name] for name in ("Last-Modified", "Date"))
        age = parsedate_to_datetime(now) - parsedate_to_datetime(modified)
    except (KeyError, ValueError, TypeError):
        return None
    return f"{modified} {total_nbytes}" if age.total_seconds() >= 60 else None


def _content_length(response: Any) -> int | None:
    is_plain = response.headers.get("Content-Encoding", "identity") == "identity"
    length = response.headers.get("Content-Length", "")
    return int(length) if is_plain and length.isdecimal() else None

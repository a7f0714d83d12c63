"""HTTP, where each answer says what it is: status, Content-Range, Content-Length."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from lazyarr.store.base import METADATA_NAMES, UNCHANGED, Answer
from lazyarr.store.bodies import read_end, read_part, read_range, read_whole
from lazyarr.store.failure import Fault, UnusableAnswerError, too_long
from lazyarr.store.http_headers import (
    ContentRange,
    check_given,
    content_length,
    parse_content_range,
    version_of,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from lazyarr.store.base import Arrived

__all__ = ["HttpTransport", "parse_links"]

# No part of it can be matched in two ways, so that a page of any kind takes linear time.
_LINK = re.compile(r"""<a(?=\s)[^<>]*?\shref\s*=\s*["']([^"'<>]*)""", re.IGNORECASE)
_PAGE_LIMIT_NBYTES = 16 << 20
"""How long a directory page may be: with that, it names a hundred thousand entries."""
# Refused, or not understood: there are servers without suffix ranges (Azure Blob Storage).
_NO_SUFFIX = frozenset({400, 416, 501})


def parse_links(page: str, url: str) -> tuple[str, ...]:
    """Return the names of what a page links to that lies directly below a URL, still quoted.

    Those of directories end in a slash.

    Examples
    --------
    >>> page = '<a href="c/">c</a> <A HREF="/x/zarr.json">zarr.json</A> <a href="?C=N;O=D">Name</a>'
    >>> parse_links(page, "http://host/x/")
    ('c/', 'zarr.json')
    """
    below = url.partition("://")[2]
    links = (_resolve(url, link).partition("://")[2] for link in _LINK.findall(page))
    names = (link[len(below) :] for link in links if link.startswith(below))
    # Links such as "?C=N;O=D" sort the page.
    return tuple(sorted({n for n in names if n and n[0] not in "?#/" and "/" not in n[:-1]}))


def _resolve(url: str, link: str) -> str:
    from html import unescape
    from urllib.parse import urljoin

    try:
        return urljoin(url, unescape(link))
    except ValueError:  # "http://[" is no link to anywhere
        return ""


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

    def fetch(
        self,
        path: str,
        start: int | None = None,
        stop: int | None = None,
        *,
        limit_nbytes: int | None = None,
    ) -> Answer:
        """Return a range of an object, or all of it."""
        return self._run(lambda: self.read(path, start or 0, stop, limit_nbytes=limit_nbytes))

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
        total = self.fetch(path, 0, 1).total_nbytes
        if total is None:
            total = self._run(lambda: self._count(path)).total_nbytes
        return total or 0

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
            page = self.fetch(url, limit_nbytes=_PAGE_LIMIT_NBYTES).data
        except FileNotFoundError:
            raise UnusableAnswerError(f"the server lists no directories; {advice}") from None
        names = parse_links(str(page, "utf-8", "ignore"), url)
        if not names:
            raise UnusableAnswerError(f"the server lists nothing there; {advice}")
        # Some servers do not say which links are directories.
        mark = "" if any(name.endswith("/") for name in names) else "/"
        return [url + unquote(name) + mark for name in names]

    async def read(
        self,
        path: str,
        start: int,
        stop: int | None,
        *,
        unless: str | None = None,
        limit_nbytes: int | None = None,
        arrived: Arrived | None = None,
    ) -> Answer:
        """Return ``object[start:stop]``; ``(-n, None)`` are the last `n` bytes."""
        if start < 0:
            return await self._fetch_suffix(path, -start)
        if stop is not None:
            return await self._fetch_range(path, start, stop, arrived)
        async with await self._get(path, None, unless) as response:
            if response.status == 304 and unless is not None:
                return UNCHANGED
            _require_status(response, path, 200)
            if limit_nbytes is not None and (content_length(response.headers) or 0) > limit_nbytes:
                raise too_long(limit_nbytes)
            data = await read_whole(_pieces(response), limit_nbytes)
            _refuse_page(path, data, response)
            return Answer(data, len(data), version_of(response.headers, len(data)))

    async def _fetch_range(
        self, path: str, start: int, stop: int, arrived: Arrived | None = None
    ) -> Answer:
        async with await self._get(path, f"bytes={start}-{stop - 1}") as response:
            if response.status == 200:
                data, came_nbytes = await read_part(_pieces(response), start, stop)
                return Answer(data, content_length(response.headers), None, came_nbytes)
            if response.status == 416 and "Content-Range" in response.headers:
                total = parse_content_range(response.headers["Content-Range"]).total_nbytes
                return Answer(b"", total)
            _require_status(response, path, 206)
            given = _given(response)
            check_given(given, start, stop)
            return await _read_partial(response, given, arrived)

    async def _fetch_suffix(self, path: str, nbytes: int) -> Answer:
        total: int | None
        async with await self._get(path, f"bytes=-{nbytes}") as response:
            if response.status == 206:
                given = _given(response)
                total = given.stop if given.total_nbytes is None else given.total_nbytes
                check_given(given, max(0, total - nbytes), total)
                if given.total_nbytes != given.stop:
                    found = (
                        f"the server gave bytes [{given.start}, {given.stop}) of {total} instead"
                    )
                    raise UnusableAnswerError(found)
                return await _read_partial(response, given)
            if response.status not in _NO_SUFFIX:
                _require_status(response, path, 200)
            total = content_length(response.headers) if response.status == 200 else None
        # Not a suffix, and the whole object is not read for it where that can be avoided.
        if total is None:
            total = (await self._fetch_range(path, 0, 1)).total_nbytes
        if total is None:
            return await self._count(path, nbytes)
        if total == 0:
            return Answer(b"", 0)
        return await self._fetch_range(path, max(0, total - nbytes), total)

    async def _count(self, path: str, nbytes: int = 0) -> Answer:
        """Return the last bytes of an object and its size, from a server that tells neither."""
        async with await self._get(path, None) as response:
            _require_status(response, path, 200)
            return Answer(*await read_end(_pieces(response), nbytes))

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


def _refuse_page(path: str, data: bytes, response: Any) -> None:
    """Refuse a page where a document of a node was asked for.

    Servers of web applications answer so, with status 200, for whatever they do not have.
    """
    begin = data[:200].lstrip()
    kind = str(response.headers.get("Content-Type", "no content type"))
    is_page = begin.startswith(b"<") or ("html" in kind and not begin.startswith(b"{"))
    if is_page and path.rpartition("/")[2] in METADATA_NAMES:
        found = f"the server answered with a page ({kind}) that begins with {bytes(begin[:40])!r}"
        raise UnusableAnswerError(found, Fault.PAGE)


def _given(response: Any) -> ContentRange:
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise UnusableAnswerError(f"the server gave a range of the {encoding} encoded object")
    return parse_content_range(response.headers.get("Content-Range"))


async def _read_partial(
    response: Any, given: ContentRange, arrived: Arrived | None = None
) -> Answer:
    data = await read_range(_pieces(response), given.stop - given.start, arrived)
    return Answer(data, given.total_nbytes, version_of(response.headers, given.total_nbytes))


async def _pieces(response: Any) -> AsyncIterator[bytes]:
    # As they have come: `read` would join them twice.
    async for piece, _ in response.content.iter_chunks():
        yield piece

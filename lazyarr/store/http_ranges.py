"""Ranges of objects over HTTP/1.1, received where they stay.

aiohttp takes half a millisecond of the processor for a request, and copies what comes three
times; for chunks of half a mebibyte that is a third of what it takes to decompress them.  Here is
as much of HTTP as an ordinary answer to a range needs: status 206, the range, as long as it is.
An error of the server's is raised as aiohttp would; of everything else nothing is believed,
and whoever asks does so again through aiohttp, from then on at once.
"""

from __future__ import annotations

import asyncio
import ssl
import weakref
from typing import TYPE_CHECKING, Any

from lazyarr.store.base import Answer
from lazyarr.store.http_connection import Connection
from lazyarr.store.http_headers import Head, UnusualAnswerError, parse_content_range, version_of

if TYPE_CHECKING:
    from lazyarr.store.base import Arrived

__all__ = ["RangeClient", "range_client"]

# What aiohttp keeps an idle connection for: those in between forget it soon after.
_KEPT_SECONDS = 15.0


class _UnreachableError(Exception):
    """No connection could be made, of which aiohttp says more."""


class RangeClient:
    """Connections to servers, each used again; all on one event loop.

    Parameters
    ----------
    headers : mapping
        What is sent with each request.
    """

    def __init__(self, headers: dict[str, str]) -> None:
        given = {name.lower(): value for name, value in headers.items()}
        # An answer that is compressed for the journey has other ranges than the object.
        always = {"accept-encoding": "identity"}
        self._fields = {"accept": "*/*", "user-agent": "lazyarr", **given, **always}
        self._idle: dict[tuple[str, int, bool], list[Connection]] = {}
        self._unusual: set[tuple[str, int, bool]] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._context: ssl.SSLContext | None = None

    def __repr__(self) -> str:
        return f"<RangeClient: {sum(map(len, self._idle.values()))} idle connections>"

    async def fetch(
        self,
        url: Any,
        start: int,
        stop: int,
        *,
        arrived: Arrived | None = None,
    ) -> Answer | None:
        """Return ``object[start:stop]``; None when the server has to be asked in another way.

        Parameters
        ----------
        url : yarl.URL
            Of the object.
        start, stop : int
            Half-open range in bytes.
        arrived : callable, optional
            Told of the beginning of the range, whenever more of it is there.

        Raises
        ------
        aiohttp.ClientError, FileNotFoundError
            As from aiohttp, or when the object does not exist.
        """
        server = (url.raw_host, url.port, url.scheme == "https")
        if server in self._unusual or url.user is not None or url.password is not None:
            return None
        request = self._request(url, start, stop)
        try:
            head, body = await self._ask(server, request, start, stop, arrived)
        except _UnreachableError:
            return None
        except UnusualAnswerError:
            self._unusual.add(server)
            return None
        except OSError as error:
            raise _broken_off(error) from error
        if head.status < 400:
            total = parse_content_range(head.headers["Content-Range"]).total_nbytes
            return Answer(body, total, version_of(head.headers, total))
        if head.status == 404:
            raise FileNotFoundError(str(url))
        if head.status == 416 and "Content-Range" in head.headers:
            return Answer(b"", parse_content_range(head.headers["Content-Range"]).total_nbytes)
        raise _refused(head, url)

    def _request(self, url: Any, start: int, stop: int) -> bytes:
        host = url.raw_host if not url.host_subcomponent else url.host_subcomponent
        if not url.is_default_port():
            host = f"{host}:{url.port}"
        lines = [f"GET {url.raw_path_qs} HTTP/1.1", f"Host: {host}"]
        lines += [f"{name}: {value}" for name, value in self._fields.items()]
        lines.append(f"Range: bytes={start}-{stop - 1}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    async def _ask(
        self,
        server: tuple[str, int, bool],
        request: bytes,
        start: int,
        stop: int,
        arrived: Arrived | None,
    ) -> tuple[Head, memoryview]:
        connection = self._take(server)
        is_fresh = connection is None
        while True:
            if connection is None:
                connection = await self._connect(server)
            try:
                head, body = await connection.ask(request, start, stop, arrived)
                break
            except OSError:
                # The server may have closed it before the request came, as it may any idle one.
                if is_fresh or connection.has_begun:
                    raise
            connection, is_fresh = None, True
        if head.status < 400 and head.headers.get("Connection", "").lower() != "close":
            self._give_back(server, connection)
        else:
            connection.abort()
        return head, body

    async def _connect(self, server: tuple[str, int, bool]) -> Connection:
        host, port, is_encrypted = server
        context = self._tls() if is_encrypted else None
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(
                Connection, host, port, ssl=context, happy_eyeballs_delay=0.25
            )
        except OSError as error:
            raise _UnreachableError from error
        return connection

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = ssl.create_default_context()
            self._context.set_alpn_protocols(["http/1.1"])
        return self._context

    def _take(self, server: tuple[str, int, bool]) -> Connection | None:
        """Return the connection that was used last, if one is idle."""
        idle = self._idle.get(server, [])
        oldest = asyncio.get_running_loop().time() - _KEPT_SECONDS
        while idle:
            connection = idle.pop()
            if connection.is_open and connection.idle_since > oldest:
                return connection
            connection.abort()
        return None

    def _give_back(self, server: tuple[str, int, bool], connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        self._idle.setdefault(server, []).append(connection)
        if self._sweep is None:
            self._sweep = loop.call_later(_KEPT_SECONDS, self._close_idle)

    def _close_idle(self) -> None:
        """Close what has not been used for a while."""
        loop = asyncio.get_running_loop()
        oldest = loop.time() - _KEPT_SECONDS
        for server, idle in list(self._idle.items()):
            kept = [c for c in idle if c.is_open and c.idle_since > oldest]
            for connection in idle:
                if connection not in kept:
                    connection.abort()
            self._idle[server] = kept
        is_needed = any(self._idle.values())
        self._sweep = loop.call_later(_KEPT_SECONDS, self._close_idle) if is_needed else None


_clients: weakref.WeakKeyDictionary[Any, RangeClient] = weakref.WeakKeyDictionary()


def range_client(fs: Any, open_session: object) -> RangeClient | None:
    """Return the client for a file system; None if it was given options that aiohttp must see.

    One for all stores that share the file system.

    Parameters
    ----------
    fs : fsspec.implementations.http.HTTPFileSystem
        Whose headers are sent.
    open_session : callable
        What it opens sessions with unless a user has given something else.
    """
    headers = fs.kwargs.get("headers", {})
    is_plain = type(fs).__name__ == "HTTPFileSystem" and fs.get_client is open_session
    if not is_plain or fs.client_kwargs or set(fs.kwargs) - {"headers"}:
        return None
    if not all(_is_plain_field(*field) for field in headers.items()):
        return None
    client = _clients.get(fs)
    if client is None:
        client = _clients[fs] = RangeClient(dict(headers))
    return client


def _is_plain_field(name: object, value: object) -> bool:
    """Return whether a header field of the user's may be sent as it is."""
    if not (isinstance(name, str) and isinstance(value, str)):
        return False
    is_token = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
    is_theirs = name.lower() not in ("host", "range", "connection", "content-length")
    return is_token and is_theirs and value.isascii() and value.isprintable()


def _broken_off(error: OSError) -> Exception:
    import aiohttp

    return aiohttp.ClientOSError(error.errno, str(error))


def _refused(head: Head, url: Any) -> Exception:
    import aiohttp
    from multidict import CIMultiDict, CIMultiDictProxy

    asked = aiohttp.RequestInfo(url, "GET", CIMultiDictProxy(CIMultiDict[str]()), url)
    return aiohttp.ClientResponseError(
        asked, (), status=head.status, message=head.reason, headers=head.headers
    )

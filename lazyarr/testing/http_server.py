"""A real HTTP server for a directory, with ranges, that misbehaves on command."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from lazyarr.testing.process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Behaviour", "HttpRequest", "HttpServer", "serve_directory"]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How the server answers; the default is as it should be.

    Attributes
    ----------
    status : int or None
        This status in place of an answer.
    ignore_range : bool
        Status 200 and the whole object, whatever range was asked for.
    no_suffix : bool
        Status 416 for ``bytes=-n``, as some servers answer.
    shift_nbytes : int
        A range that begins that much later than asked for.
    truncate : bool
        Half of the body, then the connection is closed.
    drop : bool
        The connection is closed without an answer.
    wrong_bytes : bool
        A body of the right length with each byte flipped.
    delay_seconds : float
        How long the answer is held back.
    no_listing : bool
        Status 404 for directories.
    missing_status : int
        The status for what does not exist.
    etags : bool
        Answers name the object's version, and status 304 says that it has not changed.
    hold : bool
        The answer is held back until `HttpServer.let_go`.
    no_length : bool
        The body ends where the connection does.
    excess_nbytes : int
        So many bytes more than there are, all zero.
    pause_seconds : float
        How long the server rests after each 64 KiB of them.
    """

    status: int | None = None
    ignore_range: bool = False
    no_suffix: bool = False
    shift_nbytes: int = 0
    truncate: bool = False
    drop: bool = False
    wrong_bytes: bool = False
    delay_seconds: float = 0.0
    no_listing: bool = False
    missing_status: int = 404
    etags: bool = True
    hold: bool = False
    no_length: bool = False
    excess_nbytes: int = 0
    pause_seconds: float = 0.0


class HttpRequest(NamedTuple):
    """One request that arrived; `port` is the other side's, one for each connection."""

    method: str
    path: str
    range: str | None
    port: int


class HttpServer:
    """A handle on the server process.

    Attributes
    ----------
    url : str
        Of the directory, without a slash at the end.
    directory : str
        What is served; files put there are seen at once.
    """

    def __init__(self, process: ServerProcess, directory: str, scheme: str = "http") -> None:
        self._process = process
        self.directory = directory
        self.url = f"{scheme}://127.0.0.1:{process.ready}"

    def __repr__(self) -> str:
        return f"HttpServer({self.url!r}, pid={self._process.pid})"

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    def behave(
        self, behaviour: Behaviour, *, times: int | None = None, path: str | None = None
    ) -> None:
        """Change how the server answers from now on, in place of what was set before.

        Parameters
        ----------
        behaviour : Behaviour
            ``Behaviour()`` is proper again.
        times : int or None
            For how many requests; None for all.
        path : str, optional
            Only requests whose path contains this.
        """
        command = {"behaviour": dataclasses.asdict(behaviour), "times": times, "path": path}
        self._process.ask(command)

    def requests(self) -> list[HttpRequest]:
        """Return the requests since the last call of this method."""
        return [HttpRequest(*request) for request in self._process.ask({})]

    def wait_for_held(self, number: int, seconds: float = 20.0) -> int:
        """Return how many requests are held back, when there are so many or time is up."""
        held: int = self._process.ask({"wait_for_held": number, "seconds": seconds})
        return held

    def let_go(self, number: int) -> int:
        """Answer the oldest requests that are held back; return how many were at most."""
        most_held: int = self._process.ask({"let_go": number})
        return most_held


@contextlib.contextmanager
def serve_directory(
    path: str | os.PathLike[str], *, certificate: str | None = None
) -> Iterator[HttpServer]:
    """Serve a directory on 127.0.0.1 from another process.

    Parameters
    ----------
    path : str or os.PathLike
        The directory.
    certificate : str, optional
        A file with a private key and a certificate: with it, connections are encrypted.

    Examples
    --------
    >>> import tempfile, lazyarr.store
    >>> with tempfile.TemporaryDirectory() as directory, serve_directory(directory) as server:
    ...     server.behave(Behaviour(status=503))
    ...     lazyarr.store.open_store(server.url).read("zarr.json")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    lazyarr.errors.StoreError: ...503...
    """
    program = "import sys; from lazyarr.testing.http_answering import main; main(*sys.argv[1:])"
    arguments = [os.fspath(path)] if certificate is None else [os.fspath(path), certificate]
    with ServerProcess(["-c", program, *arguments]) as process:
        scheme = "http" if certificate is None else "https"
        yield HttpServer(process, os.fspath(path), scheme)

"""A server that is not the bottleneck: ``python -m benchmarks.remote_server DIRECTORY DELAY RATE``.

It answers GET and HEAD with ranges for files of a directory, each answer after a delay, and
all of them together no faster than a rate.  That is as much of HTTP, and of S3 in path style, as
readers ask for.  A thread for each connection, and sendfile: bytes do not pass through Python.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import threading
import time
from pathlib import Path
from urllib.parse import unquote

_RANGE = re.compile(rb"\r\nrange: bytes=(\d*)-(\d*)", re.IGNORECASE)
_PIECE_NBYTES = 1 << 18
_MISSING = b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code><Message>-</Message></Error>"


class Link:
    """What all answers go through, one piece after another; a rate of 0 is no limit."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._free_at = 0.0

    def wait(self, nbytes: int) -> None:
        """Wait until so much has gone through."""
        if not self._rate:
            return
        with self._lock:
            self._free_at = max(self._free_at, time.monotonic()) + nbytes / self._rate
            until = self._free_at
        time.sleep(max(0.0, until - time.monotonic()))


class Connection:
    """Answers the requests of one connection, one after the other."""

    def __init__(self, client: socket.socket, root: Path, delay: float, link: Link) -> None:
        self._client = client
        self._root = root
        self._delay = delay
        self._link = link

    def serve(self) -> None:
        """Answer until the other side closes."""
        self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        waiting = b""
        try:
            while True:
                while b"\r\n\r\n" not in waiting:
                    received = self._client.recv(1 << 16)
                    if not received:
                        return
                    waiting += received
                head, _, waiting = waiting.partition(b"\r\n\r\n")
                time.sleep(self._delay)
                self._answer(head)
        except ConnectionError:
            return
        finally:
            self._client.close()

    def _answer(self, head: bytes) -> None:
        method, target = head.split(b" ", 2)[:2]
        path = self._root / unquote(target.decode().partition("?")[0]).strip("/")
        if not path.is_file():
            self._send_head(method, "404 Not Found", len(_MISSING), "")
            self._client.sendall(b"" if method == b"HEAD" else _MISSING)
            return
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            size = status.st_size
            fields = f'ETag: "{status.st_mtime_ns:x}-{size:x}"\r\nAccept-Ranges: bytes\r\n'
            match = _RANGE.search(head)
            start, stop = _choose(match, size)
            if match is None:
                self._send_head(method, "200 OK", size, fields)
            else:
                fields += f"Content-Range: bytes {start}-{stop - 1}/{size}\r\n"
                self._send_head(method, "206 Partial Content", stop - start, fields)
            while start < stop and method != b"HEAD":
                nbytes = min(_PIECE_NBYTES, stop - start)
                self._link.wait(nbytes)
                start += os.sendfile(self._client.fileno(), file.fileno(), start, nbytes)

    def _send_head(self, method: bytes, status: str, nbytes: int, fields: str) -> None:
        date = "Last-Modified: Mon, 01 Jan 2024 00:00:00 GMT\r\nx-amz-request-id: 0\r\n"
        head = f"HTTP/1.1 {status}\r\nContent-Length: {nbytes}\r\n{date}{fields}\r\n"
        # With MSG_MORE it waits for what follows; where nothing does, for 200 ms (tcp(7)).
        follows = nbytes and method != b"HEAD"
        self._client.send(head.encode(), socket.MSG_MORE if follows else 0)


def _choose(match: re.Match[bytes] | None, size: int) -> tuple[int, int]:
    if match is None:
        return 0, size
    first, last = match.groups()
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(int(last) + 1, size) if last else size


def main() -> None:
    """Serve until the input ends; the first line of output is the port."""
    root, delay, link = Path(sys.argv[1]), float(sys.argv[2]), Link(float(sys.argv[3]))
    server = socket.create_server(("127.0.0.1", 0), backlog=512)
    print(server.getsockname()[1], flush=True)

    def accept() -> None:
        while True:
            connection = Connection(server.accept()[0], root, delay, link)
            threading.Thread(target=connection.serve, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()

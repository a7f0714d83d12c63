"""The process of `http_server.serve_directory`: how it answers."""

from __future__ import annotations

import contextlib
import os
import re
import ssl
import sys
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from lazyarr.testing.http_server import Behaviour, HttpRequest
from lazyarr.testing.process import serve_commands

__all__ = ["main"]

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_PIECE = bytes(1 << 16)


class _Gate:
    """Where requests are held back."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._n_come = 0
        self._n_let_go = 0
        self._n_held = 0
        self._most_held = 0

    def hold(self) -> None:
        """Wait until this request is let go."""
        with self._changed:
            self._n_come += 1
            number = self._n_come
            self._n_held += 1
            self._most_held = max(self._most_held, self._n_held)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._n_let_go >= number)
            self._n_held -= 1

    def wait_for_held(self, number: int, seconds: float) -> int:
        """Return how many wait, when they are so many or time is up."""
        with self._changed:
            self._changed.wait_for(lambda: self._n_come - self._n_let_go >= number, seconds)
            return self._n_come - self._n_let_go

    def let_go(self, number: int) -> int:
        """Let the oldest go on; return how many have waited at once, at most."""
        with self._changed:
            self._n_let_go += number
            self._changed.notify_all()
            return self._most_held


class _Server(ThreadingHTTPServer):
    """What the threads of the server share."""

    daemon_threads = True
    # Five by default.  Of more connections at once the kernel drops some, and their clients try
    # again after a second.
    request_queue_size = 128

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.lock = threading.Lock()
        self.requests: list[HttpRequest] = []
        self.behaviour = Behaviour()
        self.times: int | None = None
        self.path: str | None = None
        self.gate = _Gate()
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that were killed."""
        if not isinstance(sys.exception(), (ConnectionError, ssl.SSLError)):
            super().handle_error(request, client_address)

    def command(self, command: dict[str, Any]) -> Any:
        if "wait_for_held" in command:
            return self.gate.wait_for_held(command["wait_for_held"], command["seconds"])
        if "let_go" in command:
            return self.gate.let_go(command["let_go"])
        with self.lock:
            if command:
                self.behaviour = Behaviour(**command["behaviour"])
                self.times, self.path = command["times"], command["path"]
                return None
            requests, self.requests = self.requests, []
            return requests

    def behaviour_for(self, request: HttpRequest) -> Behaviour:
        with self.lock:
            self.requests.append(request)
            if self.times == 0 or (self.path is not None and self.path not in request.path):
                return Behaviour()
            if self.times is not None:
                self.times -= 1
            return self.behaviour


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    _etag = ""

    def __init__(self, request: Any, client_address: Any, server: _Server) -> None:
        super().__init__(request, client_address, server, directory=server.directory)

    def do_GET(self) -> None:
        port = self.client_address[1]
        request = HttpRequest(self.command, self.path, self.headers.get("Range"), port)
        behaviour = self.server.behaviour_for(request)
        time.sleep(behaviour.delay_seconds)
        if behaviour.hold:
            self.server.gate.hold()
        path = self.translate_path(self.path)
        if behaviour.drop:
            self.close_connection = True
        elif behaviour.status is not None:
            self.send_error(behaviour.status)
        elif os.path.isdir(path) and not behaviour.no_listing:
            super().do_HEAD() if self.command == "HEAD" else super().do_GET()
        elif os.path.isfile(path):
            with open(path, "rb") as file:
                status = os.fstat(file.fileno())
                self._etag = f'"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"'
                self._send_object(file.read(), request.range, behaviour)
        else:
            self.send_error(behaviour.missing_status)

    do_HEAD = do_GET  # noqa: N815 - http.server's name

    def _send_object(self, data: bytes, asked: str | None, behaviour: Behaviour) -> None:
        match = _RANGE.fullmatch(asked or "")
        if behaviour.etags and self.headers.get("If-None-Match") == self._etag:
            self._send_body(304, b"", None, behaviour)
            return
        if match is None or behaviour.ignore_range:
            self._send_body(200, data, None, behaviour)
            return
        first, last = match.groups()
        start = max(0, len(data) - int(last)) if first == "" else int(first)
        stop = len(data) if first == "" or last == "" else min(int(last) + 1, len(data))
        start += behaviour.shift_nbytes
        if start >= stop or (first == "" and behaviour.no_suffix):
            self._send_body(416, b"", f"bytes */{len(data)}", behaviour)
            return
        content_range = f"bytes {start}-{stop - 1}/{len(data)}"
        self._send_body(206, data[start:stop], content_range, behaviour)

    def _send_body(
        self, status: int, body: bytes, content_range: str | None, behaviour: Behaviour
    ) -> None:
        self.send_response(status)
        if behaviour.no_length:
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(len(body) + behaviour.excess_nbytes))
        if content_range is not None:
            self.send_header("Content-Range", content_range)
        if behaviour.etags:
            self.send_header("ETag", self._etag)
        self.end_headers()
        if behaviour.wrong_bytes:
            body = bytes(byte ^ 0xFF for byte in body)
        if behaviour.truncate:
            body = body[: len(body) // 2]
            self.close_connection = True
        # A client that has enough closes the connection.
        with contextlib.suppress(ConnectionError):
            self.wfile.write(b"" if self.command == "HEAD" else body)
            for start in range(0, behaviour.excess_nbytes, len(_PIECE)):
                self.wfile.write(_PIECE[: behaviour.excess_nbytes - start])
                time.sleep(behaviour.pause_seconds)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Say nothing: the requests are kept for `HttpServer.requests`."""


def main(directory: str, certificate: str | None = None) -> None:
    """Be the server process of `http_server.serve_directory`."""
    server = _Server(directory)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        # The handshake is done where a connection is served, not where all are accepted.
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    serve_commands(server.server_port, server.command)

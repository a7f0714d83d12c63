"""A server in a process of its own, which ends when its input does.

A thread that touches lazy memory holds the GIL until the pager has the data, so a
server that the pager needs cannot be a thread of the same process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Self

__all__ = ["ServerProcess", "serve_commands"]


class ServerProcess:
    """A child process that answers one line of JSON with one line of JSON.

    Parameters
    ----------
    arguments : sequence of str
        For the Python interpreter: ``["-m", "package.module", ...]``.

    Notes
    -----
    The first line comes unasked, when the server is ready.  The child ends when its
    standard input reaches end of file, so also when this process is killed.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self._lock = threading.Lock()
        # The child finds what this process finds, also in a checkout that is not installed.
        path = os.pathsep.join(sys.path)
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.ready = self._read_answer()

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    def ask(self, command: dict[str, Any]) -> Any:
        """Send a command and return the answer."""
        with self._lock:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
            return self._read_answer()

    def close(self) -> None:
        """End the child and wait for it."""
        # Popen's own way out closes both pipes and waits.
        with self._process:
            self._process.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _read_answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            message = f"cannot run a test server: it ended with {self._process.wait()}; see stderr"
            raise RuntimeError(message)
        return json.loads(line)


def serve_commands(ready: Any, answer: Callable[[dict[str, Any]], Any]) -> None:
    """Be the child of a `ServerProcess`: answer commands until the input ends."""
    sys.stdout.write(json.dumps(ready) + "\n")
    sys.stdout.flush()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(json.loads(line))) + "\n")
        sys.stdout.flush()

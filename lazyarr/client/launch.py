"""Starting the pager, without waiting for it."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from typing import NamedTuple

from lazyarr.errors import PagerError

__all__ = ["Launched", "Starter", "launch_pager"]

_CHANNEL_IN_PAGER = 3


class Starter:
    """The child that starts the pager and ends: waited for once, by whoever is first.

    Only once, for its number may soon be that of another child.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._parent_pid = os.getpid()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Starter: process {self._pid or 'that has ended'}>"

    def wait(self) -> None:
        """Wait until it has ended and is forgotten by the kernel."""
        if os.getpid() != self._parent_pid:
            return  # a fork of its parent has no such child, and perhaps a lock that nobody opens
        with self._lock:
            pid, self._pid = self._pid, 0
            # Somebody's os.wait() may have been faster.
            with suppress(ChildProcessError):
                if pid:
                    os.waitpid(pid, 0)


class Launched(NamedTuple):
    """A pager that is on its way.

    Attributes
    ----------
    descriptor : int
        A channel to it; what is sent there is read when it is up.
    starter : Starter
        A child that ends at once, and must be waited for; the pager is its
        child, and nobody's after that.
    """

    descriptor: int
    starter: Starter


def launch_pager() -> Launched:
    """Start a pager process and return at once.

    Raises
    ------
    PagerError
        When no process can be started.
    """
    # No channels yet: importing what they need can wait until the pager is on its way.
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    package = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    script = os.path.join(package, "pager", "__main__.py")
    paths = [path for path in (*sys.path, os.path.dirname(package)) if path]
    arguments = [sys.executable, "-I", "-S", script, str(_CHANNEL_IN_PAGER), *paths]
    null = os.devnull
    try:
        pid = os.posix_spawn(
            sys.executable,
            arguments,
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, theirs.fileno(), _CHANNEL_IN_PAGER),
                (os.POSIX_SPAWN_OPEN, 0, null, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, null, os.O_WRONLY, 0),
            ],
            # Ctrl-C at the terminal is the client's alone.
            setsid=True,
            setsigdef=signal.valid_signals(),
            setsigmask=(),
        )
    except OSError as error:
        ours.close()
        raise PagerError(f"cannot start the pager: {error}; check {sys.executable}") from error
    finally:
        theirs.close()
    return Launched(ours.detach(), Starter(pid))

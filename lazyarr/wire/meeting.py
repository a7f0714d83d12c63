"""Where processes come to a pager that did not fork them: a socket with a name.

The name lies in the abstract namespace of Unix sockets (unix(7)): there is no file that
could be left behind, and it is gone with the last process that has the socket.  Others can
see such names, and take one that is free again, so both sides ask the kernel who the other
one is.
"""

from __future__ import annotations

import errno
import os
import socket
import struct

from lazyarr.wire.channel import Channel

__all__ = ["accept", "connect", "listen", "new_name", "pid_namespace"]

_UCRED = struct.Struct("=iII")  # struct ucred: pid, uid, gid (linux/socket.h)
_BACKLOG = 1024


def new_name() -> str:
    """Return a name for a pager that nobody can guess."""
    return os.urandom(16).hex()


def listen(name: str) -> socket.socket | None:
    """Return a socket that others can `connect` to; None when there is one already.

    Raises
    ------
    OSError
        When there can be none.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.settimeout(0)
        sock.bind(_address(name))
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise
    return sock


def accept(listener: socket.socket) -> Channel | None:
    """Return a channel to somebody who has come, if it is a process of this user's.

    Raises
    ------
    OSError
        When nobody waits, or there is no descriptor left.
    """
    sock, _ = listener.accept()
    if _is_own(sock):
        return Channel(sock)
    sock.close()
    return None


def connect(name: str, *, timeout_seconds: float) -> Channel | None:
    """Return a channel to the pager of a name, if there is one and it is this user's.

    Waiting for an answer on it ends after the time-out too, with an error.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.settimeout(timeout_seconds)
        sock.connect(_address(name))
    except OSError:
        sock.close()
        return None
    if _is_own(sock):
        return Channel(sock)
    sock.close()
    return None


def pid_namespace() -> int:
    """Return the inode of this process's namespace of process ids; 0 where it is not known."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0


def _is_own(sock: socket.socket) -> bool:
    """Return whether the other side was a process of this user's when it came, or listened."""
    found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _, uid, _ = _UCRED.unpack(found)
    return bool(uid == os.geteuid())


def _address(name: str) -> str:
    return f"\0lazyarr-{name}"

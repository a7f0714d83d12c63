"""The socket by whose name invited processes reach a pager that did not fork them.

The name lies in the abstract namespace of Unix sockets (unix(7)).  So there is no file that
could be left behind, and the name is gone with the last process that has the socket.  Every
process can see such names (/proc/net/unix), and take one that is free again.  So both sides
ask the kernel for the other one's user.  The process that connects sends a secret first, which
travels with pickled arrays and nowhere else.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import struct
from contextlib import suppress
from typing import NamedTuple

from lazyarr.errors import PagerError
from lazyarr.wire.channel import Channel
from lazyarr.wire.messages import VERSION, Refused

__all__ = [
    "Invitation",
    "accept",
    "connect",
    "invitation_away",
    "listen",
    "new_invitation",
    "pid_namespace",
]

# asm-generic/socket.h, Linux 6.5: a descriptor of the process itself, not its number alone.
_SO_PEERPIDFD = 77
_UCRED = struct.Struct("=iII")  # struct ucred: pid, uid, gid (linux/socket.h)
_BACKLOG = 1024


class Invitation(NamedTuple):
    """The name and the secret by which a process becomes a client of a pager.

    Attributes
    ----------
    name : str
        Name of the socket, which every process can see.
    secret : str
        The word that the process sends first.
    """

    name: str
    secret: str


def new_invitation() -> Invitation:
    """Return a name for a pager and a secret, neither of which can be guessed."""
    return Invitation(os.urandom(16).hex(), os.urandom(16).hex())


def invitation_away(invitation: Invitation) -> Invitation:
    """Return how processes come together that were invited and cannot reach the pager.

    It is the same for all of one user in one container, and has nothing that tells of the secret
    that it is made of.  Only who has been invited can know it.
    """
    import hashlib  # few processes come here

    # Who differs in one of these is turned away by a pager (`accept`, `Knock`), and so would be in
    # the way of those who are not.
    place = f"{VERSION} {os.geteuid()} {pid_namespace()} {':'.join(invitation)}"

    def word(what: str) -> str:
        return hashlib.sha256(f"lazyarr {what} {place}".encode()).hexdigest()[:32]

    return Invitation(word("name"), word("secret"))


def listen(name: str) -> socket.socket | None:
    """Return a socket that other processes `connect` to; None when the name is taken.

    Raises
    ------
    OSError
        When no socket can be made.
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
    """Return a channel to a process that has connected; None when it may not be a client.

    A client must be a process of the same user, and in the same namespace of process ids.  Only
    there does a process id mean the same process to both sides.  This user's process is told why it
    may not: to one that hears nothing it looks like a worker that has died, and it comes again.

    Raises
    ------
    OSError
        When no process has connected, or no descriptor is left.
    """
    sock, _ = listener.accept()
    channel = Channel(sock)
    try:
        if _is_own(sock):
            if _is_in_namespace(sock):
                return channel
            with suppress(PagerError):  # it has hung up
                channel.send(Refused("it is in another container"), wait=False)
    except BaseException:
        channel.close()
        raise
    channel.close()
    return None


def connect(name: str, *, timeout_seconds: float) -> Channel | None:
    """Return a channel to the pager of a name; None when there is none of this user.

    Waiting for an answer on the channel ends after the same time-out, with an error.
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
    """Return whether the other side was a process of this user when it connected or listened."""
    return _peer(sock)[1] == os.geteuid()


def _is_in_namespace(sock: socket.socket) -> bool:
    """Return whether the other side is in this process's namespace of process ids.

    The kernel gives 0 for a process that has no number here (unix(7), SO_PEERCRED), but one in
    a namespace below this one has a number in both.
    """
    pid, _ = _peer(sock)
    here = pid_namespace()
    if not pid or not here:
        return False
    try:
        pidfd = _open_peer(sock, pid)
    except ProcessLookupError:
        return False
    try:
        there = os.stat(f"/proc/{pid}/ns/pid").st_ino
        # The process lives still.  So the directory that was looked at was its own, and not that
        # of another process with the same number.
        signal.pidfd_send_signal(pidfd, 0)
    except (ProcessLookupError, FileNotFoundError, PermissionError):
        return False
    finally:
        os.close(pidfd)
    return there == here


def _open_peer(sock: socket.socket, pid: int) -> int:
    try:
        return sock.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError as error:
        if error.errno not in (errno.ENOPROTOOPT, errno.EINVAL, errno.ENODATA):
            raise
    return os.pidfd_open(pid)


def _peer(sock: socket.socket) -> tuple[int, int]:
    """Return the number and the user of the process at the other side."""
    found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, _ = _UCRED.unpack(found)
    return pid, uid


def _address(name: str) -> str:
    return f"\0lazyarr-{name}"

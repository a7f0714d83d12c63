"""Signals and descriptors that tell of another process's end."""

from __future__ import annotations

import errno
import os
import select

from lazyarr.kernel.refusal import describe_errno, refusal

__all__ = ["arm_lifeline", "disarm_lifeline", "pidfd_open"]


def arm_lifeline(sock_fd: int, signal: int) -> None:
    """Have the kernel signal this process when the other end of a socket closes.

    A thread that waits for a page, with the GIL held, runs no Python; the
    kernel's signal reaches it all the same.

    Parameters
    ----------
    sock_fd : int
        This end of a socket pair.  Nothing may ever be sent to it: data that
        comes in signals too (F_SETSIG in fcntl(2)).  Nor may anybody wait in recv
        on it: the kernel does not signal while a reader waits (SOCK_WAKE_WAITD).
    signal : int
        The signal's number, such as SIGBUS.

    Raises
    ------
    KernelError
        EPIPE: the other end is closed already, which no signal would tell.

    Notes
    -----
    O_ASYNC belongs to the open socket, which a forked child shares, and the owner
    is a process id: the child arms a lifeline of its own on a socket of its own.
    """
    # PR_SET_PDEATHSIG would tell of the death of the parent, and the pager is nobody's
    # parent.  A pidfd would have to be polled, which takes a thread, and that the GIL.
    import fcntl

    fcntl.fcntl(sock_fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(sock_fd, fcntl.F_SETSIG, signal)
    # The other end's close, whatever causes it, is an event of the socket, and O_ASYNC
    # turns it into the signal.  SIGBUS by F_SETSIG, as for a mapped file that is gone:
    # the default is SIGIO, which says nothing and may be ignored.
    flags = fcntl.fcntl(sock_fd, fcntl.F_GETFL)
    fcntl.fcntl(sock_fd, fcntl.F_SETFL, flags | os.O_ASYNC)
    # After arming, so that no close falls between the two.
    poll = select.poll()
    poll.register(sock_fd, 0)
    if poll.poll(0):
        raise refusal(
            f"cannot watch socket {sock_fd}: its other end is closed; start the process again",
            errno.EPIPE,
        )


def disarm_lifeline(sock_fd: int) -> None:
    """Take the signal away again: the other end may close."""
    import fcntl

    flags = fcntl.fcntl(sock_fd, fcntl.F_GETFL)
    fcntl.fcntl(sock_fd, fcntl.F_SETFL, flags & ~os.O_ASYNC)
    fcntl.fcntl(sock_fd, fcntl.F_SETSIG, 0)
    fcntl.fcntl(sock_fd, fcntl.F_SETOWN, 0)


def pidfd_open(pid: int) -> int:
    """Return a descriptor that polls readable once a process has ended.

    Raises
    ------
    KernelError
        ESRCH: there is no such process; ENOSYS: a sandbox without it.
    """
    # A client that exits gives no hang-up on its userfaultfd, so the pager watches this
    # descriptor.  A process id alone may be another process's by the time that it is
    # looked at.
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        number = error.errno or 0
        raise refusal(
            f"cannot watch process {pid}: {describe_errno(number)}; check that it lives", number
        ) from None

"""Starting the pager, without waiting for it."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import sys
import threading
from contextlib import suppress
from typing import NamedTuple

from lazyarr import errors, settings
from lazyarr.client.session.interpreter import PAGER_MARK, NoPagerError, find_command
from lazyarr.errors import KernelUnsupportedError, LazyarrError, PagerError
from lazyarr.known import CLOSED_BY_OTHERS, KnownDescriptor
from lazyarr.shortage import describe_shortage, is_shortage

__all__ = ["Launched", "Starter", "await_sign", "launch_pager"]

_CHANNEL_IN_PAGER = 3

# Longer than any interpreter takes to start, also from a network's file system that a
# thousand others read: only what is no interpreter is waited for that long.
_SIGN_SECONDS = 60.0
_MAX_SIGN_NBYTES = 4096

# lazyarr.pager.__main__ has the same: a refusal begins so, and its remedy is its second line.
_REFUSED = "refused: "


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
        self._wait(is_unwanted=False)

    def end(self) -> None:
        """End it, and what it has started, if it has not ended by itself."""
        self._wait(is_unwanted=True)

    def _wait(self, *, is_unwanted: bool) -> None:
        if os.getpid() != self._parent_pid:
            return  # a fork of its parent has no such child, and perhaps a lock that nobody opens
        with self._lock:
            # Taken out before it is used: `end` and `wait` may come from two threads, and a
            # number that was waited for may be another child's at once.
            pid, self._pid = self._pid, 0
            # Somebody's os.wait() may have been faster.
            with suppress(ChildProcessError):
                if pid and is_unwanted and not _has_ended(pid):
                    os.killpg(pid, signal.SIGKILL)  # it leads a session, and so a group
                if pid:
                    os.waitpid(pid, 0)


def _has_ended(pid: int) -> bool:
    """Return whether a child has ended; it stays to be waited for, so its number is its own."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


class Launched(NamedTuple):
    """A pager that is on its way.

    Attributes
    ----------
    descriptor : KnownDescriptor
        A channel to it; what is sent there is read when it is up.
    starter : Starter
        A child that ends at once, and must be waited for; the pager is its
        child, and nobody's after that.
    program : str
        What was started.
    """

    descriptor: KnownDescriptor
    starter: Starter
    program: str


def launch_pager() -> Launched:
    """Start a pager process and return at once.

    Raises
    ------
    PagerError
        When no process can be started; `NoPagerError` when there is no program for it.
    """
    # Nothing here waits for anything.  The rest of the opening, NumPy and the metadata,
    # takes longer than an interpreter needs to start, so the pager is up before it is
    # needed.
    program, *arguments = find_command(settings.current().python)
    paths = _import_paths()
    # No channels yet: importing what they need can wait until the pager is on its way.
    try:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    except OSError as error:
        raise PagerError(f"cannot start the pager: {describe_shortage(error)}") from error
    try:
        # No fork in Python: that would call every library's fork hooks, ours among
        # them, and copy the page tables of a process that may be large.
        pid = os.posix_spawn(
            program,
            [program, *arguments, str(_CHANNEL_IN_PAGER), *paths],
            {**os.environ, PAGER_MARK: "1"},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, theirs.fileno(), _CHANNEL_IN_PAGER),
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            ],
            # Ctrl-C at the terminal is the client's alone.
            # It leads a session of its own, so all that it has started can be ended by one
            # call.  And:
            setsid=True,
            setsigdef=signal.valid_signals(),
            setsigmask=(),
        )
    except OSError as error:
        ours.close()
        raise _refusal(program, error) from error
    finally:
        theirs.close()
    return Launched(KnownDescriptor(ours.detach()), Starter(pid), program)


def await_sign(launched: Launched) -> None:
    """Wait until what was started has shown that it is a pager; let go of it when it is none.

    The pager gives its sign before it imports anything: sooner than a process that opens its
    first array has imported NumPy.  Without it a touch of what is no pager's would wait for ever.

    Raises
    ------
    NoPagerError
        When it is none.
    KernelUnsupportedError
        When it says that it cannot work here, and what is missing.
    """
    try:
        _read_sign(launched)
    except LazyarrError:
        launched.descriptor.close()
        launched.starter.end()
        raise


def _read_sign(launched: Launched) -> None:
    poll = select.poll()
    if not launched.descriptor.is_own():
        raise PagerError(f"cannot start the pager: {CLOSED_BY_OTHERS}")
    poll.register(launched.descriptor.fileno(), select.POLLIN)
    # No look at whether the child lives: it ends as soon as the pager is its child,
    # long before the sign may be read.  An end of the socket is the sign that there is
    # none.
    if not poll.poll(_SIGN_SECONDS * 1000):
        raise NoPagerError.because(f"{launched.program} did not answer in {_SIGN_SECONDS:g} s")
    sign = os.read(launched.descriptor.fileno(), _MAX_SIGN_NBYTES).decode("utf-8", "replace")
    if sign.startswith(_REFUSED):
        missing, _, remedy = sign.removeprefix(_REFUSED).partition("\n")
        remedy = f"{remedy}, or set LAZYARR_ENGINE=copy"
        message = f"cannot start the pager: {missing}; {remedy}"
        raise KernelUnsupportedError(message, missing=(missing,), remedy=remedy)
    expected = sys.implementation.cache_tag
    if not sign:
        raise NoPagerError.because(f"{launched.program} ended at once")
    if sign != expected:
        raise NoPagerError.because(f"{launched.program} is {sign!r:.80}, this is {expected!r}")


def _import_paths() -> list[str]:
    """Return where the pager finds what this process imports.

    Without the working directory, in which anything may lie, and absolute: the pager has
    another one.
    """
    # An import passes over such entries.  The pager cannot be told of them, and one that
    # finds other modules than this process is worse than none.
    strange = [path for path in sys.path if not isinstance(path, str | bytes | os.PathLike)]
    if strange:
        found = ", ".join(f"{path!r:.80}" for path in strange)
        raise PagerError(
            f"cannot start the pager: sys.path has entries that name no directory: {found}; "
            "take them out, importing passes over them"
        )
    paths = [os.fsdecode(path) for path in sys.path]
    package = os.path.dirname(os.path.realpath(errors.__file__))
    paths.append(os.path.dirname(package))
    return [os.path.abspath(path) for path in paths if path and "\0" not in path]


def _refusal(program: str, error: OSError) -> PagerError:
    """Return the error of a program that could not be started."""
    # One errno stands for all that is done on the way, and says of none of it that it was that.
    if not os.path.exists(os.devnull):
        found = f"there is no {os.devnull}; mount /dev, or make the device"
        return PagerError(f"cannot start the pager: {found}")
    if is_shortage(error) or error.errno in (errno.EAGAIN, errno.E2BIG):
        return PagerError(f"cannot start the pager: {describe_shortage(error)}")
    return NoPagerError.because(f"{program} cannot be run: {error.strerror}")

"""The ioctls of a userfaultfd: the calls alone, and their errors as values or exceptions."""

from __future__ import annotations

import errno
import os

from lazyarr.kernel.libc import ioctl
from lazyarr.kernel.outcome import Operation, Outcome, decode_outcome
from lazyarr.kernel.refusal import describe_errno, refusal
from lazyarr.kernel.uapi import RESULT_LAYOUT

__all__ = ["administer", "operate", "read_messages"]

_RESULT_NBYTES = RESULT_LAYOUT.size


def operate(
    operation: Operation, fd: int, request: int, argument: bytearray, nbytes: int
) -> Outcome:
    """Return how an operation on a range ended.

    Parameters
    ----------
    operation : Operation
        What is asked for, to name it.
    fd : int
        The userfaultfd.
    request : int
        The ioctl's number.
    argument : bytearray
        The structure, with a result field of 8 bytes as its end.  One per call: it is
        written by the kernel, and other threads run meanwhile.
    nbytes : int
        The length that the argument asks for.

    Raises
    ------
    KernelError
        See `decode_outcome`.
    """
    # A closed handle has -1.  The number that it had may be another file's by now, for
    # which the same request may mean something else.
    if fd < 0:
        raise _closed(operation.value)
    try:
        ioctl(fd, request, argument)
    except OSError as error:
        # fcntl.ioctl copies the argument back before it raises (CPython's
        # fcntlmodule.c, for arguments up to 1024 bytes; tested for each version).
        (result,) = RESULT_LAYOUT.unpack_from(argument, len(argument) - _RESULT_NBYTES)
        return decode_outcome(operation, error.errno, result, nbytes)
    return decode_outcome(operation, None, 0, nbytes)


def administer(name: str, fd: int, request: int, argument: bytearray) -> None:
    """Make a call that either works or is wrong.

    Raises
    ------
    KernelError
        The kernel refused it.
    """
    if fd < 0:
        raise _closed(name)
    try:
        ioctl(fd, request, argument)
    except OSError as error:
        number = error.errno or 0
        start, nbytes = (int.from_bytes(argument[at : at + 8], "little") for at in (0, 8))
        raise refusal(
            f"{name} of {nbytes} bytes at {start:#x} was refused: {describe_errno(number)}; "
            "check that the range is whole pages of one process that lives",
            number,
        ) from None


def read_messages(fd: int, nbytes: int) -> bytes:
    """Return whole messages that wait, at most so many bytes; empty when there are none."""
    if fd < 0:
        raise _closed("read")
    try:
        # Several threads may have been told that there is something, and one has read
        # all of it.  The others must not wait here: the descriptor does not block.
        return os.read(fd, nbytes)
    except BlockingIOError:
        return b""


def _closed(name: str) -> Exception:
    return refusal(f"{name} was not tried: the userfaultfd is closed", errno.EBADF)

"""How an operation on a range ended: the one place that reads its errno."""

from __future__ import annotations

import enum
import errno
from typing import NamedTuple

from lazyarr.kernel.refusal import describe_errno, refusal

__all__ = ["Operation", "Outcome", "Stop", "decode_outcome"]


class Operation(enum.Enum):
    """An operation whose end is an `Outcome`."""

    COPY = "UFFDIO_COPY"
    ZEROPAGE = "UFFDIO_ZEROPAGE"
    CONTINUE = "UFFDIO_CONTINUE"
    WRITEPROTECT = "UFFDIO_WRITEPROTECT"
    POISON = "UFFDIO_POISON"


class Stop(enum.Enum):
    """Why an install ended where it did."""

    DONE = "done"  # every page asked for is as it should be
    PARTIAL = "partial"  # some pages went in; go on after them
    PRESENT = "present"  # the first page was already there
    HOLE = "hole"  # CONTINUE only: the memory has no page there to map
    CHANGING = "changing"  # the client is changing its layout; try again
    UNMAPPED = "unmapped"  # the range is not, or no longer, one registered mapping
    NO_MEMORY = "no memory"  # the kernel, a cgroup or the huge page pool has none left
    EXITED = "exited"  # the client is gone


class Outcome(NamedTuple):
    """How an operation ended, and how much of it was done.

    Attributes
    ----------
    stop : Stop
        Why it ended.
    done_nbytes : int
        Bytes done from the start of the range; the length when `DONE`.
    """

    stop: Stop
    done_nbytes: int


_STOPS = {
    # To be second is no error: another thread, another process or readahead was first.
    # The waiters of the page have perhaps not been woken, which is for the caller.
    errno.EEXIST: Stop.PRESENT,
    # The client has unmapped the range meanwhile, or mapped something else there.
    errno.ENOENT: Stop.UNMAPPED,
    # Its memory is gone.  The process may live: after exec it has the same number.
    errno.ESRCH: Stop.EXITED,
    # Of the client's memory, not of the pager's: an install is charged to the process
    # that it fills.
    errno.ENOMEM: Stop.NO_MEMORY,
}


def decode_outcome(operation: Operation, number: int | None, result: int, nbytes: int) -> Outcome:
    """Return the named outcome of one userfaultfd operation.

    Parameters
    ----------
    operation : Operation
        What was asked for.
    number : int or None
        The errno; None where the call succeeded.
    result : int
        The argument's result field: bytes done, or a negated errno; 0 where the
        operation has none.
    nbytes : int
        The length that was asked for.

    Raises
    ------
    KernelError
        The errno says that the call itself was wrong (EINVAL: not aligned, length
        0, unknown mode, mode not registered; EFAULT for anything but CONTINUE; EBADF)
        or is one that no manual page names.

    Notes
    -----
    EAGAIN means two things.  Bytes in the result: a later page could not be done,
    and why is told by the next call, on the rest.  None: the layout is changing.

    Examples
    --------
    >>> decode_outcome(Operation.COPY, errno.EAGAIN, 8192, 16384)
    Outcome(stop=<Stop.PARTIAL: 'partial'>, done_nbytes=8192)
    """
    if number is None:
        return Outcome(Stop.DONE, nbytes)
    # Sequences are atomic for a page, not for a range.  So a part may be in, and to
    # start over would find EEXIST at once: the caller goes on behind what is done.
    if number == errno.EAGAIN:
        return Outcome(Stop.PARTIAL, result) if result > 0 else Outcome(Stop.CHANGING, 0)
    # Elsewhere EFAULT is the pager's own mistake: a source that cannot be read.  For
    # CONTINUE it says that the record of what is filled was wrong, which the machine
    # heals.
    if number == errno.EFAULT and operation is Operation.CONTINUE:
        return Outcome(Stop.HOLE, 0)
    stop = _STOPS.get(number)
    if stop is None:
        raise refusal(
            f"{operation.value} of {nbytes} bytes was refused: {describe_errno(number)}; "
            "check that address, length and mode fit what was registered",
            number,
        )
    return Outcome(stop, 0)

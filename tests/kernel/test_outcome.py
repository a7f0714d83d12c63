"""Every errno of every operation, as the value that it becomes."""

from __future__ import annotations

import errno
import pickle

import pytest

from lazyarr.errors import KernelError
from lazyarr.kernel import Operation, Outcome, Stop, decode_outcome

PAGE = 4096
INSTALLS = (Operation.COPY, Operation.ZEROPAGE, Operation.CONTINUE, Operation.POISON)

# errno, result field, what it means, bytes done; the request is for four pages.
FOR_EVERY_INSTALL = [
    (None, 4 * PAGE, Stop.DONE, 4 * PAGE),
    (errno.EEXIST, -errno.EEXIST, Stop.PRESENT, 0),
    (errno.EAGAIN, PAGE, Stop.PARTIAL, PAGE),
    (errno.EAGAIN, 3 * PAGE, Stop.PARTIAL, 3 * PAGE),
    (errno.EAGAIN, -errno.EAGAIN, Stop.CHANGING, 0),
    (errno.EAGAIN, 0, Stop.CHANGING, 0),
    (errno.ENOENT, -errno.ENOENT, Stop.UNMAPPED, 0),
    (errno.ENOMEM, -errno.ENOMEM, Stop.NO_MEMORY, 0),
    (errno.ESRCH, 0, Stop.EXITED, 0),
]
# WRITEPROTECT has no result field, and is never done in part.
FOR_WRITEPROTECT = [
    (None, 0, Stop.DONE, 4 * PAGE),
    (errno.EAGAIN, 0, Stop.CHANGING, 0),
    (errno.ENOENT, 0, Stop.UNMAPPED, 0),
    (errno.ESRCH, 0, Stop.EXITED, 0),
]
TABLE = [(operation, *row) for operation in INSTALLS for row in FOR_EVERY_INSTALL]
TABLE += [(Operation.WRITEPROTECT, *row) for row in FOR_WRITEPROTECT]
TABLE += [(Operation.CONTINUE, errno.EFAULT, -errno.EFAULT, Stop.HOLE, 0)]

MISTAKES = [
    (operation, number) for operation in Operation for number in (errno.EINVAL, errno.EBADF)
]
MISTAKES += [(operation, errno.EFAULT) for operation in Operation if operation.name != "CONTINUE"]
MISTAKES += [(Operation.COPY, errno.ENOTTY), (Operation.COPY, 4095)]


@pytest.mark.parametrize(("operation", "number", "result", "stop", "done_nbytes"), TABLE)
def test_errno_becomes_a_named_outcome(
    operation: Operation, number: int | None, result: int, stop: Stop, done_nbytes: int
) -> None:
    """What the kernel answers is told by name, with the bytes that were done."""
    assert decode_outcome(operation, number, result, 4 * PAGE) == Outcome(stop, done_nbytes)


@pytest.mark.parametrize(("operation", "number"), MISTAKES)
def test_errno_of_a_wrong_call_is_raised(operation: Operation, number: int) -> None:
    """A call that is wrong, or an errno that nobody documents, is an error with its number."""
    with pytest.raises(KernelError, match=operation.value) as caught:
        decode_outcome(operation, number, -number, PAGE)
    assert caught.value.errno == number
    assert "4096 bytes" in str(caught.value)


def test_error_survives_pickling_with_its_message() -> None:
    """An error in a worker process arrives with its text."""
    with pytest.raises(KernelError) as caught:
        decode_outcome(Operation.COPY, errno.EINVAL, 0, PAGE)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)

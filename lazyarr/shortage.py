"""Errors that mean a shortage of descriptors or memory: the same call may succeed later."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from lazyarr.errors import KernelError, LazyarrError

__all__ = ["describe_shortage", "is_shortage", "lacks_descriptors", "naming_shortage", "shortage"]

_REMEDIES = {
    errno.EMFILE: "close files, or raise 'ulimit -n'",
    errno.ENFILE: "close files, of other processes too, or raise fs.file-max",
    errno.ENOMEM: "free memory",
    errno.EAGAIN: "end processes, or raise 'ulimit -u'",
}
_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
_MAX_CAUSES = 8  # a chain of causes can be a ring


def is_shortage(error: BaseException) -> bool:
    """Return whether an error means a lack of descriptors or memory, and nothing else.

    The import of a compiled module can fail so too.  Its `ImportError` has the linker's text
    and no errno (dlopen(3)), so the text is compared.

    Examples
    --------
    >>> is_shortage(OSError(errno.EMFILE, "")), is_shortage(OSError(errno.EACCES, ""))
    (True, False)
    """
    if isinstance(error, ImportError):
        return any(os.strerror(number) in str(error) for number in _DESCRIPTORS)
    if isinstance(error, OSError):
        return error.errno in (*_DESCRIPTORS, errno.ENOMEM)
    return isinstance(error, MemoryError)


def lacks_descriptors(error: BaseException) -> bool:
    """Return whether an error, or one of its causes, means a lack of descriptors.

    Examples
    --------
    >>> try:
    ...     raise ValueError("cannot load") from ImportError("x.so: Too many open files")
    ... except ValueError as error:
    ...     lacks_descriptors(error)
    True
    """
    found: BaseException | None = error
    for _ in range(_MAX_CAUSES):
        if found is None:
            break
        if is_shortage(found) and not isinstance(found, MemoryError):
            return getattr(found, "errno", errno.EMFILE) != errno.ENOMEM
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)
    return False


def describe_shortage(error: BaseException) -> str:
    """Return what is lacking, and what to do about it; of other errors their text.

    Examples
    --------
    >>> describe_shortage(OSError(errno.EMFILE, ""))
    "Too many open files; close files, or raise 'ulimit -n'"
    """
    number = (error.errno or 0) if isinstance(error, OSError) else 0
    if isinstance(error, ImportError):
        number = next((n for n in _DESCRIPTORS if os.strerror(n) in str(error)), 0)
    found = os.strerror(number) if number else str(error)
    remedy = _REMEDIES.get(number)
    return f"{found}; {remedy}" if remedy else found


def shortage(purpose: str, number: int = errno.EMFILE) -> KernelError:
    """Return the error to raise where something cannot be done for lack of descriptors.

    Parameters
    ----------
    purpose : str
        What could not be done, to follow "cannot".
    number : int
        The errno.
    """
    found = KernelError(f"cannot {purpose}: {describe_shortage(OSError(number, ''))}")
    found.errno = number
    return found


@contextmanager
def naming_shortage(purpose: str) -> Iterator[None]:
    """Raise an `OSError` of the block that means a shortage as a `KernelError` that says so.

    Parameters
    ----------
    purpose : str
        What the block does, to follow "cannot".

    Raises
    ------
    KernelError
        With the errno, the purpose, and what to do.

    Examples
    --------
    >>> with naming_shortage("watch a file"):  # doctest: +ELLIPSIS
    ...     raise OSError(errno.ENFILE, "")
    Traceback (most recent call last):
    lazyarr.errors.KernelError: cannot watch a file: Too many open files in system; ...
    """
    try:
        yield
    except LazyarrError:
        raise
    except OSError as error:
        if not is_shortage(error):
            raise
        raise shortage(purpose, error.errno or 0) from error

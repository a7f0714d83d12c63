"""C library functions that Python has no wrapper for, loaded on first use."""

from __future__ import annotations

import errno
import functools
import os
import sys
from typing import TYPE_CHECKING

from lazyarr.kernel.refusal import describe_errno, refusal

if TYPE_CHECKING:
    import ctypes
    from collections.abc import Callable

try:
    from fcntl import ioctl
except ImportError:  # Windows: what never calls the kernel still imports this layer

    def ioctl(*_: object) -> int:  # type: ignore[no-redef]
        """Refuse, as a kernel does that has no such call."""
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


__all__ = ["call", "checked_call", "function", "ioctl", "syscall_number"]

# asm/unistd_64.h for x86-64; asm-generic/unistd.h for the rest, which share one table.
_X86_64 = {"renameat2": 316, "tgkill": 234, "userfaultfd": 323}
_GENERIC = {"renameat2": 276, "tgkill": 131, "userfaultfd": 282}
_SYSCALLS = {"x86_64": _X86_64, "aarch64": _GENERIC, "riscv64": _GENERIC, "loongarch64": _GENERIC}


def syscall_number(name: str, *, machine: str | None = None) -> int | None:
    """Return a system call's number, None where it is not known for this machine.

    Examples
    --------
    >>> syscall_number("userfaultfd", machine="aarch64")
    282
    """
    if sys.platform != "linux":
        return None
    # None rather than a guess.  The number of another machine is another call, which
    # would be made.
    return _SYSCALLS.get(machine or os.uname().machine, {}).get(name)


@functools.cache
def _library() -> ctypes.CDLL:
    import ctypes

    # The process itself, not "libc.so.6": that is the C library which this process has,
    # glibc or musl.  `use_errno` keeps a copy of errno for each thread, which nothing
    # between the call and the look at it can change.
    library = ctypes.CDLL(None, use_errno=True)
    pointer, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    # Arguments that ctypes is not told of are C ints: an address or a length of 64 bits
    # would be cut off without a word.
    library.mmap.argtypes = (pointer, size, number, number, number, ctypes.c_int64)
    library.munmap.argtypes = (pointer, size)
    library.mprotect.argtypes = (pointer, size, number)
    library.madvise.argtypes = (pointer, size, number)
    library.mincore.argtypes = (pointer, size, pointer)
    library.ptrace.argtypes = (number, number, pointer, pointer)
    library.prctl.argtypes = (number, size, size, size, size)
    library.setfsuid.argtypes = library.setfsgid.argtypes = (ctypes.c_uint,)
    library.setfsuid.restype = library.setfsgid.restype = ctypes.c_uint
    library.fallocate.argtypes = (number, number, ctypes.c_int64, ctypes.c_int64)
    # A long holds every result: an address of user space never has the top bit set.
    library.mmap.restype = library.syscall.restype = library.ptrace.restype = ctypes.c_long
    return library


def function(name: str) -> Callable[..., int]:
    """Return a C function that cannot fail."""
    found: Callable[..., int] = getattr(_library(), name)
    return found


def call(name: str, *arguments: object) -> int:
    """Return what a C function returns; it runs without the GIL.

    Raises
    ------
    OSError
        The function returned -1.
    """
    import ctypes

    result: int = getattr(_library(), name)(*arguments)
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def checked_call(purpose: str, remedy: str, name: str, *arguments: object) -> int:
    """Return what a C function returns, or raise `KernelError` that tells the purpose.

    Parameters
    ----------
    purpose : str
        What the call is for, as in "cannot <purpose>".
    remedy : str
        What to do when it is refused.
    name : str
        The function.
    *arguments : object
        Its arguments.
    """
    try:
        return call(name, *arguments)
    except OSError as error:
        number = error.errno or 0
        raise refusal(f"cannot {purpose}: {describe_errno(number)}; {remedy}", number) from None

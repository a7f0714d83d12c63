"""The numbers and structures of linux/userfaultfd.h; nothing here makes a call.

A C header on the machine may be older than its kernel, so the numbers are kept
here and computed as the header computes them.  Bits that a later kernel adds are
kept by the flag types and otherwise ignored.

References
----------
Linux man-pages 6.19, ioctl_userfaultfd(2) and the UFFDIO_*(2const) pages;
include/uapi/asm-generic/ioctl.h for the encoding, which x86-64 and the
architectures of the generic system call table (aarch64, riscv64) share.
"""

from __future__ import annotations

import enum
import struct

__all__ = [
    "Event",
    "FaultFlag",
    "Features",
    "InstallMode",
    "Ioctls",
    "RegisterMode",
    "WriteProtectMode",
    "USER_MODE_ONLY",
    "UFFD_API",
    "USERFAULTFD_IOC_NEW",
    "UFFDIO_API",
    "UFFDIO_CONTINUE",
    "UFFDIO_COPY",
    "UFFDIO_MOVE",
    "UFFDIO_POISON",
    "UFFDIO_REGISTER",
    "UFFDIO_UNREGISTER",
    "UFFDIO_WAKE",
    "UFFDIO_WRITEPROTECT",
    "UFFDIO_ZEROPAGE",
    "API_LAYOUT",
    "COPY_LAYOUT",
    "MESSAGE_LAYOUT",
    "RANGE_LAYOUT",
    "RANGE_MODE_LAYOUT",
    "RANGE_MODE_RESULT_LAYOUT",
    "REGISTER_LAYOUT",
    "RESULT_LAYOUT",
    "ioc",
]

# The direction is seen from the program (asm-generic/ioctl.h): _IOC_WRITE means that
# the kernel reads the argument.  The size of the argument is part of the number, so a
# wrong layout is refused with EINVAL and never half read.
_IOC_NONE, _IOC_WRITE, _IOC_READ = 0, 1, 2
_MAGIC = 0xAA


def ioc(direction: int, number: int, nbytes: int) -> int:
    """Return the request number of a userfaultfd ioctl.

    Parameters
    ----------
    direction : int
        0 none, 1 the kernel reads the argument, 2 it writes it, 3 both.
    number : int
        The operation's number.
    nbytes : int
        The size of the argument.

    Examples
    --------
    >>> hex(ioc(3, 0x3F, 24))
    '0xc018aa3f'
    """
    return direction << 30 | nbytes << 16 | _MAGIC << 8 | number


# All fields are of 8 bytes, so no machine pads these structures.  "=" says so: standard
# sizes, no alignment, the machine's byte order.
API_LAYOUT = struct.Struct("=QQQ")
"""struct uffdio_api: api, features, ioctls."""

REGISTER_LAYOUT = struct.Struct("=QQQQ")
"""struct uffdio_register: start, len, mode, ioctls."""

RANGE_LAYOUT = struct.Struct("=QQ")
"""struct uffdio_range: start, len."""

COPY_LAYOUT = struct.Struct("=QQQQq")
"""struct uffdio_copy and uffdio_move: dst, src, len, mode, result."""

RANGE_MODE_LAYOUT = struct.Struct("=QQQ")
"""struct uffdio_writeprotect: start, len, mode."""

RANGE_MODE_RESULT_LAYOUT = struct.Struct("=QQQq")
"""struct uffdio_zeropage, uffdio_continue, uffdio_poison: start, len, mode, result."""

# An operation that fails has often done a part of its range, and the errno does not say
# how much.  The kernel writes that here.  So every caller unpacks the argument after an
# error too (`raw.operate`).
RESULT_LAYOUT = struct.Struct("=q")
"""The result: bytes done or a negated errno, always the last 8 bytes."""

# The kernel gives whole messages only: a read of less than 32 bytes is EINVAL, and one
# read returns as many as fit.  The pager drains a burst of faults by one call.
MESSAGE_LAYOUT = struct.Struct("=B7xQQI4x")
"""struct uffd_msg as a page fault: event, flags, address, thread id."""


UFFD_API = 0xAA
# Without rights the kernel opens a userfaultfd only with this flag.  Then a system call
# that touches a missing page fails with EFAULT; it does not wait.  That is loud, and
# never wrong: `LazyArray.tofile` hands over a copy there.
USER_MODE_ONLY = 1
USERFAULTFD_IOC_NEW = ioc(_IOC_NONE, 0x00, 0)

_READ_WRITE = _IOC_READ | _IOC_WRITE
UFFDIO_REGISTER = ioc(_READ_WRITE, 0x00, REGISTER_LAYOUT.size)
# UNREGISTER and WAKE are _IOR although the kernel reads the range: the header
# says so itself and keeps it for compatibility.
UFFDIO_UNREGISTER = ioc(_IOC_READ, 0x01, RANGE_LAYOUT.size)
UFFDIO_WAKE = ioc(_IOC_READ, 0x02, RANGE_LAYOUT.size)
UFFDIO_COPY = ioc(_READ_WRITE, 0x03, COPY_LAYOUT.size)
UFFDIO_ZEROPAGE = ioc(_READ_WRITE, 0x04, RANGE_MODE_RESULT_LAYOUT.size)
UFFDIO_MOVE = ioc(_READ_WRITE, 0x05, COPY_LAYOUT.size)
UFFDIO_WRITEPROTECT = ioc(_READ_WRITE, 0x06, RANGE_MODE_LAYOUT.size)
UFFDIO_CONTINUE = ioc(_READ_WRITE, 0x07, RANGE_MODE_RESULT_LAYOUT.size)
UFFDIO_POISON = ioc(_READ_WRITE, 0x08, RANGE_MODE_RESULT_LAYOUT.size)
UFFDIO_API = ioc(_READ_WRITE, 0x3F, API_LAYOUT.size)


class Features(enum.IntFlag):
    """What a kernel offers beyond missing faults on anonymous memory (UFFD_FEATURE_*)."""

    PAGEFAULT_FLAG_WP = 1 << 0
    # Never turned on, as the other EVENT bits (`Userfaultfd.open` refuses them).  They
    # block the caller of fork, mremap or munmap until somebody reads the event, and
    # make every install fail with EAGAIN meanwhile.  EVENT_FORK needs CAP_SYS_PTRACE
    # too.
    EVENT_FORK = 1 << 1
    EVENT_REMAP = 1 << 2
    EVENT_REMOVE = 1 << 3
    MISSING_HUGETLBFS = 1 << 4
    MISSING_SHMEM = 1 << 5
    EVENT_UNMAP = 1 << 6
    SIGBUS = 1 << 7
    # Tells which thread waits.  `on_error="raise"` needs it: only the main thread can be
    # given an exception in place of SIGBUS.
    THREAD_ID = 1 << 8
    MINOR_HUGETLBFS = 1 << 9
    # A touch of a page that is in the memory object, and not mapped here, is a fault of
    # its own.  Sharing rests on it: MISSING alone would show a stray zero page as data.
    MINOR_SHMEM = 1 << 10
    # Not used: a page is all that can be installed.
    EXACT_ADDRESS = 1 << 11
    WP_HUGETLBFS_SHMEM = 1 << 12
    WP_UNPOPULATED = 1 << 13
    # The touch of a page that cannot be had is SIGBUS for its own thread.  Before Linux
    # 6.6 the process is sent SIGBUS, which any of its threads may get.
    POISON = 1 << 14
    # The kernel lifts the protection at the first write, and sends nothing.  So nobody
    # has to answer a write, and a written page is found by looking at it
    # (`written.find_written`).
    WP_ASYNC = 1 << 15
    # Not used: it moves private pages within one process, and the pager is another one.
    MOVE = 1 << 16


class Ioctls(enum.IntFlag):
    """Which operations a descriptor or a registered range takes."""

    REGISTER = 1 << 0x00
    UNREGISTER = 1 << 0x01
    WAKE = 1 << 0x02
    COPY = 1 << 0x03
    ZEROPAGE = 1 << 0x04
    MOVE = 1 << 0x05
    WRITEPROTECT = 1 << 0x06
    CONTINUE = 1 << 0x07
    POISON = 1 << 0x08
    API = 1 << 0x3F


class RegisterMode(enum.IntFlag):
    """Which faults of a range are reported (UFFDIO_REGISTER_MODE_*)."""

    # On a memory object MISSING goes with MINOR. Any process that maps the object
    # unregistered, and touches a hole, makes a zero page for all; a neighbour
    # registered for MISSING alone would read it without an event.  Anonymous memory
    # takes no MINOR (EINVAL).
    MISSING = 1
    WP = 2
    MINOR = 4


class InstallMode(enum.IntFlag):
    """How COPY, ZEROPAGE, CONTINUE and POISON install (WP: COPY and CONTINUE only)."""

    # For what must be in place before any thread sees it: see
    # `pager.onerror.shown_zeros`.  Without it an install wakes the waiters of its range.
    DONTWAKE = 1
    WP = 2


class WriteProtectMode(enum.IntFlag):
    """What WRITEPROTECT does; 0 lifts the protection and wakes the waiters."""

    WP = 1
    DONTWAKE = 2


class Event(enum.IntEnum):
    """What a message is about (UFFD_EVENT_*)."""

    PAGEFAULT = 0x12
    FORK = 0x13
    REMAP = 0x14
    REMOVE = 0x15
    UNMAP = 0x16


class FaultFlag(enum.IntFlag):
    """What kind of fault a message reports (UFFD_PAGEFAULT_FLAG_*)."""

    WRITE = 1
    WP = 2
    MINOR = 4

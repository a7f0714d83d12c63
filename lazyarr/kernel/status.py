"""What a file is like now, asked of the file system itself."""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

from lazyarr.kernel.libc import call

__all__ = ["Stamp", "current_stamp", "stamp_of"]

# linux/fcntl.h, linux/stat.h.
_AT_EMPTY_PATH, _AT_STATX_FORCE_SYNC = 0x1000, 0x2000
_STATX_BASIC_STATS = 0x7FF
_STATX_NBYTES = 256
# struct statx: mode, inode, size; then changed and modified in seconds and nanoseconds;
# then the device.
_FIELDS = struct.Struct("=28x H 2x Q Q 48x q I 4x q I 4x 8x I I")


class Stamp(NamedTuple):
    """What changes when a file changes.

    Attributes
    ----------
    device, inode : int
        Which file it is.
    nbytes : int
        Its size.
    modified_ns, changed_ns : int
        When its bytes were changed last, which programs can set, and when anything of it
        was, which they cannot.
    mode : int
        What kind of file it is, and who may use it.
    """

    device: int
    inode: int
    nbytes: int
    modified_ns: int
    changed_ns: int
    mode: int


def stamp_of(status: os.stat_result) -> Stamp:
    """Return the stamp of a file whose status is known."""
    return Stamp(
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_mode,
    )


def current_stamp(descriptor: int) -> Stamp:
    """Return the stamp that an open file has now.

    `os.fstat` may answer from what a network file system said some seconds ago; this
    asks it again (statx(2), AT_STATX_FORCE_SYNC).

    Raises
    ------
    OSError
        It cannot be asked; ENOSYS: a kernel or sandbox without the call.
    """
    import ctypes

    # As a raw buffer: the structure grows with the kernel, and what is needed of it
    # stands at the same places since Linux 4.11 (statx(2)).
    buffer = ctypes.create_string_buffer(_STATX_NBYTES)
    flags = _AT_EMPTY_PATH | _AT_STATX_FORCE_SYNC
    call("statx", descriptor, b"", flags, _STATX_BASIC_STATS, buffer)
    found = _FIELDS.unpack_from(buffer)
    mode, inode, nbytes, changed, changed_ns, modified, modified_ns, major, minor = found
    return Stamp(
        os.makedev(major, minor),
        inode,
        nbytes,
        modified * 10**9 + modified_ns,
        changed * 10**9 + changed_ns,
        mode,
    )

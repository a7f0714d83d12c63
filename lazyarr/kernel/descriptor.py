"""How a userfaultfd is opened: raw calls, each way by itself."""

from __future__ import annotations

import errno
import os
import sys
from typing import Literal, NamedTuple

from lazyarr.kernel.libc import call, ioctl, syscall_number
from lazyarr.kernel.uapi import (
    API_LAYOUT,
    UFFD_API,
    UFFDIO_API,
    USER_MODE_ONLY,
    USERFAULTFD_IOC_NEW,
    Features,
    Ioctls,
)

__all__ = ["DEVICE_PATH", "WAYS", "Offer", "Source", "Way", "open_descriptor", "shake_hands"]

DEVICE_PATH = "/dev/userfaultfd"

Source = Literal["dev", "syscall"]


class Way(NamedTuple):
    """One way to open a userfaultfd.

    Attributes
    ----------
    source : {'dev', 'syscall'}
        Through /dev/userfaultfd (Linux 6.1), or by the system call.
    user_mode_only : bool
        Whether faults that the kernel takes for the process get EFAULT.
    """

    source: Source
    user_mode_only: bool


# Best first.  The device with user-mode-only is not among them: whoever may open
# the device gets everything.
# The device first.  The right to open a file can be given to one user (setfacl), and a
# seccomp profile that filters the system call lets the device's ioctl through.  The
# system call needs CAP_SYS_PTRACE or vm.unprivileged_userfaultfd=1, for everybody on
# the machine.
WAYS = (
    Way("dev", user_mode_only=False),
    Way("syscall", user_mode_only=False),
    Way("syscall", user_mode_only=True),
)


class Offer(NamedTuple):
    """What the kernel answered to the handshake."""

    features: Features
    ioctls: Ioctls


def open_descriptor(way: Way) -> int:
    """Return a new descriptor, close-on-exec and non-blocking, before its handshake.

    Non-blocking always: poll() on a blocking userfaultfd reports an error.

    Raises
    ------
    OSError
        EACCES, ENOENT: the device; EPERM: not privileged, or a seccomp profile;
        ENOSYS: no such system call; EINVAL: a kernel before user-mode-only.
    """
    if sys.platform != "linux":
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    # Close-on-exec: a program that this process becomes would answer no fault, but keep
    # the userfaultfd alive for it.  Waiting threads would sleep for ever.
    flags = os.O_CLOEXEC | os.O_NONBLOCK | (USER_MODE_ONLY if way.user_mode_only else 0)
    if way.source == "syscall":
        number = syscall_number("userfaultfd")
        if number is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        return call("syscall", number, flags)
    device = os.open(DEVICE_PATH, os.O_RDWR | os.O_CLOEXEC)
    try:
        return ioctl(device, USERFAULTFD_IOC_NEW, flags)
    finally:
        os.close(device)


def shake_hands(fd: int, features: Features) -> Offer:
    """Turn features on, once per descriptor, and return all that the kernel offers.

    Raises
    ------
    OSError
        EINVAL: a feature that this kernel does not have, or a second handshake;
        EPERM: a feature that needs CAP_SYS_PTRACE.
    """
    # A descriptor takes one handshake, and refuses it if one bit is unknown to the
    # kernel.  So nobody can ask what there is and then choose on the same descriptor:
    # `opening.attempt_way` asks on one that it throws away.
    argument = bytearray(API_LAYOUT.pack(UFFD_API, features, 0))
    ioctl(fd, UFFDIO_API, argument)
    _, offered, ioctls = API_LAYOUT.unpack(argument)
    return Offer(Features(offered), Ioctls(ioctls))

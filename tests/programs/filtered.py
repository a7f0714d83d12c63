"""The command line where the kernel refuses userfaultfd, to be run by its path.

A filter of system calls has userfaultfd() end with EPERM, unless its flags have a bit of the
first argument, and so the ioctl that opens one through /dev/userfaultfd.  See seccomp(2).
"""

import ctypes
import platform
import struct
import sys

NUMBERS = {"x86_64": (323, 16), "aarch64": (282, 29)}
LOAD, EQUAL, ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06
ALLOW, EPERM = 0x7FFF0000, 0x00050001
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP = 38, 22


class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("program", ctypes.c_char_p)]


def refuse_userfaultfd(allowed_flag):
    userfaultfd, ioctl = NUMBERS[platform.machine()]
    lines = [
        (LOAD, 0, 0, 0),  # the system call's number
        (EQUAL, 0, 2, userfaultfd),  # look on
        (LOAD, 0, 0, 16),  # its flags
        (ANY_BIT, 3, 4, allowed_flag),
        (EQUAL, 0, 2, ioctl),  # look on
        (LOAD, 0, 0, 24),  # its request
        (EQUAL, 1, 0, 0xAA00),  # USERFAULTFD_IOC_NEW
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, EPERM),
    ]
    program = b"".join(struct.pack("=HBBI", *line) for line in lines)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert libc.prctl(PR_SET_SECCOMP, 2, ctypes.byref(Filter(9, program)), 0, 0) == 0


def main(allowed_flag, *arguments):
    refuse_userfaultfd(int(allowed_flag))
    from lazyarr.cli import main as command

    command(arguments, prog_name="lazyarr")


if __name__ == "__main__":
    main(*sys.argv[1:])

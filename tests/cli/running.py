"""Running commands: in this process, in one of their own, and where the kernel refuses."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from click.testing import CliRunner

from lazyarr.cli import main
from lazyarr.kernel.uapi import USER_MODE_ONLY

if TYPE_CHECKING:
    from click.testing import Result

__all__ = ["run", "run_command", "run_limited", "run_refused"]

# A system call filter: userfaultfd(), with or without user-mode-only, and the ioctl
# that opens one through /dev/userfaultfd end with EPERM.  See seccomp(2).
FILTERED = """
import ctypes, platform, struct, sys
NUMBERS = {"x86_64": (323, 16), "aarch64": (282, 29)}[platform.machine()]
LOAD, EQUAL, ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06
ALLOW, EPERM = 0x7FFF0000, 0x00050001
ALLOWED_FLAG = int(sys.argv.pop(1))
program = b"".join(struct.pack("=HBBI", *line) for line in [
    (LOAD, 0, 0, 0),                # the system call's number
    (EQUAL, 0, 2, NUMBERS[0]),      # userfaultfd: look on
    (LOAD, 0, 0, 16),               # its flags
    (ANY_BIT, 3, 4, ALLOWED_FLAG),
    (EQUAL, 0, 2, NUMBERS[1]),      # ioctl: look on
    (LOAD, 0, 0, 24),               # its request
    (EQUAL, 1, 0, 0xAA00),          # USERFAULTFD_IOC_NEW
    (RETURN, 0, 0, ALLOW),
    (RETURN, 0, 0, EPERM),
])
class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("program", ctypes.c_char_p)]
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
assert libc.prctl(22, 2, ctypes.byref(Filter(9, program)), 0, 0) == 0  # PR_SET_SECCOMP
from lazyarr.cli import main
main(sys.argv[1:], prog_name="lazyarr")
"""


def run(*arguments: object) -> Result:
    """Return how a command ended in this process; an unexpected exception is raised."""
    result = CliRunner().invoke(
        main, [str(argument) for argument in arguments], prog_name="lazyarr"
    )
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def run_command(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Return how ``python -m lazyarr`` ended."""
    return _run("-m", "lazyarr", *arguments, **options)


def run_refused(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Return how a command ended that was given no userfaultfd, as in Docker."""
    return _run("-c", FILTERED, 0, *arguments)


def run_limited(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Return how a command ended that was given user-mode-only ones, as most users are."""
    return _run("-c", FILTERED, USER_MODE_ONLY, *arguments)


def _run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *(str(argument) for argument in arguments)]
    given = {"capture_output": True, "text": True, "timeout": 60, **options}
    return subprocess.run(command, check=False, **given)

"""C functions called by name, and system calls by number."""

from __future__ import annotations

import errno
import os

import pytest

from lazyarr.errors import KernelError
from lazyarr.kernel.libc import call, checked_call, syscall_number


def test_system_call_numbers_are_known_per_machine():
    """The two tables are kept apart, and others are not guessed."""
    assert syscall_number("userfaultfd", machine="x86_64") == 323
    assert syscall_number("userfaultfd", machine="aarch64") == 282
    assert syscall_number("userfaultfd", machine="m68k") is None
    assert syscall_number("renameat2", machine="x86_64") == 316
    assert syscall_number("renameat2", machine="riscv64") == 276
    assert syscall_number("userfaultfd") in (323, 282)


def test_refused_call_raises_its_errno():
    """The number is taken from the thread's errno at once."""
    with pytest.raises(OSError, match="Invalid argument") as caught:
        call("madvise", 1, 1, 0)
    assert caught.value.errno == errno.EINVAL


def test_checked_call_says_what_it_was_for_and_what_to_do():
    """What failed: what was found; what to do."""
    with pytest.raises(KernelError) as caught:
        checked_call("advise memory", "align it", "madvise", 1, 1, 0)
    assert str(caught.value) == "cannot advise memory: EINVAL (Invalid argument); align it"
    assert caught.value.errno == errno.EINVAL


def test_call_returns_what_the_function_returns():
    """The number is passed on."""
    assert call("getpid") == os.getpid()

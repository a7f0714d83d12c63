"""A user without rights: user-mode-only, and what system calls say of missing memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lazyarr.kernel import probe

SYSCTL = Path("/proc/sys/vm/unprivileged_userfaultfd")

# Modules are loaded before the rights are dropped: nobody may not read all of them.
AS_NOBODY = """
import ctypes, errno, os, select, threading
import lazyarr.kernel as kernel
from lazyarr.kernel import *
from lazyarr.kernel.libc import call
call("getpid")
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
features = Features.MISSING_SHMEM | Features.MINOR_SHMEM | Features.POISON | Features.THREAD_ID
uffd = Userfaultfd.open(features)
nbytes = 4 * PAGE_NBYTES
fd = create_memfd("test", nbytes=nbytes)
address = map_shared(fd, 0, nbytes, writable=False)
uffd.register(address, nbytes, RegisterMode.MISSING | RegisterMode.MINOR)
scratch = ScratchBuffer(nbytes)
scratch.view[:] = b"d" * nbytes
view = memory_view(address, nbytes, writable=False)

def outcome_of(action):
    try:
        return action()
    except OSError as error:
        return errno.errorcode[error.errno]
"""

PROBED = """
support = probe()
print(support.full_rights, support.usable, support.missing, "setfacl" in support.remedy)
print([attempt.errno is None for attempt in support.attempts])
print(uffd.user_mode_only, uffd.source)
try:
    Userfaultfd.open(features, user_mode_only=False)
except OSError as error:
    print(type(error).__name__, error.missing)
"""

TOUCHED = """
byte = ctypes.create_string_buffer(1)
toucher = threading.Thread(target=ctypes.memmove, args=(byte, address, 1))
toucher.start()
poll = select.poll()
poll.register(uffd.fileno(), select.POLLIN)
assert poll.poll(20_000)
(fault,) = uffd.read_faults()
print(fault.address == address, fault.thread_id == toucher.native_id)
print(uffd.copy(address, scratch.address, PAGE_NBYTES).stop.value)
toucher.join(20)
print(byte.raw)
"""

SYSTEM_CALLS = """
null = os.open("/dev/null", os.O_RDWR)
reading, writing = os.pipe()
missing, present = view[:PAGE_NBYTES], view[PAGE_NBYTES : 2 * PAGE_NBYTES]
uffd.copy(address + PAGE_NBYTES, scratch.address, PAGE_NBYTES)
print(outcome_of(lambda: os.write(writing, missing)))
print(outcome_of(lambda: os.write(writing, present)))
print(outcome_of(lambda: os.read(reading, 3)))
print(outcome_of(lambda: madvise(address, PAGE_NBYTES, Advice.POPULATE_READ)))
print(uffd.read_faults())
"""


@pytest.fixture
def run_as_nobody(run_python):
    """Run a program as a user to whom the kernel gives no more than user-mode faults."""
    if SYSCTL.exists() and SYSCTL.read_text().strip() != "0":
        pytest.skip("vm.unprivileged_userfaultfd gives every user of this machine full rights")
    if os.geteuid() != 0 and probe().full_rights:
        pytest.skip("this user has full rights, and not the right to become one without")

    def run(program: str) -> list[str]:
        ended = run_python(AS_NOBODY + program)
        assert (ended.returncode, ended.stderr) == (0, "")
        return ended.stdout.splitlines()

    return run


def test_user_without_rights_gets_user_mode_only(run_as_nobody):
    """It opens by the last way, the probe says so, and how to have more."""
    assert run_as_nobody(PROBED) == [
        "False True () True",
        "[False, False, True]",
        "True syscall",
        "KernelUnsupportedError ('userfaultfd',)",
    ]


def test_touch_in_user_mode_is_served(run_as_nobody):
    """What a C library touches arrives, whatever the rights."""
    assert run_as_nobody(TOUCHED) == ["True True", "done", "b'd'"]


def test_system_calls_on_missing_memory_get_efault(run_as_nobody):
    """Loud, not wrong: no data and no zeros; memory that is present is written."""
    assert run_as_nobody(SYSTEM_CALLS) == ["EFAULT", "4096", "b'ddd'", "EFAULT", "[]"]

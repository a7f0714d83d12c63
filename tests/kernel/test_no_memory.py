"""ENOMEM: an operation that finds no memory left, provoked in a memory cgroup of a few MiB."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

MEMORY_CGROUP = Path("/sys/fs/cgroup/memory")

# Every page lies 2 MiB from the last, so that it needs a page table of its own; both are
# charged to the cgroup.  Between entering and leaving it nothing else may need memory, which
# would be waited for without end: what Python has is locked, and each way was gone before.
PROGRAM = """
import ctypes, os, sys
from lazyarr.kernel import *

group, operation = sys.argv[1:]
step, pages = 2 << 20, 4096
MCL_CURRENT = 1
locked = ctypes.CDLL(None, use_errno=True).mlockall(MCL_CURRENT)
assert locked == 0, os.strerror(ctypes.get_errno())
fd = create_memfd("test", nbytes=step * pages)
if operation == "continue_":
    for page in range(pages):
        os.pwrite(fd, b"page", page * step)
address = map_shared(fd, 0, step * pages, writable=False)
leave = os.open(os.path.dirname(group) + "/cgroup.procs", os.O_WRONLY)
enter = os.open(group + "/cgroup.procs", os.O_WRONLY)
scratch = ScratchBuffer(PAGE_NBYTES)
scratch.view[:] = bytes(PAGE_NBYTES)
features = Features.MISSING_SHMEM | Features.MINOR_SHMEM | Features.POISON
uffd = Userfaultfd.open(features)
uffd.register(address, step * pages, RegisterMode.MISSING | RegisterMode.MINOR)
def provide(page):
    if operation == "copy":
        return uffd.copy(address + page * step, scratch.address, PAGE_NBYTES)
    return getattr(uffd, operation)(address + page * step, PAGE_NBYTES)
for page in (0, 1, 0):
    outcome = provide(page)
assert outcome.stop is not Stop.DONE  # for it is there
os.write(leave, b"0")
os.write(enter, b"0")
for page in range(2, pages):
    outcome = provide(page)
    if outcome.stop is not Stop.DONE:
        break
os.write(leave, b"0")
print(outcome.stop.value, outcome.done_nbytes)
"""


@pytest.fixture
def full_cgroup():
    """A memory cgroup of a few MiB that refuses memory rather than kill."""
    control = MEMORY_CGROUP / "memory.oom_control"
    if os.geteuid() != 0 or not control.exists():
        pytest.skip("needs root, and memory cgroups of version 1, which can refuse without killing")
    group = MEMORY_CGROUP / f"lazyarr-test-{os.getpid()}"
    group.mkdir()
    (group / "memory.limit_in_bytes").write_text(str(6 << 20))
    (group / "memory.oom_control").write_text("1")
    yield group
    group.rmdir()


@pytest.mark.parametrize("operation", ["copy", "zeropage", "continue_", "poison"])
def test_no_memory_is_an_outcome(full_cgroup, run_python, operation):
    """A pager can make room and try again, where the client's cgroup is full."""
    ended = run_python(PROGRAM, str(full_cgroup), operation)
    assert (ended.stdout, ended.stderr) == ("no memory 0\n", "")

"""Which pages were written: by whom ever, and nothing else."""

from __future__ import annotations

import os

import pytest

from lazyarr.kernel import (
    PAGE_NBYTES,
    Advice,
    Features,
    InstallMode,
    RegisterMode,
    ScratchBuffer,
    Userfaultfd,
    find_written,
    madvise,
    map_private,
    memory_view,
    probe,
    read_memory,
    unmap,
)
from lazyarr.kernel import written as module

N_PAGES = 64
NBYTES = N_PAGES * PAGE_NBYTES
TRACKING = Features.PAGEFAULT_FLAG_WP | Features.WP_ASYNC

needs_tracking = pytest.mark.skipif(
    not probe().wp_async, reason="before Linux 6.7 all pages that are there count as written"
)


@pytest.fixture
def address():
    found = map_private(NBYTES, writable=True)
    yield found
    unmap(found, NBYTES)


@pytest.fixture
def tracked(address):
    """Pages 0 to 32 hold something, 32 to 40 are the zero page, 40 and 41 are poisoned."""
    with Userfaultfd.open(TRACKING | Features.POISON) as uffd, ScratchBuffer(NBYTES) as scratch:
        scratch.view[:] = bytes([7]) * NBYTES
        uffd.register(address, NBYTES, RegisterMode.MISSING | RegisterMode.WP)
        uffd.copy(address, scratch.address, 32 * PAGE_NBYTES, mode=InstallMode.WP)
        uffd.zeropage(address + 32 * PAGE_NBYTES, 8 * PAGE_NBYTES)
        uffd.poison(address + 40 * PAGE_NBYTES, 2 * PAGE_NBYTES)
        yield uffd


def pages(address):
    """Return the pages that are said to have been written and can be read."""
    runs = (
        (span.start + at, len(data))
        for span in find_written(address, NBYTES)
        for at, data in read_memory(address + span.start, span.size)
    )
    return [
        page
        for start, nbytes in runs
        for page in range(start // PAGE_NBYTES, (start + nbytes) // PAGE_NBYTES)
    ]


@needs_tracking
def test_what_was_installed_is_not_written(address, tracked):
    """Neither protected pages, nor the zero page, nor poison, nor what is missing."""
    assert pages(address) == []


@needs_tracking
def test_writes_of_every_kind_are_found(address, tracked):
    """By a pointer, by a system call, on the zero page, and what was installed unprotected."""
    view = memory_view(address, NBYTES, writable=True)
    view[3 * PAGE_NBYTES + 5] = 1
    view[33 * PAGE_NBYTES] = 2
    file = os.memfd_create("example")
    os.write(file, b"abc")
    assert os.preadv(file, [view[9 * PAGE_NBYTES - 1 : 9 * PAGE_NBYTES + 2]], 0) == 3
    os.close(file)
    with ScratchBuffer(PAGE_NBYTES) as scratch:
        tracked.copy(address + 50 * PAGE_NBYTES, scratch.address, PAGE_NBYTES)
    assert pages(address) == [3, 8, 9, 33, 50]
    assert tracked.read_faults() == []


@needs_tracking
def test_a_child_counts_what_it_inherits(address, tracked):
    """No protection is inherited: what is there may have been written, and the rest was not."""
    memory_view(address, NBYTES, writable=True)[33 * PAGE_NBYTES] = 2
    pid = os.fork()
    if pid == 0:
        os._exit(pages(address) != [*range(32), 33])
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_more_runs_than_one_call_tells():
    """All of them are found, in order."""
    nbytes = 4096 * PAGE_NBYTES
    address = map_private(nbytes, writable=True)
    madvise(address, nbytes, Advice.NOHUGEPAGE)
    view = memory_view(address, nbytes, writable=True)
    for page in range(1, 4096, 2):
        view[page * PAGE_NBYTES] = 1
    expected = [(page * PAGE_NBYTES, (page + 1) * PAGE_NBYTES) for page in range(1, 4096, 2)]
    assert find_written(address, nbytes) == expected
    pagemap = os.open("/proc/self/pagemap", os.O_RDONLY)
    assert list(module._present(pagemap, address, nbytes)) == expected
    os.close(pagemap)
    unmap(address, nbytes)


def test_reading_skips_what_can_not_be_read(address):
    """Memory that is not there leaves a hole in the answer."""
    memory_view(address, NBYTES, writable=True)[:] = bytes([5]) * NBYTES
    unmap(address + 4 * PAGE_NBYTES, 2 * PAGE_NBYTES)
    runs = read_memory(address, NBYTES)
    assert [(at, len(data)) for at, data in runs] == [
        (0, 4 * PAGE_NBYTES),
        (6 * PAGE_NBYTES, NBYTES - 6 * PAGE_NBYTES),
    ]

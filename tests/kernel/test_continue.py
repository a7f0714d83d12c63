"""Minor faults, resolved as the manual says, and every error that it lists for CONTINUE.

ioctl_userfaultfd(2), UFFDIO_CONTINUE: EAGAIN, EEXIST, EFAULT, EINVAL, ENOENT, ENOMEM,
ESRCH.  ENOMEM is in test_no_memory.py and ESRCH in test_layout.py, with the other
operations'.
"""

from __future__ import annotations

import errno
import os

import pytest

from lazyarr.errors import KernelError
from lazyarr.kernel import (
    PAGE_NBYTES,
    Features,
    InstallMode,
    Outcome,
    RegisterMode,
    Stop,
    Userfaultfd,
    memory_view,
    probe,
)
from lazyarr.kernel.descriptor import open_descriptor


@pytest.fixture
def registered(uffd, shared_memory):
    """Shared memory, a memfd and huge pages in turn, whose faults are reported."""
    uffd.register(shared_memory.address, shared_memory.nbytes, shared_memory.mode)
    return shared_memory


@pytest.mark.parametrize("mode", [RegisterMode.MINOR, RegisterMode.MINOR | RegisterMode.MISSING])
def test_minor_fault_is_resolved_through_a_second_mapping(
    uffd, shared_memory, mode, touch, next_faults
):
    """The page is brought up to date in place, unseen by the toucher, and then mapped."""
    uffd.register(shared_memory.address, shared_memory.nbytes, mode)
    shared_memory.fill(1, b"\x0f")
    toucher = touch(shared_memory.at(1) + 5)
    (fault,) = next_faults(uffd)
    assert (fault.address, fault.minor, fault.write) == (shared_memory.at(1), True, False)
    nbytes = shared_memory.page_nbytes
    page = memory_view(shared_memory.second() + nbytes, nbytes, writable=True)
    page[:] = bytes(byte ^ 0xFF for byte in page[:PAGE_NBYTES]) * (nbytes // PAGE_NBYTES)
    assert toucher.thread.is_alive()
    assert uffd.continue_(shared_memory.at(1), nbytes) == Outcome(Stop.DONE, nbytes)
    assert toucher.result() == b"\xf0"
    assert page == memory_view(shared_memory.at(1), nbytes, writable=False)


def test_write_fault_on_a_page_that_is_not_mapped_is_minor(uffd, registered, touch, next_faults):
    """It is told apart, and the write goes to the shared page."""
    registered.fill(0, b"x")
    toucher = touch(registered.address, write=b"!")
    (fault,) = next_faults(uffd)
    assert (fault.write, fault.wp, fault.minor) == (True, False, True)
    uffd.continue_(registered.address, registered.page_nbytes)
    toucher.result()
    assert os.pread(registered.fd, 2, 0) == b"!x"


def test_zapped_page_comes_back_by_continue(uffd, registered, source, touch, next_faults):
    """Second chance: out of the page tables, still in the object, mapped again at once."""
    assert uffd.copy(registered.address, source.address, registered.nbytes).stop is Stop.DONE
    registered.zap(2)
    toucher = touch(registered.at(2))
    (fault,) = next_faults(uffd)
    assert fault.minor
    assert uffd.continue_(registered.at(2), registered.page_nbytes).stop is Stop.DONE
    assert toucher.result() == b"c"


def test_continue_without_wake_leaves_the_waiter(uffd, registered, touch, next_faults):
    """As with COPY, one wake may follow several."""
    registered.fill(0, b"w")
    toucher = touch(registered.address)
    next_faults(uffd)
    outcome = uffd.continue_(registered.address, registered.page_nbytes, mode=InstallMode.DONTWAKE)
    assert outcome.stop is Stop.DONE
    assert toucher.thread.is_alive()
    uffd.wake(registered.address, registered.nbytes)
    assert toucher.result() == b"w"


def test_continue_over_everything_maps_all_pages(uffd, registered):
    """One call for a whole unit."""
    for page in range(4):
        registered.fill(page, b"wxyz"[page : page + 1])
    outcome = uffd.continue_(registered.address, registered.nbytes)
    assert outcome == Outcome(Stop.DONE, registered.nbytes)
    view = memory_view(registered.address, registered.nbytes, writable=False)
    assert bytes(view[:: registered.page_nbytes]) == b"wxyz"
    assert uffd.read_faults() == []


def test_eagain_tells_how_much_was_mapped(uffd, registered):
    """EAGAIN: the bytes mapped are not those asked for; a hole follows, or a mapped page."""
    nbytes = registered.page_nbytes
    for page in (0, 1, 3):
        registered.fill(page, b"p")
    outcome = uffd.continue_(registered.address, registered.nbytes)
    assert outcome == Outcome(Stop.PARTIAL, 2 * nbytes)
    registered.fill(2, b"p")
    assert uffd.continue_(registered.at(3), nbytes).stop is Stop.DONE
    assert uffd.continue_(registered.at(2), 2 * nbytes) == Outcome(Stop.PARTIAL, nbytes)


def test_eexist_is_present(uffd, registered):
    """EEXIST: the first page is mapped already."""
    registered.fill(0, b"p")
    assert uffd.continue_(registered.address, registered.page_nbytes).stop is Stop.DONE
    assert uffd.continue_(registered.address, registered.nbytes) == Outcome(Stop.PRESENT, 0)


def test_efault_is_a_hole(uffd, registered):
    """EFAULT: the memory object has no page there."""
    outcome = uffd.continue_(registered.address, registered.page_nbytes)
    assert outcome == Outcome(Stop.HOLE, 0)


def test_einval_behind_the_end_of_the_object(uffd, memfd_memory):
    """EINVAL: an object that is shorter than its mapping has not even a hole there."""
    os.truncate(memfd_memory.fd, PAGE_NBYTES)
    uffd.register(memfd_memory.address, memfd_memory.nbytes, memfd_memory.mode)
    with pytest.raises(KernelError) as caught:
        uffd.continue_(memfd_memory.at(1), PAGE_NBYTES)
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize(
    ("shift", "more", "mode"),
    [(1, 0, 0), (0, 1, 0), (0, -1, 0), (0, None, 0), (None, 0, 0), (0, 0, 1 << 10)],
    ids=["start", "longer", "shorter", "empty", "invalid range", "mode"],
)
def test_einval_is_an_error(uffd, registered, shift, more, mode):
    """EINVAL: not aligned, empty, no range of user memory, or an unknown mode bit."""
    address = 2**64 - registered.nbytes if shift is None else registered.address + shift
    nbytes = 0 if more is None else registered.page_nbytes + more
    with pytest.raises(KernelError, match="UFFDIO_CONTINUE") as caught:
        uffd.continue_(address, nbytes, mode=mode)
    assert caught.value.errno == errno.EINVAL


def test_einval_before_the_handshake():
    """EINVAL: the userfaultfd was not enabled by UFFDIO_API."""
    way = next(attempt.way for attempt in probe().attempts if attempt.errno is None)
    with (
        Userfaultfd.from_fd(open_descriptor(way), Features(0)) as raw,
        pytest.raises(KernelError) as caught,
    ):
        raw.continue_(PAGE_NBYTES, PAGE_NBYTES)
    assert caught.value.errno == errno.EINVAL


def test_einval_on_anonymous_memory(uffd, anonymous_memory):
    """EINVAL: private memory has no object behind it."""
    uffd.register(anonymous_memory.address, anonymous_memory.nbytes, RegisterMode.MISSING)
    with pytest.raises(KernelError) as caught:
        uffd.continue_(anonymous_memory.address, PAGE_NBYTES)
    assert caught.value.errno == errno.EINVAL


def test_enoent_is_unmapped(uffd, registered, touch, next_faults):
    """ENOENT: the client has changed its layout since the fault."""
    registered.fill(0, b"p")
    toucher = touch(registered.address)
    next_faults(uffd)
    uffd.unregister(registered.address, registered.nbytes)
    assert toucher.result() == b"p"
    outcome = uffd.continue_(registered.address, registered.page_nbytes)
    assert outcome == Outcome(Stop.UNMAPPED, 0)


def test_enoent_where_nothing_is_mapped(uffd, free_range):
    """ENOENT: the same for a region that is gone."""
    assert uffd.continue_(free_range, PAGE_NBYTES) == Outcome(Stop.UNMAPPED, 0)

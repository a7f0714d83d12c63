"""WRITEPROTECT: writes are reported, and let through, page by page."""

from __future__ import annotations

import errno

import pytest

from lazyarr.errors import KernelError
from lazyarr.kernel import (
    PAGE_NBYTES,
    InstallMode,
    Outcome,
    RegisterMode,
    Stop,
    WriteProtectMode,
    memory_view,
)


@pytest.fixture
def tracked(uffd, memory, source):
    """Memory of each kind, full, whose write faults are reported."""
    uffd.register(memory.address, memory.nbytes, memory.mode | RegisterMode.WP)
    assert uffd.copy(memory.address, source.address, memory.nbytes).stop is Stop.DONE
    return memory


def test_write_to_a_protected_page_waits(uffd, tracked, touch, next_faults):
    """The message is a write-protect fault; lifting the protection lets the write land."""
    assert uffd.writeprotect(tracked.address, tracked.nbytes).stop is Stop.DONE
    toucher = touch(tracked.at(1), write=b"!")
    (fault,) = next_faults(uffd)
    assert (fault.address, fault.write, fault.wp, fault.minor) == (
        tracked.at(1),
        True,
        True,
        False,
    )
    outcome = uffd.writeprotect(tracked.at(1), tracked.page_nbytes, mode=0)
    assert outcome == Outcome(Stop.DONE, tracked.page_nbytes)
    toucher.result()
    view = memory_view(tracked.address, tracked.nbytes, writable=False)
    assert bytes(view[:: tracked.page_nbytes]) == b"a!cd"


def test_reading_a_protected_page_needs_nobody(uffd, tracked):
    """Only writes are reported."""
    uffd.writeprotect(tracked.address, tracked.nbytes)
    assert bytes(memory_view(tracked.address, 1, writable=False)) == b"a"
    assert uffd.read_faults() == []


def test_protection_lifted_without_wake_leaves_the_writer(uffd, tracked, touch, next_faults):
    """As with COPY, one wake may follow several."""
    uffd.writeprotect(tracked.address, tracked.nbytes)
    toucher = touch(tracked.address, write=b"!")
    next_faults(uffd)
    uffd.writeprotect(tracked.address, tracked.nbytes, mode=WriteProtectMode.DONTWAKE)
    assert toucher.thread.is_alive()
    uffd.wake(tracked.address, tracked.nbytes)
    assert toucher.result() == b"!"


def test_copy_can_install_a_protected_page(uffd, memory, source, touch, next_faults):
    """InstallMode.WP: no moment in which a write would go unseen."""
    uffd.register(memory.address, memory.nbytes, memory.mode | RegisterMode.WP)
    outcome = uffd.copy(memory.address, source.address, memory.nbytes, mode=InstallMode.WP)
    assert outcome.stop is Stop.DONE
    toucher = touch(memory.address, write=b"!")
    assert next_faults(uffd)[0].wp
    uffd.writeprotect(memory.address, memory.nbytes, mode=0)
    toucher.result()


def test_continue_can_map_a_protected_page(uffd, shared_memory, touch, next_faults):
    """The same for a page that the object has."""
    uffd.register(shared_memory.address, shared_memory.nbytes, shared_memory.mode | RegisterMode.WP)
    shared_memory.fill(0, b"p")
    nbytes = shared_memory.page_nbytes
    outcome = uffd.continue_(shared_memory.address, nbytes, mode=InstallMode.WP)
    assert outcome == Outcome(Stop.DONE, nbytes)
    toucher = touch(shared_memory.address, write=b"!")
    assert next_faults(uffd)[0].wp
    uffd.writeprotect(shared_memory.address, nbytes, mode=0)
    toucher.result()


def test_zeropage_can_not_install_protected(uffd, memory):
    """There is no such mode; COPY of zeros does it."""
    uffd.register(memory.address, memory.nbytes, memory.mode | RegisterMode.WP)
    with pytest.raises(KernelError) as caught:
        uffd.zeropage(memory.address, memory.page_nbytes, mode=InstallMode.WP)
    assert caught.value.errno == errno.EINVAL


def test_range_that_is_not_tracked_is_unmapped(uffd, memory):
    """ENOENT: registered, but not for write faults."""
    uffd.register(memory.address, memory.nbytes, memory.mode)
    assert uffd.writeprotect(memory.address, memory.nbytes) == Outcome(Stop.UNMAPPED, 0)


@pytest.mark.parametrize(
    ("shift", "nbytes", "mode"),
    [(1, PAGE_NBYTES, 1), (0, 0, 1), (0, PAGE_NBYTES, 1 << 10), (0, PAGE_NBYTES, 3)],
    ids=["address", "empty", "mode", "protect and do not wake"],
)
def test_wrong_arguments_are_errors(uffd, anonymous_memory, shift, nbytes, mode):
    """Not aligned, empty, or modes that do not go together."""
    address = anonymous_memory.address
    uffd.register(address, anonymous_memory.nbytes, RegisterMode.MISSING | RegisterMode.WP)
    with pytest.raises(KernelError, match="UFFDIO_WRITEPROTECT") as caught:
        uffd.writeprotect(address + shift, nbytes, mode=mode)
    assert caught.value.errno == errno.EINVAL

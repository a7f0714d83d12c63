"""COPY, ZEROPAGE and WAKE on the real kernel, for each kind of memory."""

from __future__ import annotations

import errno
import os

import pytest

from lazyarr.errors import KernelError
from lazyarr.kernel import (
    PAGE_NBYTES,
    InstallMode,
    Outcome,
    Protection,
    Stop,
    map_shared,
    memory_view,
    protect,
    punch_hole,
    unmap,
)


def first_bytes(memory):
    """Return the first byte of each page, all of which are present."""
    view = memory_view(memory.address, memory.nbytes, writable=False)
    return bytes(view[:: memory.page_nbytes])


@pytest.fixture
def registered(uffd, memory):
    """Memory of each kind whose faults are reported."""
    uffd.register(memory.address, memory.nbytes, memory.mode)
    return memory


def test_missing_page_waits_for_its_bytes(uffd, registered, source, touch, next_faults):
    """The toucher reads what COPY installs, and the message says where and who."""
    toucher = touch(registered.at(1) + 10)
    (fault,) = next_faults(uffd)
    assert fault.address == registered.at(1)
    assert fault.thread_id == toucher.thread_id
    assert (fault.write, fault.wp, fault.minor) == (False, False, False)
    nbytes = registered.page_nbytes
    assert uffd.copy(registered.at(1), source.address + nbytes, nbytes) == (Stop.DONE, nbytes)
    assert toucher.result() == b"b"


def test_write_to_a_missing_page_is_told(uffd, registered, source, touch, next_faults):
    """A write fault says so; the write lands on the installed page."""
    toucher = touch(registered.at(2), write=b"!")
    (fault,) = next_faults(uffd)
    assert (fault.write, fault.wp, fault.minor) == (True, False, False)
    assert uffd.copy(registered.address, source.address, registered.nbytes).stop is Stop.DONE
    toucher.result()
    assert first_bytes(registered) == b"ab!d"


def test_copy_of_a_page_that_is_there_is_present(uffd, registered, source):
    """Being second is an outcome, and the first one's bytes stay."""
    nbytes = registered.page_nbytes
    assert uffd.copy(registered.address, source.address, nbytes).stop is Stop.DONE
    again = uffd.copy(registered.address, source.address + nbytes, nbytes)
    assert again == Outcome(Stop.PRESENT, 0)
    assert uffd.copy(registered.at(1), source.address, registered.nbytes - nbytes).stop is Stop.DONE
    assert first_bytes(registered) == b"aabc"


def test_copy_stops_before_a_page_that_is_there(uffd, registered, source):
    """What was done is told in bytes, and the rest can be gone on with."""
    nbytes = registered.page_nbytes
    assert uffd.copy(registered.at(2), source.address, nbytes).stop is Stop.DONE
    partial = uffd.copy(registered.address, source.address, registered.nbytes)
    assert partial == Outcome(Stop.PARTIAL, 2 * nbytes)
    rest = uffd.copy(registered.at(2), source.address, 2 * nbytes)
    assert rest == Outcome(Stop.PRESENT, 0)
    assert uffd.copy(registered.at(3), source.address, nbytes) == Outcome(Stop.DONE, nbytes)
    assert first_bytes(registered) == b"abaa"


def test_copy_without_wake_leaves_the_waiter_until_it_is_woken(
    uffd, registered, source, touch, next_faults
):
    """Several installs can be followed by one wake."""
    toucher = touch(registered.at(3))
    next_faults(uffd)
    outcome = uffd.copy(
        registered.address, source.address, registered.nbytes, mode=InstallMode.DONTWAKE
    )
    assert outcome.stop is Stop.DONE
    assert toucher.thread.is_alive()
    uffd.wake(registered.address, registered.nbytes)
    assert toucher.result() == b"d"


def test_wake_without_a_page_reports_the_fault_again(uffd, registered, source, touch, next_faults):
    """That is how a message that a dead handler had read comes back."""
    toucher = touch(registered.address)
    before = next_faults(uffd)
    assert uffd.read_faults() == []
    uffd.wake(registered.address, registered.nbytes)
    assert next_faults(uffd) == before
    uffd.copy(registered.address, source.address, registered.page_nbytes)
    assert toucher.result() == b"a"


def test_faults_of_many_threads_come_in_batches(uffd, registered, source, touch, next_faults):
    """One read returns several messages, but no more than asked for."""
    touchers = [touch(registered.at(page)) for page in range(4)]
    faults = next_faults(uffd, count=4)
    assert {fault.address for fault in faults} == {registered.at(page) for page in range(4)}
    assert {fault.thread_id for fault in faults} == {toucher.thread_id for toucher in touchers}
    uffd.wake(registered.address, registered.nbytes)
    again = next_faults(uffd)
    while len(again) < 4:
        few = uffd.read_faults(max=1)
        assert len(few) <= 1
        again += few
    uffd.copy(registered.address, source.address, registered.nbytes)
    assert [toucher.result() for toucher in touchers] == [b"a", b"b", b"c", b"d"]


def test_zeropage_installs_zeros(uffd, registered, touch, next_faults):
    """On private memory, and on a memfd, which takes memory for them; not on hugetlbfs."""
    toucher = touch(registered.address)
    next_faults(uffd)
    if registered.kind == "hugetlbfs":
        with pytest.raises(KernelError) as caught:
            uffd.zeropage(registered.address, registered.nbytes)
        assert caught.value.errno == errno.EINVAL
        uffd.unregister(registered.address, registered.nbytes)
    else:
        outcome = uffd.zeropage(registered.address, registered.nbytes)
        assert outcome == Outcome(Stop.DONE, registered.nbytes)
        assert uffd.zeropage(registered.address, PAGE_NBYTES) == Outcome(Stop.PRESENT, 0)
        assert first_bytes(registered) == b"\0\0\0\0"
        if registered.kind == "memfd":
            assert os.fstat(registered.fd).st_blocks * 512 == registered.nbytes
    assert toucher.result() == b"\0"


def test_zeropage_stops_before_a_page_that_is_there(uffd, registered, source):
    """As COPY does."""
    if registered.kind == "hugetlbfs":
        with pytest.raises(KernelError):
            uffd.zeropage(registered.address, registered.page_nbytes)
        return
    assert uffd.copy(registered.at(1), source.address, PAGE_NBYTES).stop is Stop.DONE
    outcome = uffd.zeropage(registered.address, registered.nbytes)
    assert outcome == Outcome(Stop.PARTIAL, PAGE_NBYTES)


def test_range_that_is_not_registered_is_unmapped(uffd, registered, source):
    """Also where only its last page is not."""
    nbytes = registered.page_nbytes
    uffd.unregister(registered.at(3), nbytes)
    for start, pages in ((3, 1), (2, 2)):
        outcome = uffd.copy(registered.at(start), source.address, pages * nbytes)
        assert outcome == Outcome(Stop.UNMAPPED, 0)


def test_addresses_without_a_mapping_are_unmapped(uffd, free_range, source):
    """A client that has unmapped its region is told so."""
    assert uffd.copy(free_range, source.address, PAGE_NBYTES) == Outcome(Stop.UNMAPPED, 0)
    assert uffd.zeropage(free_range, PAGE_NBYTES) == Outcome(Stop.UNMAPPED, 0)


@pytest.mark.parametrize(
    ("shift", "nbytes", "mode"),
    [(1, 0, 0), (0, 1, 0), (0, None, 0), (0, 0, 1 << 10), (None, 0, 0)],
    ids=["address", "length", "empty", "mode", "no range of user memory"],
)
def test_wrong_arguments_are_errors(uffd, registered, source, shift, nbytes, mode):
    """Not aligned, empty, or an unknown mode: a mistake of the caller's, never an outcome."""
    length = 0 if nbytes is None else registered.page_nbytes + nbytes
    address = 2**64 - registered.page_nbytes if shift is None else registered.address + shift
    for call in (
        lambda: uffd.copy(address, source.address, length, mode=mode),
        lambda: uffd.zeropage(address, length, mode=mode),
    ):
        with pytest.raises(KernelError) as caught:
            call()
        assert caught.value.errno == errno.EINVAL


def test_source_need_not_be_aligned(uffd, registered, source):
    """A decoded unit may start anywhere in the scratch buffer."""
    uffd.copy(registered.address, source.address + 1, registered.page_nbytes)
    view = memory_view(registered.address, registered.page_nbytes, writable=False)
    assert (view[0], view[-1]) == (ord("a"), ord("b"))


def test_source_that_can_not_be_read_is_an_error(uffd, registered, free_range):
    """EFAULT of COPY is a mistake of the pager's, not a hole in the client's memory."""
    with pytest.raises(KernelError) as caught:
        uffd.copy(registered.address, free_range, registered.page_nbytes)
    assert caught.value.errno == errno.EFAULT


def test_copy_fills_memory_that_the_client_may_only_read(uffd, shared_memory, source):
    """A read-only mapping of a memory object that is open for writing takes pages."""
    protect(shared_memory.address, shared_memory.nbytes, Protection.READ)
    uffd.register(shared_memory.address, shared_memory.nbytes, shared_memory.mode)
    outcome = uffd.copy(shared_memory.address, source.address, shared_memory.nbytes)
    assert outcome.stop is Stop.DONE
    assert first_bytes(shared_memory) == b"abcd"


def test_page_that_another_mapping_brought_in_is_present(uffd, shared_memory, source):
    """COPY never overwrites what the memory object has already."""
    uffd.register(shared_memory.address, shared_memory.nbytes, shared_memory.mode)
    shared_memory.fill(0, b"z")
    outcome = uffd.copy(shared_memory.address, source.address, shared_memory.page_nbytes)
    assert outcome == Outcome(Stop.PRESENT, 0)


def test_page_punched_out_is_missing_again(uffd, shared_memory, source, touch, next_faults):
    """Eviction from outside: the next touch is a missing fault, not zeros."""
    uffd.register(shared_memory.address, shared_memory.nbytes, shared_memory.mode)
    uffd.copy(shared_memory.address, source.address, shared_memory.nbytes)
    punch_hole(shared_memory.fd, shared_memory.page_nbytes, shared_memory.page_nbytes)
    toucher = touch(shared_memory.at(1))
    (fault,) = next_faults(uffd)
    assert (fault.address, fault.minor) == (shared_memory.at(1), False)
    uffd.copy(shared_memory.at(1), source.address, shared_memory.page_nbytes)
    assert toucher.result() == b"a"
    assert first_bytes(shared_memory) == b"aacd"


def test_copy_behind_the_end_of_the_object_is_an_error(uffd, memfd_memory, source):
    """A memory object that was made shorter than its mapping takes no pages there."""
    os.truncate(memfd_memory.fd, PAGE_NBYTES)
    uffd.register(memfd_memory.address, memfd_memory.nbytes, memfd_memory.mode)
    with pytest.raises(KernelError) as caught:
        uffd.copy(memfd_memory.at(1), source.address, PAGE_NBYTES)
    assert caught.value.errno == errno.EFAULT


def test_present_without_a_huge_page_left_is_told_apart_by_continue(uffd, huge_memory, source):
    """An empty pool can look like a page that is there (Linux 6.18); CONTINUE finds the hole."""
    uffd.register(huge_memory.address, huge_memory.nbytes, huge_memory.mode)
    nbytes = huge_memory.page_nbytes
    outcomes = [
        uffd.copy(huge_memory.at(page), source.address, nbytes) for page in range(huge_memory.pages)
    ]
    assert {outcome.stop for outcome in outcomes[:-1]} == {Stop.DONE}
    assert outcomes[-1].stop in (Stop.PRESENT, Stop.NO_MEMORY)
    assert uffd.continue_(huge_memory.at(huge_memory.pages - 1), nbytes).stop is Stop.HOLE
    assert uffd.continue_(huge_memory.address, nbytes).stop is Stop.PRESENT


@pytest.mark.parametrize(("address", "nbytes"), [(PAGE_NBYTES + 1, PAGE_NBYTES), (PAGE_NBYTES, 0)])
def test_wake_of_a_wrong_range_is_an_error(uffd, address, nbytes):
    """Not aligned, or empty."""
    with pytest.raises(KernelError) as caught:
        uffd.wake(address, nbytes)
    assert caught.value.errno == errno.EINVAL


def test_second_mapping_of_a_process_sees_the_installed_page(uffd, shared_memory, source):
    """One COPY serves every mapping of the object."""
    uffd.register(shared_memory.address, shared_memory.nbytes, shared_memory.mode)
    uffd.copy(shared_memory.address, source.address, shared_memory.nbytes)
    second = map_shared(shared_memory.fd, 0, shared_memory.nbytes, writable=False)
    view = memory_view(second, shared_memory.nbytes, writable=False)
    assert bytes(view[:: shared_memory.page_nbytes]) == b"abcd"
    unmap(second, shared_memory.nbytes)

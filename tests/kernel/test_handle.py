"""The handle itself: opened, closed, shared, and what may be registered."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import threading

import pytest

from lazyarr.errors import KernelError, KernelUnsupportedError
from lazyarr.kernel import (
    PAGE_NBYTES,
    Features,
    InstallMode,
    Ioctls,
    RegisterMode,
    Stop,
    Userfaultfd,
    map_private,
    probe,
    unmap,
)
from lazyarr.kernel.descriptor import open_descriptor
from lazyarr.kernel.uapi import UFFDIO_CONTINUE


def test_descriptor_is_non_blocking_and_stays_out_of_other_programs(uffd):
    """Nothing that is executed inherits it, and reading it never waits."""
    assert not os.get_blocking(uffd.fileno())
    assert not os.get_inheritable(uffd.fileno())
    assert uffd.read_faults() == []


def test_source_and_rights_are_those_of_the_best_way_that_opens(uffd):
    """Full rights come before user-mode-only, and the device before the system call."""
    opened = next(attempt.way for attempt in probe().attempts if attempt.errno is None)
    assert (uffd.source, uffd.user_mode_only) == opened
    assert str(uffd.fileno()) in repr(uffd)


def test_user_mode_only_can_be_asked_for():
    """A program may choose to have no more than everybody has."""
    with Userfaultfd.open(Features(0), user_mode_only=True) as uffd:
        assert uffd.user_mode_only
        assert uffd.source == "syscall"


@pytest.mark.parametrize("name", ["EVENT_FORK", "EVENT_REMAP", "EVENT_REMOVE", "EVENT_UNMAP"])
def test_features_whose_messages_nobody_reads_are_refused(name):
    """An unread event would block its causer and every install."""
    with pytest.raises(ValueError, match=name):
        Userfaultfd.open(Features[name] | Features.THREAD_ID)


def test_unknown_feature_is_refused_by_the_kernel():
    """A bit that no kernel has is an error that keeps nothing open."""
    with pytest.raises(KernelUnsupportedError) as caught:
        Userfaultfd.open(Features(1 << 62))
    assert caught.value.errno == errno.EINVAL


def test_closed_handle_holds_minus_one_and_refuses_work():
    """Once closed, no call reaches a descriptor that is somebody else's by now."""
    uffd = Userfaultfd.open(Features(0))
    uffd.close()
    uffd.close()
    assert uffd.fileno() == -1
    for call in (
        lambda: uffd.copy(0, 0, PAGE_NBYTES),
        lambda: uffd.wake(0, PAGE_NBYTES),
        uffd.read_faults,
    ):
        with pytest.raises(KernelError, match="closed") as caught:
            call()
        assert caught.value.errno == errno.EBADF


def test_dup_serves_when_the_first_is_closed(uffd, memory, source, touch, next_faults):
    """Each handle owns one descriptor of the same userfaultfd."""
    first = uffd.dup()
    with first.dup() as second:
        first.register(memory.address, memory.nbytes, memory.mode)
        first.close()
        toucher = touch(memory.address)
        assert len(next_faults(second)) == 1
        assert second.copy(memory.address, source.address, memory.page_nbytes).stop is Stop.DONE
        assert toucher.result() == b"a"
        assert second.features == uffd.features
        assert not os.get_inheritable(second.fileno())


def test_received_descriptor_is_made_safe(uffd, memfd_memory, source):
    """A descriptor from a socket acts on its owner's memory, and is not inherited or waited for."""
    left, right = socket.socketpair()
    with left, right:
        socket.send_fds(left, [b"."], [uffd.fileno()])
        _, (fd,), _, _ = socket.recv_fds(right, 1, 1)
    os.set_inheritable(fd, True)
    os.set_blocking(fd, True)
    with Userfaultfd.from_fd(fd, uffd.features, user_mode_only=True, source="dev") as received:
        assert not os.get_blocking(fd)
        assert not os.get_inheritable(fd)
        received.register(memfd_memory.address, memfd_memory.nbytes, memfd_memory.mode)
        assert received.copy(memfd_memory.address, source.address, PAGE_NBYTES).stop is Stop.DONE
        assert (received.user_mode_only, received.source) == (True, "dev")


def test_register_tells_which_operations_the_range_takes(uffd, memory):
    """The kinds of memory differ: zero pages not on hugetlbfs, CONTINUE on shared memory only."""
    ioctls = uffd.register(memory.address, memory.nbytes, memory.mode)
    assert Ioctls.COPY | Ioctls.WAKE | Ioctls.POISON in ioctls
    assert (Ioctls.ZEROPAGE in ioctls) == (memory.kind != "hugetlbfs")
    assert (Ioctls.CONTINUE in ioctls) == (memory.kind != "anonymous")


def test_anonymous_memory_can_not_be_registered_minor(uffd):
    """There is no memory object that could have the page already."""
    address = map_private(PAGE_NBYTES, writable=True)
    with pytest.raises(KernelError) as caught:
        uffd.register(address, PAGE_NBYTES, RegisterMode.MINOR)
    assert caught.value.errno == errno.EINVAL
    unmap(address, PAGE_NBYTES)


@pytest.mark.parametrize("mode", [RegisterMode(0), RegisterMode(1 << 10)])
def test_register_without_a_known_mode_is_refused(uffd, memory, mode):
    """Nothing to report is a mistake, and so is a kind of fault that is not known."""
    with pytest.raises(KernelError) as caught:
        uffd.register(memory.address, memory.nbytes, mode)
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize(("shift", "less"), [(1, 0), (0, 1)])
def test_register_needs_whole_pages(uffd, memory, shift, less):
    """The message names the range that is wrong."""
    with pytest.raises(KernelError, match=f"{memory.address + shift:#x}") as caught:
        uffd.register(memory.address + shift, memory.nbytes - less, memory.mode)
    assert caught.value.errno == errno.EINVAL


def test_register_of_unmapped_addresses_is_refused(uffd, free_range):
    """There is nothing to watch where nothing is mapped."""
    with pytest.raises(KernelError) as caught:
        uffd.register(free_range, PAGE_NBYTES, RegisterMode.MISSING)
    assert caught.value.errno == errno.EINVAL


def test_two_userfaultfds_can_not_share_a_range(uffd, memory):
    """A range belongs to one descriptor at a time."""
    uffd.register(memory.address, memory.nbytes, memory.mode)
    with Userfaultfd.open(uffd.features) as other:
        with pytest.raises(KernelError) as caught:
            other.register(memory.address, memory.nbytes, memory.mode)
        assert caught.value.errno == errno.EBUSY


def test_unregister_lets_waiters_go_and_hands_the_range_over(uffd, memory, touch, next_faults):
    """Who waits reads zeros then, and another userfaultfd may have the range."""
    uffd.register(memory.address, memory.nbytes, memory.mode)
    toucher = touch(memory.address)
    next_faults(uffd)
    uffd.unregister(memory.address, memory.nbytes)
    assert toucher.result() == b"\0"
    with Userfaultfd.open(uffd.features) as other:
        other.register(memory.address, memory.nbytes, memory.mode)


def test_unregister_of_unmapped_addresses_is_refused(uffd, free_range):
    """It is told, not passed over."""
    with pytest.raises(KernelError, match="UFFDIO_UNREGISTER") as caught:
        uffd.unregister(free_range, PAGE_NBYTES)
    assert caught.value.errno == errno.EINVAL


def test_descriptor_without_handshake_takes_no_operation(memory):
    """UFFDIO_API comes first."""
    way = next(attempt.way for attempt in probe().attempts if attempt.errno is None)
    with (
        Userfaultfd.from_fd(open_descriptor(way), Features(0)) as raw,
        pytest.raises(KernelError) as caught,
    ):
        raw.register(memory.address, memory.nbytes, memory.mode)
    assert caught.value.errno == errno.EINVAL


def test_one_descriptor_serves_many_ranges_and_kinds(uffd, memfd_memory, source):
    """Windows of one memory object, in any order, and anonymous memory beside them."""
    private = map_private(4 * PAGE_NBYTES, writable=True)
    for page in (2, 0, 3):
        uffd.register(memfd_memory.at(page), PAGE_NBYTES, memfd_memory.mode)
    uffd.register(private, 4 * PAGE_NBYTES, RegisterMode.MISSING)
    for page in (0, 2, 3):
        assert uffd.copy(memfd_memory.at(page), source.address, PAGE_NBYTES).stop is Stop.DONE
    assert uffd.copy(memfd_memory.at(1), source.address, PAGE_NBYTES).stop is Stop.UNMAPPED
    assert uffd.copy(private, source.address, 4 * PAGE_NBYTES).stop is Stop.DONE
    assert os.pread(memfd_memory.fd, 1, 3 * PAGE_NBYTES) == b"a"
    unmap(private, 4 * PAGE_NBYTES)


def test_copy_lets_other_python_threads_run(uffd, memory, source, in_thread, next_faults):
    """COPY waits, without the GIL, for a source page that this very thread installs.

    Were the GIL held, nobody could read the fault.
    """
    if uffd.user_mode_only:
        pytest.skip("COPY's own read of the source is a fault of the kernel's")
    nbytes = memory.page_nbytes
    missing = map_private(nbytes, writable=True)
    uffd.register(memory.address, memory.nbytes, memory.mode)
    with Userfaultfd.open(Features(0)) as other:
        other.register(missing, nbytes, RegisterMode.MISSING)
        copier = in_thread(lambda: uffd.copy(memory.address, missing, nbytes))
        next_faults(other)
        assert other.copy(missing, source.address, nbytes).stop is Stop.DONE
        assert copier.result() == (Stop.DONE, nbytes)
    unmap(missing, nbytes)


def test_copies_from_several_threads_do_not_mix(uffd, source):
    """Each call has an argument of its own: every page is installed once, by one thread."""
    pages, threads = 256, 4
    address = map_private(pages * PAGE_NBYTES, writable=True)
    uffd.register(address, pages * PAGE_NBYTES, RegisterMode.MISSING)
    stops: list[list[Stop]] = [[] for _ in range(threads)]
    together = threading.Barrier(threads)

    def install(mine: list[Stop]) -> None:
        together.wait()
        for page in range(pages):
            mine.append(
                uffd.copy(
                    address + page * PAGE_NBYTES,
                    source.address,
                    PAGE_NBYTES,
                    mode=InstallMode.DONTWAKE,
                ).stop
            )

    workers = [threading.Thread(target=install, args=(mine,)) for mine in stops]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for page in range(pages):
        assert sorted(mine[page].value for mine in stops) == ["done"] + ["present"] * (threads - 1)
    unmap(address, pages * PAGE_NBYTES)


def test_pointer_that_is_no_memory_is_efault(uffd):
    """The general error of every ioctl, which the handle's own arguments cannot cause."""
    with pytest.raises(OSError, match="Bad address") as caught:
        fcntl.ioctl(uffd.fileno(), UFFDIO_CONTINUE, 8)
    assert caught.value.errno == errno.EFAULT

"""A client that changes its layout meanwhile, or is gone."""

from __future__ import annotations

import select
import socket

import pytest

from lazyarr.errors import KernelError
from lazyarr.kernel import (
    PAGE_NBYTES,
    Features,
    Operation,
    Outcome,
    RegisterMode,
    ScratchBuffer,
    Stop,
    Userfaultfd,
    map_private,
    probe,
    unmap,
)
from lazyarr.kernel.descriptor import open_descriptor, shake_hands
from tests.programs import kernel as programs


@pytest.fixture
def orphan(run_python):
    """The userfaultfd of a process that has exited, and an address that it had registered."""
    mine, theirs = socket.socketpair()
    with mine, theirs:
        ended = run_python(
            programs.sends_what_it_has_registered, str(theirs.fileno()), pass_fds=(theirs.fileno(),)
        )
        assert (ended.returncode, ended.stderr) == (0, "")
        sent, (fd,), _, _ = socket.recv_fds(mine, 8, 1)
    with Userfaultfd.from_fd(fd, Features(0)) as uffd:
        yield uffd, int.from_bytes(sent, "little")


@pytest.mark.parametrize("operation", Operation)
def test_esrch_is_exited(orphan, operation):
    """ESRCH: the process whose memory it is has exited; that is how a pager learns it."""
    uffd, address = orphan
    with ScratchBuffer(PAGE_NBYTES) as scratch:
        calls = {
            Operation.COPY: lambda: uffd.copy(address, scratch.address, PAGE_NBYTES),
            Operation.ZEROPAGE: lambda: uffd.zeropage(address, PAGE_NBYTES),
            Operation.CONTINUE: lambda: uffd.continue_(address, PAGE_NBYTES),
            Operation.WRITEPROTECT: lambda: uffd.writeprotect(address, PAGE_NBYTES),
            Operation.POISON: lambda: uffd.poison(address, PAGE_NBYTES),
        }
        assert calls[operation]() == Outcome(Stop.EXITED, 0)


def test_wake_and_read_outlive_the_client(orphan):
    """Neither needs the memory: no fault waits, and nobody is woken."""
    uffd, address = orphan
    uffd.wake(address, PAGE_NBYTES)
    assert uffd.read_faults() == []


def test_unregister_of_a_client_that_is_gone_is_an_error(orphan):
    """The kernel says ENOMEM for it, as for too many mappings."""
    uffd, address = orphan
    with pytest.raises(KernelError, match="ENOMEM"):
        uffd.unregister(address, PAGE_NBYTES)


def test_layout_that_is_changing_is_told(memfd_memory, source, in_thread):
    """EAGAIN without bytes: the client is inside madvise; the same call works after it.

    Only a descriptor with an event feature, which `open` refuses, makes that moment last.
    """
    way = next(attempt.way for attempt in probe().attempts if attempt.errno is None)
    fd = open_descriptor(way)
    shake_hands(fd, Features.EVENT_REMOVE | Features.POISON | Features.MINOR_SHMEM)
    with Userfaultfd.from_fd(fd, Features.EVENT_REMOVE) as uffd:
        uffd.register(memfd_memory.address, memfd_memory.nbytes, memfd_memory.mode)
        assert uffd.copy(memfd_memory.address, source.address, PAGE_NBYTES).stop is Stop.DONE
        zapper = in_thread(lambda: memfd_memory.zap(0))
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        assert poll.poll(20_000)
        outcomes = [
            uffd.copy(memfd_memory.at(1), source.address, PAGE_NBYTES),
            uffd.zeropage(memfd_memory.at(1), PAGE_NBYTES),
            uffd.continue_(memfd_memory.address, PAGE_NBYTES),
            uffd.poison(memfd_memory.at(1), PAGE_NBYTES),
        ]
        assert uffd.read_faults() == []  # the event, which is passed over
        zapper.result()
        assert outcomes == [Outcome(Stop.CHANGING, 0)] * 4
        assert uffd.continue_(memfd_memory.address, PAGE_NBYTES).stop is Stop.DONE


def test_region_that_was_unmapped_is_told(uffd, source):
    """ENOENT: nothing of the caller's is written anywhere else."""
    address = map_private(PAGE_NBYTES, writable=True)
    uffd.register(address, PAGE_NBYTES, RegisterMode.MISSING)
    unmap(address, PAGE_NBYTES)
    assert uffd.copy(address, source.address, PAGE_NBYTES) == Outcome(Stop.UNMAPPED, 0)

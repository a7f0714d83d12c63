"""POISON: what it does to a toucher, how far it reaches, and what takes it away."""

from __future__ import annotations

import errno
import os
import signal

import pytest

from lazyarr.errors import KernelError
from lazyarr.kernel import (
    PAGE_NBYTES,
    Advice,
    Features,
    Outcome,
    Stop,
    Userfaultfd,
    madvise,
    memory_view,
    probe,
    punch_hole,
)
from tests.programs import kernel as programs

EHWPOISON = 133  # asm-generic/errno.h; Python's errno has no name for it


@pytest.fixture
def uffd(uffd):
    """A userfaultfd for user-mode faults, which lets system calls tell what a page is."""
    with Userfaultfd.open(uffd.features, user_mode_only=True) as opened:
        yield opened


@pytest.fixture
def registered(uffd, memory):
    """Memory of each kind whose faults are reported."""
    uffd.register(memory.address, memory.nbytes, memory.mode)
    return memory


@pytest.fixture
def shared(uffd, shared_memory):
    """Shared memory whose faults are reported."""
    uffd.register(shared_memory.address, shared_memory.nbytes, shared_memory.mode)
    return shared_memory


def state(address: int) -> str:
    """Return whether a page is present, missing or poisoned, without waiting for it.

    MADV_POPULATE_READ is a fault of the kernel's, so that a userfaultfd for user-mode
    faults answers EFAULT for a missing page, and poison gives EHWPOISON.
    """
    try:
        madvise(address, PAGE_NBYTES, Advice.POPULATE_READ)
    except KernelError as error:
        return {errno.EFAULT: "missing", EHWPOISON: "poisoned"}[error.errno]
    return "present"


def test_touching_poison_is_sigbus(run_python):
    """The toucher dies loudly, with a traceback, and never reads anything."""
    ended = run_python(programs.touches_poison)
    assert ended.returncode == -signal.SIGBUS
    assert ended.stdout == "done\n"
    assert "Bus error" in ended.stderr


def test_poison_ends_the_wait_of_a_system_call(memory, in_thread, next_faults):
    """A call that waits for its page, as it does with full rights, is refused then."""
    if not probe().full_rights:
        pytest.skip("system calls do not wait for a page without full rights")
    with Userfaultfd.open(Features.POISON, user_mode_only=False) as uffd:
        uffd.register(memory.address, memory.nbytes, memory.mode)
        waiting = in_thread(lambda: state(memory.at(1)))
        next_faults(uffd)
        nbytes = memory.page_nbytes
        assert uffd.poison(memory.at(1), nbytes) == Outcome(Stop.DONE, nbytes)
        assert waiting.result() == "poisoned"


def test_copy_heals_poison(uffd, registered, source):
    """A unit that can be had after all takes the place of its poison."""
    assert uffd.poison(registered.address, registered.nbytes).stop is Stop.DONE
    assert state(registered.at(3)) == "poisoned"
    outcome = uffd.copy(registered.address, source.address, registered.nbytes)
    assert outcome == Outcome(Stop.DONE, registered.nbytes)
    view = memory_view(registered.address, registered.nbytes, writable=False)
    assert bytes(view[:: registered.page_nbytes]) == b"abcd"


def test_zeropage_heals_poison_of_a_memfd_only(uffd, registered):
    """Private memory has its zero page refused over poison, a memfd takes a new page."""
    nbytes = registered.page_nbytes
    uffd.poison(registered.address, nbytes)
    if registered.kind == "hugetlbfs":
        with pytest.raises(KernelError):
            uffd.zeropage(registered.address, nbytes)
    else:
        stop = Stop.PRESENT if registered.kind == "anonymous" else Stop.DONE
        assert uffd.zeropage(registered.address, nbytes).stop is stop
    healed = registered.kind == "memfd"
    assert state(registered.address) == ("present" if healed else "poisoned")


def test_continue_heals_poison_where_the_object_has_the_page(uffd, shared):
    """Over a hole it stays."""
    nbytes = shared.page_nbytes
    uffd.poison(shared.address, nbytes)
    assert uffd.continue_(shared.address, nbytes) == Outcome(Stop.HOLE, 0)
    assert state(shared.address) == "poisoned"
    shared.fill(0, b"p")
    assert uffd.continue_(shared.address, nbytes) == Outcome(Stop.DONE, nbytes)
    assert state(shared.address) == "present"


def test_copy_does_not_heal_where_the_object_has_the_page(uffd, shared, source):
    """Somebody else's page is in the object: COPY is second, CONTINUE is the answer."""
    nbytes = shared.page_nbytes
    uffd.poison(shared.address, nbytes)
    shared.fill(0, b"p")
    assert uffd.copy(shared.address, source.address, nbytes) == Outcome(Stop.PRESENT, 0)
    assert state(shared.address) == "poisoned"
    assert uffd.continue_(shared.address, nbytes).stop is Stop.DONE
    assert bytes(memory_view(shared.address, 1, writable=False)) == b"p"


def test_poison_stops_at_a_page_that_is_there(uffd, registered, source):
    """Mapped bytes are never taken away."""
    nbytes = registered.page_nbytes
    uffd.copy(registered.at(1), source.address, nbytes)
    assert uffd.poison(registered.address, registered.nbytes) == Outcome(Stop.PARTIAL, nbytes)
    assert uffd.poison(registered.at(1), nbytes) == Outcome(Stop.PRESENT, 0)
    assert state(registered.at(1)) == "present"


def test_poison_twice_is_present(uffd, registered):
    """A second failure of the same unit finds its marker."""
    uffd.poison(registered.address, registered.page_nbytes)
    again = uffd.poison(registered.address, registered.page_nbytes)
    assert again == Outcome(Stop.PRESENT, 0)


def test_punching_a_hole_leaves_poison_of_small_pages(uffd, shared):
    """Evicting from outside makes a poisoned page missing again on hugetlbfs alone."""
    uffd.poison(shared.address, shared.page_nbytes)
    shared.fill(0, b"p")
    punch_hole(shared.fd, 0, shared.nbytes)
    assert state(shared.address) == ("missing" if shared.kind == "hugetlbfs" else "poisoned")


def test_waking_and_unregistering_leave_poison(uffd, shared):
    """A pager that lets go does not turn damage into zeros."""
    uffd.poison(shared.address, shared.page_nbytes)
    uffd.wake(shared.address, shared.page_nbytes)
    uffd.unregister(shared.address, shared.nbytes)
    assert state(shared.address) == "poisoned"


def test_poison_reaches_one_mapping_only(uffd, shared):
    """It lies in the page tables of the registered mapping, not in the object."""
    uffd.poison(shared.address, shared.page_nbytes)
    assert state(shared.second()) == "present"
    assert state(shared.address) == "poisoned"


@pytest.mark.parametrize("way", ["punch", "truncate"])
def test_page_is_missing_again_by_ways_from_outside(
    uffd, memfd_memory, way, source, touch, next_faults
):
    """By COPY and then a hole, or by cutting the object short: the next touch is reported."""
    uffd.register(memfd_memory.address, memfd_memory.nbytes, memfd_memory.mode)
    nbytes = memfd_memory.page_nbytes
    uffd.poison(memfd_memory.at(3), nbytes)
    if way == "punch":
        assert uffd.copy(memfd_memory.at(3), source.address, nbytes).stop is Stop.DONE
        punch_hole(memfd_memory.fd, 3 * nbytes, nbytes)
    else:
        os.truncate(memfd_memory.fd, 3 * nbytes)
        os.truncate(memfd_memory.fd, 4 * nbytes)
    toucher = touch(memfd_memory.at(3))
    (fault,) = next_faults(uffd)
    assert (fault.address, fault.minor) == (memfd_memory.at(3), False)
    uffd.copy(memfd_memory.at(3), source.address, nbytes)
    assert toucher.result() == b"a"


def test_page_is_missing_again_after_the_client_advises_it(
    uffd, registered, source, touch, next_faults
):
    """MADV_DONTNEED, by the process itself, takes the poison and no more."""
    uffd.poison(registered.address, registered.page_nbytes)
    madvise(registered.address, registered.page_nbytes, Advice.DONTNEED)
    toucher = touch(registered.address)
    assert len(next_faults(uffd)) == 1
    uffd.copy(registered.address, source.address, registered.page_nbytes)
    assert toucher.result() == b"a"

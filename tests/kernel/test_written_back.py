"""Memory that is written back: no write to it goes unseen.

Pages are installed write-protected, through a userfaultfd without WP_ASYNC, and the protection is
lifted when the write has been noted.
"""

from __future__ import annotations

import os

import pytest

from lazyarr.kernel import (
    PAGE_NBYTES,
    WRITE_BACK,
    Features,
    InstallMode,
    RegisterMode,
    Stop,
    Userfaultfd,
    memory_view,
    probe,
    punch_hole,
)
from tests.process.running import run_program
from tests.programs import written_back as programs

MODE = RegisterMode.MISSING | RegisterMode.MINOR | RegisterMode.WP
PROTECTED = int(InstallMode.WP)

pytestmark = pytest.mark.skipif(
    not probe().write_back, reason="this kernel lacks what memory that is written back needs"
)


@pytest.fixture
def uffd():
    with Userfaultfd.open(WRITE_BACK | Features.THREAD_ID | Features.POISON) as opened:
        yield opened


@pytest.fixture
def memory(uffd, memfd_memory):
    """Four pages of a memory object, registered and missing."""
    uffd.register(memfd_memory.address, memfd_memory.nbytes, MODE)
    return memfd_memory


def kind_of(fault) -> str:
    """Return what a message says of a fault, in words."""
    return " ".join(name for name in ("write", "wp", "minor") if getattr(fault, name))


def test_zeros_are_protected_as_bytes_are(uffd, memory, source, touch, next_faults):
    """By COPY: UFFDIO_ZEROPAGE has no such mode."""
    source.view[:PAGE_NBYTES] = bytes(PAGE_NBYTES)
    uffd.copy(memory.address, source.address, 2 * PAGE_NBYTES, mode=PROTECTED)
    for page in (0, 1):
        toucher = touch(memory.at(page), write=b"!")
        (fault,) = next_faults(uffd)
        assert (fault.address, kind_of(fault)) == (memory.at(page), "write wp")
        assert fault.thread_id == toucher.thread_id
        uffd.writeprotect(memory.at(page), PAGE_NBYTES, mode=0)
        toucher.result()
    assert os.pread(memory.fd, 2, 0) == b"!\0"


def test_a_page_that_was_read_is_still_protected(uffd, memory, source, touch, next_faults):
    """Reading lifts nothing, and a page that is lifted is written to without a fault."""
    uffd.copy(memory.address, source.address, PAGE_NBYTES, mode=PROTECTED)
    view = memory_view(memory.address, PAGE_NBYTES, writable=True)
    assert view[0:1] == b"a"
    assert uffd.read_faults() == []
    toucher = touch(memory.address, write=b"!")
    assert kind_of(next_faults(uffd)[0]) == "write wp"
    uffd.writeprotect(memory.address, PAGE_NBYTES, mode=0)
    toucher.result()
    view[1] = view[2] = ord("?")
    assert uffd.read_faults() == []
    assert os.pread(memory.fd, 4, 0) == b"!??a"


def test_lifting_a_unit_wakes_all_who_wait_in_it(uffd, memory, source, touch, next_faults):
    """Each thread has faulted once, and none faults again."""
    uffd.copy(memory.address, source.address, memory.nbytes, mode=PROTECTED)
    touchers = [touch(memory.at(page) + n, write=b"!") for page in range(4) for n in (0, 8)]
    assert len(next_faults(uffd, 8)) == 8
    uffd.writeprotect(memory.address, memory.nbytes, mode=0)
    assert [toucher.result() for toucher in touchers] == [b"!"] * 8
    assert uffd.read_faults() == []


@pytest.mark.parametrize("mode", [0, PROTECTED])
def test_a_page_that_another_process_has_brought(uffd, memory, touch, next_faults, mode):
    """Mapped write-protected, or for one that has been noted already without."""
    memory.fill(0, b"p")
    toucher = touch(memory.address)
    assert kind_of(next_faults(uffd)[0]) == "minor"
    uffd.continue_(memory.address, PAGE_NBYTES, mode=mode)
    assert toucher.result() == b"p"
    toucher = touch(memory.address, write=b"!")
    if mode:
        assert kind_of(next_faults(uffd)[0]) == "write wp"
        uffd.writeprotect(memory.address, PAGE_NBYTES, mode=0)
    toucher.result()
    assert uffd.read_faults() == []


def test_protection_reaches_pages_that_are_not_mapped(uffd, memory, touch, next_faults):
    """A write to one is a fault all the same; the mode of the install says what it is then."""
    memory.fill(0, b"p")
    memory.fill(1, b"p")
    assert uffd.writeprotect(memory.address, 2 * PAGE_NBYTES).stop is Stop.DONE
    for page, mode in ((0, 0), (1, PROTECTED)):
        toucher = touch(memory.at(page), write=b"!")
        assert kind_of(next_faults(uffd)[0]) == "write minor"
        uffd.continue_(memory.at(page), PAGE_NBYTES, mode=mode)
        if mode:
            assert kind_of(next_faults(uffd)[0]) == "write wp"
            uffd.writeprotect(memory.at(page), PAGE_NBYTES, mode=0)
        toucher.result()
    assert uffd.read_faults() == []


@pytest.mark.parametrize("zapped", ["punched", "given back"])
@pytest.mark.parametrize("mode", [0, PROTECTED])
def test_a_protected_page_that_is_taken_out(uffd, memory, source, touch, next_faults, zapped, mode):
    """The kernel leaves a mark behind; the protection of what comes next goes by its mode."""
    uffd.copy(memory.address, source.address, PAGE_NBYTES, mode=PROTECTED)
    if zapped == "punched":
        punch_hole(memory.fd, 0, PAGE_NBYTES)
        wanted, install = "write", uffd.copy
        arguments = (memory.address, source.address + PAGE_NBYTES, PAGE_NBYTES)
    else:
        memory.zap(0)
        wanted, install = "write minor", uffd.continue_
        arguments = (memory.address, PAGE_NBYTES)
    toucher = touch(memory.address, write=b"!")
    assert kind_of(next_faults(uffd)[0]) == wanted
    assert install(*arguments, mode=mode).stop is Stop.DONE
    if mode:
        assert kind_of(next_faults(uffd)[0]) == "write wp"
        uffd.writeprotect(memory.address, PAGE_NBYTES, mode=0)
    toucher.result()
    assert uffd.read_faults() == []


def test_the_mark_of_a_protection_is_in_the_way_of_poison(uffd, memory, source):
    """It is lifted first, or the thread that waits would wait for ever."""
    uffd.copy(memory.address, source.address, PAGE_NBYTES, mode=PROTECTED)
    punch_hole(memory.fd, 0, PAGE_NBYTES)
    assert uffd.poison(memory.address, PAGE_NBYTES).stop is Stop.PRESENT
    uffd.writeprotect(memory.address, PAGE_NBYTES, mode=0)
    assert uffd.poison(memory.address, PAGE_NBYTES).stop is Stop.DONE


def test_a_forked_child_has_its_own_protection():
    """It inherits none, and no page either: each first touch is a fault, reading or writing."""
    ended = run_program(programs.a_child_has_its_own_protection)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout


@pytest.mark.parametrize("way", ["punch what was copied", "punch what is clean"])
def test_no_write_is_lost_to_a_write_back(way):
    """Four processes write at random while pages are protected, copied, punched and let go."""
    ended = run_program(programs.no_write_is_lost, way)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout


@pytest.mark.skipif(not probe().wp_async, reason="before Linux 6.7 there is no WP_ASYNC")
def test_what_wp_async_records_ends_with_the_process():
    """Why it is not used: the record lies in the page tables of the process that has written.

    The same write without it is a message, which is there before the write is.
    """
    ended = run_program(programs.a_record_that_ends_with_its_process)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout

"""The installer on the real kernel, and on a scripted one where the real one cannot be made to."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

import lazyarr
from lazyarr.errors import PagerError
from lazyarr.kernel import (
    PAGE_NBYTES,
    Advice,
    Features,
    InstallMode,
    Outcome,
    ScratchBuffer,
    Stop,
    Userfaultfd,
    madvise,
    memory_view,
)
from lazyarr.pager.memory import installer
from lazyarr.pager.memory.installer import (
    Backing,
    install,
    map_resident,
    poison,
    protect,
    unprotect,
)
from lazyarr.wire.channel import channel_pair
from tests.pager.conftest import N_PAGES, ClientMemory
from tests.process.running import command_of
from tests.programs import pager as programs

ZEROS = bytes(PAGE_NBYTES)


def page(letter: str) -> bytes:
    """Return a page of one letter."""
    return letter.encode() * PAGE_NBYTES


def put(memory: ClientMemory, first: int, letters: str) -> Stop:
    """Install pages of letters."""
    with ScratchBuffer(len(letters) * PAGE_NBYTES) as scratch:
        scratch.view[:] = b"".join(map(page, letters))
        return install(
            memory.uffd,
            memory.at(first),
            scratch.nbytes,
            source=scratch.address,
            data=scratch.view,
            backing=memory.backing_at(first),
            page_nbytes=PAGE_NBYTES,
        )


def put_zeros(memory: ClientMemory, first: int, n_pages: int) -> Stop:
    """Install pages of zeros."""
    return install(
        memory.uffd,
        memory.at(first),
        n_pages * PAGE_NBYTES,
        source=None,
        data=None,
        backing=memory.backing_at(first),
        page_nbytes=PAGE_NBYTES,
    )


def is_missing(memory: ClientMemory, number: int) -> bool:
    """Return whether a page is not to be had: missing or poisoned."""
    try:
        memory.read(number)
    except OSError as error:
        return error.errno == errno.EFAULT
    return False


# --- install ----------------------------------------------------------------------


def test_bytes_arrive(memory):
    """On the pages that were named and on no others."""
    assert put(memory, 1, "abc") is Stop.DONE
    assert memory.read(1, 3) == page("a") + page("b") + page("c")
    assert [is_missing(memory, n) for n in range(N_PAGES)] == [
        True,
        False,
        False,
        False,
        True,
        True,
    ]


def test_zeros_arrive(memory):
    """Without any bytes to copy."""
    assert put_zeros(memory, 2, 2) is Stop.DONE
    assert memory.read(2, 2) == ZEROS * 2
    assert is_missing(memory, 1)
    assert is_missing(memory, 4)


def test_bytes_reach_the_memory_object(shared_memory):
    """Where other processes find them, at the region's offset."""
    put(shared_memory, 1, "ab")
    assert os.pread(shared_memory.memfd, 2 * PAGE_NBYTES, shared_memory.nbytes + PAGE_NBYTES) == (
        page("a") + page("b")
    )
    assert os.pread(shared_memory.memfd, shared_memory.nbytes, 0) == bytes(shared_memory.nbytes)


@pytest.mark.parametrize("install_page", [put, put_zeros])
def test_thread_that_waits_goes_on(memory, install_page):
    """With the bytes that were installed."""
    found = [memory.touch(2), memory.touch(4)]
    assert install_page(memory, 1, "abcd" if install_page is put else 4) is Stop.DONE
    memory.join()
    assert found == ([[b"b"], [b"d"]] if install_page is put else [[b"\0"], [b"\0"]])


def test_stray_pages_in_the_memory_object_are_brought_up_to_date(shared_memory):
    """A page that the record does not know is not trusted, wherever in the range it lies."""
    for number in (0, 2, 3, 5):
        shared_memory.write_behind(number, b"stray")
    found = shared_memory.touch(3)
    assert put(shared_memory, 0, "abcdef") is Stop.DONE
    shared_memory.join()
    assert found == [b"d"]
    assert shared_memory.read(0, 6) == b"".join(map(page, "abcdef"))


def test_stray_page_becomes_zeros_where_zeros_belong(shared_memory):
    """Its bytes are somebody else's."""
    shared_memory.write_behind(1, page("x"))
    assert put_zeros(shared_memory, 0, 3) is Stop.DONE
    assert shared_memory.read(0, 3) == ZEROS * 3


def test_page_that_is_mapped_already_is_no_obstacle(shared_memory):
    """An install that was broken off is done again."""
    put(shared_memory, 0, "ab")
    assert put(shared_memory, 0, "abcd") is Stop.DONE
    assert shared_memory.read(0, 4) == b"".join(map(page, "abcd"))


@pytest.mark.parametrize("install_pages", [put, put_zeros])
def test_private_page_keeps_what_the_client_wrote(private_memory, install_pages):
    """The unit is loaded again for a page beside it, and the process has changed this one."""
    put(private_memory, 1, "W")
    assert install_pages(private_memory, 0, "abc" if install_pages is put else 3) is Stop.DONE
    wanted = [page("a"), page("c")] if install_pages is put else [ZEROS, ZEROS]
    assert private_memory.read(0, 3) == wanted[0] + page("W") + wanted[1]


@pytest.mark.parametrize("kind", ["bytes", "zeros"])
def test_poison_is_healed(memory, kind):
    """A unit that could not be had at first, and now can, is no trap."""
    for number in (0, 2):
        assert poison(memory.uffd, memory.at(number), PAGE_NBYTES) is Stop.DONE
    stop = put(memory, 0, "abc") if kind == "bytes" else put_zeros(memory, 0, 3)
    assert stop is Stop.DONE
    wanted = b"".join(map(page, "abc")) if kind == "bytes" else ZEROS * 3
    assert memory.read(0, 3) == wanted


def test_memory_that_is_not_registered_is_unmapped(memory):
    """The client has unmapped it, or never registered it."""
    memory.uffd.unregister(memory.address, memory.nbytes)
    assert put(memory, 0, "a") is Stop.UNMAPPED
    assert put_zeros(memory, 0, 1) is Stop.UNMAPPED


def test_range_that_ends_in_other_memory_is_unmapped(memory):
    """What lies before the end may have been installed; nothing may be told of it."""
    memory.uffd.unregister(memory.at(3), 3 * PAGE_NBYTES)
    assert put(memory, 1, "abcd") is Stop.UNMAPPED


def test_process_that_has_ended_is_told_apart():
    """Its memory is gone with it, whatever the descriptor says."""
    here, there = channel_pair()
    os.set_inheritable(there.fileno(), True)
    child = subprocess.run(
        [
            sys.executable,
            *command_of(programs.sends_what_it_has_registered_and_ends, there.fileno()),
        ],
        pass_fds=[there.fileno()],
        env={**os.environ, "PYTHONPATH": str(Path(lazyarr.__file__).parents[1])},
        capture_output=True,
        check=True,
    )
    received = here.receive()
    here.close()
    there.close()
    assert received is not None
    address = int(child.stdout)
    with Userfaultfd.from_fd(received.descriptors[0], Features(0)) as uffd:
        stop = install(
            uffd,
            address,
            PAGE_NBYTES,
            source=None,
            data=None,
            backing=None,
            page_nbytes=PAGE_NBYTES,
        )
        assert stop is Stop.EXITED
        assert map_resident(uffd, address, PAGE_NBYTES, PAGE_NBYTES) == (Stop.EXITED, [])
        assert poison(uffd, address, PAGE_NBYTES) is Stop.EXITED


# --- map_resident -----------------------------------------------------------------


def test_resident_pages_are_mapped(shared_memory):
    """All that are named, from one call, for the thread that waits for one."""
    for number, letter in enumerate("abc"):
        shared_memory.write_behind(number, page(letter))
    found = shared_memory.touch(1)
    stop = map_resident(shared_memory.uffd, shared_memory.at(0), 3 * PAGE_NBYTES, PAGE_NBYTES)
    assert stop == (Stop.DONE, [])
    shared_memory.join()
    assert found == [b"b"]
    assert shared_memory.read(0, 3) == b"".join(map(page, "abc"))


def test_page_that_was_dropped_from_the_page_table_is_mapped_again(shared_memory):
    """As it is after swapping, between others that are still there."""
    put(shared_memory, 0, "abc")
    madvise(shared_memory.at(1), PAGE_NBYTES, Advice.DONTNEED)
    found = shared_memory.touch(1)
    stop = map_resident(shared_memory.uffd, shared_memory.at(0), 3 * PAGE_NBYTES, PAGE_NBYTES)
    assert stop == (Stop.DONE, [])
    shared_memory.join()
    assert found == [b"b"]


def test_holes_are_named_and_the_rest_is_mapped(shared_memory):
    """And whoever waits at a hole faults again, so that it can be loaded."""
    put(shared_memory, 0, "abcd")
    for number in (0, 2):
        shared_memory.punch(number)
    shared_memory.touch(2)
    stop, holes = map_resident(
        shared_memory.uffd, shared_memory.at(0), 4 * PAGE_NBYTES, PAGE_NBYTES
    )
    assert (stop, holes) == (Stop.DONE, [0, 2 * PAGE_NBYTES])
    assert shared_memory.wait_for_fault() == shared_memory.at(2)
    assert put(shared_memory, 2, "c") is Stop.DONE
    shared_memory.join()


def test_poison_is_healed_by_mapping(shared_memory):
    """Another process has brought the page meanwhile."""
    poison(shared_memory.uffd, shared_memory.at(1), PAGE_NBYTES)
    shared_memory.write_behind(1, page("p"))
    stop = map_resident(shared_memory.uffd, shared_memory.at(1), PAGE_NBYTES, PAGE_NBYTES)
    assert stop == (Stop.DONE, [])
    assert shared_memory.read(1) == page("p")


def test_mapping_nothing_that_is_registered_is_unmapped(shared_memory):
    """The region is gone."""
    shared_memory.uffd.unregister(shared_memory.address, shared_memory.nbytes)
    stop, _ = map_resident(shared_memory.uffd, shared_memory.at(0), PAGE_NBYTES, PAGE_NBYTES)
    assert stop is Stop.UNMAPPED


# --- poison -----------------------------------------------------------------------


def test_poisoned_page_is_not_read(memory):
    """A system call gets EFAULT where a thread would get SIGBUS; the pages beside it do not."""
    put(memory, 0, "a")
    assert poison(memory.uffd, memory.at(1), PAGE_NBYTES) is Stop.DONE
    assert is_missing(memory, 1)
    assert memory.read(0) == page("a")


def test_page_that_is_there_is_not_poisoned(memory):
    """Bytes that somebody can read are right, whatever failed meanwhile; twice is as once."""
    put(memory, 0, "a")
    assert poison(memory.uffd, memory.at(0), PAGE_NBYTES) is Stop.DONE
    assert memory.read(0) == page("a")
    assert (
        poison(memory.uffd, memory.at(1), PAGE_NBYTES)
        is poison(memory.uffd, memory.at(1), PAGE_NBYTES)
        is Stop.DONE
    )


# --- memory that is written back --------------------------------------------------------

PROTECTED = int(InstallMode.WP)
DONTWAKE = int(InstallMode.DONTWAKE)


def put_protected(memory: ClientMemory, first: int, letters: str, *, mode: int = PROTECTED) -> Stop:
    """Install pages of letters write-protected, or for spaces pages of zeros."""
    with ScratchBuffer(len(letters) * PAGE_NBYTES) as scratch:
        scratch.view[:] = b"".join(map(page, letters))
        has_bytes = letters.strip() != ""
        return install(
            memory.uffd,
            memory.at(first),
            scratch.nbytes,
            source=scratch.address if has_bytes else None,
            data=scratch.view if has_bytes else None,
            backing=memory.backing_at(first),
            page_nbytes=PAGE_NBYTES,
            mode=mode,
            copies_zeros=True,
        )


def lift(
    memory: ClientMemory, first: int, n_pages: int = 1, *, awaited: Sequence[int] = ()
) -> tuple[Stop, list[int]]:
    """Let pages be written to."""
    offsets = [(page - first) * PAGE_NBYTES for page in awaited]
    return unprotect(memory.uffd, memory.at(first), n_pages * PAGE_NBYTES, awaited=offsets)


def is_protected(memory: ClientMemory, number: int) -> bool:
    """Return whether a system call may not write to a page that it may read."""
    assert not is_missing(memory, number)
    with open("/dev/zero", "rb", buffering=0) as zeros:
        view = memory_view(memory.at(number), 1, writable=True)
        before = bytes(view)
        try:
            zeros.readinto(view)
        except OSError as error:
            return error.errno == errno.EFAULT
        view[:] = before
        return False


@pytest.mark.parametrize("letters", ["abc", "   "])
@pytest.mark.parametrize("is_stray", [False, True])
def test_what_is_installed_is_protected(written_memory, letters, is_stray):
    """Bytes and zeros, also where the memory object has a page that is brought up to date."""
    if is_stray:
        written_memory.write_behind(1, page("s"))
    assert put_protected(written_memory, 0, letters) is Stop.DONE
    wanted = b"".join(map(page, letters)) if letters.strip() else ZEROS * 3
    assert written_memory.read(0, 3) == wanted
    assert [is_protected(written_memory, n) for n in range(3)] == [True] * 3


def test_more_zeros_than_there_are_at_hand(written_memory, monkeypatch):
    """They are copied from a buffer that is shorter."""
    monkeypatch.setattr(installer, "_ZEROS_NBYTES", 2 * PAGE_NBYTES)
    found = written_memory.touch(4)
    assert put_protected(written_memory, 0, "     ") is Stop.DONE
    written_memory.join()
    assert found == [b"\0"]
    assert written_memory.read(0, 5) == ZEROS * 5
    assert is_protected(written_memory, 4)


@pytest.mark.parametrize("is_stray", [False, True])
def test_nobody_is_woken_who_is_not_to_be(written_memory, is_stray):
    """A thread that writes goes on when the protection is lifted, with one fault in all."""
    if is_stray:
        written_memory.write_behind(1, page("s"))
    found = written_memory.touch(1, write=b"!")
    mode = PROTECTED | DONTWAKE
    assert put_protected(written_memory, 0, "abc", mode=mode) is Stop.DONE
    uffd, address = written_memory.uffd, written_memory.at(0)
    mapped = map_resident(uffd, address, 3 * PAGE_NBYTES, PAGE_NBYTES, mode=mode)
    assert mapped == (Stop.DONE, [])
    assert found == []
    assert uffd.read_faults() == []
    assert lift(written_memory, 1) == (Stop.DONE, [])
    written_memory.join()
    assert found == [b"!"]
    assert [is_protected(written_memory, n) for n in range(3)] == [True, False, True]
    assert uffd.read_faults() == []


@pytest.mark.parametrize("mode", [0, PROTECTED])
def test_resident_pages_are_mapped_in_a_mode(written_memory, mode):
    """What is mapped already stays as it is."""
    put_protected(written_memory, 1, "b")
    for number, letter in ((0, "a"), (2, "c")):
        written_memory.write_behind(number, page(letter))
    uffd, address = written_memory.uffd, written_memory.at(0)
    mapped = map_resident(uffd, address, 3 * PAGE_NBYTES, PAGE_NBYTES, mode=mode)
    assert mapped == (Stop.DONE, [])
    expected = [bool(mode), True, bool(mode)]
    assert [is_protected(written_memory, n) for n in range(3)] == expected


def test_what_is_protected_again_is_a_fault_again(written_memory):
    """And what is beside it is not."""
    put_protected(written_memory, 0, "abc")
    written_memory.write_behind(3, page("d"))
    assert lift(written_memory, 0, 4, awaited=[3]) == (Stop.DONE, [])
    assert not any(is_protected(written_memory, n) for n in range(4))
    assert protect(written_memory.uffd, written_memory.at(1), 3 * PAGE_NBYTES) is Stop.DONE
    expected = [False, True, True, True]
    assert [is_protected(written_memory, n) for n in range(4)] == expected


def test_holes_are_named_and_the_rest_is_let_go(written_memory):
    """As when pages are mapped: who waits for the hole faults again."""
    put_protected(written_memory, 0, "abc")
    written_memory.punch(1)
    found = written_memory.touch(0, write=b"!")
    written_memory.touch(1, write=b"?")
    assert lift(written_memory, 0, 3, awaited=[1]) == (Stop.DONE, [PAGE_NBYTES])
    assert written_memory.wait_for_fault() == written_memory.at(1)
    put_protected(written_memory, 1, "B")
    written_memory.wait_for_fault()
    lift(written_memory, 1)
    written_memory.join()
    assert found == [b"!"]
    assert written_memory.read(1)[:2] == b"?B"


def test_pages_that_are_not_mapped_are_mapped_from_the_first_and_from_an_awaited_one_on(
    written_memory,
):
    """Up to one that is; whoever touches what is left out has a fault there, and a thread waits."""
    for number, letter in enumerate("abcdef"):
        written_memory.write_behind(number, page(letter))
    map_resident(written_memory.uffd, written_memory.at(1), PAGE_NBYTES, PAGE_NBYTES)
    found = written_memory.touch(4, write=b"!")
    assert lift(written_memory, 0, 6, awaited=[4]) == (Stop.DONE, [])
    written_memory.join()
    assert found == [b"!"]
    assert [is_missing(written_memory, n) for n in range(6)] == [n in (2, 3) for n in range(6)]
    assert not any(is_protected(written_memory, n) for n in (0, 1, 4, 5))


def test_a_page_that_the_kernel_cannot_protect_is_an_error():
    """Whoever wrote there would write what nobody notes."""
    with pytest.raises(PagerError, match="could not protect"):
        protect(Scripted(("writeprotect", Stop.NO_MEMORY, 0)), 0, PAGE_NBYTES)


def test_what_is_not_registered_is_neither_protected_nor_lifted(written_memory):
    """The region is gone."""
    put_protected(written_memory, 0, "a")
    written_memory.uffd.unregister(written_memory.address, written_memory.nbytes)
    uffd, address = written_memory.uffd, written_memory.at(0)
    assert protect(uffd, address, PAGE_NBYTES) is Stop.UNMAPPED
    assert lift(written_memory, 0) == (Stop.UNMAPPED, [])
    assert poison(uffd, address, PAGE_NBYTES, lifts=True) is Stop.UNMAPPED


def test_an_evicted_page_is_poisoned_where_its_protection_is_left(written_memory):
    """The kernel leaves it behind, and puts no poison in its place."""
    put_protected(written_memory, 0, "a")
    written_memory.punch(0)
    uffd, address = written_memory.uffd, written_memory.at(0)
    assert uffd.poison(address, PAGE_NBYTES).stop is Stop.PRESENT
    assert poison(uffd, address, PAGE_NBYTES, lifts=True) is Stop.DONE
    assert is_missing(written_memory, 0)
    found = written_memory.touch(1)
    assert put_protected(written_memory, 0, "Ab") is Stop.DONE
    written_memory.join()
    assert found == [b"b"]
    assert is_protected(written_memory, 0)


# --- what the kernel does rarely ----------------------------------------------------


class Scripted:
    """A userfaultfd whose operations end as written down, in order."""

    def __init__(self, *script: tuple[str, Stop, int]) -> None:
        self.script = list(script)
        self.calls: list[tuple[str, int, int]] = []

    def _next(self, operation: str, address: int, nbytes: int) -> Outcome:
        wanted, stop, done_pages = self.script.pop(0)
        assert wanted == operation
        self.calls.append((operation, address // PAGE_NBYTES, nbytes // PAGE_NBYTES))
        return Outcome(stop, done_pages * PAGE_NBYTES)

    def copy(self, dst: int, _: int, nbytes: int, *, mode: int = 0) -> Outcome:
        return self._next("copy", dst, nbytes)

    def continue_(self, address: int, nbytes: int, *, mode: int = 0) -> Outcome:
        return self._next("continue", address, nbytes)

    def writeprotect(self, address: int, nbytes: int, *, mode: int = 1) -> Outcome:
        return self._next("writeprotect", address, nbytes)

    def poison(self, address: int, nbytes: int) -> Outcome:
        return self._next("poison", address, nbytes)

    def wake(self, address: int, nbytes: int) -> None:
        self.calls.append(("wake", address // PAGE_NBYTES, nbytes // PAGE_NBYTES))


def test_changing_layout_is_waited_out():
    """The client maps or unmaps something at this moment: go on where it stopped."""
    uffd = Scripted(
        ("copy", Stop.CHANGING, 0),
        ("copy", Stop.PARTIAL, 2),
        ("copy", Stop.CHANGING, 0),
        ("copy", Stop.DONE, 2),
    )
    nbytes = 4 * PAGE_NBYTES
    with ScratchBuffer(nbytes) as scratch:
        stop = install(
            uffd,
            0,
            nbytes,
            source=scratch.address,
            data=scratch.view,
            backing=None,
            page_nbytes=PAGE_NBYTES,
        )
    assert stop is Stop.DONE
    assert uffd.calls == [("copy", 0, 4), ("copy", 0, 4), ("copy", 2, 2), ("copy", 2, 2)]


@pytest.mark.parametrize("again", [Stop.CHANGING, Stop.HOLE])
def test_page_that_is_there_is_mapped_in_the_end(again):
    """Also when the layout changes, or somebody punches a hole, between the two steps."""
    uffd = Scripted(
        ("copy", Stop.PRESENT, 0),
        ("continue", again, 0),
        ("copy", Stop.PRESENT, 0),
        ("continue", Stop.PRESENT, 0),
        ("copy", Stop.DONE, 1),
    )
    with ScratchBuffer(2 * PAGE_NBYTES) as scratch, open(os.memfd_create("test"), "r+b") as memfd:
        stop = install(
            uffd,
            0,
            scratch.nbytes,
            source=scratch.address,
            data=scratch.view,
            backing=Backing(memfd.fileno(), 0),
            page_nbytes=PAGE_NBYTES,
        )
    assert stop is Stop.DONE
    assert uffd.script == []
    assert ("wake", 0, 1) in uffd.calls


@pytest.mark.parametrize("stop", [Stop.NO_MEMORY, Stop.EXITED, Stop.UNMAPPED])
def test_install_that_can_not_go_on_says_why(stop):
    """And nothing more is tried."""
    uffd = Scripted(("copy", Stop.PARTIAL, 1), ("copy", stop, 0))
    with ScratchBuffer(2 * PAGE_NBYTES) as scratch:
        ended = install(
            uffd,
            0,
            scratch.nbytes,
            source=scratch.address,
            data=scratch.view,
            backing=None,
            page_nbytes=PAGE_NBYTES,
        )
    assert ended is stop


@pytest.mark.parametrize("act", [protect, partial(poison, lifts=True)])
def test_a_protection_waits_for_a_layout_that_changes(act):
    """As installs do."""
    uffd = Scripted(
        ("writeprotect", Stop.CHANGING, 0),
        ("writeprotect", Stop.CHANGING, 0),
        ("writeprotect", Stop.DONE, 1),
        ("poison", Stop.DONE, 1),
    )
    assert act(uffd, 0, PAGE_NBYTES) is Stop.DONE
    assert len(uffd.calls) == (3 if act is protect else 4)

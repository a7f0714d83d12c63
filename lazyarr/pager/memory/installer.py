"""Installs decoded pages in clients' memory.  Decides nothing: callers say what goes where."""

from __future__ import annotations

import functools
import os
import time
from typing import TYPE_CHECKING, NamedTuple

from lazyarr.errors import PagerError
from lazyarr.kernel import InstallMode, Outcome, ScratchBuffer, Stop, WriteProtectMode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lazyarr.kernel import Userfaultfd

__all__ = [
    "Backing",
    "fill",
    "install",
    "install_zeros",
    "map_resident",
    "poison",
    "protect",
    "unprotect",
]

# A plain int: flag arithmetic on members of an enumeration costs a microsecond.
_DONTWAKE = int(InstallMode.DONTWAKE)
_CHANGING_PAUSE_SECONDS = 0.0005
# Between the install that finds a page present and the call that maps it, the client may
# change its mappings, or the page may be punched out.  Either is tried again.
_AGAIN = frozenset({Stop.CHANGING, Stop.HOLE})


# Where huge pages of shared memory are switched on (Linux, mm/transhuge.rst).
_HUGE_PAGES = "/sys/kernel/mm/transparent_hugepage"
_ZEROS_NBYTES = 1 << 16
_ZEROS = bytes(_ZEROS_NBYTES)


class Backing(NamedTuple):
    """Where the bytes of shared pages lie: a memory object, and an offset in it."""

    memfd: int
    offset: int


def install(
    uffd: Userfaultfd,
    address: int,
    nbytes: int,
    *,
    source: int | None,
    data: memoryview | None,
    backing: Backing | None,
    page_nbytes: int,
    mode: int = 0,
    copies_zeros: bool = False,
) -> Stop:
    """Install pages in a client; return `Stop.DONE`, or why not all of them are installed.

    Parameters
    ----------
    uffd : Userfaultfd
        The client's userfaultfd.
    address, nbytes : int
        Whole pages of the client's memory.
    source : int or None
        Address of the bytes in this process; None for zeros.
    data : memoryview or None
        The same bytes.
    backing : Backing or None
        The memory object behind a shared mapping; None for private memory.
    page_nbytes : int
        Size in bytes of the client's pages there.
    mode : int
        How bytes are copied: bits of `InstallMode`.  With `DONTWAKE` nobody is woken.
    copies_zeros : bool
        Whether zeros are copied too, as `install_zeros` says.
    """
    wakes = not mode & _DONTWAKE

    def step(done: int, rest: int) -> Outcome:
        # COPY from scratch memory, and not a write to the memory object with CONTINUE: for a
        # mebibyte that takes a fifth longer (docs/design/installing.md).
        if source is None:
            return install_zeros(uffd, address + done, rest, mode=mode, copies=copies_zeros)
        return uffd.copy(address + done, source + done, rest, mode=mode)

    def present(done: int) -> Stop:
        if backing is not None:
            # The memory object has a page that the record does not know.  It is a stray zero
            # page, or an install that was broken off has left it.  Being there is no proof that
            # its bytes are right.  As userfaultfd(2) says, it is brought up to date in place
            # and then mapped.
            page = bytes(page_nbytes) if data is None else data[done : done + page_nbytes]
            os.pwrite(backing.memfd, page, backing.offset + done)
            outcome = uffd.continue_(address + done, page_nbytes, mode=mode)
        elif source is None:
            # ZEROPAGE finds a page or poison, and does not say which.  COPY of zeros replaces
            # poison, and leaves a page that is there.
            outcome = install_zeros(uffd, address + done, page_nbytes, mode=mode, copies=True)
        else:
            # Private memory: the page stays, for the client may have written it.
            outcome = Outcome(Stop.PRESENT, 0)
        if outcome.stop is Stop.PRESENT:
            # An install wakes the threads that wait for its pages.  One that finds the page
            # present has installed nothing, and has woken nobody.
            if wakes:
                uffd.wake(address + done, page_nbytes)
            return Stop.DONE
        return outcome.stop

    return _proceed(nbytes, page_nbytes, step, present)


def install_zeros(
    uffd: Userfaultfd, address: int, nbytes: int, *, mode: int = 0, copies: bool = False
) -> Outcome:
    """Install zeros in a client in one call; return how that ended.

    Parameters
    ----------
    uffd : Userfaultfd
        The client's userfaultfd.
    address, nbytes : int
        Whole pages of the client's memory.
    mode : int
        Bits of `InstallMode`.  `WP` holds for zeros that are copied.
    copies : bool
        Whether zeros are copied.  UFFDIO_ZEROPAGE cannot protect: in memory that is written back
        a write to such a page would be one that nobody knows of.  A process's own memory needs no
        protection there: the kernel shows that a page is still the zero page.
    """
    if not copies:
        return uffd.zeropage(address, nbytes, mode=mode & _DONTWAKE)
    zeros = _zeros(_ZEROS_NBYTES)
    part_nbytes = min(nbytes, _ZEROS_NBYTES)
    outcome = uffd.copy(address, zeros.address, part_nbytes, mode=mode)
    if outcome.stop is Stop.DONE and part_nbytes < nbytes:
        return Outcome(Stop.PARTIAL, part_nbytes)
    return outcome


def fill(backing: Backing, nbytes: int, data: memoryview | None) -> bool:
    """Write pages to a memory object and map them nowhere; return whether that was done.

    Readahead does this with a mark: the first touch of the pages is a minor fault, by which the
    pager learns that the reader has come so far.  Nothing is written where that could make a
    huge page, all of which would be zeros but for the bytes written.

    Parameters
    ----------
    backing : Backing
        Where the pages lie.
    nbytes : int
        Size in bytes: whole pages.
    data : memoryview or None
        The bytes of the pages; None for zeros.
    """
    if _has_huge_pages():
        return False
    done = 0
    while done < nbytes:
        # Zeros are written too, in small parts: without UFFDIO_ZEROPAGE, which would
        # map them.
        part = _ZEROS[: nbytes - done] if data is None else data[done:nbytes]
        done += os.pwrite(backing.memfd, part, backing.offset + done)
    return True


@functools.cache
def _has_huge_pages() -> bool:
    """Return whether a write to a memory object may make a huge page."""
    # Read once, so huge pages that are switched on later are not noticed.  "advise"
    # makes none, for nothing advises the kernel about this memory.
    chosen = _chosen(_HUGE_PAGES)
    if chosen in ("always", "within_size", "force"):
        return True
    # Since Linux 6.14 each size has a switch too; "inherit" is what the one above says.
    if chosen == "deny":
        return False
    try:
        sizes = [name for name in os.listdir(_HUGE_PAGES) if name.startswith("hugepages-")]
    except OSError:
        return False
    return any(_chosen(f"{_HUGE_PAGES}/{s}") in ("always", "within_size") for s in sizes)


def _chosen(directory: str) -> str:
    """Return what is switched on for shared memory; "" where there is no such switch."""
    try:
        with open(f"{directory}/shmem_enabled") as file:
            return file.read().partition("[")[2].partition("]")[0]
    except OSError:
        return ""


def map_resident(
    uffd: Userfaultfd, address: int, nbytes: int, page_nbytes: int, *, mode: int = 0
) -> tuple[Stop, list[int]]:
    """Map pages that the memory object already has, and wake the threads that wait for them.

    Parameters
    ----------
    uffd : Userfaultfd
        The client's userfaultfd.
    address, nbytes : int
        Whole pages of the client's memory.
    page_nbytes : int
        Size in bytes of the client's pages there.
    mode : int
        Bits of `InstallMode`: `WP` maps pages write-protected, and with `DONTWAKE` nobody is
        woken.  A page that is mapped already keeps the protection that it has.

    Returns
    -------
    stop : Stop
        `Stop.DONE`, or why not all pages were tried.
    holes : list of int
        Offsets in bytes of pages that the memory object turns out to lack.
    """
    holes: list[int] = []

    def step(done: int, rest: int) -> Outcome:
        outcome = uffd.continue_(address + done, rest, mode=mode)
        if outcome.stop is Stop.HOLE:
            # The record was wrong, which the caller has to know.  The other pages are
            # mapped all the same: each may have a thread waiting for it.
            holes.append(done)
            return Outcome(Stop.PRESENT, 0)
        return outcome

    stop = _proceed(nbytes, page_nbytes, step, lambda _: Stop.DONE)
    if stop is Stop.DONE and not mode & _DONTWAKE:
        # CONTINUE wakes nobody where it finds a page mapped already.  A thread that
        # waits for a hole faults anew, and its fault is served when the unit is loaded.
        uffd.wake(address, nbytes)
    return stop, holes


def protect(uffd: Userfaultfd, address: int, nbytes: int) -> Stop:
    """Have the next write to each page of a range be a fault; wake nobody.

    When it returns no thread of the client can write there without a fault, also to pages that
    are not mapped yet, and all earlier writes are in the memory object.  Of a client that has
    ended, or has unmapped the range, it returns so.

    Raises
    ------
    PagerError
        When the kernel could not protect a page.
    """
    stop = _repeat(lambda: uffd.writeprotect(address, nbytes))
    # Who has ended, or has unmapped the range, writes no more.
    if stop not in (Stop.DONE, Stop.EXITED, Stop.UNMAPPED):
        raise PagerError(f"the kernel could not protect a page: {stop.value}")
    return stop


def unprotect(
    uffd: Userfaultfd, address: int, nbytes: int, *, awaited: Iterable[int] = ()
) -> tuple[Stop, list[int]]:
    """Let a client write to resident pages, and wake the threads that wait for them.

    Parameters
    ----------
    uffd : Userfaultfd
        The client's userfaultfd.
    address, nbytes : int
        Whole pages of the client's memory.
    awaited : iterable of int
        Offsets in bytes of pages that a thread waits to write to and that were not mapped when
        it came.  These are mapped.

    Returns
    -------
    stop : Stop
        `Stop.DONE`, or why not all pages are lifted.
    holes : list of int
        Offsets in bytes of awaited pages that the memory object turns out to lack.
    """
    # Most units are mapped whole or not at all.  So pages are mapped from the first on and from
    # each awaited one on, up to one that is there.  To look at each page would take 35 times as
    # long as to lift the protection of 512 KiB (docs/design/writable.md).  What is left out is
    # mapped when it is touched.
    holes: list[int] = []
    for start in sorted({0, *awaited}):
        stop = _map_run(uffd, address + start, nbytes - start)
        if stop is Stop.HOLE:
            holes.append(start)
        elif stop is not Stop.PRESENT and stop is not Stop.DONE:
            return stop, holes
    # Wakes all who wait in the range, those who wait for a hole too: they fault anew.
    return _repeat(lambda: uffd.writeprotect(address, nbytes, mode=0)), holes


def _map_run(uffd: Userfaultfd, address: int, nbytes: int) -> Stop:
    """Map pages up to one that is there or is missing, waking nobody; return how it begins."""
    while (outcome := uffd.continue_(address, nbytes, mode=_DONTWAKE)).stop is Stop.CHANGING:
        time.sleep(_CHANGING_PAUSE_SECONDS)
    return Stop.DONE if outcome.stop is Stop.PARTIAL else outcome.stop


def poison(uffd: Userfaultfd, address: int, page_nbytes: int, *, lifts: bool = False) -> Stop:
    """Let the threads that wait for one page die of SIGBUS.

    Parameters
    ----------
    uffd : Userfaultfd
        The client's userfaultfd.
    address, page_nbytes : int
        The page.
    lifts : bool
        Whether a protection is lifted first.  That of a page that was taken out stays behind,
        and the kernel puts no poison in its place (mm/userfaultfd.c, `mfill_atomic_pte_poison`).
    """
    if lifts:
        mode = int(WriteProtectMode.DONTWAKE)
        stop = _repeat(lambda: uffd.writeprotect(address, page_nbytes, mode=mode))
        if stop is not Stop.DONE:
            return stop
    # A page that is there by now is right, so a thread that waits for it goes on.
    return _proceed(
        page_nbytes,
        page_nbytes,
        lambda done, rest: uffd.poison(address + done, rest),
        lambda _: Stop.DONE,
    )


@functools.cache
def _zeros(nbytes: int) -> ScratchBuffer:
    """Return memory that nobody writes to."""
    return ScratchBuffer(nbytes)


def _repeat(act: Callable[[], Outcome]) -> Stop:
    """Repeat what is done whole or not at all, while the client's layout is changing."""
    while (outcome := act()).stop is Stop.CHANGING:
        time.sleep(_CHANGING_PAUSE_SECONDS)
    return outcome.stop


def _proceed(
    nbytes: int,
    page_nbytes: int,
    step: Callable[[int, int], Outcome],
    present: Callable[[int], Stop],
) -> Stop:
    """Repeat an install until it has covered a range; call `present` for each page in the way.

    Parameters
    ----------
    nbytes, page_nbytes : int
        Size of the range, and of a page.
    step : callable
        Installs from an offset on; is given the offset and how much is left.
    present : callable
        Sees to a page that is there already, by its offset.
    """
    # A sequence of pages is atomic for each page, not for the range.  So the kernel stops
    # behind some pages, and the next call goes on there.
    done = 0
    while done < nbytes:
        outcome = step(done, nbytes - done)
        done += outcome.done_nbytes
        # The client's address space is changing, and the kernel asks for another try.
        # A busy loop would only hold the client up.
        if outcome.stop is Stop.CHANGING:
            time.sleep(_CHANGING_PAUSE_SECONDS)
        elif outcome.stop is Stop.PRESENT:
            stop = present(done)
            if stop is Stop.DONE:
                done += page_nbytes
            elif stop in _AGAIN:
                time.sleep(_CHANGING_PAUSE_SECONDS)
            else:
                return stop
        elif outcome.stop not in (Stop.DONE, Stop.PARTIAL):
            return outcome.stop
    return Stop.DONE

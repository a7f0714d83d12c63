"""Carries decoded pages into clients' memory: the calls, without the decisions."""

from __future__ import annotations

import functools
import os
import time
from typing import TYPE_CHECKING, NamedTuple

from lazyarr.kernel import PAGE_NBYTES, Outcome, ScratchBuffer, Stop

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazyarr.kernel import Userfaultfd

__all__ = ["Backing", "fill", "install", "map_resident", "poison"]

_CHANGING_PAUSE_SECONDS = 0.0005
# What a page that is there may turn into before it is mapped: the layout is
# changing, or somebody has punched a hole.
_AGAIN = frozenset({Stop.CHANGING, Stop.HOLE})


# Where huge pages of shared memory are switched on (Linux, mm/transhuge.rst).
_HUGE_SHARED = "/sys/kernel/mm/transparent_hugepage/shmem_enabled"
_ZEROS = bytes(1 << 16)


class Backing(NamedTuple):
    """Where the bytes of a shared page range lie behind the mapping."""

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
) -> Stop:
    """Install pages in a client; return `Stop.DONE`, or why not all of them are in.

    Parameters
    ----------
    uffd : Userfaultfd
        The client's.
    address, nbytes : int
        Whole pages of the client.
    source : int or None
        Where the bytes lie in this process; None for zeros.
    data : memoryview or None
        The same bytes.
    backing : Backing or None
        The memory object behind a shared mapping; None for private memory.
    """

    def step(done: int, rest: int) -> Outcome:
        if source is None:
            return uffd.zeropage(address + done, rest)
        return uffd.copy(address + done, source + done, rest)

    def present(done: int) -> Stop:
        if backing is not None:
            # A page that the record does not know is in the memory object: a stray
            # zero page, or one that an install which was broken off has left.  The
            # manual page's way: bring it up to date in place, then map it.
            page = bytes(PAGE_NBYTES) if data is None else data[done : done + PAGE_NBYTES]
            os.pwrite(backing.memfd, page, backing.offset + done)
            outcome = uffd.continue_(address + done, PAGE_NBYTES)
        elif source is None:
            # ZEROPAGE finds a page or poison and does not say which; COPY heals poison.
            outcome = uffd.copy(address + done, _zeros().address, PAGE_NBYTES)
        else:
            outcome = Outcome(Stop.PRESENT, 0)
        if outcome.stop is Stop.PRESENT:
            uffd.wake(address + done, PAGE_NBYTES)
            return Stop.DONE
        return outcome.stop

    return _proceed(nbytes, step, present)


def fill(backing: Backing, nbytes: int, data: memoryview | None) -> bool:
    """Bring pages into a memory object and into no page table; return whether that was done.

    The first touch of each is then a minor fault.  It is not done where a write could
    make a huge page, of which all but what was written would be zeros.

    Parameters
    ----------
    backing : Backing
        Where they lie.
    nbytes : int
        Whole pages.
    data : memoryview or None
        Their bytes; None for zeros.
    """
    if _has_huge_pages():
        return False
    done = 0
    while done < nbytes:
        part = _ZEROS[: nbytes - done] if data is None else data[done:nbytes]
        done += os.pwrite(backing.memfd, part, backing.offset + done)
    return True


@functools.cache
def _has_huge_pages() -> bool:
    try:
        with open(_HUGE_SHARED) as file:
            chosen = file.read().partition("[")[2].partition("]")[0]
    except OSError:
        return False  # a kernel without them
    return chosen not in ("never", "deny", "advise")


def map_resident(uffd: Userfaultfd, address: int, nbytes: int) -> tuple[Stop, list[int]]:
    """Map pages that are in the memory object already, and wake who waits for them.

    Returns
    -------
    stop : Stop
        `Stop.DONE`, or why it ended early.
    holes : list of int
        Offsets in bytes of pages that are not in the memory object after all.
    """
    holes: list[int] = []

    def step(done: int, rest: int) -> Outcome:
        outcome = uffd.continue_(address + done, rest)
        if outcome.stop is Stop.HOLE:
            holes.append(done)
            return Outcome(Stop.PRESENT, 0)
        return outcome

    stop = _proceed(nbytes, step, lambda _: Stop.DONE)
    if stop is Stop.DONE:
        uffd.wake(address, nbytes)
    return stop, holes


def poison(uffd: Userfaultfd, address: int) -> Stop:
    """Let the threads that wait for one page die of SIGBUS."""
    return _proceed(
        PAGE_NBYTES, lambda done, rest: uffd.poison(address + done, rest), lambda _: Stop.DONE
    )


@functools.cache
def _zeros() -> ScratchBuffer:
    return ScratchBuffer(PAGE_NBYTES)


def _proceed(
    nbytes: int, step: Callable[[int, int], Outcome], present: Callable[[int], Stop]
) -> Stop:
    """Repeat a step over a range until it is done, page by page where pages are there already."""
    done = 0
    while done < nbytes:
        outcome = step(done, nbytes - done)
        done += outcome.done_nbytes
        if outcome.stop is Stop.CHANGING:
            time.sleep(_CHANGING_PAUSE_SECONDS)
        elif outcome.stop is Stop.PRESENT:
            stop = present(done)
            if stop is Stop.DONE:
                done += PAGE_NBYTES
            elif stop in _AGAIN:
                time.sleep(_CHANGING_PAUSE_SECONDS)
            else:
                return stop
        elif outcome.stop not in (Stop.DONE, Stop.PARTIAL):
            return outcome.stop
    return Stop.DONE

"""Zeros for a main thread that is about to get an exception, and for no other thread.

With ``on_error="raise"`` a main thread that touches a chunk that cannot be had gets a
`ChunkError` instead of SIGBUS.  Python raises it when the machine code that touched the chunk
has returned.  So that code must be given something to go on with:

1. The main thread waits in its fault.  The pager sends it a signal, whose handler notes that
   an exception is to be raised.  From then on it is certain that Python will raise it.
2. The pager stops every other thread of the client, as a debugger does.
3. It puts zeros in place and wakes the main thread.
4. When the main thread has run, the pager takes the zeros out, and lets the others go on.

No other thread can read the zeros, because it stands still.  No other process can either: a
page that is in the memory object and not mapped is a fault there (MISSING | MINOR).  The pager
looks at that fault after step 4, for all of this happens under its lock.

Where a step cannot be done the client gets SIGBUS.  The signal may be blocked, or handled by
somebody else.  The user may not be allowed to trace the process.  Another thread may not stop,
or may wait for the same page.  Private memory cannot be taken out from outside.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from lazyarr.kernel import (
    PAGE_NBYTES,
    InstallMode,
    Stop,
    has_handler,
    hold_still,
    is_armed,
    punch_hole,
    read_turns,
    signal_main_thread,
)
from lazyarr.pager.memory.main_thread import Zeros

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lazyarr.kernel import Fault
    from lazyarr.pager.memory.clients import Client, Region
    from lazyarr.plan.machine import Machine
    from lazyarr.plan.messages import Failure, Poison

__all__ = ["ShownZeros"]

# All of this happens under the pager's lock, so other clients wait meanwhile.  Hence the limits:
# for the handler to run, for the other threads to stop, and for the main thread to run.
_SIGNAL_SECONDS = 0.4
_STOP_SECONDS = 0.4
_TURN_SECONDS = 0.01
# The main thread runs on for so long, and reads about so many pages in that time.
_PAUSE_SECONDS = 0.0001
_MAX_PAGES = 64
# An instruction that needs more pages at once than are shown would fault for ever.
_MAX_REPEATS = 200
# The result of the interrupted statement will be thrown away.  After this time nothing is
# loaded for it any more.
_PATIENCE_SECONDS = 5.0


class ShownZeros:
    """Shows zeros to main threads that are about to raise; to be used under the pager's lock.

    Parameters
    ----------
    machine : Machine
        Knows which pages are installed.
    clients, regions : mapping of int
        The clients and regions of the pager.
    """

    def __init__(
        self, machine: Machine, clients: Mapping[int, Client], regions: Mapping[int, Region]
    ) -> None:
        self._machine = machine
        self._clients = clients
        self._regions = regions

    def __repr__(self) -> str:
        pending = sum(client.main.failure is not None for client in self._clients.values())
        return f"<ShownZeros: {pending} main threads are about to raise>"

    def serve(self, client: Client, faults: Sequence[Fault], n_raised: int) -> list[Fault]:
        """Serve the faults that need no load; return the other faults.

        Parameters
        ----------
        client : Client
            The client whose threads have faulted.
        faults : sequence of Fault
            The faults, as they were read.
        n_raised : int
            How many exceptions the main thread had raised when the faults were read.
        """
        others = []
        for fault in faults:
            page = fault.address & -PAGE_NBYTES
            is_main = fault.thread_id == client.pid
            if is_main and client.main.n_raised != n_raised:
                # The main thread has raised since, so it waits there no more.  If it
                # does after all, it faults again.
                client.wake(page, PAGE_NBYTES)
                continue
            client.main.faults[fault.thread_id] = page
            if not (is_main and self._is_lost(client, page) and self._show(client, page)):
                others.append(fault)
        return others

    def end(self, client: Client) -> Failure | None:
        """Take down that a main thread raises now; return the failure.

        The thread runs Python, so it waits for no page any more.
        """
        client.main.faults.pop(client.pid, None)
        return client.main.end()

    def pages_to_poison(self, command: Poison) -> tuple[int, ...]:
        """Let a main thread have an exception; return the pages that must be poisoned.

        These are the pages that other threads wait for.  Where the main thread cannot be shown
        zeros, the page that it waits for is one of them.
        """
        client = self._clients.get(command.client)
        if client is None or not client.main.signal:
            return command.pages
        main = client.main
        pages = self._drop_old_news(client, command)
        address = main.faults.get(client.pid, 0)
        place = self._machine.find_vacancy(client.number, address)
        # Another thread that waits for the same page must get poison, and the main
        # thread would meet that too.
        if (
            place is None
            or place.region != command.region
            or place.pages.start not in pages
            or any(at == address and who != client.pid for who, at in main.faults.items())
        ):
            return pages
        # One signal for each exception.  Until it is raised, the same statement may fail at
        # further units.
        if not _is_raising(client):
            if not _send_signal(client):
                return pages
            main.begin(command.failure)
        main.failed.add((place.region, place.unit))
        if not self._show(client, address):
            return pages
        return tuple(page for page in pages if page != place.pages.start)

    def _drop_old_news(self, client: Client, command: Poison) -> tuple[int, ...]:
        """Return the pages that threads are known to wait for; wake the others.

        The main thread has waited for one of the others, and has raised an exception since.
        Poison there would kill it when it touches the page again.  A thread that does wait there
        is woken, and faults anew.
        """
        state = self._machine.region(command.region)
        start = state.addresses.get(client.number) if state is not None else None
        if start is None:
            return command.pages
        waited = set(client.main.faults.values())
        pages = tuple(p for p in command.pages if start + p * PAGE_NBYTES in waited)
        for page in set(command.pages) - set(pages):
            client.wake(start + page * PAGE_NBYTES, PAGE_NBYTES)
        return pages

    def _is_lost(self, client: Client, address: int) -> bool:
        """Return whether a main thread is about to raise, and its page is not worth a load."""
        main = client.main
        if not _is_raising(client):
            return False
        place = self._machine.find_vacancy(client.number, address)
        if place is None:
            return False
        is_late = time.monotonic() > main.since + _PATIENCE_SECONDS
        return is_late or (place.region, place.unit) in main.failed

    def _show(self, client: Client, address: int) -> bool:
        """Show zeros to a main thread that waits for a page; return whether its fault is served."""
        main = client.main
        zeros = self._zeros_at(client, address)
        if zeros is None:
            return False
        last, main.shown = main.shown, zeros
        if last is not None and last.address <= address < last.address + last.nbytes:
            # The fault may be one from before the zeros were shown, read late.  So
            # every other time the thread is only woken, and a fault that is new comes
            # again.
            main.n_repeats += 1
            if main.n_repeats % 2:
                client.wake(address, PAGE_NBYTES)
                return True
            return main.n_repeats < _MAX_REPEATS and _show_zeros(client, (zeros,))
        main.n_repeats = 0
        # An instruction may need two pages at once, as a copy does.  Shown in turns, neither
        # would be there with the other, so the last zeros are shown again beside the new.
        if last is None or _overlap(last, zeros) or self._zeros_at(client, last.address) != last:
            return _show_zeros(client, (zeros,))
        return _show_zeros(client, (zeros, last))

    def _zeros_at(self, client: Client, address: int) -> Zeros | None:
        """Return the zeros that can be shown from a page on; None where none can be."""
        place = self._machine.find_vacancy(client.number, address)
        if place is None:
            return None
        region = self._regions[place.region]
        page_nbytes = region.kind.page_nbytes
        backing = region.backing_at(place.pages.start * page_nbytes)
        if backing is None:
            return None
        nbytes = min(place.pages.size, _MAX_PAGES) * page_nbytes
        return Zeros(address, nbytes, backing, region.kind)


def _overlap(one: Zeros, other: Zeros) -> bool:
    return one.address < other.address + other.nbytes and other.address < one.address + one.nbytes


def _is_raising(client: Client) -> bool:
    """Return whether the main thread has been sent the signal and has not raised yet."""
    # The handler serves for one signal, and puts itself in place again before it raises.  So a
    # handler that is in place shows that the exception was raised.
    main = client.main
    try:
        if main.failure is not None and is_armed(client.pid, main.signal):
            main.end()
    except OSError:
        main.end()
    return main.failure is not None


def _send_signal(client: Client) -> bool:
    """Make it certain that the main thread will raise; return whether that could be done.

    The handler serves for one signal (SA_RESETHAND).  When the signal comes the kernel takes the
    handler away, and /proc shows that.  A handler of somebody else's would stay in place, so the
    pager can tell the two apart.
    """
    number = client.main.signal
    with suppress(OSError):
        if is_armed(client.pid, number):
            # Sent to the thread.  Sent to the process, it could go to another thread, and the
            # main thread would hear of it only when it next waits for the GIL.
            signal_main_thread(client.pid, number)
            return _wait_for(lambda: not has_handler(client.pid, number), _SIGNAL_SECONDS)
    return False


def _show_zeros(client: Client, zeros: Sequence[Zeros]) -> bool:
    """Put zeros in place until the main thread has run; return whether that was done."""
    is_shown = False

    def show() -> None:
        nonlocal is_shown
        n_turns = read_turns(client.pid, client.pid)
        installed = []
        try:
            for each in zeros:
                # Before the install: one that stops halfway has left pages too, and
                # they must be taken out.
                installed.append(each)
                if not _install(client, each):
                    return
            # Woken once, when all zeros are in place: hence DONTWAKE in each install.
            client.wake(zeros[0].address, PAGE_NBYTES)
            _wait_for(lambda: read_turns(client.pid, client.pid) != n_turns, _TURN_SECONDS)
            # The turn counter says that the thread got a processor.  It needs some time
            # on it.
            time.sleep(_PAUSE_SECONDS)
            is_shown = True
        finally:
            # A hole takes the zeros out of the client's page table too.  The next touch is a
            # fault, so no zeros stay behind for somebody to read later.
            for each in installed:
                punch_hole(each.backing.memfd, each.backing.offset, each.nbytes)

    # The client may have ended, or the kernel may not count turns.  Both mean SIGBUS.
    with suppress(OSError):
        hold_still(client.pid, client.pid, show, seconds=_STOP_SECONDS)
    return is_shown


def _install(client: Client, zeros: Zeros) -> bool:
    """Install zeros without waking a thread; return whether all pages are in."""
    # Not write-protected in any kind of memory: what is written to them goes with them.
    uffd = client.uffd_of(zeros.kind)
    mode = int(InstallMode.DONTWAKE)
    return uffd.zeropage(zeros.address, zeros.nbytes, mode=mode).stop is Stop.DONE


def _wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    """Return whether a condition comes true in time, asked again and again."""
    # Nothing reports a turn of a thread, or a handler that is gone: /proc has to be read.
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
    return True

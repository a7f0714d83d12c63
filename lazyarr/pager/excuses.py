"""Zeros for a main thread that is about to get an exception, and for nobody else.

With ``on_error="raise"`` a main thread that touches what can not be had gets a
`ChunkError` instead of SIGBUS.  Python raises it when the machine code that touched
has returned, so that code must be given something to go on with:

1. The main thread waits in its fault.  It is sent a signal, whose handler notes that
   an exception is to be raised; that Python will see to it is certain from then on.
2. Every other thread of the client is stopped, as by a debugger.
3. Zeros are put in place and the main thread is woken.
4. When it has run, the zeros are taken out again, and the others go on.

So no other thread can read them, and no other process: a page that is in the memory
object, and not mapped, is a fault to them (MISSING | MINOR), which is looked at after
step 4, for all of this happens under the pager's lock.  Where a step can not be had
there is SIGBUS: the signal is blocked, or somebody else handles it; this user may not
trace that process; another thread does not stop, or waits for the same page; private
memory, which can not be taken out from here.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

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

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lazyarr.kernel import Fault
    from lazyarr.pager.clients import Client, Region
    from lazyarr.pager.installer import Backing
    from lazyarr.plan.machine import Machine
    from lazyarr.plan.messages import Failure, Poison

__all__ = ["Excuses", "MainThread"]

_SIGNAL_SECONDS = 0.4
_STOP_SECONDS = 0.4
_TURN_SECONDS = 0.01
_PAUSE_SECONDS = 0.0001
# What a thread reads in that time, about.
_MAX_PAGES = 64
# An instruction that needs more pages at once than are shown would ask for ever.
_MAX_REPEATS = 200
# From then on nothing is loaded any more for a result that will be thrown away.
_PATIENCE_SECONDS = 5.0


class MainThread:
    """What is known of the main thread of a client.

    Attributes
    ----------
    signal : int
        What makes it raise; 0 when it shall not.
    faults : dict of int to int
        Where each thread of the client has waited last, by its kernel id.
    failure : Failure or None
        What it is about to raise.
    since : float
        Since when.
    failed : set of (int, int)
        Region and unit of what could not be had since then.
    shown : _Zeros or None
        What it was shown last.
    n_repeats : int
        How often it has come back to that.
    n_raised : int
        How many exceptions it has raised.
    """

    def __init__(self) -> None:
        self.signal = 0
        self.faults: dict[int, int] = {}
        self.failure: Failure | None = None
        self.since = 0.0
        self.failed: set[tuple[int, int]] = set()
        self.shown: _Zeros | None = None
        self.n_repeats = 0
        self.n_raised = 0

    def __repr__(self) -> str:
        return f"<MainThread: signal {self.signal}, {self.n_raised} exceptions raised>"

    def begin(self, failure: Failure) -> None:
        """Take down that it is about to raise an exception."""
        self.failure, self.since = failure, time.monotonic()

    def end(self) -> Failure | None:
        """Take down that it raises it now; return what it is."""
        failure, self.failure, self.shown = self.failure, None, None
        self.failed.clear()
        self.n_raised += 1
        return failure


class _Zeros(NamedTuple):
    """Pages that read as zeros for a moment."""

    address: int
    nbytes: int
    backing: Backing


class Excuses:
    """Which main threads are about to raise an exception; to be used under the pager's lock.

    Parameters
    ----------
    machine : Machine
        Knows which pages are there.
    clients, regions : mapping of int
        Those that are served.
    """

    def __init__(
        self, machine: Machine, clients: Mapping[int, Client], regions: Mapping[int, Region]
    ) -> None:
        self._machine = machine
        self._clients = clients
        self._regions = regions

    def __repr__(self) -> str:
        pending = sum(client.main.failure is not None for client in self._clients.values())
        return f"<Excuses: {pending} main threads are about to raise>"

    def serve(self, client: Client, faults: Sequence[Fault], n_raised: int) -> list[int]:
        """Serve what needs no load any more; return the addresses of the other faults.

        Faults of the main thread that were read before it raised its last exception,
        `n_raised` ago, are old news.
        """
        addresses = []
        for fault in faults:
            page = fault.address & -PAGE_NBYTES
            is_main = fault.thread_id == client.pid
            if is_main and client.main.n_raised != n_raised:
                client.uffd.wake(page, PAGE_NBYTES)
                continue
            client.main.faults[fault.thread_id] = page
            if not (is_main and self._is_lost(client, page) and self._show(client, page)):
                addresses.append(fault.address)
        return addresses

    def end(self, client: Client) -> Failure | None:
        """Take down that a main thread raises now; return what.

        It runs Python, and waits for no page any more.
        """
        client.main.faults.pop(client.pid, None)
        return client.main.end()

    def excuse(self, command: Poison) -> tuple[int, ...]:
        """Let a main thread have an exception; return the pages that must be poisoned.

        Those are what others wait for, and what it waits for where it can not be helped.
        """
        client = self._clients.get(command.client)
        if client is None or not client.main.signal:
            return command.pages
        main = client.main
        pages = self._drop_old_news(client, command)
        address = main.faults.get(client.pid, 0)
        place = self._machine.find_vacancy(client.number, address)
        if (
            place is None
            or place.region != command.region
            or place.pages.start not in pages
            or any(at == address and who != client.pid for who, at in main.faults.items())
        ):
            return pages
        if not _is_raising(client):
            if not _send_signal(client):
                return pages
            main.begin(command.failure)
        main.failed.add((place.region, place.unit))
        if not self._show(client, address):
            return pages
        return tuple(page for page in pages if page != place.pages.start)

    def _drop_old_news(self, client: Client, command: Poison) -> tuple[int, ...]:
        """Return the pages that somebody waits for, as far as is known; wake the others.

        The main thread waited there and has raised an exception since.  Poison would
        kill it when it comes again; whoever waits there after all is heard of again.
        """
        state = self._machine.region(command.region)
        start = state.addresses.get(client.number) if state is not None else None
        if start is None:
            return command.pages
        waited = set(client.main.faults.values())
        pages = tuple(p for p in command.pages if start + p * PAGE_NBYTES in waited)
        for page in set(command.pages) - set(pages):
            client.uffd.wake(start + page * PAGE_NBYTES, PAGE_NBYTES)
        return pages

    def _is_lost(self, client: Client, address: int) -> bool:
        """Return whether a page need not be tried for a thread that is about to raise."""
        main = client.main
        if not _is_raising(client):
            return False
        place = self._machine.find_vacancy(client.number, address)
        if place is None:
            return False
        is_late = time.monotonic() > main.since + _PATIENCE_SECONDS
        return is_late or (place.region, place.unit) in main.failed

    def _show(self, client: Client, address: int) -> bool:
        """Show zeros to a main thread that waits for a page; return whether that is settled."""
        main = client.main
        zeros = self._zeros_at(client, address)
        if zeros is None:
            return False
        last, main.shown = main.shown, zeros
        if last is not None and last.address <= address < last.address + last.nbytes:
            # Old news, read after the zeros were shown; if it is not it comes again.
            main.n_repeats += 1
            if main.n_repeats % 2:
                client.uffd.wake(address, PAGE_NBYTES)
                return True
            return main.n_repeats < _MAX_REPEATS and _show_zeros(client, (zeros,))
        main.n_repeats = 0
        # An instruction may need two pages at once.
        if last is None or _overlap(last, zeros) or self._zeros_at(client, last.address) != last:
            return _show_zeros(client, (zeros,))
        return _show_zeros(client, (zeros, last))

    def _zeros_at(self, client: Client, address: int) -> _Zeros | None:
        place = self._machine.find_vacancy(client.number, address)
        backing = self._regions[place.region].backing if place is not None else None
        if place is None or backing is None:
            return None
        offset = backing.offset + place.pages.start * PAGE_NBYTES
        nbytes = min(place.pages.size, _MAX_PAGES) * PAGE_NBYTES
        return _Zeros(address, nbytes, backing._replace(offset=offset))


def _overlap(one: _Zeros, other: _Zeros) -> bool:
    return one.address < other.address + other.nbytes and other.address < one.address + one.nbytes


def _is_raising(client: Client) -> bool:
    """Return whether the main thread has been sent the signal and has not raised yet.

    The handler makes itself ready for the next signal before it raises.
    """
    main = client.main
    try:
        if main.failure is not None and is_armed(client.pid, main.signal):
            main.end()
    except OSError:
        main.end()
    return main.failure is not None


def _send_signal(client: Client) -> bool:
    """Make it certain that the main thread will raise; return whether that could be done.

    The handler serves for one signal, so the kernel tells that the one that came was
    handled as it must be: the handler is gone then, and one of somebody else's is not,
    though the signal is blocked while it runs.
    """
    number = client.main.signal
    with suppress(OSError):
        if is_armed(client.pid, number):
            # To a process it may go to another thread, of which Python's main loop would
            # hear only when it next waits for the GIL.
            signal_main_thread(client.pid, number)
            return _wait_for(lambda: not has_handler(client.pid, number), _SIGNAL_SECONDS)
    return False


def _show_zeros(client: Client, zeros: Sequence[_Zeros]) -> bool:
    """Put zeros in place until the main thread has run; return whether they were."""
    is_shown = False

    def show() -> None:
        nonlocal is_shown
        n_turns = read_turns(client.pid, client.pid)
        installed = []
        try:
            for each in zeros:
                installed.append(each)
                if not _install(client, each):
                    return
            client.uffd.wake(zeros[0].address, PAGE_NBYTES)
            _wait_for(lambda: read_turns(client.pid, client.pid) != n_turns, _TURN_SECONDS)
            time.sleep(_PAUSE_SECONDS)
            is_shown = True
        finally:
            for each in installed:
                punch_hole(each.backing.memfd, each.backing.offset, each.nbytes)

    with suppress(OSError):
        hold_still(client.pid, client.pid, show, seconds=_STOP_SECONDS)
    return is_shown


def _install(client: Client, zeros: _Zeros) -> bool:
    mode = int(InstallMode.DONTWAKE)
    return client.uffd.zeropage(zeros.address, zeros.nbytes, mode=mode).stop is Stop.DONE


def _wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
    return True

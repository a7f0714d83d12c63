"""Promises clients the regions that other clients have mapped."""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from lazyarr.memory_kind import MemoryKind
from lazyarr.pager.log import report
from lazyarr.plan import messages as m
from lazyarr.wire import messages as w

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazyarr.pager.lifecycle.ledger_client import LedgerClient
    from lazyarr.pager.memory.clients import Client
    from lazyarr.pager.work.executor import Executor

__all__ = ["Sharing"]

# A client maps and announces a region in less, unless it is stopped or has no room.
_OPENING_SECONDS = 5.0


class Sharing:
    """Answers clients that want a region which another client has mapped already.

    The worker's threads find out whether the store has changed since, for a file system may take
    its time.  Everything else happens where messages are handled, one after the other.  So the
    supervisor, the machine and the client are told the same of a region.

    Parameters
    ----------
    executor : Executor
        Has the regions.
    ledger : LedgerClient
        Gets each promise before the client does.
    after : callable
        Calls a function after some seconds, where messages are handled.
    """

    def __init__(
        self,
        executor: Executor,
        ledger: LedgerClient,
        *,
        after: Callable[[float, Callable[[], None]], None],
    ) -> None:
        self._executor = executor
        self._ledger = ledger
        self._after = after
        # By origin: those who ask for a region that another client is about to open, or to have.
        self._queues: dict[str, deque[tuple[int, w.FindRegion, tuple[object, ...]]]] = {}
        self._checked: deque[tuple[int, int, int, str]] = deque()
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def __repr__(self) -> str:
        return f"<Sharing: {len(self._checked)} answers to be given>"

    def fileno(self) -> int:
        """Return a descriptor that is readable when `give_answers` has something to do."""
        return self._wakeup

    def on_want_region(self, client: Client, message: w.WantRegion) -> None:
        """Answer a client that knows which region it wants."""
        # The number comes from a pickle, which may be old, and of a pager that has ended.  The
        # layout shows that the region is of the same array.
        region = self._executor.regions.get(message.region)
        is_right = region is not None and region.message.layout == message.layout
        self._offer(client, message.ticket, message.region if is_right else -1)

    def on_find_region(
        self, client: Client, message: w.FindRegion, limits: tuple[object, ...]
    ) -> None:
        """Find regions of an array, and have a thread check that the store has not changed.

        A reference means the pages of its time.  So of two clients that open an array for the same
        one the second gets what the first has, whatever the store has now.
        """
        if MemoryKind[message.kind].writes_back:
            self._offer(client, message.ticket, self._find_written(message))
            return
        origin = message.origin
        if origin in self._queues:
            self._queues[origin].append((client.number, message, limits))
            return
        regions = tuple(self._executor.regions.items())
        numbers = [
            number
            for number, region in regions
            if region.limits == limits and _is_same(region.message, message)
        ]
        if origin:
            named = [n for n in numbers if self._executor.regions[n].message.origin == origin]
            if named:
                # The last one: those before it may be on their way out.
                self._offer(client, message.ticket, named[-1])
                return
            self._await_opening(origin)
        # The usual case, an array that is opened once, waits for no thread.
        if not numbers:
            self._offer(client, message.ticket, -1)
            return
        self._executor.loads.threads.add(
            lambda _: self._check(client.number, message.ticket, numbers, origin), urgent=True
        )

    def _find_written(self, message: w.FindRegion) -> int:
        """Return the region of an array that is written back; -1 where there is none.

        The store is not asked, and the settings are not compared: what the array is, is in memory.
        """
        found = -1
        for number, region in tuple(self._executor.regions.items()):
            state = self._executor.machine.region(number)
            is_there = state is not None and state.retired is None
            if is_there and region.kind.writes_back and _is_of(region.message, message):
                found = number
        return found

    def _await_opening(self, origin: str) -> None:
        """Have those who ask for the same wait for a client that is about to open a region."""
        queue = self._queues[origin] = deque()

        def give_up() -> None:
            if self._queues.get(origin) is queue:
                self.on_opened(origin)

        self._after(_OPENING_SECONDS, give_up)

    def on_opened(self, origin: str) -> None:
        """Answer those who wait for a region of an origin, after a client has opened one."""
        for number, message, limits in self._queues.pop(origin, ()):
            client = self._executor.clients.get(number)
            if client is not None:
                self.on_find_region(client, message, limits)

    def _check(self, client: int, ticket: int, numbers: list[int], origin: str) -> None:
        """Find a region of which everything that was read is still what is stored."""
        found = next((number for number in numbers if self._is_unchanged(number)), -1)
        # Handed back to the thread that handles messages.  Appending to a deque is atomic.
        self._checked.append((client, ticket, found, origin))
        os.eventfd_write(self._wakeup, 1)

    def _is_unchanged(self, number: int) -> bool:
        """Return whether all that was read for a region is certainly still what is stored."""
        region = self._executor.regions.get(number)
        try:
            return region is not None and region.source.is_unchanged()
        except OSError:
            return False
        except Exception as error:  # noqa: BLE001 - it only means that nothing is shared
            report(f"unexpected {type(error).__name__} while looking for changes: {error}")
            return False

    def give_answers(self) -> None:
        """Answer the clients whose regions have been checked."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._wakeup)
        while self._checked:
            number, ticket, region, origin = self._checked.popleft()
            # Both may have gone while the store was looked at.  `_offer` looks at the region.
            client = self._executor.clients.get(number)
            if client is not None:
                self._offer(client, ticket, region)
            if region >= 0:
                self.on_opened(origin)

    def _offer(self, client: Client, ticket: int, number: int) -> None:
        """Promise a region to a client, or answer that it has the region, or that there is none."""
        state = self._executor.machine.region(number)
        # Only a region that the ledger has too: one that a client has mapped, or was promised, or
        # that is still being written back.
        is_kept = state is not None and (
            state.addresses or state.reserved or state.kind.writes_back
        )
        if state is None or not state.kind.is_shared or not is_kept:
            self._executor.answer(client.number, w.Found(ticket, -1, 0, 0))
            return
        region = self._executor.regions[number]
        found = w.Found(ticket, number, region.message.offset, region.message.map_offset)
        # A client that is about to unmap the region has it still.  It is told so: its departure
        # and its return would be entered under one number.
        if client.number in state.addresses or client.number in state.leaving:
            self._executor.answer(client.number, found)
            return
        # Supervisor, machine, client, in this order.  If the worker dies in between, the region
        # is kept for a client that asks again.  In another order it could be forgotten while the
        # client maps it.
        self._ledger.enter(client.number, w.Reserve(number))
        self._executor.handle([m.Reserved(client.number, (number,))])
        # The claim goes along: a client that has written may outlive those that have it.
        claim = region.descriptors if region.kind.writes_back else ()
        memory = (region.arena.memfd, region.arena.map_memfd)
        self._executor.answer(client.number, found, (*memory, *claim))


def _is_same(opened: w.OpenRegion, wanted: w.FindRegion) -> bool:
    """Return whether a region is of the array that a client wants to read, and can be shared."""
    # Not memory that is written back: one that only reads must not see what the store has not.
    kind = MemoryKind[opened.kind]
    is_shared = kind.is_shared and not kind.writes_back
    return is_shared and opened.store == wanted.store and _is_of(opened, wanted)


def _is_of(opened: w.OpenRegion, wanted: w.FindRegion) -> bool:
    """Return whether a region is of the array that a client wants."""
    names = ("path", "layout", "url")
    return all(getattr(opened, name) == getattr(wanted, name) for name in names)

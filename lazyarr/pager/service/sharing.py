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
    from lazyarr.pager.lifecycle.ledger_client import LedgerClient
    from lazyarr.pager.memory.clients import Client
    from lazyarr.pager.work.executor import Executor

__all__ = ["Sharing"]


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
    """

    def __init__(self, executor: Executor, ledger: LedgerClient) -> None:
        self._executor = executor
        self._ledger = ledger
        self._checked: deque[tuple[int, int, int]] = deque()
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
        """Find regions of an array, and have a thread check that the store has not changed."""
        regions = tuple(self._executor.regions.items())
        numbers = [
            number
            for number, region in regions
            if region.limits == limits and _is_same(region.message, message)
        ]
        # The usual case, an array that is opened once, waits for no thread.
        if not numbers:
            self._offer(client, message.ticket, -1)
            return
        self._executor.loads.threads.add(
            lambda _: self._check(client.number, message.ticket, numbers), urgent=True
        )

    def _check(self, client: int, ticket: int, numbers: list[int]) -> None:
        """Find a region of which everything that was read is still what is stored."""
        found = next((number for number in numbers if self._is_unchanged(number)), -1)
        # Handed back to the thread that handles messages.  Appending to a deque is atomic.
        self._checked.append((client, ticket, found))
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
            number, ticket, region = self._checked.popleft()
            # Both may have gone while the store was looked at.  `_offer` looks at the region.
            client = self._executor.clients.get(number)
            if client is not None:
                self._offer(client, ticket, region)

    def _offer(self, client: Client, ticket: int, number: int) -> None:
        """Promise a region to a client, or answer that it has the region, or that there is none."""
        state = self._executor.machine.region(number)
        # Only a region that the ledger has too: one that a client has mapped, or was promised.
        if state is None or not state.kind.is_shared or not (state.addresses or state.reserved):
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
        memory = (region.arena.memfd, region.arena.map_memfd)
        self._executor.answer(client.number, found, memory)


def _is_same(opened: w.OpenRegion, wanted: w.FindRegion) -> bool:
    """Return whether a region is of the array that a client wants, and can be shared."""
    return MemoryKind[opened.kind].is_shared and all(
        getattr(opened, name) == getattr(wanted, name)
        for name in ("path", "layout", "url", "store")
    )

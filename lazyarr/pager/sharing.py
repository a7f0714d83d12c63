"""Regions that one client has and another one gets."""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from lazyarr.pager.log import report
from lazyarr.plan import messages as m
from lazyarr.wire import messages as w

if TYPE_CHECKING:
    from lazyarr.pager.clients import Client
    from lazyarr.pager.executor import Executor
    from lazyarr.pager.journal import Journal

__all__ = ["Sharing"]


class Sharing:
    """Answers clients that want a region which is there already.

    Whether the store has changed since is found out in the crew, for a file system may
    take its time.  All else happens where messages are handled, one after the other: what
    is said of a region to the supervisor, to the machine and to a client agrees.

    Parameters
    ----------
    executor : Executor
        Has the regions.
    journal : Journal
        Is told of a promise before the client is.
    """

    def __init__(self, executor: Executor, journal: Journal) -> None:
        self._executor = executor
        self._journal = journal
        self._checked: deque[tuple[int, int, int]] = deque()
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def __repr__(self) -> str:
        return f"<Sharing: {len(self._checked)} answers to be given>"

    def fileno(self) -> int:
        """Return a descriptor that is readable when `give_answers` has something to do."""
        return self._wakeup

    def on_want_region(self, client: Client, message: w.WantRegion) -> None:
        """Answer a client that knows which region it wants."""
        region = self._executor.regions.get(message.region)
        is_right = region is not None and region.message.document == message.document
        self._offer(client, message.ticket, message.region if is_right else -1)

    def on_find_region(
        self, client: Client, message: w.FindRegion, limits: tuple[object, ...]
    ) -> None:
        """Have it found out whether there is a region of an array, and what it holds is true."""
        regions = tuple(self._executor.regions.items())
        numbers = [
            number
            for number, region in regions
            if region.limits == limits and _is_same(region.message, message)
        ]
        if not numbers:
            self._offer(client, message.ticket, -1)
            return
        self._executor.loads.crew.add(
            lambda _: self._check(client.number, message.ticket, numbers), urgent=True
        )

    def _check(self, client: int, ticket: int, numbers: list[int]) -> None:
        """Find a region of which everything that was read is still what is stored."""
        found = next((number for number in numbers if self._is_unchanged(number)), -1)
        self._checked.append((client, ticket, found))
        os.eventfd_write(self._wakeup, 1)

    def _is_unchanged(self, number: int) -> bool:
        region = self._executor.regions.get(number)
        try:
            return region is not None and region.source.is_unchanged()
        except OSError:
            return False
        except Exception as error:  # noqa: BLE001 - it only means that nothing is shared
            report(f"unexpected {type(error).__name__} while looking for changes: {error}")
            return False

    def give_answers(self) -> None:
        """Answer those for whom it has been found out."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._wakeup)
        while self._checked:
            number, ticket, region = self._checked.popleft()
            client = self._executor.clients.get(number)
            if client is not None:
                self._offer(client, ticket, region)

    def _offer(self, client: Client, ticket: int, number: int) -> None:
        """Promise a client a region, or tell it that it has it, or that there is none.

        Only one that the ledger has too: mapped by somebody, or promised.  One that it is
        about to unmap it has still: who leaves and who comes would have one name.
        """
        state = self._executor.machine.region(number)
        if state is None or not state.shared or not (state.addresses or state.reserved):
            self._executor.answer(client.number, w.Found(ticket, -1, 0, 0))
            return
        region = self._executor.regions[number]
        found = w.Found(ticket, number, region.message.offset, region.message.map_offset)
        if client.number in state.addresses or client.number in state.leaving:
            self._executor.answer(client.number, found)
            return
        self._journal.enter(client.number, w.Reserve(number))
        self._executor.handle([m.Reserved(client.number, (number,))])
        memory = (region.arena.memfd, region.arena.map_memfd)
        self._executor.answer(client.number, found, memory)


def _is_same(opened: w.OpenRegion, wanted: w.FindRegion) -> bool:
    """Return whether a region is of the array that is wanted, and can be shared."""
    return opened.offset >= 0 and all(
        getattr(opened, name) == getattr(wanted, name)
        for name in ("path", "document", "zarr_format", "url", "store")
    )

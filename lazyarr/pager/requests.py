"""What clients say of regions, and what they ask: handed to who knows, and answered."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from lazyarr.errors import PagerError
from lazyarr.plan import messages as m
from lazyarr.plan.readahead import Advice
from lazyarr.units import Span
from lazyarr.wire import messages as w
from lazyarr.wire.channel import close_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazyarr.pager.board import Board
    from lazyarr.pager.clients import Arena, Client, Region
    from lazyarr.pager.executor import Executor
    from lazyarr.pager.journal import Journal
    from lazyarr.pager.measure import Measurements
    from lazyarr.pager.policy import Policy
    from lazyarr.pager.sharing import Sharing
    from lazyarr.plan.geometry import Geometry
    from lazyarr.wire.channel import Channel, Received
    from lazyarr.wire.ledger import RegionRecord

__all__ = ["Requests"]


class Requests:
    """Serves every kind of message but those by which clients come and go.

    Parameters
    ----------
    executor, journal, sharing, policy, measurements, board
        Those of the pager.
    hear_first : callable
        Handles what a client has said on its first channel before it said something on
        another one.

    Attributes
    ----------
    handlers : dict
        What serves which kind of message.
    """

    def __init__(
        self,
        executor: Executor,
        journal: Journal,
        *,
        sharing: Sharing,
        policy: Policy,
        measurements: Measurements,
        board: Board,
        hear_first: Callable[[Client, Channel], None],
    ) -> None:
        self._executor = executor
        self._journal = journal
        self._sharing = sharing
        self._policy = policy
        self._measurements = measurements
        self._board = board
        self._hear_first = hear_first
        self._begin = time.monotonic()
        self.handlers: dict[type, Callable[[Client, Channel, Received], None]] = {
            w.OpenRegion: self._on_open_region,
            w.AttachRegion: self._on_attach_region,
            w.WantRegion: self._on_want_region,
            w.FindRegion: self._on_find_region,
            w.CloseRegion: self._on_close_region,
            w.Request: self._on_request,
            w.Evict: self._on_evict,
            w.Advise: self._on_advise,
            w.Configure: self._on_configure,
            w.WantStatistics: self._on_want_statistics,
        }

    def __repr__(self) -> str:
        return f"<Requests: {len(self.handlers)} kinds>"

    def _on_open_region(self, client: Client, _: Channel, received: Received) -> None:
        message = received.message
        assert isinstance(message, w.OpenRegion)
        if self._executor.machine.region(message.region) is not None:
            close_all(received.descriptors)
            return
        region, geometry = self._policy.open_region(message, received.descriptors, client.arena)
        self._executor.add_region(message.region, region)
        self._attach(client.number, message.region, message.address, geometry, region)
        if region.is_remote:
            self._executor.loads.fetcher.prepare(region.source)

    def _attach(
        self, client: int, number: int, address: int, geometry: Geometry, region: Region
    ) -> None:
        """Tell the machine that a client has mapped a region."""
        is_shared = region.backing is not None
        attached = m.Attached(client, number, address, geometry, is_shared, region.is_remote)
        self._executor.handle([attached])

    def take_over_region(self, number: int, record: RegionRecord, arena: Arena) -> None:
        """Serve a region that a worker before this one has served; its clients are known.

        What is in its memory is not trusted, and taken out.  A fault that was read and
        not answered is not reported again until its thread is woken.
        """
        region, geometry = self._policy.open_region(record.message, record.descriptors, arena)
        region.wipe()
        self._executor.add_region(number, region)
        for name, address in record.addresses.items():
            client = self._executor.clients.get(name)
            if client is not None and address is not None:
                self._attach(name, number, address, geometry, region)
                client.uffd.wake(address, geometry.n_pages * geometry.page_nbytes)
        waiting = [name for name, address in record.addresses.items() if address is None]
        if waiting:
            is_shared = region.backing is not None
            self._executor.handle([m.Opened(number, geometry, is_shared, region.is_remote)])
            self._executor.handle([m.Reserved(name, (number,)) for name in waiting])
        if self._executor.machine.region(number) is None:
            self._executor.remove_region(number)

    def _on_attach_region(self, client: Client, _: Channel, received: Received) -> None:
        message = received.message
        assert isinstance(message, w.AttachRegion)
        state = self._executor.machine.region(message.region)
        if state is None:
            raise PagerError(f"there is no region {message.region} to attach to")
        if client.number not in state.addresses:
            region = self._executor.regions[message.region]
            self._attach(client.number, message.region, message.address, state.geometry, region)

    def _on_want_region(self, client: Client, channel: Channel, received: Received) -> None:
        message = received.message
        assert isinstance(message, w.WantRegion)
        self._expect(client, channel, message.ticket)
        self._sharing.on_want_region(client, message)

    def _on_find_region(self, client: Client, channel: Channel, received: Received) -> None:
        message = received.message
        assert isinstance(message, w.FindRegion)
        self._expect(client, channel, message.ticket)
        self._sharing.on_find_region(client, message, self._policy.limits)

    def _ask(self, client: Client, channel: Channel, ticket: int, event: m.Event) -> None:
        """Give the machine an event that it will answer on a channel."""
        self._expect(client, channel, ticket)
        self._executor.handle([event])

    def _expect(self, client: Client, channel: Channel, ticket: int) -> None:
        """Take down where a ticket is to be answered."""
        self._hear_first(client, channel)
        self._executor.expect(client.number, ticket, channel)

    def _on_close_region(self, client: Client, channel: Channel, received: Received) -> None:
        message = received.message
        assert isinstance(message, w.CloseRegion)
        self._hear_first(client, channel)
        self._journal.enter(client.number, message)
        event = m.Detached(client.number, message.region, message.ticket)
        self._ask(client, channel, message.ticket, event)

    def _on_request(self, client: Client, channel: Channel, received: Received) -> None:
        message = received.message
        assert isinstance(message, w.Request)
        units = tuple(Span(start, stop) for start, stop in message.units)
        if len(message.pages) not in (0, 2):
            raise PagerError(f"expected a range of pages, found {message.pages!r:.80}")
        pages = Span(*message.pages) if message.pages else None
        event = m.Requested(client.number, message.region, message.ticket, units, pages=pages)
        self._ask(client, channel, message.ticket, event)

    def _on_evict(self, client: Client, channel: Channel, received: Received) -> None:
        message = received.message
        assert isinstance(message, w.Evict)
        units = Span(message.start, message.stop)
        event = m.EvictionAsked(client.number, message.region, message.ticket, units)
        self._ask(client, channel, message.ticket, event)

    def _on_advise(self, client: Client, channel: Channel, received: Received) -> None:
        message = received.message
        assert isinstance(message, w.Advise)
        units, advice = Span(message.start, message.stop), Advice(message.advice)
        event = m.Advised(client.number, message.region, message.ticket, units, advice)
        self._ask(client, channel, message.ticket, event)

    def _on_configure(self, client: Client, channel: Channel, received: Received) -> None:
        message = received.message
        assert isinstance(message, w.Configure)
        client.main.signal = self._policy.go_by(message.settings).raise_signal
        self._journal.enter(client.number, message)
        self._executor.expect(client.number, message.ticket, channel)
        self._executor.answer(client.number, w.Done(message.ticket, []))

    def _on_want_statistics(self, client: Client, channel: Channel, received: Received) -> None:
        message = received.message
        assert isinstance(message, w.WantStatistics)
        self._executor.expect(client.number, message.ticket, channel)
        self._executor.answer(client.number, w.Statistics(message.ticket, self._statistics()))

    def _statistics(self) -> dict[str, Any]:
        machine = self._executor.machine
        return {
            **dict(machine.counters),
            **dict(self._measurements.counters),
            "units_loading": machine.n_loading,
            "resident_bytes": machine.resident_nbytes,
            "private_bytes": machine.private_nbytes,
            "memory_limit": machine.limit_nbytes,
            "clients": len(self._executor.clients),
            "regions": len(self._executor.regions),
            "pid": os.getpid(),
            "workers_lost": self._board.n_deaths,
            "decoders": len(self._executor.loads.decoders),
            "uptime_seconds": time.monotonic() - self._begin,
            "steps": self._measurements.document(),
        }

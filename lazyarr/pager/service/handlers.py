"""Handlers of clients' messages about regions, and of clients' questions."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from lazyarr.errors import KernelError, PagerError
from lazyarr.kernel import holds_lock
from lazyarr.known import identity_of
from lazyarr.pager.checking import kind_of
from lazyarr.pager.log import report
from lazyarr.plan import messages as m
from lazyarr.plan.readahead import Advice
from lazyarr.plan.selection import merge_spans
from lazyarr.units import Span
from lazyarr.wire import messages as w
from lazyarr.wire.channel import close_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazyarr.layout.geometry import Geometry
    from lazyarr.pager.lifecycle.inflight_record import InflightRecord
    from lazyarr.pager.lifecycle.ledger_client import LedgerClient
    from lazyarr.pager.measure import Measurements
    from lazyarr.pager.memory.clients import Arena, Client, Region
    from lazyarr.pager.service.configuration import Policy
    from lazyarr.pager.service.sharing import Sharing
    from lazyarr.pager.work.executor import Executor
    from lazyarr.wire.channel import Channel, Received
    from lazyarr.wire.ledger import RegionRecord

__all__ = ["Handlers"]

# Nobody waits for the answer.
_NO_TICKET = -1


class Handlers:
    """Handles every kind of message except those by which clients come and go.

    Parameters
    ----------
    executor, ledger, sharing, policy, measurements, inflight
        The pager's own.
    hear_first : callable
        Handles what a client has sent on its first channel before it sent a message on
        another channel.

    Attributes
    ----------
    handlers : dict
        The handler of each kind of message.
    """

    def __init__(
        self,
        executor: Executor,
        ledger: LedgerClient,
        *,
        sharing: Sharing,
        policy: Policy,
        measurements: Measurements,
        inflight: InflightRecord,
        hear_first: Callable[[Client, Channel], None],
    ) -> None:
        self._executor = executor
        self._ledger = ledger
        self._sharing = sharing
        self._policy = policy
        self._measurements = measurements
        self._inflight = inflight
        self._hear_first = hear_first
        self._started_at = time.monotonic()
        self.handlers: dict[type, Callable[[Client, Channel, Received], None]] = {
            w.OpenRegion: self._on_open_region,
            w.AttachRegion: self._on_attach_region,
            w.WantRegion: self._on_want_region,
            w.FindRegion: self._on_find_region,
            w.WantClaim: self._on_want_claim,
            w.CloseRegion: self._on_close_region,
            w.Request: self._on_request,
            w.Evict: self._on_evict,
            w.Flush: self._on_flush,
            w.Retire: self._on_retire,
            w.Advise: self._on_advise,
            w.BeginRecording: self._on_begin_recording,
            w.EndRecording: self._on_end_recording,
            w.WantTrace: self._on_want_trace,
            w.Schedule: self._on_schedule,
            w.Configure: self._on_configure,
            w.WantStatistics: self._on_want_statistics,
        }

    def __repr__(self) -> str:
        return f"<Handlers: {len(self.handlers)} kinds>"

    def _on_open_region(self, client: Client, _: Channel, received: Received) -> None:
        """Serve a region that a client has mapped for an array."""
        message = received.message
        assert isinstance(message, w.OpenRegion)
        # The worker before this one may have entered the message and not removed it.  Then the
        # region was taken over from the ledger.
        if self._executor.machine.region(message.region) is not None:
            close_all(received.descriptors)
            return
        try:
            client.require(kind_of(message))
        except PagerError:
            close_all(received.descriptors)
            self._ledger.enter(client.number, w.Forgotten(message.region))
            raise
        try:
            region, geometry = self._policy.open_region(message, received.descriptors, client.arena)
        except BaseException:
            # A region that is written back stays in the ledger until it is said that it may go.
            self._ledger.enter(client.number, w.Forgotten(message.region))
            raise
        self._executor.add_region(message.region, region)
        self._attach(client.number, message.region, message.address, geometry, region)
        self._sharing.on_opened(message.origin)
        # Importing what a remote store needs takes longer than its first fault should wait.
        if region.is_remote:
            self._executor.loads.fetcher.prepare(region.source)

    def _attach(
        self, client: int, number: int, address: int, geometry: Geometry, region: Region
    ) -> None:
        """Tell the machine that a client has mapped a region."""
        self._executor.said.discard(number)
        about = (geometry, region.kind, region.is_remote, region.chunks_per_object)
        self._executor.handle([m.Attached(client, number, address, *about)])

    def take_over_region(self, number: int, record: RegionRecord, arena: Arena) -> None:
        """Serve a region of the worker before this one; its clients are served already."""
        region, geometry = self._policy.open_region(record.message, record.descriptors, arena)
        # The record of what was installed died with that worker, and a page that is there is no
        # proof that its bytes are right.  So all shared pages are taken out and loaded again, but
        # for those of dirty units: these were complete before anybody could write to them.
        dirty, n_lost = _find_dirty(region, geometry)
        if n_lost:
            report(
                f"what was written to {n_lost} units of {region.label} is not in memory any more"
            )
            # A page stays that such a unit shares with a dirty one.  What is written there must
            # be noted of both, before either is taken off the residency map.
            for name, address in record.addresses.items():
                if name in self._executor.clients and address is not None:
                    self._executor.protect(name, region.kind, address, region.memory_nbytes)
        _wipe(region, geometry, dirty)
        self._executor.add_region(number, region)
        for name, address in record.addresses.items():
            client = self._executor.clients.get(name)
            if client is not None and address is not None:
                # The kernel does not repeat a fault that was read.  The threads that wait are
                # woken, and fault anew.
                self._attach(name, number, address, geometry, region)
                try:
                    client.uffd_of(region.kind).wake(address, region.memory_nbytes)
                except KernelError as error:
                    self._executor.expel(name, error)
        waiting = [name for name, address in record.addresses.items() if address is None]
        # Reserved for children that have not come yet.  Without this the region would be
        # forgotten when its last present client lets go.
        # What was written by clients that have all ended is written back, and forgotten then.
        if waiting or dirty:
            about = (geometry, region.kind, region.is_remote, region.chunks_per_object)
            self._executor.handle([m.Opened(number, *about)])
            self._executor.handle([m.Reserved(name, (number,)) for name in waiting])
        if dirty:
            self._executor.handle([m.Restored(number, tuple(dirty))])
        state = self._executor.machine.region(number)
        if state is None:
            # None of its clients could be taken over.
            self._executor.remove_region(number)
        elif record.is_retired and state.addresses:
            self._executor.handle([m.Retired(next(iter(state.addresses)), _NO_TICKET, number)])

    def _on_attach_region(self, client: Client, _: Channel, received: Received) -> None:
        """Serve a client that has mapped a region which another client has opened."""
        message = received.message
        assert isinstance(message, w.AttachRegion)
        state = self._executor.machine.region(message.region)
        if state is None:
            raise PagerError(f"there is no region {message.region} to attach to")
        # A message that is acted on twice finds the client attached.
        if client.number not in state.addresses:
            region = self._executor.regions[message.region]
            client.require(region.kind)
            self._attach(client.number, message.region, message.address, state.geometry, region)

    def _on_want_region(self, client: Client, channel: Channel, received: Received) -> None:
        """Promise a region to a client that knows its number, from a pickle."""
        message = received.message
        assert isinstance(message, w.WantRegion)
        self._expect(client, channel, message.ticket)
        self._sharing.on_want_region(client, message)

    def _on_find_region(self, client: Client, channel: Channel, received: Received) -> None:
        """Promise a region to a client that opens an array, if there is one of this array."""
        message = received.message
        assert isinstance(message, w.FindRegion)
        self._expect(client, channel, message.ticket)
        self._sharing.on_find_region(client, message, self._policy.limits)

    def _on_want_claim(self, client: Client, channel: Channel, received: Received) -> None:
        """Give a client the claim on a store that is held for a region."""
        message = received.message
        assert isinstance(message, w.WantClaim)
        self._expect(client, channel, message.ticket)
        wanted = (message.device, message.inode)
        regions = tuple(self._executor.regions.values())
        found = [
            descriptor
            for region in regions
            if region.kind.writes_back
            for descriptor in region.descriptors
            # Of the descriptors of the same directory the one that has the lock.
            if identity_of(descriptor) == wanted and holds_lock(descriptor)
        ]
        self._executor.answer(client.number, w.ClaimFound(message.ticket), found[:1])

    def _ask(self, client: Client, channel: Channel, ticket: int, event: m.Event) -> None:
        """Give the machine an event whose ticket is answered on this channel."""
        self._expect(client, channel, ticket)
        self._executor.handle([event])

    def _expect(self, client: Client, channel: Channel, ticket: int) -> None:
        """Take down on which channel a ticket is answered, after all that came before it."""
        # The expectation first and the event next: the machine may answer in the same step.
        self._hear_first(client, channel)
        self._executor.expect(client.number, ticket, channel)

    def _on_close_region(self, client: Client, channel: Channel, received: Received) -> None:
        """Tell a client that it may unmap a region, when nothing is on its way into it."""
        message = received.message
        assert isinstance(message, w.CloseRegion)
        # The region's opening must be in the ledger before its end is.  Entered the other way
        # round, the region would stay there for ever.
        self._hear_first(client, channel)
        self._ledger.enter(client.number, message)
        event = m.Detached(client.number, message.region, message.ticket)
        self._ask(client, channel, message.ticket, event)

    def _on_request(self, client: Client, channel: Channel, received: Received) -> None:
        """Have units loaded, and tell the client when they are resident."""
        message = received.message
        assert isinstance(message, w.Request)
        units = tuple(Span(start, stop) for start, stop in message.units)
        if len(message.pages) not in (0, 2):
            raise PagerError(f"expected a range of pages, found {message.pages!r:.80}")
        pages = Span(*message.pages) if message.pages else None
        event = m.Requested(
            *(client.number, message.region, message.ticket, units),
            pages=pages,
            writes=message.writes,
        )
        self._ask(client, channel, message.ticket, event)

    def _on_evict(self, client: Client, channel: Channel, received: Received) -> None:
        """Have units evicted."""
        message = received.message
        assert isinstance(message, w.Evict)
        units = Span(message.start, message.stop)
        event = m.EvictionAsked(client.number, message.region, message.ticket, units)
        self._ask(client, channel, message.ticket, event)

    def _on_flush(self, client: Client, channel: Channel, received: Received) -> None:
        """Have dirty units written back, and tell the client when they are in the store."""
        message = received.message
        assert isinstance(message, w.Flush)
        units = Span(max(0, message.start), message.stop)
        event = m.FlushAsked(client.number, message.region, message.ticket, units)
        if not message.is_last:
            self._ask(client, channel, message.ticket, event)
            return
        self._expect(client, channel, message.ticket)
        self._executor.flush_last(event)

    def _on_retire(self, client: Client, channel: Channel, received: Received) -> None:
        """Have dirty units written back, and let nobody write to the region after that."""
        message = received.message
        assert isinstance(message, w.Retire)
        self._expect(client, channel, message.ticket)
        self._executor.retire(m.Retired(client.number, message.ticket, message.region))

    def _on_advise(self, client: Client, channel: Channel, received: Received) -> None:
        """Have the machine told how a client will read some units."""
        message = received.message
        assert isinstance(message, w.Advise)
        units, advice = Span(message.start, message.stop), Advice(message.advice)
        event = m.Advised(client.number, message.region, message.ticket, units, advice)
        self._ask(client, channel, message.ticket, event)

    def _on_begin_recording(self, client: Client, channel: Channel, received: Received) -> None:
        """Note for a client, from now on, in which order units are touched first."""
        message = received.message
        assert isinstance(message, w.BeginRecording)
        event = m.RecordingBegan(client.number, message.ticket)
        self._ask(client, channel, message.ticket, event)

    def _on_end_recording(self, client: Client, channel: Channel, received: Received) -> None:
        """Forget what was noted for a client."""
        message = received.message
        assert isinstance(message, w.EndRecording)
        event = m.RecordingEnded(client.number, message.ticket, message.recording)
        self._ask(client, channel, message.ticket, event)

    def _on_want_trace(self, client: Client, channel: Channel, received: Received) -> None:
        """Answer with a part of what was noted for a client."""
        message = received.message
        assert isinstance(message, w.WantTrace)
        self._expect(client, channel, message.ticket)
        document = self._executor.trace(
            client.number, message.recording, max(0, message.start), max(0, message.n_arrays)
        )
        self._executor.answer(client.number, w.Trace(message.ticket, document))

    def _on_schedule(self, client: Client, channel: Channel, received: Received) -> None:
        """Tell the machine what will be touched, in which order."""
        message = received.message
        assert isinstance(message, w.Schedule)
        if not all(0 <= place < len(message.regions) for place in message.places):
            raise PagerError(f"expected places of regions, found {message.places!r:.80}")
        runs = tuple(
            (message.regions[place], Span(max(0, start), stop))
            for place, (start, stop) in zip(message.places, message.runs, strict=True)
        )
        event = m.Scheduled(
            client.number,
            message.ticket,
            message.schedule,
            message.n_before,
            runs,
            message.is_last,
        )
        self._ask(client, channel, message.ticket, event)

    def _on_configure(self, client: Client, channel: Channel, received: Received) -> None:
        """Apply settings to the whole pager."""
        message = received.message
        assert isinstance(message, w.Configure)
        # Applied before they are entered: settings that cannot be used raise here, and no later
        # worker gets them.
        client.main.signal = self._policy.apply(message.settings).raise_signal
        self._ledger.enter(client.number, message)
        self._executor.expect(client.number, message.ticket, channel)
        self._executor.answer(client.number, w.Done(message.ticket, []))

    def _on_want_statistics(self, client: Client, channel: Channel, received: Received) -> None:
        """Answer with the statistics of the pager."""
        message = received.message
        assert isinstance(message, w.WantStatistics)
        self._executor.expect(client.number, message.ticket, channel)
        self._executor.answer(client.number, w.Statistics(message.ticket, self._statistics()))

    def _statistics(self) -> dict[str, Any]:
        return {
            **self._executor.statistics(),
            **dict(self._measurements.counters),
            "pid": os.getpid(),
            "workers_lost": self._inflight.n_deaths,
            "decoders": len(self._executor.loads.decoders),
            "uptime_seconds": time.monotonic() - self._started_at,
            "steps": self._measurements.document(),
        }


def _find_dirty(region: Region, geometry: Geometry) -> tuple[list[int], int]:
    """Return the dirty units that are whole in memory, and how many are not."""
    marked = region.read_dirty()
    spans = [geometry.pages_of_bytes(geometry.unit_bytes(unit)) for unit in marked]
    lost = set(region.lacking(spans))
    dirty = [unit for number, unit in enumerate(marked) if number not in lost]
    return dirty, len(marked) - len(dirty)


def _wipe(region: Region, geometry: Geometry, dirty: list[int]) -> None:
    """Take out of memory what nobody has written to.

    Also what a dirty unit shares with its neighbours stays.
    """
    if dirty:
        spans = (geometry.pages_of_bytes(geometry.unit_bytes(unit)) for unit in dirty)
        region.wipe_clean(merge_spans(spans), dirty)
    else:
        region.wipe()

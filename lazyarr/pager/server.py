"""The pager: sockets and userfaultfds in, events for the state machine out."""

from __future__ import annotations

import enum
import os
import select
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from lazyarr.errors import KernelError, LazyarrError, PagerError
from lazyarr.kernel import Features, Userfaultfd, pidfd_open
from lazyarr.loading.rotation import Rotation
from lazyarr.pager.checking import Limits, check_hello, read_settings
from lazyarr.pager.clients import Arena, Client, Region
from lazyarr.pager.crew import Crew
from lazyarr.pager.excuses import MainThread
from lazyarr.pager.executor import Executor
from lazyarr.pager.journal import Journal
from lazyarr.pager.log import report
from lazyarr.pager.measure import Measurements
from lazyarr.pager.opening import open_region
from lazyarr.pager.rendezvous import Rendezvous
from lazyarr.pager.sharing import Sharing
from lazyarr.plan import messages as m
from lazyarr.plan.machine import Machine
from lazyarr.plan.readahead import Advice
from lazyarr.units import Span
from lazyarr.wire import messages as w
from lazyarr.wire.channel import Channel, Received

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazyarr.loading.fetching import Fetcher
    from lazyarr.pager.board import Board
    from lazyarr.plan.geometry import Geometry
    from lazyarr.store.cache import DiskCache
    from lazyarr.wire.ledger import ClientRecord, Ledger, RegionRecord

__all__ = ["Pager"]

# What comes of a message that is not what it should be.  Anything else is a mistake of
# the pager's own: it ends, and another worker starts from what is known to be right.
_REFUSED = (LazyarrError, OSError, LookupError, ValueError, OverflowError)


class _Rank(enum.IntEnum):
    """In which order events that come together are handled."""

    MESSAGE = 0
    FAULT = 1
    EXIT = 2


class _Watched(NamedTuple):
    """What to do when a descriptor is readable."""

    rank: _Rank
    handler: Callable[[], None]


class Pager:
    """Serves the regions of one client process and of those that join it.

    It ends when the last of them does.

    Parameters
    ----------
    supervisor : Channel
        To the process that starts another worker when this one dies.
    ledger : Ledger
        Who is served; this process owns the descriptors in it.
    board : Board
        Where it is written down what is on its way.
    doomed : set of (int, int)
        Region and unit of loads that have killed workers before.
    """

    def __init__(
        self,
        supervisor: Channel,
        ledger: Ledger,
        board: Board,
        doomed: set[tuple[int, int]],
    ) -> None:
        self._measurements = Measurements()
        self._executor = Executor(Machine(0), self._measurements, board=board, doomed=doomed)
        self._journal = Journal(supervisor, ledger)
        self._sharing = Sharing(self._executor, self._journal)
        self._rendezvous: Rendezvous | None = None
        self._welcomed: set[int] = set()
        self._board = board
        self._rotation = Rotation()
        self._connections = 1
        self._epoll = select.epoll()
        self._watched: dict[int, _Watched] = {}
        self._n_joining = 0
        self._timeout_seconds = 60.0
        self._retries = 0
        self._settings: dict[str, Any] = {}
        self._cache: DiskCache | None = None
        self._begin = time.monotonic()
        self._handlers: dict[type, Callable[[Client, Channel, Received], None]] = {
            w.Hello: self._on_repeated,
            w.Join: self._on_join,
            w.Listen: self._on_listen,
            w.OpenChannel: self._on_open_channel,
            w.OpenRegion: self._on_open_region,
            w.AttachRegion: self._on_attach_region,
            w.WantRegion: self._on_want_region,
            w.FindRegion: self._on_find_region,
            w.CloseRegion: self._on_close_region,
            w.Request: self._on_request,
            w.Evict: self._on_evict,
            w.Advise: self._on_advise,
            w.Configure: self._on_configure,
            w.WantFailure: self._on_want_failure,
            w.WantStatistics: self._on_want_statistics,
        }
        self._crew = self._executor.crew = Crew(
            1, ears=self._epoll.fileno(), listen=self._listen, failed=_die
        )
        self._executor.make_fetcher = self._make_fetcher
        self._watch(supervisor.fileno(), _Rank.MESSAGE, self._on_supervisor)
        self._watch(self._sharing.fileno(), _Rank.MESSAGE, self._sharing.give_answers)
        self._take_over(ledger)
        self._maybe_stop()  # everybody may have ended while there was no worker
        self._journal.say_ready()

    def __repr__(self) -> str:
        return f"<Pager: {self._executor!r}>"

    def run(self) -> None:
        """Serve until the last client is gone."""
        # It may have gone while there was no worker to see it.
        self._maybe_stop()
        self._crew.start()
        _prepare(self._board)
        self._crew.join()

    def _make_fetcher(self) -> Fetcher:
        # Not at the top: the first fault of a local array would wait for it.
        from lazyarr.loading.fetching import Fetcher

        def count() -> None:
            self._measurements.count("retries", 1)

        return Fetcher(self._connections, failed=_die, on_retry=count)

    def _listen(self) -> None:
        """Wait for events and handle all that have come.

        What a client says comes before its faults: it has said what a region is
        before anybody could touch it.
        """
        events = self._epoll.poll()
        if len(events) == 1:
            only = self._watched.get(events[0][0])
            if only is not None:
                only.handler()
            return
        ready = [(fd, self._watched[fd]) for fd, _ in events if fd in self._watched]
        for descriptor, watched in sorted(ready, key=lambda item: item[1].rank):
            # One event may end what another one is about, as a client's exit does.
            if self._watched.get(descriptor) is watched:
                watched.handler()

    def _watch(self, descriptor: int, rank: _Rank, handler: Callable[[], None]) -> None:
        self._watched[descriptor] = _Watched(rank, handler)
        self._epoll.register(descriptor, select.EPOLLIN)

    def _unwatch(self, descriptor: int) -> None:
        if self._watched.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def _on_supervisor(self) -> None:
        """Answer the supervisor; go on without it when it is gone."""
        if not self._journal.answer():
            self._unwatch(self._journal.fileno())

    def _take_over(self, ledger: Ledger) -> None:
        """Serve everybody whom a worker before this one has served.

        What is in shared memory is not trusted, and taken out.  A fault that was
        read and not answered is not reported again until its thread is woken.
        """
        for number, record in ledger.clients.items():
            self._take_over_client(number, record)
        if ledger.settings:
            self._go_by(ledger.settings)
        arenas: dict[int, Arena] = {}
        for number, found in ledger.regions.items():
            objects = found.objects
            if id(objects) not in arenas:
                arenas[id(objects)] = Arena(objects.memfd, objects.map_memfd)
            self._take_over_region(number, found, arenas[id(objects)])
        for arena in arenas.values():
            arena.release()
        if ledger.listener is not None:
            self._receive_at(ledger.listener)

    def _take_over_client(self, number: int, record: ClientRecord) -> None:
        channel = Channel.from_descriptor(record.control)
        if record.hello is None:
            self._welcome(number, channel)
            return
        self._welcomed.add(number)
        try:
            self._admit(number, channel, Received(record.hello, record.descriptors))
        except (KernelError, PagerError):
            # It has ended while there was no worker to see it, or is none.
            self._journal.enter(number, None)

    def _take_over_region(self, number: int, record: RegionRecord, arena: Arena) -> None:
        try:
            region, geometry = self._open_region(record.message, record.descriptors, arena)
        except _REFUSED as error:
            report(f"cannot take over region {number}: {error}")
            for name in record.addresses:
                if name in self._executor.clients:
                    self._on_exit(self._executor.clients[name])
            return
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
            self._executor.handle([m.Opened(number, geometry, is_shared)])
            self._executor.handle([m.Reserved(name, (number,)) for name in waiting])
        if self._executor.machine.region(number) is None:
            self._executor.remove_region(number)

    # --- clients come and go ----------------------------------------------------

    def _welcome(self, number: int, channel: Channel) -> None:
        """Wait for what somebody who wants to be a client says first."""
        self._n_joining += 1
        self._welcomed.add(number)
        self._watch(channel.fileno(), _Rank.MESSAGE, lambda: self._on_first_word(number, channel))

    def _on_first_word(self, number: int, channel: Channel) -> None:
        self._unwatch(channel.fileno())
        self._n_joining -= 1
        try:
            self._journal.enter_next(number, channel)
            received = channel.hear()
            if received is not None:
                self._admit(number, channel, received)
                return
        except KernelError:
            pass  # it has ended already
        except _REFUSED as error:
            report(f"cannot take on a client: {error}")
        channel.close()
        self._executor.handle([m.ClientLeft(number)])
        self._journal.enter(number, None)
        self._maybe_stop()

    def _admit(self, number: int, channel: Channel, received: Received) -> None:
        """Begin to serve a client; raise KernelError when it has ended, PagerError when none."""
        try:
            check_hello(received)
            hello = received.message
            assert isinstance(hello, w.Hello)
            pidfd = pidfd_open(hello.pid)
        except BaseException:
            _close_all(received.descriptors)
            raise
        uffd, memfd, map_memfd, lifeline = received.descriptors
        client = Client(
            number=number,
            pid=hello.pid,
            pidfd=pidfd,
            uffd=Userfaultfd.from_fd(uffd, Features(hello.features)),
            arena=Arena(memfd, map_memfd),
            lifeline=lifeline,
            channels=[],
            main=MainThread(),
        )
        self._executor.add_client(client)
        if not self._settings:
            self._go_by(hello.settings)
        client.main.signal = read_settings(hello.settings).raise_signal
        self._watch(client.pidfd, _Rank.EXIT, lambda: self._on_exit(client))
        self._watch(uffd, _Rank.FAULT, lambda: self._on_faults(client))
        self._add_channel(client, channel)

    def _add_channel(self, client: Client, channel: Channel) -> None:
        client.channels.append(channel)
        self._watch(channel.fileno(), _Rank.MESSAGE, lambda: self._on_messages(client, channel))

    def _on_exit(self, client: Client) -> None:
        for watched in (client.pidfd, client.uffd.fileno()):
            self._unwatch(watched)
        for channel in client.channels:
            self._unwatch(channel.fileno())
            channel.close()
        client.channels.clear()
        self._executor.remove_client(client.number)
        self._journal.enter(client.number, None)
        self._maybe_stop()

    def _maybe_stop(self) -> None:
        if not self._executor.has_clients() and not self._n_joining:
            self._crew.stop()

    # --- what clients do and say --------------------------------------------------

    def _on_faults(self, client: Client) -> None:
        serve = self._executor.serve_quickly
        if client.main.signal:
            n_raised = client.main.n_raised
            found = self._executor.excuse(client, client.uffd.read_faults(), n_raised)
        else:
            found = client.uffd.read_addresses()
        others = [a for a in found if not serve(client, a)]
        if others:
            self._executor.handle([m.Faulted(client.number, a) for a in dict.fromkeys(others)])

    def _on_messages(self, client: Client, channel: Channel) -> None:
        """Handle all that has come on a channel."""
        while channel.fileno() >= 0 and channel.is_readable():
            self._on_message(client, channel)

    def _on_message(self, client: Client, channel: Channel) -> None:
        """Handle one message.

        A client that talks nonsense on a channel loses it.  One whose regions can not be
        served for that reason must not wait for them: it loses its lifeline.
        """
        is_control = channel in client.channels[:1]
        try:
            if is_control:
                self._journal.enter_next(client.number, channel)
            received = channel.hear()
            if received is not None:
                self._handlers[type(received.message)](client, channel, received)
                return
        except _REFUSED as error:
            report(f"cannot serve a message of process {client.pid}: {error}")
            if is_control:
                self._on_exit(client)
                return
        if channel not in client.channels:
            return
        self._unwatch(channel.fileno())
        client.channels.remove(channel)
        channel.close()
        # It may have called exec, or have named another process as itself.
        if not client.is_alive():
            self._on_exit(client)

    def _on_repeated(self, _: Client, __: Channel, received: Received) -> None:
        """Ignore what the worker before this one has entered and not taken away."""
        _close_all(received.descriptors)

    def _on_join(self, _: Client, __: Channel, received: Received) -> None:
        message, (descriptor,) = received
        assert isinstance(message, w.Join)
        self._join(descriptor, tuple(message.regions))

    def _join(self, descriptor: int, regions: tuple[int, ...]) -> None:
        """Await a client whose channel has been entered, unless that is so already."""
        channel = Channel.from_descriptor(descriptor)
        number = self._journal.number_of(descriptor)
        if number in self._welcomed:
            channel.close()
            return
        self._executor.handle([m.Reserved(number, regions)])
        self._welcome(number, channel)

    def _on_listen(self, _: Client, __: Channel, received: Received) -> None:
        (descriptor,) = received.descriptors
        if self._rendezvous is None:
            self._receive_at(descriptor)
        else:
            os.close(descriptor)

    def _receive_at(self, listener: int) -> None:
        """Take on processes that come to a socket."""

        def join(descriptor: int) -> None:
            self._journal.enter_join(w.Join([]), descriptor)
            self._join(descriptor, ())

        self._rendezvous = Rendezvous(
            listener,
            watch=lambda fd, handler: self._watch(fd, _Rank.MESSAGE, handler),
            unwatch=self._unwatch,
            join=join,
            settings=lambda: self._settings,
        )

    def _on_open_channel(self, client: Client, _: Channel, received: Received) -> None:
        self._add_channel(client, Channel.from_descriptor(received.descriptors[0]))

    def _on_open_region(self, client: Client, _: Channel, received: Received) -> None:
        message = received.message
        assert isinstance(message, w.OpenRegion)
        if self._executor.machine.region(message.region) is not None:
            _close_all(received.descriptors)
            return
        region, geometry = self._open_region(message, received.descriptors, client.arena)
        self._executor.add_region(message.region, region)
        self._attach(client.number, message.region, message.address, geometry, region)
        if region.is_remote:
            self._executor.fetcher.prepare(region.source)

    def _open_region(
        self, message: w.OpenRegion, descriptors: tuple[int, ...], arena: Arena
    ) -> tuple[Region, Geometry]:
        return open_region(
            message,
            descriptors,
            arena,
            timeout_seconds=self._timeout_seconds,
            retries=self._retries,
            count=self._measurements.count,
            share=self._executor.share,
            rotation=self._rotation,
            cache=self._cache,
        )

    def _attach(
        self, client: int, number: int, address: int, geometry: Geometry, region: Region
    ) -> None:
        is_shared = region.backing is not None
        self._executor.handle([m.Attached(client, number, address, geometry, is_shared)])

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
        limits = (self._timeout_seconds, self._retries, self._cache)
        self._sharing.on_find_region(client, message, limits)

    def _hear_first(self, client: Client, channel: Channel) -> None:
        """Handle what a client has said on its first channel before it said something here.

        It may have opened the region in question there a moment before, or announced
        a child that has it too.
        """
        if client.channels and client.channels[0] is not channel:
            self._on_messages(client, client.channels[0])

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
        event = m.Requested(client.number, message.region, message.ticket, units)
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
        client.main.signal = self._go_by(message.settings).raise_signal
        self._journal.enter(client.number, message)
        self._executor.expect(client.number, message.ticket, channel)
        self._executor.answer(client.number, w.Done(message.ticket, []))

    def _on_want_failure(self, client: Client, channel: Channel, received: Received) -> None:
        message = received.message
        assert isinstance(message, w.WantFailure)
        self._on_faults(client)  # what the main thread has said before is old news after this
        self._executor.end_excuse(client, message.ticket, channel)

    def _on_want_statistics(self, client: Client, channel: Channel, received: Received) -> None:
        message = received.message
        assert isinstance(message, w.WantStatistics)
        self._executor.expect(client.number, message.ticket, channel)
        self._executor.answer(client.number, w.Statistics(message.ticket, self._statistics()))

    # --- settings and statistics ----------------------------------------------------

    def _go_by(self, settings: dict[str, Any]) -> Limits:
        """Let settings hold for all clients from now on; return them, checked."""
        limits = read_settings(settings)
        self._settings = settings
        self._timeout_seconds = limits.timeout_seconds
        self._retries = limits.retries
        limit = m.LimitChanged(limits.memory_limit)
        self._executor.handle([limit, m.ReadaheadChanged(limits.readahead)])
        self._crew.resize(limits.threads)
        self._connections = limits.connections
        self._executor.resize_fetcher(limits.connections)
        if limits.cache_dir is None:
            self._cache = None
        else:
            # Imported here: most pagers keep nothing.
            from lazyarr.store.cache import DiskCache

            if self._cache is None or self._cache.directory != limits.cache_dir:
                self._cache = DiskCache(limits.cache_dir, limits.cache_limit)
            self._cache.limit_nbytes = limits.cache_limit
        return limits

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
            "uptime_seconds": time.monotonic() - self._begin,
            "steps": self._measurements.document(),
        }


def _prepare(board: Board) -> None:
    """Have at hand what the first chunk of most arrays needs, before somebody waits for it."""
    import google_crc32c  # noqa: F401
    import zstandard  # noqa: F401

    board.prepare()


def _close_all(descriptors: tuple[int, ...]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _die(error: BaseException) -> None:
    """End at once: another worker takes over, and whoever waits is served by that."""
    report(f"the pager ends: {type(error).__name__}: {error}")
    os._exit(70)  # EX_SOFTWARE

"""The worker's service: messages and faults come in, events for the state machine go out."""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from lazyarr.errors import KernelError, LazyarrError, PagerError
from lazyarr.kernel import Features, Userfaultfd, pidfd_open
from lazyarr.memory_kind import MemoryKind
from lazyarr.pager.checking import check_hello, read_settings
from lazyarr.pager.lifecycle.ledger_client import LedgerClient
from lazyarr.pager.lifecycle.supervisor import EX_DECODER
from lazyarr.pager.log import report
from lazyarr.pager.measure import Measurements
from lazyarr.pager.memory.clients import Arena, Client
from lazyarr.pager.memory.main_thread import MainThread
from lazyarr.pager.service.configuration import Policy
from lazyarr.pager.service.handlers import Handlers
from lazyarr.pager.service.sharing import Sharing
from lazyarr.pager.watching import Rank, Watch
from lazyarr.pager.work.decoders import DecoderDiedError
from lazyarr.pager.work.executor import Executor
from lazyarr.pager.work.leader_followers import LeaderFollowers
from lazyarr.plan import messages as m
from lazyarr.plan.machine import Machine
from lazyarr.shortage import describe_shortage, lacks_descriptors, shortage
from lazyarr.wire import messages as w
from lazyarr.wire.channel import Channel, Received, close_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazyarr.pager.lifecycle.inflight_record import Deed, InflightRecord
    from lazyarr.pager.lifecycle.rendezvous import Rendezvous
    from lazyarr.wire.ledger import ClientRecord, Ledger, RegionRecord

__all__ = ["Pager"]

# Questions of clients on which nothing depends but their own answer.  A question that has
# killed workers is refused.  A message that opens or closes a region never is: client and pager
# would disagree about the region from then on.
_MAY_BE_REFUSED = (
    *(w.Request, w.Evict, w.Flush, w.Retire, w.Advise, w.WantStatistics),
    *(w.BeginRecording, w.EndRecording, w.WantTrace, w.Schedule),
)

# What must be in the ledger before it is acted on.  It comes on a client's first channel.
_ON_FIRST_CHANNEL = (w.Hello, w.Join, w.Listen, w.OpenRegion, w.AttachRegion)

_DESCRIPTORS_REMEDY = describe_shortage(OSError(errno.EMFILE, ""))
# A message waits so long for descriptors.  Then its client is refused, for a client that waits
# in silence looks like one that hangs.
_SHORT_SECONDS = 60.0
# A client takes seven descriptors beside its first channel.  The rest is for files.
_N_ROOM = 15
_PAUSE_SECONDS = 0.05

# A message that is not what it should be ends in one of these errors, and costs its client the
# channel.  Any other error is a mistake of the pager's own.  The worker ends then, and another
# one starts from the ledger.
_BAD_MESSAGE_ERRORS = (LazyarrError, OSError, LookupError, ValueError, OverflowError)


def _not_taken_over(opened: w.OpenRegion, error: BaseException) -> str:
    """Return what is said of a region of the worker before that cannot be served."""
    # The ledger keeps what is written back, also without a client, for the next worker.
    kind = MemoryKind.__members__.get(opened.kind)
    remedy = "open it again"
    if kind is not None and kind.writes_back:
        remedy = (
            "what they had written and not flushed stays in memory as long as others use the "
            f"pager; to have its next worker try to store that, end process {os.getpid()}"
        )
    return (
        f"cannot take over array {opened.path or '/'!r} of {opened.url}: {error}; the processes "
        f"that have it end with SIGBUS; {remedy}"
    )


class Pager:
    """Serves the regions of one client process and of the processes that join it.

    The pager ends when the last of these clients does.

    Parameters
    ----------
    supervisor : Channel
        The channel to the process that starts another worker when this one dies.
    ledger : Ledger
        The clients and regions to be served.  This process owns the descriptors in it.
    inflight : InflightRecord
        Where the threads write down which unit they load and which question they answer.
    doomed : set of Deed
        The loads and questions that have killed workers before, as deeds of the in-flight record.
    """

    def __init__(
        self,
        supervisor: Channel,
        ledger: Ledger,
        inflight: InflightRecord,
        doomed: set[Deed],
    ) -> None:
        measurements = Measurements()
        self._executor = Executor(Machine(0), measurements, inflight=inflight, doomed=doomed)
        self._ledger = LedgerClient(supervisor, ledger)
        self._rendezvous: Rendezvous | None = None
        # Numbers of clients whose first channel is listened to, or was.  A `Join` that is
        # acted on twice must not make a second client.
        self._welcomed: set[int] = set()
        # Since when the next message of a channel waits for descriptors.
        self._short_since: dict[Channel, float] = {}
        self._inflight = inflight
        self._doomed = doomed
        self._watch = Watch()
        self._sharing = Sharing(self._executor, self._ledger, after=self._watch.after)
        self._n_joining = 0
        self._policy = Policy(self._executor, measurements, failed=_die)
        self._message_handlers = Handlers(
            self._executor,
            self._ledger,
            sharing=self._sharing,
            policy=self._policy,
            measurements=measurements,
            inflight=inflight,
            hear_first=self._hear_first,
        )
        # Here are the messages by which clients come and go.  `Handlers` has all others.
        self._by_kind: dict[type, Callable[[Client, Channel, Received], None]] = {
            w.Hello: self._on_repeated,
            w.Join: self._on_join,
            w.Listen: self._on_listen,
            w.OpenChannel: self._on_open_channel,
            w.WantFailure: self._on_want_failure,
            **self._message_handlers.handlers,
        }
        # `Loads` and the threads know nothing of sockets and settings, so they get what they
        # need of both as functions.
        loads = self._executor.loads
        self._threads = loads.threads = LeaderFollowers(
            1, ears=self._watch.fileno(), listen=self._watch.listen, failed=_die
        )
        loads.make_fetcher = self._policy.make_fetcher
        loads.loader.spare_descriptors = self._policy.spare_descriptors
        self._executor.forgotten = self._on_forgotten
        self._executor.expelled = self._on_expelled
        self._to_expel: deque[int] = deque()
        self._executor.retired = lambda client, region: self._ledger.enter(
            client, w.Retire(0, region)
        )
        self._executor.write_backs.failed = _die
        decoders = loads.decoders
        decoders.hire, decoders.unwatch = self._ledger.hire, self._watch.remove
        decoders.watch = lambda fd, handler: self._watch.add(fd, Rank.MESSAGE, handler)
        self._watch.add(supervisor.fileno(), Rank.MESSAGE, self._on_supervisor)
        self._watch.add(self._sharing.fileno(), Rank.MESSAGE, self._sharing.give_answers)
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._watch.add(self._wakeup, Rank.ARRIVAL, self._on_wakeup)
        self._take_over(ledger)
        self._maybe_stop()  # all clients may have ended while there was no worker
        self._ledger.say_ready()

    def __repr__(self) -> str:
        return f"<Pager: {self._executor!r}>"

    def run(self) -> None:
        """Serve until the last client is gone."""
        # The last client may have ended while there was no worker to see it.
        self._maybe_stop()
        # The threads serve clients from here on, and this thread imports modules beside
        # them.
        self._threads.start()
        _prepare(self._inflight)
        self._threads.join()
        self._executor.loads.decoders.close()
        self._executor.write_backs.close()

    def _on_supervisor(self) -> None:
        """Answer the supervisor; go on without one when it is gone."""
        if not self._ledger.answer():
            self._watch.remove(self._ledger.fileno())
        # The supervisor asks several times in each `stop_timeout`, so this needs no
        # timer of its own.
        self._policy.update_shared_limit()

    def _take_over(self, ledger: Ledger) -> None:
        """Serve the clients and regions of the worker before this one."""
        # Clients first, for regions are attached to them.  Then the settings, under which
        # regions are opened.
        for number, record in ledger.clients.items():
            self._take_over_client(number, record)
        if ledger.settings:
            self._policy.apply(ledger.settings)
        # Regions that lie in the same memory objects share an arena, so that its last user
        # closes them.
        arenas: dict[int, Arena] = {}
        for number, found in ledger.regions.items():
            objects = found.objects
            if id(objects) not in arenas:
                arenas[id(objects)] = Arena(objects.memfd, objects.map_memfd)
            self._take_over_region(number, found, arenas[id(objects)])
        for arena in arenas.values():
            arena.release()
        if ledger.listener is not None:
            self._listen_at(ledger.listener, ledger.secret)

    def _take_over_client(self, number: int, record: ClientRecord) -> None:
        """Serve a client of the ledger, or wait for its first message."""
        channel = Channel.from_descriptor(record.control)
        if record.hello is None:
            self._await_hello(number, channel)
            return
        self._welcomed.add(number)
        try:
            self._admit(number, channel, Received(record.hello, record.descriptors))
        except (KernelError, PagerError):
            # The client has ended while there was no worker to see it, or its `Hello` is
            # not one that can be served.
            self._ledger.enter(number, None)

    def _take_over_region(self, number: int, record: RegionRecord, arena: Arena) -> None:
        """Serve a region of the ledger, or let go of the clients that have mapped it."""
        try:
            self._message_handlers.take_over_region(number, record, arena)
        except _BAD_MESSAGE_ERRORS as error:
            report(_not_taken_over(record.message, error))
            # A client that is not served must not wait: its lifeline is closed with it.
            for name in record.addresses:
                if name in self._executor.clients:
                    self._on_exit(self._executor.clients[name])

    # --- clients come and go ----------------------------------------------------

    def _await_hello(self, number: int, channel: Channel) -> None:
        """Listen for the first message of a process that will be a client."""
        # Counted, so that the pager does not end while only a forked child is on its way.
        self._n_joining += 1
        self._welcomed.add(number)
        self._watch.add(channel.fileno(), Rank.MESSAGE, lambda: self._on_hello(number, channel))

    def _on_hello(self, number: int, channel: Channel) -> None:
        """Begin to serve a client that has said `Hello`, or let go of its channel."""
        try:
            self._require_room()
            received = self._ledger.enter_next(number, channel, is_first=True)
            if received is not None:
                self._admit(number, channel, received)
                channel.drop()
                self._short_since.pop(channel, None)
                self._n_joining -= 1
                return
        except _BAD_MESSAGE_ERRORS as error:
            if self._must_wait(channel, error):
                return
            if not isinstance(error, KernelError):  # else the process has ended already
                report(f"cannot take on a client: {error}")
        # The channel has ended, or brought something that is no `Hello`.  Regions that a parent
        # has reserved for this process are let go, in the machine and in the ledger.
        self._n_joining -= 1
        self._watch.remove(channel.fileno())
        channel.close()
        self._executor.handle([m.ClientLeft(number)])
        self._ledger.enter(number, None)
        self._maybe_stop()

    def _require_room(self) -> None:
        """Raise unless one more client leaves descriptors for files to read from.

        Raises
        ------
        OSError
            EMFILE, ENFILE.
        """
        # Without this: 1. clients come until no descriptor is left; 2. no chunk can be read any
        # more; 3. each client waits for a chunk, so none ends, and nothing is ever free again.
        # So the descriptors are opened for a moment, which is what a limit can be asked by.
        found: list[int] = []
        try:
            for _ in range(_N_ROOM):
                found.append(os.dup(self._watch.fileno()))  # noqa: PERF401 - kept if one fails
        finally:
            close_all(found)

    def _must_wait(self, channel: Channel, error: BaseException) -> bool:
        """Leave a message on its channel while there are no descriptors to act on it.

        A lack of descriptors is no fault of the client that sent the message.  Files that are
        kept open for later reads are closed to make room.  Returns False after a minute without
        success, or for an error of another kind.
        """
        if not lacks_descriptors(error):
            return False
        # Reported once, not for each process that waits.
        if not self._short_since:
            report(
                f"the pager lacks descriptors, and a process waits for some: {_DESCRIPTORS_REMEDY}"
            )
        self._short_since.setdefault(channel, time.monotonic())
        if time.monotonic() > self._short_since[channel] + _SHORT_SECONDS:
            del self._short_since[channel]
            return False
        self._policy.spare_descriptors()
        # The descriptor stays readable, so listening on would be a busy loop.
        self._watch.rest(channel.fileno(), _PAUSE_SECONDS)
        return True

    def _admit(self, number: int, channel: Channel, received: Received) -> None:
        """Begin to serve a client that has said `Hello`.

        Raises
        ------
        KernelError
            When the client has ended.
        PagerError
            When the message is no `Hello` of this version, or carries what it should not.
        """
        try:
            check_hello(received)
            hello = received.message
            assert isinstance(hello, w.Hello)
            raise_signal = read_settings(hello.settings).raise_signal
            # The first client's settings hold for the pager.  A later client brings its own,
            # and only `Configure` changes what holds.
            if not self._policy.settings:
                self._policy.apply(hello.settings)
            pidfd = pidfd_open(hello.pid)
        except BaseException:
            close_all(received.descriptors)
            raise
        uffd, memfd, map_memfd, lifeline, *writable = received.descriptors
        client = Client(
            number=number,
            pid=hello.pid,
            pidfd=pidfd,
            uffd=Userfaultfd.from_fd(uffd, Features(hello.features)),
            arena=Arena(memfd, map_memfd),
            lifeline=lifeline,
            channels=[],
            main=MainThread(),
            notices=[],
        )
        for descriptor in writable:
            features = Features(hello.writable_features)
            client.writable_uffd = Userfaultfd.from_fd(descriptor, features)
            self._watch.add(descriptor, Rank.FAULT, lambda: self._on_writable_faults(client))
        self._executor.add_client(client)
        client.main.signal = raise_signal
        self._watch.add(client.pidfd, Rank.EXIT, lambda: self._on_exit(client))
        self._watch.add(uffd, Rank.FAULT, lambda: self._on_faults(client))
        self._watch.remove(channel.fileno())  # `_on_hello` has handled it so far
        self._add_channel(client, channel)

    def _add_channel(self, client: Client, channel: Channel) -> None:
        """Listen to a channel of a client."""
        client.channels.append(channel)
        handler = partial(self._on_messages, client, channel)
        self._watch.add(channel.fileno(), Rank.MESSAGE, handler)

    def _on_exit(self, client: Client) -> None:
        """Let go of a client that has ended, or cannot be served."""
        # Unwatched before they are closed.  The supervisor has copies of them, so epoll
        # would go on to report descriptors that are closed here (epoll(7)), under
        # numbers that the next files get.
        for watched in (client.pidfd, client.uffd.fileno()):
            self._watch.remove(watched)
        if client.writable_uffd is not None:
            self._watch.remove(client.writable_uffd.fileno())
        for channel in client.channels:
            self._watch.remove(channel.fileno())
            channel.close()
        client.channels.clear()
        self._executor.remove_client(client.number)
        self._ledger.enter(client.number, None)
        self._maybe_stop()

    def _maybe_stop(self) -> None:
        """Let the threads end when no client is left, and none is on its way.

        And when all is in its store that clients have written.
        """
        if self._executor.has_clients() or self._n_joining or self._executor.has_unwritten():
            return
        self._threads.stop()

    def _on_forgotten(self, region: int) -> None:
        """Have the supervisor forget a region that was written back; the core's lock is held."""
        self._ledger.enter(0, w.Forgotten(region))
        # Whether it was the last one is asked by the thread that listens: it knows who joins.
        os.eventfd_write(self._wakeup, 1)

    def _on_expelled(self, client: int) -> None:
        """Have the thread that listens let go of a client: any other may call this."""
        self._to_expel.append(client)
        os.eventfd_write(self._wakeup, 1)

    def _on_wakeup(self) -> None:
        """Let go of clients that are to go; end if this was waited for."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._wakeup)
        while self._to_expel:
            number = self._to_expel.popleft()
            if self._executor.is_served(number):  # it may have ended meanwhile
                self._on_exit(self._executor.clients[number])
        self._maybe_stop()

    # --- what clients do and say --------------------------------------------------

    def _on_faults(self, client: Client) -> None:
        """Serve the faults that a client's userfaultfd reports."""
        try:
            self._serve_faults(client)
        except KernelError as error:
            self._executor.expel(client.number, error)

    def _serve_faults(self, client: Client) -> None:
        serve = self._executor.serve_fast
        if client.main.signal:
            # Read before the faults.  If the main thread raises in between, its faults
            # in this batch are from before, and `serve_raising` can tell.
            n_raised = client.main.n_raised
            raising = self._executor.serve_raising(client, client.uffd.read_faults(), n_raised)
            found = [fault.address for fault in raising]
        else:
            found = client.uffd.read_addresses()
        others = [a for a in found if not serve(client, a)]
        # Each address once.  Five threads on one page send five messages, and a thread with a
        # pending signal that faults in a system call sends thousands.
        if others:
            self._executor.handle([m.Faulted(client.number, a) for a in dict.fromkeys(others)])

    def _on_writable_faults(self, client: Client) -> None:
        """Serve the faults in a client's writable regions."""
        try:
            self._serve_writable_faults(client)
        except KernelError as error:
            self._executor.expel(client.number, error)

    def _serve_writable_faults(self, client: Client) -> None:
        assert client.writable_uffd is not None
        n_raised = client.main.n_raised  # before the faults: see `_on_faults`
        found = client.writable_uffd.read_faults()
        if client.main.signal:
            found = self._executor.serve_raising(client, found, n_raised)
        # A write must be noted before the page may be written, which only the events do.
        serve = self._executor.serve_fast
        others = [f for f in found if f.write or not serve(client, f.address)]
        if others:
            unmapped = [f.address for f in others if f.write and not f.wp]
            self._executor.note_writers(client.number, others, unmapped)
            events = (m.Faulted(client.number, f.address, f.write) for f in others)
            self._executor.handle(list(dict.fromkeys(events)))

    def _on_messages(self, client: Client, channel: Channel) -> bool:
        """Handle all messages that have come on a channel; return False when one must wait."""
        # All of them, not one: a fault that came with them may be of a region that only the
        # last of them opens.  A handler may close the channel.
        while channel.fileno() >= 0 and channel.is_readable():
            if not self._on_message(client, channel):
                return False
        return True

    def _on_message(
        self, client: Client, channel: Channel, received: Received | None = None
    ) -> bool:
        """Handle one message; return False when it must wait.

        A client that sends nonsense on a channel loses the channel.  On its first channel, the one
        by which it opens regions, it loses the pager and with it its lifeline.  Otherwise its
        threads would wait for regions of which the pager does not know.

        Parameters
        ----------
        client, channel : Client, Channel
            The client that sent the message, and the channel that it came on.
        received : Received, optional
            The message, if it was taken off the channel before and had to wait.
        """
        # What the next worker must know comes on the first channel alone.  It is entered in the
        # ledger, acted on, and only then taken off the channel.  A question on another channel
        # is lost with the worker, and its client asks again.
        is_control = channel in client.channels[:1]
        try:
            if is_control:
                received = self._ledger.enter_next(client.number, channel)
            elif received is None:
                received = channel.hear()
            if received is not None:
                self._handle(client, channel, received)
                if is_control:
                    channel.drop()
                self._short_since.pop(channel, None)
                return True
        except _BAD_MESSAGE_ERRORS as error:
            if self._must_wait(channel, error):
                if not is_control and received is not None:
                    self._handle_later(client, channel, received)
                return False
            report(f"cannot serve a message of process {client.pid}: {error}")
            if is_control:
                self._on_exit(client)
                return True
        self._hang_up(client, channel)
        return True

    def _handle_later(self, client: Client, channel: Channel, received: Received) -> None:
        """Handle a message, which was taken off its channel, again after a while."""

        def handle() -> None:
            # The client may have hung up meanwhile.
            if channel in client.channels:
                self._on_message(client, channel, received)

        self._watch.after(_PAUSE_SECONDS, handle)

    def _hang_up(self, client: Client, channel: Channel) -> None:
        """Close a channel that has ended or brought nonsense."""
        self._short_since.pop(channel, None)
        # A handler may have closed it already, with its client.
        if channel not in client.channels:
            return
        is_control = channel is client.channels[0]
        self._watch.remove(channel.fileno())
        client.channels.remove(channel)
        channel.close()
        # The client may have called exec, which a pidfd does not tell, or have named another
        # process in its `Hello`.  Or it lives on, and needs no pager any more.
        if not client.is_alive() or (is_control and self._has_let_go(client)):
            self._on_exit(client)

    def _has_let_go(self, client: Client) -> bool:
        """Return whether a living client has no regions, and has closed its lifeline."""
        return client.has_cut_lifeline() and not self._executor.machine.has_regions(client.number)

    def _handle(self, client: Client, channel: Channel, received: Received) -> None:
        """Handle a message, unless handling it has killed workers before.

        A client repeats its question when a worker dies, and the next worker would die of the
        question too.
        """
        message = received.message
        handler = self._by_kind.get(type(message))
        if handler is None:
            # A kind that the pager's own processes send, which may carry descriptors too.
            close_all(received.descriptors)
            raise PagerError(f"a client sends no {type(message).__name__}")
        if isinstance(message, _ON_FIRST_CHANNEL) and channel not in client.channels[:1]:
            close_all(received.descriptors)
            raise PagerError(f"expected {type(message).__name__} on the client's first channel")
        if not isinstance(message, _MAY_BE_REFUSED):
            handler(client, channel, received)
            return
        deed = (~client.number, message.ticket)
        if deed in self._doomed:
            # Refused once.  A client that repeats the question later is served.
            self._doomed.discard(deed)
            self._executor.expect(client.number, message.ticket, channel)
            self._executor.answer(client.number, w.Done(message.ticket, [_refusal(message)]))
            return
        self._inflight.begin_answer(client.number, message.ticket)
        try:
            handler(client, channel, received)
        finally:
            self._inflight.end()

    def _on_repeated(self, _: Client, __: Channel, received: Received) -> None:
        """Ignore a `Hello` that the worker before this one has entered and not taken away."""
        close_all(received.descriptors)

    def _on_join(self, _: Client, __: Channel, received: Received) -> None:
        """Await a child that its parent is about to fork."""
        message, (descriptor,) = received
        assert isinstance(message, w.Join)
        self._join(descriptor, tuple(message.regions))

    def _join(self, descriptor: int, regions: tuple[int, ...]) -> None:
        """Await a client whose channel is in the ledger, unless it is awaited already."""
        channel = Channel.from_descriptor(descriptor)
        number = self._ledger.number_of(descriptor)
        if number in self._welcomed:
            channel.close()
            return
        # Before the parent may let go of them: a region that only the child will have is not
        # forgotten in between.
        self._executor.handle([m.Reserved(number, regions)])
        # A client does not read what comes on its first channel.  Where the other end was sent
        # here too, by a `Join` of its own, nobody else would ever say anything on either, and the
        # pager would wait for both for ever.
        with suppress(PagerError):
            channel.send(w.Ping(), wait=False)
        self._await_hello(number, channel)

    def _on_listen(self, _: Client, __: Channel, received: Received) -> None:
        """Take over the socket at which invited processes connect; one is enough."""
        message, (descriptor,) = received
        assert isinstance(message, w.Listen)
        if self._rendezvous is None:
            self._listen_at(descriptor, message.secret)
        else:
            os.close(descriptor)

    def _listen_at(self, listener: int, secret: str) -> None:
        """Make clients of the processes that connect to a socket and know the secret."""
        # Here, for most pagers serve no process that was not forked from their first one.
        from lazyarr.pager.lifecycle.rendezvous import Rendezvous

        def join(descriptor: int) -> None:
            # In the ledger first, and told to the process last: see `Rendezvous`.
            self._ledger.enter_join(w.Join([]), descriptor)
            self._join(descriptor, ())

        self._rendezvous = Rendezvous(
            listener,
            secret,
            watch=self._watch,
            join=join,
            settings=lambda: self._policy.settings,
        )

    def _on_open_channel(self, client: Client, _: Channel, received: Received) -> None:
        """Listen to one more channel of a client."""
        # Not entered in the ledger: it ends with the worker, by which the client learns of
        # the worker's death.
        self._add_channel(client, Channel.from_descriptor(received.descriptors[0]))

    def _on_want_failure(self, client: Client, channel: Channel, received: Received) -> None:
        """Tell a client's main thread which failure it raises."""
        message = received.message
        assert isinstance(message, w.WantFailure)
        # Faults that the main thread took before it raises are read now.  Read later, they would
        # count as new ones, and could poison a page under a thread that runs Python.
        self._on_faults(client)
        self._executor.end_raising(client, message.ticket, channel)

    def _hear_first(self, client: Client, channel: Channel) -> None:
        """Handle what a client has sent on its first channel before it sent a question.

        It may have opened there the region that the question is about, or have announced a
        child that has this region too.
        """
        # Sockets keep no order among each other, so what was sent first may be heard last.
        first = client.channels[0] if client.channels else channel
        if first is not channel and not self._on_messages(client, first):
            raise shortage("hear what was said before")


def _refusal(message: w.Message) -> dict[str, str]:
    """Return the failure of a question that is refused."""
    reason = "the process that saw to it died, repeatedly"
    what = type(message).__name__
    return {"message": f"cannot serve a {what} message: {reason}", "reason": reason}


def _prepare(inflight: InflightRecord) -> None:
    """Import modules before a client waits for them."""
    # The codec and the checksum of most arrays: the first chunk needs them.
    import google_crc32c  # noqa: F401
    import zstandard  # noqa: F401

    inflight.prepare()
    # Needed now and then, or when something goes wrong.  An import opens files, and there may be
    # no descriptor for that by then.
    import lazyarr.pager.lifecycle.rendezvous
    import lazyarr.pager.service.neighbours
    import lazyarr.store.failure  # noqa: F401


def _die(error: BaseException) -> None:
    """End this worker at once; the next one serves the threads that wait."""
    # All threads end with it, unlike after an exception: a step that was broken off may
    # have left a record that is ahead of the memory.
    if isinstance(error, DecoderDiedError):
        os._exit(EX_DECODER)  # the supervisor knows how it died, and says so
    report(f"the pager ends: {type(error).__name__}: {error}{_where(error)}")
    os._exit(70)  # EX_SOFTWARE


def _where(error: BaseException) -> str:
    """Return where an error was raised, as lines that follow a message."""
    try:
        # Here, for most pagers never need it.
        from traceback import format_tb

        return "\n" + "".join(format_tb(error.__traceback__)).rstrip()
    except Exception:  # noqa: BLE001 - a worker without descriptors cannot import
        return ""

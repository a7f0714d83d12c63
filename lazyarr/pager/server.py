"""The pager: sockets and userfaultfds in, events for the state machine out."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lazyarr.errors import KernelError, LazyarrError, PagerError
from lazyarr.kernel import Features, Userfaultfd, pidfd_open
from lazyarr.pager.checking import check_hello, read_settings
from lazyarr.pager.clients import Arena, Client
from lazyarr.pager.crew import Crew
from lazyarr.pager.decoders import DecoderDiedError
from lazyarr.pager.excuses import MainThread
from lazyarr.pager.executor import Executor
from lazyarr.pager.journal import Journal
from lazyarr.pager.log import report
from lazyarr.pager.measure import Measurements
from lazyarr.pager.policy import Policy
from lazyarr.pager.rendezvous import Rendezvous
from lazyarr.pager.requests import Requests
from lazyarr.pager.sharing import Sharing
from lazyarr.pager.supervisor import EX_DECODER
from lazyarr.pager.watching import Rank, Watch
from lazyarr.plan import messages as m
from lazyarr.plan.machine import Machine
from lazyarr.wire import messages as w
from lazyarr.wire.channel import Channel, Received, close_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazyarr.pager.board import Board
    from lazyarr.wire.ledger import ClientRecord, Ledger, RegionRecord

__all__ = ["Pager"]

# What comes of a message that is not what it should be.  Anything else is a mistake of
# the pager's own: it ends, and another worker starts from what is known to be right.
_REFUSED = (LazyarrError, OSError, LookupError, ValueError, OverflowError)


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
        measurements = Measurements()
        self._executor = Executor(Machine(0), measurements, board=board, doomed=doomed)
        self._journal = Journal(supervisor, ledger)
        self._sharing = Sharing(self._executor, self._journal)
        self._rendezvous: Rendezvous | None = None
        self._welcomed: set[int] = set()
        self._board = board
        self._watch = Watch()
        self._n_joining = 0
        self._policy = Policy(self._executor, measurements, failed=_die)
        self._requests = Requests(
            self._executor,
            self._journal,
            sharing=self._sharing,
            policy=self._policy,
            measurements=measurements,
            board=board,
            hear_first=self._hear_first,
        )
        self._handlers: dict[type, Callable[[Client, Channel, Received], None]] = {
            w.Hello: self._on_repeated,
            w.Join: self._on_join,
            w.Listen: self._on_listen,
            w.OpenChannel: self._on_open_channel,
            w.WantFailure: self._on_want_failure,
            **self._requests.handlers,
        }
        loads = self._executor.loads
        self._crew = loads.crew = Crew(
            1, ears=self._watch.fileno(), listen=self._watch.listen, failed=_die
        )
        loads.make_fetcher = self._policy.make_fetcher
        decoders = loads.decoders
        decoders.hire, decoders.unwatch = self._journal.hire, self._watch.remove
        decoders.watch = lambda fd, handler: self._watch.add(fd, Rank.MESSAGE, handler)
        self._watch.add(supervisor.fileno(), Rank.MESSAGE, self._on_supervisor)
        self._watch.add(self._sharing.fileno(), Rank.MESSAGE, self._sharing.give_answers)
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
        self._executor.loads.decoders.close()

    def _on_supervisor(self) -> None:
        """Answer the supervisor; go on without it when it is gone."""
        if not self._journal.answer():
            self._watch.remove(self._journal.fileno())

    def _take_over(self, ledger: Ledger) -> None:
        """Serve everybody whom a worker before this one has served."""
        for number, record in ledger.clients.items():
            self._take_over_client(number, record)
        if ledger.settings:
            self._policy.go_by(ledger.settings)
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
            self._requests.take_over_region(number, record, arena)
        except _REFUSED as error:
            report(f"cannot take over region {number}: {error}")
            for name in record.addresses:
                if name in self._executor.clients:
                    self._on_exit(self._executor.clients[name])

    # --- clients come and go ----------------------------------------------------

    def _welcome(self, number: int, channel: Channel) -> None:
        """Wait for what somebody who wants to be a client says first."""
        self._n_joining += 1
        self._welcomed.add(number)
        self._watch.add(
            channel.fileno(), Rank.MESSAGE, lambda: self._on_first_word(number, channel)
        )

    def _on_first_word(self, number: int, channel: Channel) -> None:
        self._watch.remove(channel.fileno())
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
            close_all(received.descriptors)
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
        if not self._policy.settings:
            self._policy.go_by(hello.settings)
        client.main.signal = read_settings(hello.settings).raise_signal
        self._watch.add(client.pidfd, Rank.EXIT, lambda: self._on_exit(client))
        self._watch.add(uffd, Rank.FAULT, lambda: self._on_faults(client))
        self._add_channel(client, channel)

    def _add_channel(self, client: Client, channel: Channel) -> None:
        client.channels.append(channel)
        self._watch.add(channel.fileno(), Rank.MESSAGE, lambda: self._on_messages(client, channel))

    def _on_exit(self, client: Client) -> None:
        for watched in (client.pidfd, client.uffd.fileno()):
            self._watch.remove(watched)
        for channel in client.channels:
            self._watch.remove(channel.fileno())
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
        self._watch.remove(channel.fileno())
        client.channels.remove(channel)
        channel.close()
        # It may have called exec, or have named another process as itself.
        if not client.is_alive():
            self._on_exit(client)

    def _on_repeated(self, _: Client, __: Channel, received: Received) -> None:
        """Ignore what the worker before this one has entered and not taken away."""
        close_all(received.descriptors)

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
            watch=lambda fd, handler: self._watch.add(fd, Rank.MESSAGE, handler),
            unwatch=self._watch.remove,
            join=join,
            settings=lambda: self._policy.settings,
        )

    def _on_open_channel(self, client: Client, _: Channel, received: Received) -> None:
        self._add_channel(client, Channel.from_descriptor(received.descriptors[0]))

    def _on_want_failure(self, client: Client, channel: Channel, received: Received) -> None:
        message = received.message
        assert isinstance(message, w.WantFailure)
        self._on_faults(client)  # what the main thread has said before is old news after this
        self._executor.end_excuse(client, message.ticket, channel)

    def _hear_first(self, client: Client, channel: Channel) -> None:
        """Handle what a client has said on its first channel before it said something here.

        It may have opened the region in question there a moment before, or announced
        a child that has it too.
        """
        if client.channels and client.channels[0] is not channel:
            self._on_messages(client, client.channels[0])


def _prepare(board: Board) -> None:
    """Have at hand what the first chunk of most arrays needs, before somebody waits for it."""
    import google_crc32c  # noqa: F401
    import zstandard  # noqa: F401

    board.prepare()


def _die(error: BaseException) -> None:
    """End at once: another worker takes over, and whoever waits is served by that."""
    if isinstance(error, DecoderDiedError):
        os._exit(EX_DECODER)  # the supervisor knows how it died, and says so
    report(f"the pager ends: {type(error).__name__}: {error}")
    os._exit(70)  # EX_SOFTWARE

"""Keeps a worker running: when one dies, another takes over its clients and regions.

The supervisor does nothing that could kill it: it decodes nothing, and imports
nothing but the wire and the kernel.  The worker has each message of a client entered in the
ledger here before it acts on the message, and removes the message from the client's channel
after that.  So what a dead worker knew is in the ledger, or still in a channel that is open here
too.
"""

from __future__ import annotations

import itertools
import os
import select
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

from lazyarr.errors import KernelError, PagerError
from lazyarr.pager.lifecycle.inflight_record import Deed, InflightRecord
from lazyarr.pager.log import report
from lazyarr.wire.channel import Channel, Received, channel_pair
from lazyarr.wire.ledger import ClientRecord, Ledger, record_of
from lazyarr.wire.messages import Hire, Ping, Pong, Record

__all__ = ["DEADLY", "EX_DECODER", "Supervisor"]

DEADLY = 3
"""A unit or a question that was on its way in this many crashes in a row is refused."""

EX_DECODER = 71
"""The exit status of a worker that ends because one of its decoders has died."""

# An operator, or a machine short of memory, kills a worker whatever it is loading.  So a kill
# says less of the unit than a crash does, and counts a quarter of one.
_KILLS_PER_CRASH = 4
_KILLED = (-signal.SIGKILL, -signal.SIGTERM)

# The decoders' slots of the in-flight record begin here.  The worker has those before it.
_DECODERS_SLOT = 512

_STOP_SECONDS = 10.0  # until a client says otherwise
# Less would kill workers that do nothing wrong, and poll(2) takes no more than 24 days.
_LEAST_STOP_SECONDS, _MOST_STOP_SECONDS = 0.5, 86400.0
# A process that starts has to import its modules first, so it may be silent for longer than
# a short `stop_timeout`.
_START_SECONDS = 10.0
# A decoder's channel ends some moments before the process can be waited for, or after.
_END_SECONDS = 2.0
_PAUSE_SECONDS = 0.5
# A process is asked several times before it is killed: one question may come while this
# machine, and not the process, stands still.
_MAX_MISSED = 5
# Workers that die before they answer once will not do better later, and each costs a start.
_MAX_FRUITLESS = 3
_EX_SOFTWARE = 70

WorkerProgram: TypeAlias = Callable[[Channel, Ledger, InflightRecord, set[Deed]], None]
SentinelProgram: TypeAlias = Callable[[Channel], None]
DecoderProgram: TypeAlias = Callable[[Channel, socket.socket, InflightRecord, int], None]


class _Process:
    """A worker or a decoder, which must answer from time to time.

    Attributes
    ----------
    n_missed : int
        How many questions in a row the process has not answered.
    has_answered : bool
        Whether the process has answered at all.
    """

    def __init__(self, pid: int, channel: Channel) -> None:
        self.pid = pid
        self.channel = channel
        self.n_missed = 0
        self.has_answered = False

    def take_answer(self) -> None:
        """Take down that the process lives."""
        self.n_missed, self.has_answered = 0, True

    def ask(self, seconds: float) -> bool:
        """Ask the process to answer; return whether it has been silent for too long.

        Parameters
        ----------
        seconds : float
            How long ago the last question was.
        """
        self.n_missed += 1
        patience = seconds if self.has_answered else max(seconds, _START_SECONDS / _MAX_MISSED)
        if self.n_missed * seconds > patience * _MAX_MISSED:
            return True
        try:
            self.channel.send(Ping(), wait=False)
        except PagerError:
            # The process has ended, or does not read.  Either way no answer will come.
            return False
        return False

    def end(self) -> int:
        """Wait for the process to end, close its channel, and return its exit status."""
        self.channel.close()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


class Supervisor:
    """Runs workers, one after the other, until one ends because no client is left.

    Parameters
    ----------
    control : int
        The pager's end of the first client's channel.
    work : callable
        The worker's program, run in a forked process; it returns when no client is left.
    keep_watch : callable
        The sentinel's program, run in a forked process.
    decode : callable
        The decoders' program, run in a forked process for each.
    """

    def __init__(
        self,
        control: int,
        *,
        work: WorkerProgram,
        keep_watch: SentinelProgram,
        decode: DecoderProgram,
    ) -> None:
        self._ledger = Ledger()
        self._ledger.clients[0] = ClientRecord(control)
        self._inflight = InflightRecord()
        self._work = work
        self._keep_watch = keep_watch
        self._decode = decode
        self._decoders: dict[int, _Process] = {}
        self._next_slot = _DECODERS_SLOT
        self._deaths: Counter[Deed] = Counter()
        self._is_stuck = False
        self._decoder_status = 0
        self._sentinel: Channel | None = None
        self._stop_seconds = _STOP_SECONDS

    def __repr__(self) -> str:
        return f"<Supervisor: {self._ledger!r}, {self._inflight.n_deaths} workers lost>"

    def run(self) -> None:
        """Return when the last client is gone, or when no worker can be kept alive."""
        n_fruitless = 0
        while n_fruitless < _MAX_FRUITLESS:
            # The next worker refuses each of these once, and then tries again: the
            # store may have been mended by the next touch.
            doomed = {
                deed for deed, count in self._deaths.items() if count >= DEADLY * _KILLS_PER_CRASH
            }
            # Nobody writes on the record now: the worker has ended, and its decoders
            # with it.
            self._inflight.clear()
            # Forked and not started anew: the worker inherits all descriptors in the
            # ledger, and needs no time to start an interpreter.
            worker = self._fork(partial(self._run_worker, doomed))
            self._watch(worker)
            status = worker.end()
            # What a decoder installs late could be older than what the next worker
            # finds in the store.  So all of them have ended before that begins.
            self._dismiss_decoders(is_one_dead=status == EX_DECODER)
            if status == 0:
                return
            n_fruitless = 0 if worker.has_answered else n_fruitless + 1
            self._inflight.n_deaths += 1
            who = "the pager's worker"
            if self._decoder_status:
                who, status = "a process that decodes for the pager", self._decoder_status
            # A worker that was stuck was killed by this process.  Being stuck says as
            # much of the unit as a crash does.
            was_killed = status in _KILLED and not self._is_stuck
            weight = 1 if was_killed else _KILLS_PER_CRASH
            # Only what is on the record now is kept: crashes count while they come in a
            # row.
            self._deaths = Counter({d: self._deaths[d] + weight for d in self._inflight.read()})
            report(f"{who} {_describe(status)}; another takes over")
        report(f"the pager gives up: {n_fruitless} workers died before they could work")

    def _run_worker(self, doomed: set[Deed], channel: Channel) -> None:
        self._work(channel, self._ledger, self._inflight, doomed)

    def _fork(self, act: Callable[[Channel], None]) -> _Process:
        """Fork a process that runs a function and ends; return the process."""
        ours, theirs = channel_pair()
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            raise
        if pid:
            theirs.close()
            return _Process(pid, ours)
        status = _EX_SOFTWARE
        try:
            ours.close()
            # The sentinel takes the end of this channel for the supervisor's end.  A
            # copy in a worker would keep the channel open, and threads that wait would
            # wait for ever.
            if self._sentinel is not None:
                self._sentinel.close()
            act(theirs)
            status = 0
        except BaseException as error:  # noqa: BLE001 - the process ends here
            report(f"a process of the pager ends: {type(error).__name__}: {error}")
        finally:
            # Never back into the supervisor's code, of which this process is a copy,
            # and past all handlers that modules have registered for the supervisor's
            # exit.
            os._exit(status)

    def _watch(self, worker: _Process) -> None:
        """Keep the ledger until the worker has ended.

        A worker or decoder that has not answered for `stop_timeout` is killed: it is stopped or
        stuck.  A process that starts is given longer where `stop_timeout` is short.  Only
        intervals in which the supervisor itself ran count, so a machine that slept kills nobody.
        """
        self._poll = select.poll()
        self._poll.register(worker.channel.fileno(), select.POLLIN)
        self._is_stuck, self._decoder_status = False, 0
        asked = time.monotonic()
        while True:
            seconds = self._stop_seconds / _MAX_MISSED
            ready = self._poll.poll(max(0.0, asked + seconds - time.monotonic()) * 1000)
            # One question, however long the interval was: this process may have been
            # stopped itself, and the worker with it.
            if time.monotonic() >= asked + seconds:
                asked = time.monotonic()
                for process in (worker, *self._decoders.values()):
                    if process.ask(seconds):
                        self._is_stuck = True
                        # Nothing weaker ends a process that is stopped (SIGSTOP). Its
                        # end is seen on its channel, as that of any other.
                        os.kill(process.pid, signal.SIGKILL)
            for descriptor, _ in ready:
                if descriptor != worker.channel.fileno():
                    self._hear_decoder(descriptor)
                elif not self._hear_worker(worker):
                    return

    def _hear_worker(self, worker: _Process) -> bool:
        """Do what the worker's next message says; return False when the worker has ended."""
        try:
            received = worker.channel.receive(peek=True)
        except KernelError as error:
            # No descriptor is free for those of the message.  The message stays in the
            # channel: dropped, it would leave a client out of the ledger.
            report(f"the pager's supervisor waits: {error}")
            # The poll would return at once.  The whole system may lack descriptors, and
            # that passes.
            time.sleep(_PAUSE_SECONDS)
            return True
        if received is None:
            return False
        worker.channel.drop()
        # Any message shows that the worker lives.  A worker that is busy with clients
        # may come to the question late.
        worker.take_answer()
        if isinstance(received.message, Hire):
            self._start_decoder(received)
        elif not isinstance(received.message, Pong):
            self._enter(received)
        elif self._sentinel is None:
            # With the `Pong` that the worker sends when it has taken over: this fork is
            # not in the way of the worker's start.
            self._start_sentinel()
        return True

    # --- decoders -----------------------------------------------------------------------

    def _start_decoder(self, received: Received) -> None:
        """Fork a decoder, a process that decodes for the worker."""
        (descriptor,) = received.descriptors
        message = received.message
        assert isinstance(message, Hire)
        slot, self._next_slot = self._next_slot, self._next_slot + message.threads

        def act(theirs: Channel) -> None:
            # Each job brings the descriptors that it needs.  A copy of a channel or a
            # lifeline here would keep it open when its owner has died.
            _close_all_but(theirs.fileno(), descriptor, self._inflight.fileno())
            self._inflight.start_at(slot)
            self._decode(theirs, socket.socket(fileno=descriptor), self._inflight, message.threads)

        try:
            decoder = self._fork(act)
        except OSError as error:
            report(f"the pager goes on without another process that decodes: {error}")
            # The worker goes on too.  It sees the end of its socket, as this end is closed.
            return
        finally:
            os.close(descriptor)
        self._decoders[decoder.channel.fileno()] = decoder
        self._poll.register(decoder.channel.fileno(), select.POLLIN)

    def _hear_decoder(self, descriptor: int) -> None:
        """Take down that a decoder lives, or how it has ended."""
        if self._decoders[descriptor].channel.receive() is None:
            self._poll.unregister(descriptor)
            self._take_end(self._decoders.pop(descriptor))
        else:
            self._decoders[descriptor].take_answer()

    def _take_end(self, decoder: _Process) -> None:
        """Take down how a decoder has ended.

        The worker ends because of it, unless the decoder had not begun to work.
        """
        status = decoder.end()
        if decoder.has_answered:
            self._decoder_status = status or self._decoder_status
        elif status:
            report(f"a process that was to decode for the pager {_describe(status)}")

    def _dismiss_decoders(self, *, is_one_dead: bool) -> None:
        """End the decoders of a worker that has ended.

        The next worker takes everything out of memory, and nothing may be installed after that.

        Parameters
        ----------
        is_one_dead : bool
            Whether the worker has ended because a decoder died.
        """
        if is_one_dead:
            # The report is about the decoder, so its exit status is needed.  The worker may have
            # seen the end of that process before this one does.
            self._find_dead_decoder()
        for decoder in self._decoders.values():
            os.kill(decoder.pid, signal.SIGKILL)
            decoder.end()
        self._decoders.clear()
        self._next_slot = _DECODERS_SLOT

    def _enter(self, received: Received) -> None:
        """Enter a record in the ledger, and tell the sentinel of its client."""
        try:
            self._ledger.enter(received)
        except (PagerError, LookupError) as error:
            report(f"the pager's supervisor cannot enter a record: {error}")
            return
        assert isinstance(received.message, Record)
        self._take_settings(self._ledger.settings)
        self._tell_sentinel(received.message.client)

    def _take_settings(self, settings: dict[str, Any]) -> None:
        """Take over `stop_timeout`, the one setting that concerns the supervisor."""
        # Whatever a client has sent: an error here ends the supervisor.
        seconds = settings.get("stop_timeout")
        if isinstance(seconds, int | float) and seconds > 0:
            self._stop_seconds = float(min(max(seconds, _LEAST_STOP_SECONDS), _MOST_STOP_SECONDS))

    def _find_dead_decoder(self) -> None:
        """Find the exit status of the decoder whose death has ended the worker.

        The other decoders end without an error when they see that the worker has ended.
        """
        poll = select.poll()
        for descriptor in self._decoders:
            # No event but the hang-up, which is always reported (poll(2)). An answer
            # that is still unread must not be taken for an end.
            poll.register(descriptor, 0)
        deadline = time.monotonic() + _END_SECONDS
        while self._decoders and not self._decoder_status:
            for descriptor, _ in poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                poll.unregister(descriptor)
                self._decoder_status = self._decoders.pop(descriptor).end() or self._decoder_status
            if time.monotonic() >= deadline:
                return

    # --- the sentinel ---------------------------------------------------------------

    def _start_sentinel(self) -> None:
        """Fork the sentinel, which is left when the supervisor and the worker are killed."""

        def act(theirs: Channel) -> None:
            # No channel of a client may stay open here: a client whose pager is killed
            # would never see the end of its channel.  The sentinel gets the
            # descriptors that it needs with each record.
            _close_all_but(theirs.fileno())
            self._keep_watch(theirs)

        self._sentinel = self._fork(act).channel
        for client in self._ledger.clients:
            self._tell_sentinel(client)

    def _tell_sentinel(self, client: int) -> None:
        """Tell the sentinel of a client, or of the client's end.

        A sentinel that has ended is let go of.  The worker's next answer starts another.
        """
        if self._sentinel is None:
            return
        known = self._ledger.clients.get(client)
        hello = known.hello if known is not None else None
        # The userfaultfds and the lifeline.  A sentinel poisons faults and fills
        # nothing, so it needs no memory object.
        descriptors: tuple[int, ...] = ()
        if known is not None and hello is not None:
            descriptors = (known.descriptors[0], *known.descriptors[3:])
        try:
            self._sentinel.send(record_of(client, hello), descriptors)
        except PagerError:
            self._sentinel.close()
            self._sentinel = None


def _close_all_but(*keep: int) -> None:
    """Close every descriptor but these and the standard ones."""
    # Gap by gap, each in one call of close_range(2): the limit of descriptors may be in
    # the millions.
    ends = [2, *sorted(keep), os.sysconf("SC_OPEN_MAX")]
    for before, after in itertools.pairwise(ends):
        os.closerange(before + 1, after)


def _describe(status: int) -> str:
    """Return how a process has ended, to follow its name."""
    return f"ended with {status}" if status > 0 else f"died of {signal.Signals(-status).name}"

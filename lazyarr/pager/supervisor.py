"""Keeps a worker running: when one dies, another takes over what it served.

The supervisor does nothing that could kill it: it decodes nothing, and imports
nothing but the wire.  The worker tells it what clients say before acting on it, and
reads it off the client's channel only then, so that whatever the worker knew is
either in the ledger here or still in the channel, which is open here too.
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

from lazyarr.errors import PagerError
from lazyarr.pager.board import Board
from lazyarr.pager.log import report
from lazyarr.wire.channel import Channel, Received, channel_pair
from lazyarr.wire.ledger import ClientRecord, Ledger, record_of
from lazyarr.wire.messages import Hire, Ping, Pong, Record

__all__ = ["DEADLY", "EX_DECODER", "Supervisor"]

DEADLY = 3
"""A unit that was on its way in this many crashes in a row is not loaded again at once."""

EX_DECODER = 71
"""How a worker ends when a process has died that decodes for it."""

# Who kills workers from outside, or a machine short of memory, says less of what they were
# at than a crash does.
_KILLS_PER_CRASH = 4
_KILLED = (-signal.SIGKILL, -signal.SIGTERM)

# The slots of the board that are not the worker's own begin here.
_DECODERS_SLOT = 512

_STOP_SECONDS = 10.0  # until a client says otherwise
_START_SECONDS = 10.0
_BURY_SECONDS = 2.0
_MAX_MISSED = 5
_MAX_FRUITLESS = 3
_EX_SOFTWARE = 70

Work: TypeAlias = Callable[[Channel, Ledger, Board, set[tuple[int, int]]], None]
Watch: TypeAlias = Callable[[Channel], None]
Decode: TypeAlias = Callable[[Channel, socket.socket, Board, int], None]


class _Process:
    """A process that must answer from time to time.

    Attributes
    ----------
    n_missed : int
        How many questions in a row it has not answered.
    has_answered : bool
        Whether it has ever.
    """

    def __init__(self, pid: int, channel: Channel) -> None:
        self.pid = pid
        self.channel = channel
        self.n_missed = 0
        self.has_answered = False

    def take_answer(self) -> None:
        """Take down that it lives."""
        self.n_missed, self.has_answered = 0, True

    def ask(self, seconds: float) -> bool:
        """Ask it to answer; return whether it has not for too long.

        Parameters
        ----------
        seconds : float
            How long ago it was asked before.
        """
        self.n_missed += 1
        patience = seconds if self.has_answered else max(seconds, _START_SECONDS / _MAX_MISSED)
        if self.n_missed * seconds > patience * _MAX_MISSED:
            return True
        try:
            self.channel.send(Ping(), wait=False)
        except PagerError:
            # It is gone, or does not read: either way it is missed.
            return False
        return False

    def end(self) -> int:
        """Wait for its end, close the channel, and return how it ended."""
        self.channel.close()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


class Supervisor:
    """Runs workers, one after the other, until one of them says that all is done.

    Parameters
    ----------
    control : int
        The pager's end of the first client's channel.
    work : callable
        What a worker does, in a forked process of its own; when it returns all is done.
    keep_watch : callable
        What the sentinel does, likewise.
    decode : callable
        What a process does that decodes for the worker.
    """

    def __init__(self, control: int, *, work: Work, keep_watch: Watch, decode: Decode) -> None:
        self._ledger = Ledger()
        self._ledger.clients[0] = ClientRecord(control)
        self._board = Board()
        self._work = work
        self._keep_watch = keep_watch
        self._decode = decode
        self._decoders: dict[int, _Process] = {}
        self._next_slot = _DECODERS_SLOT
        self._deaths: Counter[tuple[int, int]] = Counter()
        self._is_stuck = False
        self._decoder_status = 0
        self._sentinel: Channel | None = None
        self._stop_seconds = _STOP_SECONDS

    def __repr__(self) -> str:
        return f"<Supervisor: {self._ledger!r}, {self._board.n_deaths} workers lost>"

    def run(self) -> None:
        """Return when the last client is gone, or when no worker can be kept alive."""
        n_fruitless = 0
        while n_fruitless < _MAX_FRUITLESS:
            doomed = {
                unit for unit, count in self._deaths.items() if count >= DEADLY * _KILLS_PER_CRASH
            }
            self._board.clear()
            worker = self._fork(partial(self._run_worker, doomed))
            self._watch(worker)
            status = worker.end()
            self._dismiss_decoders(is_one_dead=status == EX_DECODER)
            if status == 0:
                return
            n_fruitless = 0 if worker.has_answered else n_fruitless + 1
            self._board.n_deaths += 1
            who = "the pager's worker"
            if self._decoder_status:
                who, status = "a process that decodes for the pager", self._decoder_status
            was_killed = status in _KILLED and not self._is_stuck
            weight = 1 if was_killed else _KILLS_PER_CRASH
            self._deaths = Counter({u: self._deaths[u] + weight for u in self._board.read()})
            report(f"{who} {_describe(status)}; another takes over")
        report(f"the pager gives up: {n_fruitless} workers died before they could work")

    def _run_worker(self, doomed: set[tuple[int, int]], channel: Channel) -> None:
        self._work(channel, self._ledger, self._board, doomed)

    def _fork(self, act: Callable[[Channel], None]) -> _Process:
        """Fork a process that does something; return it."""
        ours, theirs = channel_pair()
        pid = os.fork()
        if pid:
            theirs.close()
            return _Process(pid, ours)
        status = _EX_SOFTWARE
        try:
            ours.close()
            if self._sentinel is not None:
                self._sentinel.close()
            act(theirs)
            status = 0
        except BaseException as error:  # noqa: BLE001 - the process ends here
            report(f"a process of the pager ends: {type(error).__name__}: {error}")
        finally:
            os._exit(status)

    def _watch(self, worker: _Process) -> None:
        """Keep the ledger until the worker is gone.

        A worker, or a process that decodes for it, that does not answer for `stop_timeout`,
        stopped or stuck, is killed; one that starts is given longer where that is short.
        Only intervals in which this process ran itself count, so that a machine that
        slept is no reason.
        """
        self._poll = select.poll()
        self._poll.register(worker.channel.fileno(), select.POLLIN)
        self._is_stuck, self._decoder_status = False, 0
        asked = time.monotonic()
        while True:
            seconds = self._stop_seconds / _MAX_MISSED
            ready = self._poll.poll(max(0.0, asked + seconds - time.monotonic()) * 1000)
            if time.monotonic() >= asked + seconds:
                asked = time.monotonic()
                for process in (worker, *self._decoders.values()):
                    if process.ask(seconds):
                        self._is_stuck = True
                        os.kill(process.pid, signal.SIGKILL)
            for descriptor, _ in ready:
                if descriptor != worker.channel.fileno():
                    self._hear_decoder(descriptor)
                elif not self._hear_worker(worker):
                    return

    def _hear_worker(self, worker: _Process) -> bool:
        """Do what the worker says; return False when it is gone."""
        received = worker.channel.receive()
        if received is None:
            return False
        worker.take_answer()
        if isinstance(received.message, Hire):
            self._start_decoder(received)
        elif not isinstance(received.message, Pong):
            self._enter(received)
        elif self._sentinel is None:
            self._start_sentinel()
        return True

    # --- processes that decode --------------------------------------------------------

    def _start_decoder(self, received: Received) -> None:
        """Fork a process that decodes for the worker."""
        (descriptor,) = received.descriptors
        message = received.message
        assert isinstance(message, Hire)
        slot, self._next_slot = self._next_slot, self._next_slot + message.threads

        def act(theirs: Channel) -> None:
            _close_all_but(theirs.fileno(), descriptor, self._board.fileno())
            self._board.start_at(slot)
            self._decode(theirs, socket.socket(fileno=descriptor), self._board, message.threads)

        decoder = self._fork(act)
        os.close(descriptor)
        self._decoders[decoder.channel.fileno()] = decoder
        self._poll.register(decoder.channel.fileno(), select.POLLIN)

    def _hear_decoder(self, descriptor: int) -> None:
        """Take down that a process that decodes lives, or has died."""
        if self._decoders[descriptor].channel.receive() is None:
            self._poll.unregister(descriptor)
            self._bury(self._decoders.pop(descriptor))
        else:
            self._decoders[descriptor].take_answer()

    def _bury(self, decoder: _Process) -> None:
        """Take down how a process that decodes has ended: the worker ends of it too.

        But not of one that had not begun.
        """
        status = decoder.end()
        if decoder.has_answered:
            self._decoder_status = status or self._decoder_status
        elif status:
            report(f"a process that was to decode for the pager {_describe(status)}")

    def _dismiss_decoders(self, *, is_one_dead: bool) -> None:
        """End what decodes for a worker that is gone.

        Nothing may be installed any more when the next worker takes everything out.  One
        that has died itself may not have closed its channel yet, and is waited for.
        """
        if is_one_dead:
            self._await_death()
        for decoder in self._decoders.values():
            os.kill(decoder.pid, signal.SIGKILL)
            decoder.end()
        self._decoders.clear()
        self._next_slot = _DECODERS_SLOT

    def _enter(self, received: Received) -> None:
        try:
            self._ledger.enter(received)
        except (PagerError, LookupError) as error:
            report(f"the pager's supervisor cannot enter a record: {error}")
            return
        assert isinstance(received.message, Record)
        self._take_settings(self._ledger.settings)
        self._tell_sentinel(received.message.client)

    def _take_settings(self, settings: dict[str, Any]) -> None:
        """Take over what concerns this process of a client's settings."""
        seconds = settings.get("stop_timeout")
        if isinstance(seconds, int | float) and seconds > 0:
            self._stop_seconds = float(seconds)

    def _await_death(self) -> None:
        """Find out how the one of them has died that the worker ended for.

        The others end by themselves, with no error, when they see that the worker is gone.
        """
        poll = select.poll()
        for descriptor in self._decoders:
            poll.register(descriptor, 0)
        deadline = time.monotonic() + _BURY_SECONDS
        while self._decoders and not self._decoder_status:
            for descriptor, _ in poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                poll.unregister(descriptor)
                self._decoder_status = self._decoders.pop(descriptor).end() or self._decoder_status
            if time.monotonic() >= deadline:
                return

    # --- the sentinel ---------------------------------------------------------------

    def _start_sentinel(self) -> None:
        """Fork the process that is left when this one is killed."""

        def act(theirs: Channel) -> None:
            _close_all_but(theirs.fileno())
            self._keep_watch(theirs)

        self._sentinel = self._fork(act).channel
        for client in self._ledger.clients:
            self._tell_sentinel(client)

    def _tell_sentinel(self, client: int) -> None:
        """Tell the sentinel of a client, or of its end; start another if it is gone."""
        if self._sentinel is None:
            return
        known = self._ledger.clients.get(client)
        hello = known.hello if known is not None else None
        descriptors = (known.descriptors[0], known.descriptors[3]) if known and hello else ()
        try:
            self._sentinel.send(record_of(client, hello), descriptors)
        except PagerError:
            self._sentinel.close()
            self._sentinel = None


def _close_all_but(*keep: int) -> None:
    """Close every descriptor but those, and standard ones."""
    ends = [2, *sorted(keep), os.sysconf("SC_OPEN_MAX")]
    for before, after in itertools.pairwise(ends):
        os.closerange(before + 1, after)


def _describe(status: int) -> str:
    return f"ended with {status}" if status > 0 else f"died of {signal.Signals(-status).name}"

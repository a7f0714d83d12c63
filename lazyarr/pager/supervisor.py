"""Keeps a worker running: when one dies, another takes over what it served.

The supervisor does nothing that could kill it: it decodes nothing, and imports
nothing but the wire.  The worker tells it what clients say before acting on it, and
reads it off the client's channel only then, so that whatever the worker knew is
either in the ledger here or still in the channel, which is open here too.
"""

from __future__ import annotations

import os
import select
import signal
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

from lazyarr.errors import PagerError
from lazyarr.pager.board import Board
from lazyarr.pager.log import report
from lazyarr.wire.channel import Channel, Received, channel_pair
from lazyarr.wire.ledger import ClientRecord, Ledger, record_of
from lazyarr.wire.messages import Ping, Pong, Record

__all__ = ["DEADLY", "Supervisor"]

DEADLY = 3
"""A unit that was on its way in this many crashes in a row is not loaded again at once."""

# Who kills workers from outside, or a machine short of memory, says less of what they were
# at than a crash does.
_KILLS_PER_CRASH = 4
_KILLED = (-signal.SIGKILL, -signal.SIGTERM)

_STOP_SECONDS = 10.0  # until a client says otherwise
_START_SECONDS = 10.0
_MAX_MISSED = 5
_MAX_FRUITLESS = 3
_EX_SOFTWARE = 70

Work: TypeAlias = Callable[[Channel, Ledger, Board, set[tuple[int, int]]], None]
Watch: TypeAlias = Callable[[Channel], None]


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
    """

    def __init__(self, control: int, *, work: Work, keep_watch: Watch) -> None:
        self._ledger = Ledger()
        self._ledger.clients[0] = ClientRecord(control)
        self._board = Board()
        self._work = work
        self._keep_watch = keep_watch
        self._deaths: Counter[tuple[int, int]] = Counter()
        self._is_stuck = False
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
            pid, channel = self._fork(partial(self._run_worker, doomed))
            was_useful = self._watch(channel, pid)
            channel.close()
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            if status == 0:
                return
            n_fruitless = 0 if was_useful else n_fruitless + 1
            self._board.n_deaths += 1
            was_killed = status in _KILLED and not self._is_stuck
            weight = 1 if was_killed else _KILLS_PER_CRASH
            self._deaths = Counter({u: self._deaths[u] + weight for u in self._board.read()})
            report(f"the pager's worker {_describe(status)}; another takes over")
        report(f"the pager gives up: {n_fruitless} workers died before they could work")

    def _run_worker(self, doomed: set[tuple[int, int]], channel: Channel) -> None:
        self._work(channel, self._ledger, self._board, doomed)

    def _fork(self, act: Callable[[Channel], None]) -> tuple[int, Channel]:
        """Fork a process that does something; return its process id and the channel to it."""
        ours, theirs = channel_pair()
        pid = os.fork()
        if pid:
            theirs.close()
            return pid, ours
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

    def _watch(self, channel: Channel, pid: int) -> bool:
        """Keep the ledger until the worker is gone; return whether it has ever worked.

        A worker that does not answer for `stop_timeout`, stopped or stuck, is killed; one
        that starts is given longer where that is short.  Only intervals in which this
        process ran itself count, so that a machine that slept is no reason.
        """
        poll = select.poll()
        poll.register(channel.fileno(), select.POLLIN)
        has_answered, n_missed, self._is_stuck = False, 0, False
        while True:
            least_seconds = 0.0 if has_answered else _START_SECONDS
            if not poll.poll(max(self._stop_seconds, least_seconds) / _MAX_MISSED * 1000):
                n_missed += 1
                if n_missed > _MAX_MISSED:
                    self._is_stuck = True
                    os.kill(pid, signal.SIGKILL)
                self._ping(channel)
                continue
            received = channel.receive()
            if received is None:
                return has_answered
            has_answered, n_missed = True, 0
            if not isinstance(received.message, Pong):
                self._enter(received)
            elif self._sentinel is None:
                self._start_sentinel()

    def _ping(self, channel: Channel) -> None:
        try:
            channel.send(Ping(), wait=False)
        except PagerError:
            # It is gone, or does not read: either way it is missed.
            return

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

    # --- the sentinel ---------------------------------------------------------------

    def _start_sentinel(self) -> None:
        """Fork the process that is left when this one is killed."""

        def act(theirs: Channel) -> None:
            keep = theirs.fileno()
            os.closerange(3, keep)
            os.closerange(keep + 1, os.sysconf("SC_OPEN_MAX"))
            self._keep_watch(theirs)

        _, self._sentinel = self._fork(act)
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


def _describe(status: int) -> str:
    return f"ended with {status}" if status > 0 else f"died of {signal.Signals(-status).name}"

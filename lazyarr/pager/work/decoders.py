"""The worker's side of the decoders, the processes that decode for it: which has which job.

docs/design/decoders.md says when they are worth it, and what they cost.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from lazyarr.errors import PagerError
from lazyarr.pager.work.loader import awaited_bytes, is_worth_parts
from lazyarr.wire.channel import rights_of
from lazyarr.wire.jobs import JOB_NBYTES, RESULT_NBYTES, Job, News, Result

if TYPE_CHECKING:
    from lazyarr.pager.work.core import Core
    from lazyarr.plan import messages as m
    from lazyarr.plan.machine import FastLoad

__all__ = ["DecoderDiedError", "Decoders", "Order"]

_FLAGS = int(socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
# So many threads decode in the worker itself, and in each decoder.  More would wait for their
# interpreter's lock.
_THREADS_EACH = 4
# Some jobs wait in each decoder, so that its threads have work while the worker is busy.  More
# would wait there while another decoder is idle, and could not be made urgent any more.
_MOST_EACH = _THREADS_EACH + 2
# After so many decoders that could not start, none is tried again.
_MAX_FAILED = 3
# A smaller unit is read and decoded in the time that handing it to a decoder takes.
_LEAST_NBYTES = 64 << 10


class DecoderDiedError(PagerError):
    """A decoder has died; the supervisor sees how, and reports it."""


class Order(NamedTuple):
    """A load that a decoder may do; `fast` if the fast path has begun it, and no event."""

    command: m.Load
    fast: FastLoad | None


class _Decoder:
    """One decoder: the socket to it, and its jobs by region and unit."""

    def __init__(self, jobs: socket.socket) -> None:
        self.jobs = jobs
        self.orders: dict[tuple[int, int], Order] = {}


def _n_orders(decoder: _Decoder) -> int:
    return len(decoder.orders)


class Decoders:
    """Has units loaded in other processes, where a machine has more cores than one can feed.

    The first decoder is started when there is a job for it, and another one when all are busy.

    Parameters
    ----------
    core : Core
        Knows where each client has each region.  Jobs are given out and results are read under its
        lock.  A decoder may have done a job before the thread that gave the job out goes on.
    refuse : callable
        Is given an order that the worker has to load itself after all.
    on_result : callable
        Is given an order and the result of its job; the lock is held.

    Attributes
    ----------
    max_processes : int
        How many decoders there may be; 0 where the worker decodes alone.
    hire : callable
        Asks for a decoder with so many threads, which takes its jobs from a socket.
    watch, unwatch : callable
        Have a function called when a descriptor is readable, or no longer.
    """

    def __init__(
        self,
        core: Core,
        *,
        refuse: Callable[[Order], None],
        on_result: Callable[[Order, Result], None],
    ) -> None:
        self._core = core
        self._refuse = refuse
        self._on_result = on_result
        self.hire: Callable[[int, int], None]
        self.watch: Callable[[int, Callable[[], None]], None]
        self.unwatch: Callable[[int], None]
        self.max_processes = 0
        self._starting: list[_Decoder] = []
        self._n_failed = 0
        self._ready: list[_Decoder] = []
        self._urgent: deque[Order] = deque()
        self._patient: deque[Order] = deque()

    def __repr__(self) -> str:
        n_waiting = len(self._urgent) + len(self._patient)
        return f"<Decoders: {len(self._ready)} processes, {n_waiting} jobs wait>"

    def __len__(self) -> int:
        return len(self._ready)

    def resize(self, n_threads: int) -> None:
        """Allow as many decoders that this number of threads decode; never fewer than before."""
        # Up to four threads are the worker's own.  A decoder more is an interpreter more.
        if n_threads > _THREADS_EACH:
            self.max_processes = max(self.max_processes, -(-n_threads // _THREADS_EACH))

    def add(self, order: Order) -> bool:
        """Take on a load; return False when the worker must do it itself.

        That is: the load is not one for a decoder, or no decoder is ready yet.
        """
        if not self._is_for_others(order.command):
            return False
        if not self._ready:
            # The load does not wait for a process that starts.
            self._grow()
            return False
        is_first = not (self._urgent or self._patient)
        (self._urgent if order.command.urgent else self._patient).append(order)
        # Where orders wait already, every decoder has as many as it may have.
        if is_first:
            self._feed(min(self._ready, key=_n_orders))
        if self._urgent or self._patient:
            self._grow()
        return True

    def promote(self, order: Order) -> None:
        """Make an order urgent that waits here; one that a decoder has is past hastening."""
        if order in self._patient:
            self._patient.remove(order)
            self._urgent.append(order)

    def _is_for_others(self, command: m.Load) -> bool:
        """Return whether a load is an ordinary one, which a decoder can do."""
        # One chunk of a local shard, as the whole of a large unit of whole pages.  A mark is
        # mapped nowhere, a replacement is punched out first, a network's chunks are in the
        # worker's memory, and what is written back is replaced in its store: all of that stays
        # here, so decoders have no special cases.
        region = self._core.regions[command.region]
        state = self._core.machine.region(command.region)
        return (
            not (command.mark or command.replaces or region.is_remote or region.kind.writes_back)
            and region.unit_nbytes >= _LEAST_NBYTES
            and region.source.can_lend
            and state is not None
            and command.unit < state.n_plain_units
        )

    def close(self) -> None:
        """Close the sockets of all decoders: a decoder ends when its jobs do."""
        for decoder in (*self._ready, *self._starting):
            decoder.jobs.close()
        self._ready.clear()
        self._starting.clear()

    # --- processes ------------------------------------------------------------------

    def _grow(self) -> None:
        """Start one more decoder, unless one is on its way or there are enough."""
        # One after the other: the first may be enough, and each takes a core while it starts.
        if self._starting or len(self._ready) >= self.max_processes:
            return
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError:
            return  # no descriptors are left; a later job tries again
        try:
            self.hire(_THREADS_EACH, theirs.fileno())
        except PagerError:
            self.max_processes = 0  # the supervisor is gone, and nobody else starts processes
            ours.close()
            return
        finally:
            theirs.close()
        decoder = _Decoder(ours)
        self._starting.append(decoder)
        self.watch(ours.fileno(), lambda: self._on_packet(decoder))

    def _on_packet(self, decoder: _Decoder) -> None:
        """Take in a result from a decoder, or its end.

        Raises
        ------
        DecoderDiedError
            When the decoder has died.  Nobody knows which of its jobs have installed pages, so
            this worker must end too.
        """
        with self._core.lock:
            try:
                packet = decoder.jobs.recv(RESULT_NBYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return  # another thread has read it
            except ConnectionResetError:
                packet = b""
            if packet:
                self._on_news(decoder, Result.decode(packet))
            elif decoder in self._ready:
                raise DecoderDiedError("a process that decodes has died")
            else:
                self._give_up(decoder)

    def _on_news(self, decoder: _Decoder, result: Result) -> None:
        """Take down that a decoder is ready, or what has become of one of its jobs."""
        if result.news is News.READY:
            self._starting.remove(decoder)
            self._ready.append(decoder)
            self._feed(decoder)
            return
        # A job that has told of its awaited pages is not done.
        key = (result.region, result.unit)
        order = decoder.orders[key] if result.news is News.ARRIVED else decoder.orders.pop(key)
        self._on_result(order, result)
        self._feed(decoder)

    def _give_up(self, decoder: _Decoder) -> None:
        """Go on without a decoder that could not start; after some of these, start no more."""
        # It has had no job, so nothing is left undone.
        self.unwatch(decoder.jobs.fileno())
        decoder.jobs.close()
        self._starting.remove(decoder)
        self._n_failed += 1
        if self._n_failed >= _MAX_FAILED:
            self.max_processes = 0

    # --- jobs -----------------------------------------------------------------------

    def _feed(self, decoder: _Decoder) -> None:
        """Give a decoder orders that wait, until it has enough."""
        while len(decoder.orders) < _MOST_EACH and (self._urgent or self._patient):
            order = (self._urgent or self._patient).popleft()
            if not self._give(decoder, order):
                self._refuse(order)

    def _give(self, decoder: _Decoder, order: Order) -> bool:
        """Send a job to a decoder; return False when the worker must do it itself."""
        # Looked at again: while the order has waited, the client may have ended or let go of the
        # region.
        command = order.command
        state = self._core.machine.region(command.region)
        client = self._core.clients.get(command.client)
        address = state.addresses.get(command.client) if state else None
        if state is None or client is None or address is None:
            return False
        region = self._core.regions[command.region]
        nbytes = state.geometry.unit_nbytes
        uffd = client.uffd_of(region.kind).fileno()
        awaited, in_parts = awaited_bytes(command, state), is_worth_parts(command, state)

        def send(file: int, start: int, encoded_nbytes: int) -> bool:
            packet = Job(
                command.region,
                command.unit,
                start,
                encoded_nbytes,
                address + command.unit * nbytes,
                nbytes,
                awaited,
                in_parts,
                command.is_pick,
                region.kind.copy_mode,
                region.pipeline,
            ).encode()
            try:
                decoder.jobs.sendmsg((packet,), (rights_of(uffd, file),), _FLAGS)
            except OSError:
                # The packet is too long, or the socket is full, or the decoder has died, which
                # `_on_packet` sees next.
                return False
            return True

        is_sent = len(region.pipeline) < JOB_NBYTES // 2 and region.source.lend(command.unit, send)
        if is_sent:
            decoder.orders[command.region, command.unit] = order
        return is_sent

"""The worker's side of the processes that decode for it: who has which job."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from lazyarr.errors import PagerError
from lazyarr.pager.loader import awaited_bytes, is_worth_parts
from lazyarr.wire.channel import rights_of
from lazyarr.wire.jobs import JOB_NBYTES, RESULT_NBYTES, Job, News, Result

if TYPE_CHECKING:
    import threading

    from lazyarr.pager.clients import Client, Region
    from lazyarr.plan import messages as m
    from lazyarr.plan.machine import Machine
    from lazyarr.plan.quick import Quick

__all__ = ["DecoderDiedError", "Decoders", "Order"]

_FLAGS = int(socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
# So many threads decode in the worker itself, or in each of the other processes.
_THREADS_EACH = 4
# A job that waits in a process keeps its threads busy while the worker is.
_MOST_EACH = _THREADS_EACH + 2
# So often is it tried to start one.
_MAX_FAILED = 3
# Less is read and decoded in the time that it takes to have it done elsewhere.
_LEAST_NBYTES = 64 << 10


class DecoderDiedError(PagerError):
    """A process that decodes has died; the supervisor sees how, and says so."""


class Order(NamedTuple):
    """A load, and what it was begun with if that was no event."""

    command: m.Load
    quick: Quick | None


class _Decoder:
    """One process: the socket to it, and what it has to do."""

    def __init__(self, jobs: socket.socket) -> None:
        self.jobs = jobs
        self.orders: dict[tuple[int, int], Order] = {}


def _n_orders(decoder: _Decoder) -> int:
    return len(decoder.orders)


class Decoders:
    """Has units loaded in other processes, where a machine has more cores than one can feed.

    None is started before there is something to do, and another one when all are busy.

    Parameters
    ----------
    machine : Machine
        Knows where each client has each region; asked, and told nothing.
    clients, regions : dict
        The executor's.
    lock : Lock
        The executor's.  Who gives out jobs holds it, and it is held while a packet is heard:
        a process may have done a job before the thread that gave it out goes on.
    refuse : callable
        Is given what has to be loaded in this process after all.
    on_result : callable
        Is told what has become of a job; the lock is held.

    Attributes
    ----------
    hire : callable
        Asks for a process with so many threads that does what comes on a socket.
    watch, unwatch : callable
        Have something called when a descriptor is readable, or no longer.
    """

    def __init__(
        self,
        machine: Machine,
        clients: dict[int, Client],
        regions: dict[int, Region],
        *,
        lock: threading.Lock,
        refuse: Callable[[Order], None],
        on_result: Callable[[Order, Result], None],
    ) -> None:
        self._machine = machine
        self._clients = clients
        self._regions = regions
        self._lock = lock
        self._refuse = refuse
        self._on_result = on_result
        self.hire: Callable[[int, int], None]
        self.watch: Callable[[int, Callable[[], None]], None]
        self.unwatch: Callable[[int], None]
        self._max_processes = 0
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
        """Have as many processes that this number of threads decode; never fewer."""
        if n_threads > _THREADS_EACH:
            self._max_processes = max(self._max_processes, -(-n_threads // _THREADS_EACH))

    def add(self, order: Order) -> bool:
        """Take on a load; return False when it is not for other processes, or none is there yet."""
        if not self._max_processes or not self._is_for_others(order.command):
            return False
        if not self._ready:
            self._grow()
            return False
        is_first = not (self._urgent or self._patient)
        (self._urgent if order.command.urgent else self._patient).append(order)
        if is_first:  # else everybody has enough
            self._feed(min(self._ready, key=_n_orders))
        if self._urgent or self._patient:
            self._grow()
        return True

    def promote(self, order: Order) -> None:
        """Let a load that waits be urgent."""
        if order in self._patient:
            self._patient.remove(order)
            self._urgent.append(order)

    def _is_for_others(self, command: m.Load) -> bool:
        region = self._regions[command.region]
        state = self._machine.region(command.region)
        return (
            not (command.mark or command.replaces or region.is_remote)
            and region.unit_nbytes >= _LEAST_NBYTES
            and region.source.can_lend
            and state is not None
            and command.unit < state.n_plain_units
        )

    def close(self) -> None:
        """Let go of everybody: a process whose jobs end, ends."""
        for decoder in (*self._ready, *self._starting):
            decoder.jobs.close()
        self._ready.clear()
        self._starting.clear()

    # --- processes ------------------------------------------------------------------

    def _grow(self) -> None:
        """Have one more process, unless one is on its way or there are enough."""
        if self._starting or len(self._ready) >= self._max_processes:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self.hire(_THREADS_EACH, theirs.fileno())
        except PagerError:
            self._max_processes = 0  # nobody is left who could start one
            ours.close()
            return
        finally:
            theirs.close()
        decoder = _Decoder(ours)
        self._starting.append(decoder)
        self.watch(ours.fileno(), lambda: self._on_packet(decoder))

    def _on_packet(self, decoder: _Decoder) -> None:
        """Hear what has become of a job.

        Raises
        ------
        DecoderDiedError
            As when a thread of this process dies, nobody knows what it has left undone.
        """
        with self._lock:
            try:
                packet = decoder.jobs.recv(RESULT_NBYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return  # another thread has heard it
            except ConnectionResetError:
                packet = b""
            if packet:
                self._on_news(decoder, Result.decode(packet))
            elif decoder in self._ready:
                raise DecoderDiedError("a process that decodes has died")
            else:
                self._give_up(decoder)

    def _on_news(self, decoder: _Decoder, result: Result) -> None:
        if result.news is News.READY:
            self._starting.remove(decoder)
            self._ready.append(decoder)
            self._feed(decoder)
            return
        key = (result.region, result.unit)
        order = decoder.orders[key] if result.news is News.ARRIVED else decoder.orders.pop(key)
        self._on_result(order, result)
        self._feed(decoder)

    def _give_up(self, decoder: _Decoder) -> None:
        """Go on without a process that could not even start; have no more after some."""
        self.unwatch(decoder.jobs.fileno())
        decoder.jobs.close()
        self._starting.remove(decoder)
        self._n_failed += 1
        if self._n_failed >= _MAX_FAILED:
            self._max_processes = 0

    # --- jobs -----------------------------------------------------------------------

    def _feed(self, decoder: _Decoder) -> None:
        """Give a process what waits, until it has enough."""
        while len(decoder.orders) < _MOST_EACH and (self._urgent or self._patient):
            order = (self._urgent or self._patient).popleft()
            if not self._give(decoder, order):
                self._refuse(order)

    def _give(self, decoder: _Decoder, order: Order) -> bool:
        """Send a job; return False when this process must do it."""
        command = order.command
        state = self._machine.region(command.region)
        client = self._clients.get(command.client)
        address = state.addresses.get(command.client) if state else None
        if state is None or client is None or address is None:
            return False
        region = self._regions[command.region]
        nbytes = state.geometry.unit_nbytes
        uffd, document = client.uffd.fileno(), region.message.document.encode()
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
                region.message.zarr_format,
                document,
            ).encode()
            try:
                decoder.jobs.sendmsg((packet,), (rights_of(uffd, file),), _FLAGS)
            except OSError:
                return False  # too long; or the end of that process is seen next
            return True

        is_sent = len(document) < JOB_NBYTES // 2 and region.source.lend(command.unit, send)
        if is_sent:
            decoder.orders[command.region, command.unit] = order
        return is_sent

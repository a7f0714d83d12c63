"""The worker's side of the ledger: a client's message is entered before the worker acts on it."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from lazyarr.errors import PagerError
from lazyarr.pager.checking import check_hello, check_listener
from lazyarr.wire.channel import Channel, close_all
from lazyarr.wire.ledger import record_of
from lazyarr.wire.messages import (
    AttachRegion,
    Hello,
    Hire,
    Join,
    Listen,
    Message,
    OpenRegion,
    Ping,
    Pong,
)

if TYPE_CHECKING:
    from lazyarr.wire.channel import Received
    from lazyarr.wire.ledger import Ledger

__all__ = ["LedgerClient", "answer_supervisor"]

# These come on a client's first channel and say what the next worker must know.  `Join`
# is entered apart, under the number of the new client.  `CloseRegion` and `Configure`
# come on other channels, and the handlers enter them.
_ENTERED = (Hello, Listen, OpenRegion, AttachRegion)


class LedgerClient:
    """Tells the supervisor what the next worker must know.

    A worker without a supervisor serves on.  It has no successor, so it loses nothing else.

    Parameters
    ----------
    supervisor : Channel
        The channel to the supervisor.
    ledger : Ledger
        The records that were entered before this worker began.
    """

    def __init__(self, supervisor: Channel, ledger: Ledger) -> None:
        self._supervisor = supervisor
        # A message that is acted on twice brings another descriptor of the same socket.
        # The inode of a socket is the same under each of its descriptors, so it tells
        # that the client is known.
        self._numbers = {_inode(record.control): n for n, record in ledger.clients.items()}
        # Above all numbers that are in use, so that no two clients have one number.
        # None is left where the worker before died right after the last one had ended.
        self._next_number = max(ledger.clients, default=-1) + 1

    def __repr__(self) -> str:
        return f"<LedgerClient: {self._supervisor!r}>"

    def fileno(self) -> int:
        """Return the descriptor of the channel to the supervisor."""
        return self._supervisor.fileno()

    def answer(self) -> bool:
        """Answer the supervisor's question; return False when the supervisor is gone."""
        return answer_supervisor(self._supervisor)

    def say_ready(self) -> None:
        """Tell the supervisor that this worker has taken over."""
        with suppress(PagerError):
            self._supervisor.send(Pong())

    def hire(self, n_threads: int, jobs: int) -> None:
        """Ask the supervisor for a decoder that takes its jobs from a socket.

        Raises
        ------
        PagerError
            When the supervisor is gone.
        """
        self._supervisor.send(Hire(n_threads), (jobs,))

    def number_of(self, socket: int) -> int:
        """Return the number of the client at a socket; any descriptor of the socket will do."""
        return self._numbers[_inode(socket)]

    def enter_next(
        self, client: int, channel: Channel, *, is_first: bool = False
    ) -> Received | None:
        """Enter the next message on a client's first channel, and return it without removing it.

        The caller acts on the message, and then drops it.  If the worker dies in between, the
        next worker acts on it a second time, so each message must be harmless when repeated.  In
        the other order the message would be lost.  The caller must close the descriptors.  The
        message that `is_first` must be `Hello`, and nothing else is entered.

        Raises
        ------
        PagerError, KernelError
            As `Channel.hear`.
        """
        received = channel.hear(peek=True)
        if received is None:
            return None
        try:
            # Before it is entered: a record is handed to every later worker, and one
            # that no worker can serve would end each of them in turn.
            if is_first or isinstance(received.message, Hello):
                check_hello(received)
            if isinstance(received.message, Listen):
                check_listener(received.descriptors[0])
            if isinstance(received.message, _ENTERED):
                self.enter(client, received.message, received.descriptors)
            elif isinstance(received.message, Join):
                self.enter_join(received.message, received.descriptors[0])
        except BaseException:
            close_all(received.descriptors)
            raise
        return received

    def enter_join(self, message: Join, socket: int) -> None:
        """Enter a process that will be a client, unless it was entered before."""
        # Raises for a descriptor that is no end of a channel.  A duplicate, because a refused
        # descriptor is closed, and the caller owns this one.
        Channel.from_descriptor(os.dup(socket)).close()
        inode = _inode(socket)
        if inode not in self._numbers:
            self._numbers[inode] = number = self._next_number
            self._next_number += 1
            self.enter(number, message, (socket,))

    def enter(
        self, client: int, message: Message | None, descriptors: tuple[int, ...] = ()
    ) -> None:
        """Enter a client's message, or None for the end of the client."""
        # A supervisor that is gone hears nothing, and this worker serves its clients on.
        with suppress(PagerError):
            self._supervisor.send(record_of(client, message), descriptors)


def answer_supervisor(supervisor: Channel) -> bool:
    """Answer the supervisor's `Ping`; return False when the supervisor is gone."""
    with suppress(PagerError):
        received = supervisor.receive()
        if received is not None and isinstance(received.message, Ping):
            # Without waiting: a supervisor that does not read must not stop the thread
            # that listens to clients.  It asks five times before it gives a process up,
            # so one answer may be missing.
            supervisor.send(Pong(), wait=False)
            return True
    return False


def _inode(descriptor: int) -> int:
    return os.fstat(descriptor).st_ino

"""The worker's side of the ledger: what clients say is entered before it is acted on."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from lazyarr.errors import PagerError
from lazyarr.pager.checking import check_hello
from lazyarr.wire.channel import Channel
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
    from lazyarr.wire.ledger import Ledger

__all__ = ["Journal", "answer_supervisor"]

_ENTERED = (Hello, Listen, OpenRegion, AttachRegion)


class Journal:
    """Tells the supervisor what a worker after this one must know.

    Without a supervisor nothing is lost but that.

    Parameters
    ----------
    supervisor : Channel
        To the supervisor.
    ledger : Ledger
        What has been entered before.
    """

    def __init__(self, supervisor: Channel, ledger: Ledger) -> None:
        self._supervisor = supervisor
        self._numbers = {_inode(record.control): n for n, record in ledger.clients.items()}
        self._next_number = max(ledger.clients) + 1

    def __repr__(self) -> str:
        return f"<Journal: {self._supervisor!r}>"

    def fileno(self) -> int:
        """Return the descriptor of the channel to the supervisor."""
        return self._supervisor.fileno()

    def answer(self) -> bool:
        """Answer the supervisor's question; return False when it is gone."""
        return answer_supervisor(self._supervisor)

    def say_ready(self) -> None:
        """Tell the supervisor that this worker has taken over."""
        with suppress(PagerError):
            self._supervisor.send(Pong())

    def hire(self, n_threads: int, jobs: int) -> None:
        """Ask for a process that decodes what comes on a socket; not to be had without supervisor.

        Raises
        ------
        PagerError
            When the supervisor is gone.
        """
        self._supervisor.send(Hire(n_threads), (jobs,))

    def number_of(self, socket: int) -> int:
        """Return the number of the client at a socket, under whatever descriptor."""
        return self._numbers[_inode(socket)]

    def enter_next(self, client: int, channel: Channel) -> None:
        """Enter what waits on a client's first channel, and leave it there.

        Dying between this and reading it makes the next worker see it twice, which
        it must bear; the other way round it would be lost.
        """
        received = channel.hear(peek=True)
        if received is None:
            return
        try:
            if isinstance(received.message, Hello):
                check_hello(received)
            if isinstance(received.message, _ENTERED):
                self.enter(client, received.message, received.descriptors)
            elif isinstance(received.message, Join):
                self.enter_join(received.message, received.descriptors[0])
        finally:
            for descriptor in received.descriptors:
                os.close(descriptor)

    def enter_join(self, message: Join, socket: int) -> None:
        """Enter somebody who will be a client, unless that was done before."""
        Channel.from_descriptor(os.dup(socket)).close()  # refuses what is none
        inode = _inode(socket)
        if inode not in self._numbers:
            self._numbers[inode] = number = self._next_number
            self._next_number += 1
            self.enter(number, message, (socket,))

    def enter(
        self, client: int, message: Message | None, descriptors: tuple[int, ...] = ()
    ) -> None:
        """Enter what a client has said; None for its end."""
        with suppress(PagerError):
            self._supervisor.send(record_of(client, message), descriptors)


def answer_supervisor(supervisor: Channel) -> bool:
    """Answer what the supervisor asks a process that it watches; return False when it is gone."""
    with suppress(PagerError):
        received = supervisor.receive()
        if received is not None and isinstance(received.message, Ping):
            supervisor.send(Pong(), wait=False)
            return True
    return False


def _inode(descriptor: int) -> int:
    return os.fstat(descriptor).st_ino

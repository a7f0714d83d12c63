"""Questions to the pager, and its answers."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, TypeVar, cast

from lazyarr.client.channels import ChannelPool
from lazyarr.errors import PagerError
from lazyarr.wire import messages as w

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazyarr.wire.channel import Channel, Received

__all__ = ["Questions"]

_M = TypeVar("_M", w.Done, w.Statistics, w.Found)


class Questions:
    """Asks, each question on a channel of its own, for as long as there is a pager.

    Parameters
    ----------
    control : Channel
        The channel that the process came to the pager on.
    renewed : callable
        Called when another worker has taken over and is to be asked again.

    Attributes
    ----------
    is_broken : bool
        Whether the pager is known to be gone.
    is_leaving : bool
        Whether the interpreter ends, and nothing is asked any more.
    """

    def __init__(self, control: Channel, renewed: Callable[[], None]) -> None:
        self._control = control
        self._renewed = renewed
        self._channels = ChannelPool(control)
        self._tickets = itertools.count(1)
        self.is_broken = False
        self.is_leaving = False

    def __repr__(self) -> str:
        return f"<Questions: {self._channels!r}>"

    def new_ticket(self) -> int:
        """Return a number that no other question of this process has."""
        return next(self._tickets)

    def ask(self, message: w.Message, answer: type[_M]) -> _M:
        """Return the answer to a message; see `exchange`."""
        return cast("_M", self.exchange(message, answer).message)

    def exchange(self, message: w.Message, answer: type[_M]) -> Received:
        """Send a message on a channel of its own and wait for the answer.

        A channel that ends was that of a worker that has died.  Another takes over, and
        is asked again, unless the supervisor is gone too.

        Raises
        ------
        PagerError
            When the pager is gone.
        """
        while True:
            try:
                return self._exchange(message, answer)
            except _HungUpError:
                if not self.is_usable():
                    raise PagerError("the pager is gone; open the dataset again") from None
                self._renewed()

    def is_usable(self) -> bool:
        """Return whether the pager is there; once it is gone, another session must begin."""
        if not self.is_leaving and self._control.is_hung_up():
            self.is_broken = True
        return not self.is_broken

    def _exchange(self, message: w.Message, answer: type[_M]) -> Received:
        with self._channels.lend() as channel:
            try:
                channel.send(message)
            except PagerError as error:
                raise _HungUpError from error
            received = channel.receive()
            if received is None:
                raise _HungUpError
            if not isinstance(received.message, answer):
                raise PagerError(f"expected {answer.__name__}, found {received.message!r:.80}")
            return received

    def leave(self) -> None:
        """Let go of every channel without closing it, and ask no more."""
        self.is_leaving = True
        self._channels.detach()

    def close(self) -> None:
        """Close every channel: for a forked child, whose parent goes on using them."""
        self._channels.close()


class _HungUpError(Exception):
    """The other end of a channel is closed."""

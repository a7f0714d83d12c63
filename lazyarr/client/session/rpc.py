"""Calls to the pager, and their answers."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, TypeVar, cast

from lazyarr.client.session.channels import ChannelPool
from lazyarr.client.session.failures import raise_first
from lazyarr.errors import PagerError
from lazyarr.known import CLOSED_BY_OTHERS
from lazyarr.wire import messages as w

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lazyarr.wire.channel import Channel, Received

__all__ = ["PendingCall", "PendingFlush", "PendingRequest", "Rpc"]

# A question is sent again when the worker died that was to answer it.  The pager refuses a
# question at which three workers have died.  This bound is for deaths that it does not count.
_MAX_TRIES = 64

# Messages that load nothing: a failure in their answer is always a refusal by the pager.
_WITHOUT_FAILURES = (
    *(w.Evict, w.Advise, w.WantStatistics),
    *(w.BeginRecording, w.EndRecording, w.WantTrace, w.Schedule),
)

_M = TypeVar("_M", w.Done, w.Statistics, w.Found, w.ClaimFound, w.Trace)


class Rpc:
    """Sends messages, each on a channel of its own, and waits for their answers.

    Parameters
    ----------
    control : Channel
        The channel that the process came to the pager on.
    on_takeover : callable
        Called when another worker has taken over and is to be asked again.

    Attributes
    ----------
    is_broken : bool
        Whether the pager is known to be gone.
    is_leaving : bool
        Whether the interpreter ends, and nothing is asked any more.
    """

    def __init__(self, control: Channel, on_takeover: Callable[[], None]) -> None:
        self._control = control
        self._on_takeover = on_takeover
        self._channels = ChannelPool(control)
        self._tickets = itertools.count(1)
        self.is_broken = False
        self.is_leaving = False
        self._reason = "the pager is gone; open the dataset again"

    def __repr__(self) -> str:
        return f"<Rpc: {self._channels!r}>"

    def new_ticket(self) -> int:
        """Return a number that no other question of this process has."""
        return next(self._tickets)

    def ask(self, message: w.Message, answer: type[_M]) -> _M:
        """Return the answer to a message; see `exchange`."""
        answered = cast("_M", self.exchange(message, answer).message)
        if isinstance(answered, w.Done) and answered.notices:
            _show(answered.notices)
        return answered

    def exchange(self, message: w.Message, answer: type[_M]) -> Received:
        """Send a message on a channel of its own and wait for the answer.

        A channel that ends was that of a worker that has died.  Another takes over, and
        is asked again, unless the supervisor is gone too.

        Raises
        ------
        PagerError
            When the pager is gone, or refuses the question because its workers died at it.
        """
        # Sent again without the caller's help: the next worker knows nothing of the
        # call.  So every message means the same when it is handled twice.
        for _ in range(_MAX_TRIES):
            if self.is_broken:
                raise PagerError(self._reason)
            try:
                return self._exchange(message, answer)
            except _HungUpError:
                self.note_end()
            except PagerError as error:
                raise self._named(error) from error.__cause__
        raise PagerError(
            f"the pager's workers have died {_MAX_TRIES} times while they were asked for a "
            f"{type(message).__name__}; see stderr for why"
        )

    def begin(self, message: w.Message) -> PendingCall:
        """Send a message whose answer is a `Done`, to be waited for later."""
        if self.is_broken:
            raise PagerError(self._reason)
        try:
            return PendingCall(self, self._channels, message)
        except PagerError as error:
            raise self._named(error) from error.__cause__

    def is_usable(self) -> bool:
        """Return whether the pager is there; once it is gone, another session must begin."""
        # The end of the first channel is that of the supervisor: a worker that dies
        # leaves it open, for the supervisor holds it too.
        if not (self.is_leaving or self.is_broken) and self._control.is_hung_up():
            self.is_broken = True
            if not self._control.is_own():
                self._reason = CLOSED_BY_OTHERS
        return not self.is_broken

    def note_end(self) -> None:
        """Take down that a channel has ended, with the worker or with the supervisor too."""
        if self.is_usable():
            self._on_takeover()

    def give_up(self, reason: str) -> None:
        """Ask no more: who does is told the reason."""
        self._reason = reason
        self.is_broken = True

    def _named(self, error: PagerError) -> PagerError:
        """Return what to raise for an error: of a pager that is gone, that it is."""
        # Without a supervisor no channel can be opened to ask on.  All that was found out by
        # that is that a socket is closed.
        return error if self.is_usable() else PagerError(self._reason)

    def _exchange(self, message: w.Message, answer: type[_M]) -> Received:
        channel = self._channels.borrow()
        try:
            try:
                channel.send(message)
            except PagerError as error:
                # Closed by the worker, or by the kernel with it.  Whether anything is left
                # to ask is not known here, and `exchange` finds it out.
                raise _HungUpError from error
            received = channel.receive()
            if received is None:
                raise _HungUpError
            if isinstance(message, _WITHOUT_FAILURES) and isinstance(received.message, w.Done):
                for failure in received.message.failures:
                    raise PagerError(failure["message"])
            if not isinstance(received.message, answer):
                raise PagerError(f"expected {answer.__name__}, found {received.message!r:.80}")
        except BaseException:
            self._channels.drop(channel)
            raise
        self._channels.give_back(channel)
        return received

    def leave(self) -> None:
        """Let go of every channel without closing it, and ask no more."""
        self.is_leaving = True
        self._channels.detach()

    def close(self) -> None:
        """Close every channel: for a forked child, whose parent goes on using them."""
        self._channels.close()


class PendingCall:
    """A question that was sent; to be waited for, or cancelled.

    Parameters
    ----------
    rpc : Rpc
        Sends the question again when the worker has died that was to answer it.
    channels : ChannelPool
        Has the channel on which the answer comes.
    message : Message
        The question.
    """

    def __init__(self, rpc: Rpc, channels: ChannelPool, message: w.Message) -> None:
        self._rpc = rpc
        self._message = message
        self._channels = channels
        # Until `wait` or `cancel`.
        self._channel: Channel | None = channels.borrow()
        try:
            self._channel.send(message)
        except PagerError:
            # The worker has died.  `wait` asks again then, as it does where the answer does
            # not come.
            self.cancel()
        except BaseException:
            self.cancel()
            raise

    def __repr__(self) -> str:
        return f"<PendingCall: {self._message!r:.80}>"

    def wait(self) -> w.Done:
        """Return the answer, as `Rpc.ask` does."""
        received: Received | None = None
        if self._channel is not None:
            try:
                received = self._channel.receive()
            except BaseException:
                self.cancel()
                raise
        if received is None:
            self._rpc.note_end()
        if received is None or not isinstance(received.message, w.Done):
            self.cancel()
            return self._rpc.ask(self._message, w.Done)
        assert self._channel is not None
        self._channels.give_back(self._channel)
        self._channel = None
        if received.message.notices:
            _show(received.message.notices)
        return received.message

    def cancel(self) -> None:
        """Give the question up: the channel is closed, so that no one else gets its answer."""
        channel, self._channel = self._channel, None
        if channel is not None:
            self._channels.drop(channel)


def _show(notices: Sequence[dict[str, Any]]) -> None:
    from lazyarr.client.session.notices import warn_of_reloads  # seldom needed

    warn_of_reloads(notices)


class _HungUpError(Exception):
    """The other end of a channel is closed."""


class PendingRequest:
    """A request that was sent; to be waited for, or cancelled.

    Parameters
    ----------
    asked : PendingCall
        The request's message to the pager.
    end : callable
        Called with the answer; raises `ChunkError` for a chunk that cannot be had.
    """

    def __init__(self, asked: PendingCall, end: Callable[[w.Done], None]) -> None:
        self._asked = asked
        self._end = end

    def __repr__(self) -> str:
        return f"<PendingRequest: {self._asked!r}>"

    def wait(self) -> None:
        """Wait until the units are there; raises what `Session.request` does."""
        self._end(self._asked.wait())

    def cancel(self) -> None:
        """Give the request up: its answer is not waited for."""
        self._asked.cancel()


class PendingFlush:
    """A flush that was asked for; to be waited for, or cancelled.

    Parameters
    ----------
    asked : PendingCall
        The message to the pager.
    """

    def __init__(self, asked: PendingCall) -> None:
        self._asked = asked

    def __repr__(self) -> str:
        return f"<PendingFlush: {self._asked!r}>"

    def wait(self) -> tuple[int, int]:
        """Wait until it is done; return how many units and bytes were written.

        Raises
        ------
        StoreError
            When something could not be written.
        PagerError
            When the pager is gone.
        """
        done = self._asked.wait()
        if done.failures:
            raise_first(done.failures)
        return done.n_units, done.nbytes

    def cancel(self) -> None:
        """Wait no more; the pager goes on with it."""
        self._asked.cancel()

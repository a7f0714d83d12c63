"""A channel to a thread that plays the pager, and what every test must leave as it was."""

from __future__ import annotations

import select
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from lazyarr.errors import PagerError
from lazyarr.wire import messages as w
from lazyarr.wire.channel import Channel, channel_pair
from tests.wire.conftest import channels, leave_no_descriptor, pipe

__all__ = ["channels", "leave_no_descriptor", "pipe", "play"]

SECONDS = 20


class Played:
    """A pager that hears what comes on every channel, and does with it what a test says.

    Attributes
    ----------
    control : Channel
        The client's end of its first channel.
    heard : list of Message
        The questions that came, but for those that open channels.
    n_opened : int
        How many channels the client has opened.
    """

    def __init__(self, act: Callable[[Played, Channel, w.Message], None]) -> None:
        self.control, self._in_pager = channel_pair()
        self.heard: list[w.Message] = []
        self.n_opened = 0
        self._act = act
        self._channels: dict[int, Channel] = {}
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        """Hear channels until the first one ends."""
        try:
            while self._in_pager.fileno() >= 0:
                poll = select.poll()
                for descriptor in (self._in_pager.fileno(), *self._channels):
                    poll.register(descriptor, select.POLLIN)
                for descriptor, _ in poll.poll():
                    channel = self._channels.get(descriptor, self._in_pager)
                    if channel.fileno() == descriptor:
                        self._hear(channel)
        finally:
            self.end()

    def _hear(self, channel: Channel) -> None:
        received = channel.receive()
        if received is None:
            self._channels.pop(channel.fileno(), None)
            channel.close()
        elif isinstance(received.message, w.OpenChannel):
            self.n_opened += 1
            (descriptor,) = received.descriptors
            self._channels[descriptor] = Channel.from_descriptor(descriptor)
        else:
            self.heard.append(received.message)
            with suppress(PagerError):  # nobody waits for the answer any more
                self._act(self, channel, received.message)

    def die(self) -> None:
        """End as a worker does: the first channel is the supervisor's too, and stays."""
        while self._channels:
            self._channels.popitem()[1].close()

    def end(self) -> None:
        """End as worker and supervisor do together."""
        self._in_pager.close()
        self.die()

    def close(self) -> None:
        """Let the client's end go, and wait for the thread to see that."""
        self.control.close()
        self._thread.join(SECONDS)
        assert not self._thread.is_alive(), "a channel of the client's is still open"


@pytest.fixture
def play() -> Iterator[Callable[..., Played]]:
    """Begin pagers that act as is said."""
    made: list[Played] = []

    def begin(act: Callable[[Played, Channel, w.Message], None]) -> Played:
        made.append(Played(act))
        return made[-1]

    yield begin
    for each in made:
        each.close()

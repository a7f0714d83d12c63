"""Channels to the pager, one for each exchange that is under way."""

from __future__ import annotations

import threading

from lazyarr.wire.channel import Channel, channel_pair
from lazyarr.wire.messages import OpenChannel

__all__ = ["ChannelPool"]


class ChannelPool:
    """Channels for exchanges; opens new ones over the first when all are borrowed.

    A channel of its own makes an exchange easy to break off: an answer that
    no thread waits for any more cannot be taken for the answer to the next question.

    Parameters
    ----------
    control : Channel
        The channel that the process came to the pager on.
    """

    def __init__(self, control: Channel) -> None:
        self.control = control.remember()
        self._lock = threading.Lock()
        self._idle: list[Channel] = []
        self._all: set[Channel] = {control}

    def __repr__(self) -> str:
        return f"<ChannelPool: {len(self._all)} channels, {len(self._idle)} idle>"

    def borrow(self) -> Channel:
        """Return a channel for one exchange, which `give_back` or `drop` must end."""
        with self._lock:
            # As many channels as threads that wait at once.  A shared one would need a
            # thread that receives for all, which has to run Python, or a lock that is held
            # while one waits.
            return self._idle.pop() if self._idle else self._open()

    def give_back(self, channel: Channel) -> None:
        """Take a channel back, the answer on which has been read."""
        with self._lock:
            self._idle.append(channel)

    def drop(self, channel: Channel) -> None:
        """Close a channel whose exchange was broken off, as by Ctrl-C.

        The answer may still be on its way, and the next question on this channel would take it
        for its own.  The pager sees the end, and nobody waits for it.
        """
        with self._lock:
            self._all.discard(channel)
        channel.close()

    def _open(self) -> Channel:
        ours, theirs = channel_pair()
        try:
            # Over the first channel, which the pager reads in order: it knows of this one
            # before anything comes on it.  There is no connecting, and no name.
            self.control.send(OpenChannel(), (theirs.fileno(),))
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._all.add(ours)
        return ours.remember()

    def close(self) -> None:
        """Close every channel: for a forked child, whose parent goes on using them."""
        for channel in tuple(self._all):
            channel.close()

    def detach(self) -> None:
        """Let go of every channel without closing it.

        Takes no lock: a child may find it locked by a thread that it does not have.
        """
        for channel in tuple(self._all):
            channel.detach()

"""Takes on processes that were not forked from a client, but know the pager's name."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Any

from lazyarr.errors import LazyarrError
from lazyarr.pager.log import report
from lazyarr.wire import messages as w
from lazyarr.wire.meeting import accept, pid_namespace

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazyarr.wire.channel import Channel, Received

__all__ = ["Rendezvous"]

# Nobody waits any more, or the next one may be luckier.
_PASSING = frozenset(
    {errno.EAGAIN, errno.ECONNABORTED, errno.EINTR, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
)


class Rendezvous:
    """The pager's end of the socket at which processes come.

    Until one is told that it is welcome nothing is kept of it: a worker that dies lets
    go of it, and it comes again.

    Parameters
    ----------
    listener : int
        Descriptor of the socket; this object owns it.
    watch, unwatch : callable
        Have a function called when a descriptor is readable, and not any more.
    join : callable
        Makes whoever has the other end of a socket a client, entered in the ledger;
        takes over the descriptor.
    settings : callable
        Returns the settings that hold.
    """

    def __init__(
        self,
        listener: int,
        *,
        watch: Callable[[int, Callable[[], None]], None],
        unwatch: Callable[[int], None],
        join: Callable[[int], None],
        settings: Callable[[], dict[str, Any]],
    ) -> None:
        self._listener = socket.socket(fileno=listener)
        self._watch = watch
        self._unwatch = unwatch
        self._join = join
        self._settings = settings
        watch(listener, self._on_arrival)

    def __repr__(self) -> str:
        return f"<Rendezvous: descriptor {self._listener.fileno()}>"

    def _on_arrival(self) -> None:
        """Let in who has come, if it is a process of the same user's."""
        try:
            channel = accept(self._listener)
        except OSError as error:
            if error.errno not in _PASSING:
                self._unwatch(self._listener.fileno())
                self._listener.close()
                report(f"cannot take on processes that were not forked: {error}")
            return
        if channel is not None:
            self._watch(channel.fileno(), lambda: self._on_word(channel))

    def _on_word(self, channel: Channel) -> None:
        """Answer who has come, and let go of the channel that it came on."""
        self._unwatch(channel.fileno())
        try:
            received = channel.hear()
            if received is not None:
                channel.send(self._take_on(received), wait=False)
        except (LazyarrError, OSError) as error:
            report(f"cannot take on a process that was not forked: {error}")
        finally:
            channel.close()

    def _take_on(self, received: Received) -> w.Welcome | w.Refused:
        message, descriptors = received
        reason = _objection(message, len(descriptors))
        if reason:
            for descriptor in descriptors:
                os.close(descriptor)
            return w.Refused(reason)
        self._join(descriptors[0])
        return w.Welcome(self._settings())


def _objection(message: w.Message, n_descriptors: int) -> str:
    """Return why a process can not be a client; nothing when it can."""
    if not isinstance(message, w.Knock) or n_descriptors != 1:
        return f"expected Knock, found {type(message).__name__}"
    if message.version != w.VERSION:
        return f"expected version {w.VERSION}, found {message.version}"
    if message.namespace != pid_namespace() or not message.namespace:
        return "it is in another namespace of process ids"
    return ""

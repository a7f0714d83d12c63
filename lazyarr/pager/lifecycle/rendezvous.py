"""Makes clients of processes that were invited, and not forked from a client.

A process that unpickles an array connects to a socket of the pager, whose name and secret
travel with the pickle.  docs/design/sharing.md has the protocol.
"""

from __future__ import annotations

import errno
import os
import socket

# `hmac.compare_digest` is this function.  The module hmac takes milliseconds to import.
from _operator import _compare_digest as compare_digest
from typing import TYPE_CHECKING, Any

from lazyarr.errors import LazyarrError
from lazyarr.pager.log import report
from lazyarr.pager.watching import Rank
from lazyarr.wire import messages as w
from lazyarr.wire.meeting import accept

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazyarr.pager.watching import Watch
    from lazyarr.wire.channel import Channel, Received

__all__ = ["Rendezvous"]

# The process that connected has gone, or the call was interrupted.  Another may wait.
_PASSING = frozenset({errno.EAGAIN, errno.ECONNABORTED, errno.EINTR})
_SHORT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})

# The name of the socket is in /proc/net/unix, so every process can connect.  Strangers are
# turned away at some hundred a second.  Faults are served in between, and the processes that
# come meanwhile wait in the socket's queue.
_MAX_STRANGERS = 32
_REST_SECONDS = 0.05

# An invited process knocks as soon as it has connected, so one that stays silent is none.
# Each silent one holds a descriptor: that is what both limits bound.
_WORD_SECONDS = 10.0
_MAX_SILENT = 128


class Rendezvous:
    """The pager's end of the socket to which invited processes connect.

    Nothing is kept of a process until the pager has told it that it is welcome.  If the worker
    dies before that, the connection ends, and the process connects again.

    Parameters
    ----------
    listener : int
        Descriptor of the socket; this object owns it.
    secret : str
        The word by which a process shows that it was invited.
    watch : Watch
        Listens to descriptors.
    join : callable
        Enters the process at the other end of a socket in the ledger, and makes it a client.
        Takes over the descriptor.
    settings : callable
        Returns the settings of the pager.
    """

    def __init__(
        self,
        listener: int,
        secret: str,
        *,
        watch: Watch,
        join: Callable[[int], None],
        settings: Callable[[], dict[str, Any]],
    ) -> None:
        self._listener = socket.socket(fileno=listener)
        # Another process with this socket may be faster to accept who has connected.
        self._listener.settimeout(0)
        self._secret = secret.encode()
        self._watch = watch
        self._join = join
        self._settings = settings
        self._silent: set[Channel] = set()
        self._n_strangers = 0
        self._watch_listener()

    def __repr__(self) -> str:
        return f"<Rendezvous: {self._listener.fileno()}, {len(self._silent)} have said nothing>"

    def _watch_listener(self) -> None:
        self._watch.add(self._listener.fileno(), Rank.ARRIVAL, self._on_arrival)

    def _on_arrival(self) -> None:
        """Accept a process that connects to the pager, if it may become a client."""
        try:
            channel = accept(self._listener)
        except OSError as error:
            self._on_refusal(error)
            return
        if channel is None:
            self._n_strangers += 1
            if self._n_strangers % _MAX_STRANGERS == 0:
                # Only every 32nd stranger costs a pause.  A program that connects again
                # and again is slowed down, and a single mistake holds up nobody.
                self._watch.rest(self._listener.fileno(), _REST_SECONDS)
            return
        self._silent.add(channel)
        if len(self._silent) >= _MAX_SILENT:
            # Further processes wait in the socket's queue, where they take no
            # descriptor of the pager's.  `_dismiss` listens again.
            self._watch.remove(self._listener.fileno())
        self._watch.add(channel.fileno(), Rank.ARRIVAL, lambda: self._on_word(channel))
        self._watch.after(_WORD_SECONDS, lambda: self._dismiss(channel))

    def _on_refusal(self, error: OSError) -> None:
        """Go on after an error of accept(2), or give the socket up."""
        if error.errno in _SHORT:
            # The process is still in the queue, and accept(2) would fail at once again.
            self._watch.rest(self._listener.fileno(), _REST_SECONDS)
        elif error.errno not in _PASSING:
            self._watch.remove(self._listener.fileno())
            self._listener.close()
            report(f"cannot take on processes that were not forked: {error}")

    def _dismiss(self, channel: Channel) -> None:
        """Close the channel of a process that has not become a client, if it is still open."""
        if channel not in self._silent:
            return
        if len(self._silent) >= _MAX_SILENT:
            self._watch_listener()
        self._silent.discard(channel)
        self._watch.remove(channel.fileno())
        channel.close()

    def _on_word(self, channel: Channel) -> None:
        """Answer the process that has knocked, and close the channel that it knocked on."""
        try:
            received = channel.hear()
            if received is not None:
                # A process that does not read its answer must not hold up the others.
                channel.send(self._take_on(received), wait=False)
        except (LazyarrError, OSError) as error:
            report(f"cannot take on a process that was not forked: {error}")
        finally:
            self._dismiss(channel)

    def _take_on(self, received: Received) -> w.Welcome | w.Refused:
        """Make a client of a process that may be one; return the answer to it."""
        message, descriptors = received
        reason = self._objection(message)
        if reason:
            for descriptor in descriptors:
                os.close(descriptor)
            return w.Refused(reason)
        # Entered in the ledger before it is told so.  If the worker dies in between,
        # the process knocks again with the same end of a channel, which the ledger then
        # has already.
        self._join(descriptors[0])
        return w.Welcome(self._settings())

    def _objection(self, message: w.Message) -> str:
        """Return why a process cannot be a client; nothing when it can."""
        if not isinstance(message, w.Knock):
            return f"expected Knock, found {type(message).__name__}"
        # In a time that does not depend on the number of characters that are right.
        if not compare_digest(message.secret.encode("utf-8", "replace"), self._secret):
            return "it was not invited"
        if message.version != w.VERSION:
            return f"expected version {w.VERSION}, found {message.version}"
        return ""

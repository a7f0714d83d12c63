"""Coming to a pager that another process has started, without being its child."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from lazyarr.errors import LazyarrError
from lazyarr.wire import messages as w
from lazyarr.wire.channel import channel_pair
from lazyarr.wire.meeting import connect

if TYPE_CHECKING:
    from lazyarr.wire.channel import Channel
    from lazyarr.wire.meeting import Invitation

__all__ = ["Joined", "join_pager"]

# More than it takes to find out that a worker does not answer, and to replace it.
_PATIENCE_SECONDS = 30.0
_PAUSE_SECONDS = 0.01


class Joined(NamedTuple):
    """A pager that awaits this process.

    Attributes
    ----------
    control : Channel
        To the pager, which waits for what this process says first.
    settings : dict
        What holds there.
    """

    control: Channel
    settings: dict[str, Any]


def join_pager(invitation: Invitation) -> Joined | None:
    """Come to a pager; return None when it is gone, or may not be joined.

    It may not from another user's process, from another container, or with another version.
    """
    # The far end travels with the knock.  So when the worker dies between welcoming this
    # process and saying so, the same end is sent again, and is known by its inode:
    # nobody joins twice.
    ours, theirs = channel_pair()
    deadline = time.monotonic() + _PATIENCE_SECONDS
    try:
        while (seconds := deadline - time.monotonic()) > 0:
            channel = connect(invitation.name, timeout_seconds=seconds)
            if channel is None:
                break
            try:
                answer = _knock(channel, theirs, invitation.secret)
            finally:
                channel.close()
            if isinstance(answer, w.Welcome):
                return Joined(ours, answer.settings)
            # Refused: another version, another secret, no room.  To come again would change
            # nothing.
            if answer is not None:
                break
            # The worker has died.  The next one knows the same end of the channel again.
            time.sleep(_PAUSE_SECONDS)
    finally:
        theirs.close()
    ours.close()
    return None


def _knock(channel: Channel, theirs: Channel, secret: str) -> w.Message | None:
    """Return the answer; None when whoever should have given it is gone."""
    try:
        channel.send(w.Knock(w.VERSION, secret), (theirs.fileno(),))
        received = channel.receive()
    except (LazyarrError, OSError):
        return None
    return None if received is None else received.message

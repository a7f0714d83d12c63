"""A channel between two processes that carries messages and descriptors."""

from __future__ import annotations

import array
import os
import select
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

from lazyarr.errors import FormatError, PagerError
from lazyarr.known import CLOSED_BY_OTHERS, Identity, identity_of
from lazyarr.shortage import naming_shortage, shortage
from lazyarr.wire.messages import MAX_DESCRIPTORS, Message, Record
from lazyarr.wire.packets import decode, encode

__all__ = [
    "MAX_PACKET_NBYTES",
    "Channel",
    "Received",
    "channel_pair",
    "close_all",
    "descriptors_in",
    "rights_of",
]

# A packet must fit the send buffer, which counts the kernel's own overhead and
# is 208 KiB on most systems (net.core.wmem_default; unix(7), EMSGSIZE).
MAX_PACKET_NBYTES = 192 << 10

# A packet that says so comes in a memory object, whose descriptor is the first of the message.
_SPILLED = b"spilled"

# The longest messages have a table of references to chunks (kerchunk) in their storage_options:
# some tens of megabytes.  An array's layout takes kilobytes, or about two bytes for each chunk that
# a table lists; the failures of the longest request take 2 MB, the statistics of ten thousand
# arrays 5 MB.
_MAX_SPILLED_NBYTES = 64 << 20
# A client's message must fit into a record too, by which the worker passes it on.
_RECORD_NBYTES = 64 << 10

# As plain numbers: putting flags together takes longer than a packet does.
_NO_SIGNAL, _DONT_WAIT = int(socket.MSG_NOSIGNAL), int(socket.MSG_DONTWAIT)
_PEEK, _CLOSE_ON_EXEC = int(socket.MSG_PEEK), int(socket.MSG_CMSG_CLOEXEC)
# recv(2): the real length of the packet, which stays.
_LENGTH, _BYTE = int(socket.MSG_PEEK | socket.MSG_TRUNC), bytearray(1)
_LENGTH_CUT = int(socket.MSG_TRUNC)
_CUT_SHORT = int(socket.MSG_TRUNC | socket.MSG_CTRUNC)
_RIGHTS = (int(socket.SOL_SOCKET), int(socket.SCM_RIGHTS))
_SPACE = socket.CMSG_SPACE((1 + MAX_DESCRIPTORS) * array.array("i").itemsize)


class Received(NamedTuple):
    """A message and the descriptors that came with it; the receiver owns the descriptors."""

    message: Message
    descriptors: tuple[int, ...]


class Channel:
    """One end of a channel: packets in order, each whole or not at all.

    The channel owns its socket.  A closed channel's `fileno` is -1.

    Parameters
    ----------
    sock : socket.socket
        A connected socket of type SOCK_SEQPACKET: several processes may send on
        one end without mixing their messages, which a forked child needs for its
        first word.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._identity: Identity | None = None
        self._poll: select.poll | None = None

    def __repr__(self) -> str:
        return f"<Channel: descriptor {self.fileno()}>"

    @classmethod
    def from_descriptor(cls, descriptor: int) -> Channel:
        """Take over a descriptor.

        Raises
        ------
        PagerError
            When the descriptor is of no such socket; it is closed then.
        """
        try:
            sock = socket.socket(fileno=descriptor)
        except OSError as error:
            os.close(descriptor)
            raise PagerError(f"expected one end of a channel, found no socket: {error}") from error
        if (sock.family, sock.type) != (socket.AF_UNIX, socket.SOCK_SEQPACKET):
            sock.close()
            raise PagerError("expected one end of a channel, found a socket of another kind")
        return cls(sock)

    def remember(self) -> Channel:
        """Return the channel, which from now on makes sure of its socket before each use.

        A client runs other code than lazyarr's.  That may close the descriptor, and open a file of
        its own under the same number.
        """
        self._identity = identity_of(self.fileno())
        return self

    def is_own(self) -> bool:
        """Return whether the descriptor still is this channel's socket."""
        return self._identity is None or identity_of(self.fileno()) == self._identity

    def fileno(self) -> int:
        """Return the descriptor, or -1 when closed."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the channel; closing twice is fine."""
        if self.is_own():
            self._socket.close()
        else:
            self._socket.detach()

    def hang_up(self) -> None:
        """Let both sides see the end, after what was sent before; the descriptor stays."""
        with suppress(OSError):  # the other side may have been faster
            self._socket.shutdown(socket.SHUT_RDWR)

    def detach(self) -> int:
        """Give up the descriptor and return it."""
        return self._socket.detach()

    def send(self, message: Message, descriptors: Sequence[int] = (), *, wait: bool = True) -> None:
        """Send a message, with copies of descriptors.

        Parameters
        ----------
        message : Message
            The message.
        descriptors : sequence of int
            At most eight; copies of them go with the message.
        wait : bool
            Whether to wait while the other side does not read.

        Raises
        ------
        PagerError
            When the other side is gone, or, without `wait`, has too much to read.
        FormatError
            When the message is longer than any may be.
        """
        packet = encode(message)
        spare_nbytes = 0 if isinstance(message, Record) else _RECORD_NBYTES
        if len(packet) > _MAX_SPILLED_NBYTES - spare_nbytes:
            raise FormatError(
                f"cannot tell the pager what takes {len(packet)} bytes: up to "
                f"{_MAX_SPILLED_NBYTES - spare_nbytes} may be; give large storage_options as a "
                "file, and store arrays of many millions of chunks in larger ones"
            )
        if len(packet) > MAX_PACKET_NBYTES:
            with _spilled(packet) as spill:
                self._send(_SPILLED, (spill, *descriptors), wait=wait)
        else:
            self._send(packet, descriptors, wait=wait)

    def _send(self, packet: bytes, descriptors: Sequence[int], *, wait: bool) -> None:
        if not self.is_own():
            raise PagerError(CLOSED_BY_OTHERS)
        ancillary = [rights_of(*descriptors)] if descriptors else []
        flags = _NO_SIGNAL if wait else _NO_SIGNAL | _DONT_WAIT
        try:
            self._socket.sendmsg([packet], ancillary, flags)
        except OSError as error:
            raise PagerError(f"the other side of a channel does not read: {error}") from error

    def receive(self, *, peek: bool = False, wait: bool = True) -> Received | None:
        """Wait for a message; return None when the other side has closed.

        Parameters
        ----------
        peek : bool
            Whether to leave the message in the channel, and take copies of its descriptors.  The
            next read gets the message again.
        wait : bool
            Whether to wait for a message.  Another process with a copy of this end may take a
            message that epoll has announced.

        Raises
        ------
        PagerError
            When the packet holds no message, or when, without `wait`, no packet has come.
        KernelError
            EMFILE: this process has no room for the descriptors that came with the message.  A
            caller that peeks can try again when some are free.
        """
        flags = _CLOSE_ON_EXEC | (_PEEK if peek else 0) | (0 if wait else _DONT_WAIT)
        try:
            try:
                nbytes = self._next_nbytes(flags)
            except ConnectionResetError:
                # The other side has closed with something unread.  The kernel reports that once,
                # before the packets that are still queued (net/unix/af_unix.c).  These are read.
                nbytes = self._next_nbytes(flags)
            nbytes = min(nbytes, MAX_PACKET_NBYTES)
            packet, ancillary, flags, _ = self._socket.recvmsg(nbytes, _SPACE, flags)
        except ConnectionError:
            return None
        except OSError as error:
            raise PagerError(f"cannot read from a channel: {error}") from error
        descriptors = descriptors_in(ancillary)
        if not packet:
            close_all(descriptors)
            return None
        if flags & _CUT_SHORT:
            close_all(descriptors)
            if not flags & _LENGTH_CUT and len(descriptors) <= MAX_DESCRIPTORS:
                # There was room for more (recvmsg(2), MSG_CTRUNC): this process has none left.
                raise shortage(f"receive the descriptors of a message of {len(packet)} bytes")
            raise PagerError("a message came cut short; client and pager must be of one version")
        try:
            if packet == _SPILLED and descriptors:
                packet = _read_spilled(descriptors.pop(0))
            return Received(decode(packet), tuple(descriptors))
        except BaseException:
            close_all(descriptors)
            raise

    def drop(self) -> None:
        """Remove the message that was peeked at, with its descriptors."""
        with suppress(OSError):  # another process may have taken it, or closed the channel
            self._socket.recv_into(_BYTE, 1, _DONT_WAIT)

    def _next_nbytes(self, flags: int) -> int:
        """Wait for a packet and return its size."""
        # Memory for the longest packet would be mapped anew for each: that takes ten times as
        # long as reading a short packet does.
        return self._socket.recv_into(_BYTE, 1, flags | _LENGTH)

    def hear(self, *, peek: bool = False) -> Received | None:
        """Return a message from a process that is not trusted, without waiting.

        As `receive`.  But a message with another number of descriptors than its kind carries is
        refused, for its receiver would not close them.

        Raises
        ------
        PagerError
            When the packet holds no such message, or none has come.
        """
        received = self.receive(peek=peek, wait=False)
        if received is None or len(received.descriptors) in received.message.carries:
            return received
        close_all(received.descriptors)
        found = f"{len(received.descriptors)} descriptors with {received.message!r:.80}"
        raise PagerError(f"a message carries what it should not: {found}")

    def is_hung_up(self) -> bool:
        """Return whether the other side is gone, or this one closed."""
        if self.fileno() < 0 or not self.is_own():
            return True
        poll = select.poll()
        poll.register(self._socket, select.POLLHUP)
        return any(events & select.POLLHUP for _, events in poll.poll(0))

    def is_readable(self) -> bool:
        """Return whether `receive` would not wait."""
        # Kept, for each message is looked for in this way.
        poll = self._poll
        if poll is None:
            poll = self._poll = select.poll()
            poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))


@contextmanager
def _spilled(packet: bytes) -> Iterator[int]:
    """Lend a descriptor of a memory object that holds a packet too large for a socket."""
    descriptor = os.memfd_create("lazyarr-message", os.MFD_CLOEXEC)
    try:
        view = memoryview(packet)
        while view:
            view = view[os.write(descriptor, view) :]
        yield descriptor
    finally:
        os.close(descriptor)


def _read_spilled(descriptor: int) -> bytes:
    """Return the packet in a memory object, and close it."""
    try:
        nbytes = os.fstat(descriptor).st_size
        if nbytes > _MAX_SPILLED_NBYTES:
            raise PagerError(f"a message of {nbytes} bytes is larger than {_MAX_SPILLED_NBYTES}")
        return os.pread(descriptor, nbytes, 0)
    except OSError as error:
        raise PagerError(f"cannot read a message from its memory object: {error}") from error
    finally:
        os.close(descriptor)


def rights_of(*descriptors: int) -> tuple[int, int, array.array[int]]:
    """Return what `socket.sendmsg` takes to send copies of descriptors (unix(7), SCM_RIGHTS)."""
    return (*_RIGHTS, array.array("i", descriptors))


def descriptors_in(ancillary: Iterable[tuple[int, int, bytes]]) -> list[int]:
    """Return the descriptors that `socket.recvmsg` has given; one that was cut off is not there."""
    found = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == _RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return found.tolist()


def close_all(descriptors: Sequence[int]) -> None:
    """Close descriptors that came with a message and are not used."""
    for descriptor in descriptors:
        os.close(descriptor)


def channel_pair() -> tuple[Channel, Channel]:
    """Return the two ends of a new channel; both are closed on exec.

    Raises
    ------
    KernelError
        EMFILE, ENFILE: no descriptors are left.
    """
    with naming_shortage("speak to the pager"):
        ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Channel(ends[0]), Channel(ends[1])

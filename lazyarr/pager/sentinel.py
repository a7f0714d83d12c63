"""What is left when the whole pager is killed: it lets those who wait for pages die loudly.

A thread that waits in a fault can not be told anything, and its process must neither
hang nor read zeros.  So a third process keeps every userfaultfd, does nothing while
the supervisor lives, and after that answers each fault with poison: SIGBUS for who
waits, and for who touches what is not there.  Clients that wait for nothing live on,
and get an exception when they ask.  Were this process killed as well, the lifelines that
it holds would end, and every client with them.
"""

from __future__ import annotations

import os
import select
import signal

from lazyarr.errors import KernelError
from lazyarr.kernel import PAGE_NBYTES, Features, Stop, Userfaultfd, pidfd_open
from lazyarr.pager.log import report
from lazyarr.wire.channel import Channel
from lazyarr.wire.messages import Hello, Record
from lazyarr.wire.packets import message_of

__all__ = ["keep_watch"]

# All that a process may map, less a page at either end (x86-64 and aarch64, 47 bits).
_EVERYWHERE = (PAGE_NBYTES, (1 << 47) - 2 * PAGE_NBYTES)


class _Orphan:
    """A client of a pager that is gone."""

    def __init__(self, hello: Hello, descriptors: tuple[int, ...]) -> None:
        uffd, lifeline = descriptors
        self.hello = hello
        self.uffd = Userfaultfd.from_fd(uffd, Features(hello.features))
        self.lifeline = lifeline
        self.pidfd = -1

    def poison(self) -> None:
        """Answer every fault that waits."""
        for address in self.uffd.read_addresses():
            if Features.POISON not in self.uffd.features:
                signal.pidfd_send_signal(self.pidfd, signal.SIGBUS)
            elif self.uffd.poison(address & -PAGE_NBYTES, PAGE_NBYTES).stop is not Stop.DONE:
                self.uffd.wake(address & -PAGE_NBYTES, PAGE_NBYTES)

    def close(self) -> None:
        """Let go of a client that has ended."""
        self.uffd.close()
        for descriptor in (self.lifeline, self.pidfd):
            if descriptor >= 0:
                os.close(descriptor)


def keep_watch(channel: Channel) -> None:
    """Wait until the supervisor is gone, then see to its clients until they are gone too.

    Parameters
    ----------
    channel : Channel
        From the supervisor, which tells who is a client; it ends when that does.
    """
    clients: dict[int, _Orphan] = {}
    while (received := channel.receive()) is not None:
        record = received.message
        assert isinstance(record, Record)
        if record.client in clients:
            clients.pop(record.client).close()
        if record.body:
            hello = message_of(record.body)
            assert isinstance(hello, Hello)
            clients[record.client] = _Orphan(hello, received.descriptors)
    if clients:
        _mourn(list(clients.values()))


def _mourn(clients: list[_Orphan]) -> None:
    epoll = select.epoll()
    by_descriptor: dict[int, _Orphan] = {}
    for client in clients:
        try:
            client.pidfd = pidfd_open(client.hello.pid)
        except KernelError:
            continue
        for descriptor in (client.pidfd, client.uffd.fileno()):
            by_descriptor[descriptor] = client
            epoll.register(descriptor, select.EPOLLIN)
        client.uffd.wake(*_EVERYWHERE)
    if by_descriptor:
        report("the pager was killed; touching what is not loaded gives SIGBUS from now on")
    while by_descriptor:
        for descriptor, _ in epoll.poll():
            found = by_descriptor.get(descriptor)
            if found is None:
                continue
            if descriptor != found.pidfd:
                found.poison()
                continue
            for watched in (found.pidfd, found.uffd.fileno()):
                epoll.unregister(watched)
                del by_descriptor[watched]
            found.close()

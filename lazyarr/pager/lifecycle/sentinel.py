"""The process that is left when the rest of the pager is killed.

A thread that waits in a fault cannot be told anything.  Its process must neither hang nor
read zeros.  So the sentinel keeps a copy of every userfaultfd, and does nothing while the
supervisor lives.  After the supervisor's death it answers each fault with poison.  A thread
that waits for a page gets SIGBUS, and so does one that touches a missing page later.  Clients
that wait for nothing live on, and get an exception with their next request.

The sentinel also holds the lifelines.  If it is killed too they end, and SIGBUS ends every
client.
"""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress

from lazyarr.errors import KernelError
from lazyarr.kernel import PAGE_NBYTES, Features, Stop, Userfaultfd, pidfd_open
from lazyarr.pager.log import report
from lazyarr.wire.channel import Channel
from lazyarr.wire.messages import Hello, Record
from lazyarr.wire.packets import message_of

__all__ = ["keep_watch"]

# Where the kernel maps memory for which no address is asked for: above this, and below the end
# of the address space, of so many bits.  A range that begins below vm.mmap_min_addr (65536 by
# default on most distributions; kernels older than 6.18) or ends behind the address space is
# refused (EINVAL).  x86-64 has 47 bits; aarch64 has 47 or less, as the kernel was built.
_LOWEST = 1 << 20
_ADDRESS_BITS = (47, 42, 39, 36)


class _Orphan:
    """A client of a pager that is gone."""

    def __init__(self, hello: Hello, descriptors: tuple[int, ...]) -> None:
        uffd, lifeline = descriptors
        self.hello = hello
        self.uffd = Userfaultfd.from_fd(uffd, Features(hello.features))
        self.lifeline = lifeline
        self.pidfd = -1

    def poison(self) -> None:
        """Answer each fault that this client's threads wait in."""
        for address in self.uffd.read_addresses():
            if Features.POISON not in self.uffd.features:
                # Before Linux 6.6 there is no poison for a page.  The whole process
                # dies, which is loud.  A pidfd, because the number of a process that
                # has ended may be another's.
                signal.pidfd_send_signal(self.pidfd, signal.SIGBUS)
            elif self.uffd.poison(address & -PAGE_NBYTES, PAGE_NBYTES).stop is not Stop.DONE:
                # The page is there already, or its mapping has changed: the thread
                # shall look again.  Poison of a page never overwrites one that is
                # there.
                self.uffd.wake(address & -PAGE_NBYTES, PAGE_NBYTES)

    def close(self) -> None:
        """Close the descriptors of a client that has ended."""
        self.uffd.close()
        for descriptor in (self.lifeline, self.pidfd):
            if descriptor >= 0:
                os.close(descriptor)


def keep_watch(channel: Channel) -> None:
    """Wait until the supervisor is gone, then poison faults until the clients are gone too.

    Parameters
    ----------
    channel : Channel
        The channel from the supervisor, which reports each client and its end.  The channel ends
        when the supervisor does.
    """
    clients: dict[int, _Orphan] = {}
    while (received := channel.receive()) is not None:
        record = received.message
        assert isinstance(record, Record)
        # The supervisor tells of a client with each record that it enters.  So this is
        # the client's end or a repetition, and the old descriptors are of no use.
        if record.client in clients:
            clients.pop(record.client).close()
        if record.body:
            hello = message_of(record.body)
            assert isinstance(hello, Hello)
            clients[record.client] = _Orphan(hello, received.descriptors)
    if clients:
        _outlive(list(clients.values()))


def _wake_all(uffd: Userfaultfd) -> None:
    """Wake every thread of a client that waits, wherever that is."""
    for bits in _ADDRESS_BITS:
        # Also where the process is gone meanwhile: nobody waits then.
        with suppress(KernelError):
            uffd.wake(_LOWEST, (1 << bits) - PAGE_NBYTES - _LOWEST)
            return


def _outlive(clients: list[_Orphan]) -> None:
    """Poison the faults of clients without a pager until the last of them has ended."""
    epoll = select.epoll()
    by_descriptor: dict[int, _Orphan] = {}
    for client in clients:
        try:
            client.pidfd = pidfd_open(client.hello.pid)
        except KernelError:
            # The client has ended already, and nothing is to be answered there.
            continue
        for descriptor in (client.pidfd, client.uffd.fileno()):
            by_descriptor[descriptor] = client
            epoll.register(descriptor, select.EPOLLIN)
        # A fault that the worker has read and not answered is not reported again.  Each
        # thread that waits is woken, faults anew, and then gets poison.
        _wake_all(client.uffd)
    if by_descriptor:
        report("the pager was killed; touching what is not loaded gives SIGBUS from now on")
    while by_descriptor:
        for descriptor, _ in epoll.poll():
            found = by_descriptor.get(descriptor)
            # The client's pidfd came first in the same answer of epoll.
            if found is None:
                continue
            if descriptor != found.pidfd:
                found.poison()
                continue
            for watched in (found.pidfd, found.uffd.fileno()):
                epoll.unregister(watched)
                del by_descriptor[watched]
            found.close()

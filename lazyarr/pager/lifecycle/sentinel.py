"""The process that is left when the rest of the pager is killed.

A thread that waits in a fault cannot be told anything.  Its process must neither hang nor
read zeros.  So the sentinel keeps a copy of every userfaultfd, and does nothing while the
supervisor lives.  After the supervisor's death it answers each fault with poison.  A thread
that waits for a page gets SIGBUS, and so does one that touches a missing page later.  Clients
that wait for nothing live on, and get an exception with their next request.

A page that is there and write-protected takes no poison.  Nobody could note that it is written
to, so the thread that wants to write is sent SIGBUS.  What was written before is in the client's
memory object.

The sentinel also holds the lifelines.  If it is killed too they end, and SIGBUS ends every
client.
"""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress

from lazyarr.errors import KernelError
from lazyarr.kernel import (
    PAGE_NBYTES,
    Fault,
    Features,
    Stop,
    Userfaultfd,
    WriteProtectMode,
    is_deaf,
    pidfd_open,
    signal_thread,
)
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
        uffd, lifeline, *writable = descriptors
        self.hello = hello
        self.uffds = [Userfaultfd.from_fd(uffd, Features(hello.features))]
        for descriptor in writable:
            features = Features(hello.writable_features)
            self.uffds.append(Userfaultfd.from_fd(descriptor, features))
        self.lifeline = lifeline
        self.pidfd = -1
        self._answered: set[tuple[int, int]] = set()

    def answer(self, uffd: Userfaultfd) -> None:
        """Answer each fault that this client's threads wait in."""
        for fault in uffd.read_faults():
            if fault.wp:
                self._refuse_write(fault)
            elif Features.POISON not in uffd.features:
                # Before Linux 6.6 there is no poison for a page.  The whole process
                # dies, which is loud.
                self._send(signal.SIGBUS)
            else:
                self._poison(uffd, fault)

    def _poison(self, uffd: Userfaultfd, fault: Fault) -> None:
        """Let a thread that waits for a page die of SIGBUS."""
        page = fault.address & -PAGE_NBYTES
        if uffd.poison(page, PAGE_NBYTES).stop is Stop.DONE:
            return
        # The page is there already, or its mapping has changed: the thread shall look
        # again.  Poison of a page never overwrites one that is there.  Nor does it overwrite a
        # protection that a page has left behind, and then the same thread comes again.
        if self._has_answered(fault) and Features.PAGEFAULT_FLAG_WP in uffd.features:
            uffd.writeprotect(page, PAGE_NBYTES, mode=int(WriteProtectMode.DONTWAKE))
            if uffd.poison(page, PAGE_NBYTES).stop is Stop.DONE:
                return
        uffd.wake(page, PAGE_NBYTES)

    def _refuse_write(self, fault: Fault) -> None:
        """Let a thread that wants to write to a page die of SIGBUS."""
        pid, thread = self.hello.pid, fault.thread_id
        # A signal that is sent can be blocked or ignored, where one that the kernel makes of a
        # fault cannot.  A thread that comes again has a handler that returned to the same write,
        # or waits inside of a system call, which such a signal does not end.  Both would go on
        # for ever, so the process ends.
        try:
            if thread and (self._has_answered(fault) or is_deaf(pid, thread, signal.SIGBUS)):
                reason = "nobody can note what it writes, and it takes no SIGBUS"
                report(f"process {pid} is killed: {reason}")
                self._send(signal.SIGKILL)
            elif thread:
                signal_thread(pid, thread, signal.SIGBUS)
            else:
                self._send(signal.SIGBUS)
        except OSError:
            self._send(signal.SIGKILL)

    def _has_answered(self, fault: Fault) -> bool:
        """Return whether a thread has had its answer for an address already; note that it has."""
        answer = fault.thread_id, fault.address
        is_repeated = answer in self._answered
        self._answered.add(answer)
        return is_repeated

    def _send(self, number: int) -> None:
        """Send a signal to the process."""
        # A pidfd, because the number of a process that has ended may be another's.
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    def close(self) -> None:
        """Close the descriptors of a client that has ended."""
        for uffd in self.uffds:
            uffd.close()
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
    by_descriptor: dict[int, tuple[_Orphan, Userfaultfd | None]] = {}
    for client in clients:
        try:
            client.pidfd = pidfd_open(client.hello.pid)
        except KernelError:
            # The client has ended already, and nothing is to be answered there.
            continue
        by_descriptor[client.pidfd] = client, None
        by_descriptor.update((uffd.fileno(), (client, uffd)) for uffd in client.uffds)
        for descriptor in (client.pidfd, *(uffd.fileno() for uffd in client.uffds)):
            epoll.register(descriptor, select.EPOLLIN)
        # A fault that the worker has read and not answered is not reported again.  Each
        # thread that waits is woken, faults anew, and then gets poison.
        for each in client.uffds:
            _wake_all(each)
    if by_descriptor:
        report("the pager was killed; touching what is not loaded gives SIGBUS from now on")
    while by_descriptor:
        for descriptor, _ in epoll.poll():
            # Nobody, where the client's pidfd came first in the same answer of epoll.
            found, uffd = by_descriptor.get(descriptor, (None, None))
            if found is None:
                continue
            if uffd is not None:
                found.answer(uffd)
                continue
            for watched in (found.pidfd, *(uffd.fileno() for uffd in found.uffds)):
                epoll.unregister(watched)
                del by_descriptor[watched]
            found.close()

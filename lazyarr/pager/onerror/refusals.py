"""Threads that want to write what cannot be written: each is sent SIGBUS.

Their pages are there, so poison is of no use.  A signal that is sent can be blocked or ignored,
where one that the kernel makes of a fault cannot; and one that is handled leads back to the same
write.  Then the thread would wait for ever, and the process is killed.
"""

from __future__ import annotations

import signal
from contextlib import suppress
from typing import TYPE_CHECKING

from lazyarr.kernel import is_deaf, signal_thread
from lazyarr.pager.log import report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lazyarr.kernel import Fault
    from lazyarr.pager.memory.clients import Client

__all__ = ["Refusals"]


class Refusals:
    """Which threads have come to write where, and which of them were refused; for all clients."""

    def __init__(self) -> None:
        # By client and thread, the address of its last fault; and those that were answered.
        self._writers: dict[tuple[int, int], int] = {}
        self._answered: set[tuple[int, int, int]] = set()

    def __repr__(self) -> str:
        return f"<Refusals: {len(self._writers)} threads>"

    def note(self, client: int, faults: Iterable[Fault]) -> None:
        """Take down which threads of a client wait to write."""
        for fault in faults:
            if fault.write and fault.thread_id:
                self._writers[client, fault.thread_id] = fault.address

    def forget(self, client: int) -> None:
        """Forget a client that has ended."""
        self._writers = {key: at for key, at in self._writers.items() if key[0] != client}
        self._answered = {answer for answer in self._answered if answer[0] != client}

    def refuse(self, client: Client, is_meant: Callable[[int], bool]) -> bool:
        """Let the threads of a client that wait to write at some addresses die of SIGBUS.

        Returns False where none is known to, and the whole process was sent the signal.
        """
        found = [
            (thread, address)
            for (number, thread), address in self._writers.items()
            if number == client.number and is_meant(address)
        ]
        if not found:
            # Kernels before 5.7 do not say which thread it is; nor did a worker before this one.
            _send(client, signal.SIGBUS)
        for thread, address in found:
            del self._writers[client.number, thread]
            answer = client.number, thread, address
            try:
                if answer in self._answered or is_deaf(client.pid, thread, signal.SIGBUS):
                    reason = "it cannot be let write, and takes no SIGBUS"
                    report(f"process {client.pid} is killed: {reason}")
                    _send(client, signal.SIGKILL)
                else:
                    self._answered.add(answer)
                    signal_thread(client.pid, thread, signal.SIGBUS)
            except OSError:
                _send(client, signal.SIGBUS)
        return bool(found)

    def let_in(self, client: int) -> None:
        """Take down that writers of a client are let in again: what they were told is over."""
        if self._answered:
            self._answered = {answer for answer in self._answered if answer[0] != client}


def _send(client: Client, number: int) -> None:
    """Send a signal to a client's process."""
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(client.pidfd, number)

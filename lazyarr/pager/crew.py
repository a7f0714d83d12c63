"""The pager's threads: one listens, the others work, and they take turns.

Leader and followers (Schmidt et al., Leader/Followers, PLoP 2000): the thread
that learns of a fault serves it itself, and another takes its place at the
sockets.  Handing the work to a pool instead costs the wake-up of a second
thread on the way of every fault.  One thread always listens: the last idle one
never takes work, so a slow disk can not make the pager deaf.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from lazyarr.loading.workspace import Workspace

__all__ = ["Crew", "Job"]

Job: TypeAlias = Callable[[Workspace], None]


class Crew:
    """Threads that take turns at listening and working.

    Parameters
    ----------
    n_workers : int
        How many jobs may run at once.
    listen : callable
        Waits for events and handles them; returns when jobs may have been added.
    failed : callable
        Told of an exception that a job or `listen` let through; must not return
        before it has seen to it that nobody waits for that job.
    """

    def __init__(
        self,
        n_workers: int,
        *,
        listen: Callable[[], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._listen = listen
        self._failed = failed
        self._condition = threading.Condition(threading.Lock())
        self._urgent: deque[Job] = deque()
        self._patient: deque[Job] = deque()
        self._quick: deque[Job] = deque()
        self._leader = 0
        self._workspaces: list[Workspace] = []
        self._has_leader = False
        self._n_idle = 0
        self._stopping = False
        self._threads: list[threading.Thread] = []
        self._n_wanted = n_workers + 1
        self._started = False

    def __repr__(self) -> str:
        queued = len(self._urgent) + len(self._patient)
        return f"<Crew: {len(self._threads)} threads, {self._n_idle} idle, {queued} jobs queued>"

    def resize(self, n_workers: int) -> None:
        """Have at least so many threads that this number of jobs may run at once."""
        self._n_wanted = max(self._n_wanted, n_workers + 1)
        if self._started:
            self.start()

    def start(self) -> None:
        """Begin to listen and to work."""
        self._started = True
        while len(self._threads) < self._n_wanted:
            thread = threading.Thread(
                target=self._serve, name=f"pager-{len(self._threads)}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def add(self, job: Job, *, urgent: bool, quick: bool = False) -> None:
        """Queue a job; urgent ones go first.

        A quick one takes less time than waking a thread does: whoever listens does
        it before it listens again.
        """
        if quick and threading.get_ident() == self._leader:
            self._quick.append(job)
            return
        with self._condition:
            (self._urgent if urgent else self._patient).append(job)
            if self._n_idle:
                self._condition.notify()

    def join(self) -> None:
        """Wait until the crew has stopped."""
        for thread in self._threads:  # grows while others are waited for
            thread.join()
        while self._workspaces:
            self._workspaces.pop().close()

    def stop(self) -> None:
        """Let every thread end after what it is doing."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()

    def _serve(self) -> None:
        try:
            while not self._stopping:
                job = self._next_job()
                if job is not None:
                    self._run(job)
        except BaseException as error:  # noqa: BLE001 - the thread ends here; nobody may go on waiting
            self._failed(error)

    def _run(self, job: Job) -> None:
        """Run a job in the memory that was used last, which the processor still has at hand.

        Threads take turns; each with memory of its own would find it cold every time.
        """
        try:
            workspace = self._workspaces.pop()
        except IndexError:
            workspace = Workspace()
        job(workspace)
        self._workspaces.append(workspace)

    def _next_job(self) -> Job | None:
        """Wait for a job, listening meanwhile if nobody else does; None to ask again."""
        with self._condition:
            while self._has_leader and not self._stopping:
                if self._urgent or self._patient:
                    return self._pop()
                self._n_idle += 1
                self._condition.wait()
                self._n_idle -= 1
            if self._stopping:
                return None
            self._has_leader = True
            self._leader = threading.get_ident()
        return self._lead()

    def _lead(self) -> Job | None:
        """Listen until there is a job and somebody to take this place."""
        while True:
            self._listen()
            while self._quick:
                self._run(self._quick.popleft())
            if not (self._urgent or self._patient or self._stopping):
                continue  # nothing to hand over: no lock between two faults
            with self._condition:
                if self._stopping:
                    self._has_leader, self._leader = False, 0
                    return None
                if self._n_idle and (self._urgent or self._patient):
                    self._has_leader, self._leader = False, 0
                    self._condition.notify()
                    return self._pop()

    def _pop(self) -> Job:
        return (self._urgent or self._patient).popleft()

"""The pager's threads: one listens, the others work, and they take turns.

Leader and followers (Schmidt et al., Leader/Followers, PLoP 2000): the thread
that learns of a fault serves it itself.  While it does, it lends its place: the
others watch the sockets by a second epoll, in which the first one is armed only
then, so that none of them wakes unless there is something to hear.  Handing the
work to a pool, or the place to another thread, would put the wake-up of a thread
into the way of every fault.  One thread always listens or can: the last idle one
never takes work, so a slow disk can not make the pager deaf.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from lazyarr.loading.workspace import Workspace

__all__ = ["Crew", "Job"]

Job: TypeAlias = Callable[[Workspace], None]

_ARMED = select.EPOLLIN | select.EPOLLONESHOT


class Crew:
    """Threads that take turns at listening and working.

    Parameters
    ----------
    n_workers : int
        How many jobs may run at once.
    ears : int
        Descriptor that is readable while there is something to hear, as an epoll's is.
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
        ears: int,
        listen: Callable[[], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._ears = ears
        self._listen = listen
        self._failed = failed
        self._lock = threading.Lock()
        self._urgent: deque[Job] = deque()
        self._patient: deque[Job] = deque()
        self._workspaces: list[Workspace] = []
        self._leader = 0
        self._is_lent = False
        self._n_idle = 0
        self._stopping = False
        self._threads: list[threading.Thread] = []
        self._n_wanted = n_workers + 1
        self._started = False
        # What idle threads wait at: calls for help, and what nobody else hears.  A call
        # wakes one of them each time, and is never read (edge-triggered).
        self._calls = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._bench = select.epoll()
        self._bench.register(self._calls, select.EPOLLIN | select.EPOLLET)
        self._bench.register(ears, 0)

    def __repr__(self) -> str:
        queued = len(self._urgent) + len(self._patient)
        return f"<Crew: {len(self._threads)} threads, {self._n_idle} idle, {queued} jobs queued>"

    @property
    def n_idle(self) -> int:
        """How many threads neither work nor listen."""
        return self._n_idle

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

    def add(self, job: Job, *, urgent: bool) -> None:
        """Queue a job; urgent ones go first."""
        with self._lock:
            (self._urgent if urgent else self._patient).append(job)
            # Who listens looks for jobs itself, and calls for help if there are many.
            is_heard = threading.get_ident() == self._leader and not self._is_lent
            needs_help = not is_heard and self._can_spare()
        if needs_help:
            self._call()

    def promote(self, job: Job) -> None:
        """Let a job that is queued be urgent; do nothing when it is not queued any more."""
        with self._lock:
            if job in self._patient:
                self._patient.remove(job)
                self._urgent.append(job)

    def join(self) -> None:
        """Wait until the crew has stopped."""
        for thread in self._threads:  # grows while others are waited for
            thread.join()
        self.close()

    def close(self) -> None:
        """Give memory and descriptors back; no thread may be left."""
        while self._workspaces:
            self._workspaces.pop().close()
        self._bench.close()
        os.close(self._calls)

    def stop(self) -> None:
        """Let every thread end after what it is doing."""
        self._stopping = True
        self._call()

    def _call(self) -> None:
        os.eventfd_write(self._calls, 1)

    def _serve(self) -> None:
        try:
            while not self._stopping:
                if self._maybe_lead():
                    self._lead()
                else:
                    self._work()
            self._call()  # for the next one that waits
        except BaseException as error:  # noqa: BLE001 - the thread ends here; nobody may go on waiting
            self._failed(error)

    # --- listening ------------------------------------------------------------------

    def _maybe_lead(self) -> bool:
        """Take the place of who listens, when it is free; return whether it was."""
        with self._lock:
            if self._leader:
                return False
            self._leader = threading.get_ident()
            return True

    def _lead(self) -> None:
        """Listen, and do the jobs that come of it, until somebody has taken the place."""
        while not self._stopping:
            self._listen()
            while self._urgent or self._patient:
                job = self._lend()
                if job is None:
                    break  # nobody is idle: whoever is ready first takes the next one
                while job is not None:
                    self._run(job)
                    job = self._pop_while_lent()
                if not self._take_back():
                    return
        with self._lock:
            self._leader = 0

    def _lend(self) -> Job | None:
        """Return a job for this thread; whoever hears something meanwhile may lead."""
        with self._lock:
            if not self._n_idle or not (self._urgent or self._patient):
                return None
            job = self._pop()
            self._is_lent = True
            needs_help = self._can_spare()
        self._bench.modify(self._ears, _ARMED)
        if needs_help:
            self._call()
        return job

    def _pop_while_lent(self) -> Job | None:
        """Return another job for this thread, unless somebody has taken the place."""
        with self._lock:
            is_leading = self._leader == threading.get_ident()
            return self._pop() if is_leading and (self._urgent or self._patient) else None

    def _take_back(self) -> bool:
        """Stop lending; return whether this thread still leads."""
        with self._lock:
            if self._leader != threading.get_ident():
                return False
            self._is_lent = False
            self._bench.modify(self._ears, 0)
            return True

    # --- working --------------------------------------------------------------------

    def _work(self) -> None:
        """Do a job; wait for one, or for something that nobody hears, if there is none."""
        with self._lock:
            self._n_idle += 1
            job = self._pop() if self._can_spare() else None
            if job is not None:
                self._n_idle -= 1
            needs_help = self._can_spare()
        if job is None:
            self._wait()
            return
        if needs_help:
            self._call()
        self._run(job)

    def _wait(self) -> None:
        """Wait until there may be a job, or take the place that was lent."""
        events = [] if self._stopping else self._bench.poll()
        with self._lock:
            self._n_idle -= 1
            if self._is_lent and any(fd == self._ears for fd, _ in events):
                self._is_lent = False
                self._leader = 0

    def _can_spare(self) -> bool:
        """Return whether there is a job, and one who is idle and need not be ready to listen."""
        return bool(self._urgent or self._patient) and self._n_idle > self._is_lent

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

    def _pop(self) -> Job:
        return (self._urgent or self._patient).popleft()

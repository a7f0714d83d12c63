"""The worker's threads: one listens, the others work, and they take turns.

Leader and followers (Schmidt et al., Leader/Followers, PLoP 2000): the thread that learns of
a fault serves the fault itself.  While it does, it lends its place as the listener.  The idle
threads wait at a second epoll, in which the first epoll is armed only then.  So none of them
wakes unless there is something to hear.

A pool would put the wake-up of a thread into the way of every fault, and so would handing over
the listener's place.  For a unit of 64 KiB a fault took 360 us with a pool, and takes 95 us so.
One thread always listens or is free to: the last idle thread takes no work, so a slow disk
cannot make the pager deaf.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from lazyarr.reading.workspace import Workspace

__all__ = ["LeaderFollowers", "Job"]

Job: TypeAlias = Callable[[Workspace], None]

_ARMED = select.EPOLLIN | select.EPOLLONESHOT


class LeaderFollowers:
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
        Called with an exception that a job or `listen` has raised.  It must not return while
        anything still waits for that job.
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
        # The thread that listens, by its identifier; 0 when none does.  While its place is lent it
        # works, and an idle thread that hears something takes the place.
        self._leader = 0
        self._is_lent = False
        self._n_idle = 0
        self._stopping = False
        self._threads: list[threading.Thread] = []
        self._n_wanted = n_workers + 1
        self._started = False
        # Idle threads wait at this epoll.  It reports calls for help, and events that
        # no thread listens for.  Edge-triggered, a call wakes one thread and need not
        # be read.  The ears are registered with no events, and `_lend` arms them.
        self._calls = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._idle_epoll = select.epoll()
        self._idle_epoll.register(self._calls, select.EPOLLIN | select.EPOLLET)
        self._idle_epoll.register(ears, 0)

    def __repr__(self) -> str:
        queued = len(self._urgent) + len(self._patient)
        threads = f"{len(self._threads)} threads, {self._n_idle} idle"
        return f"<LeaderFollowers: {threads}, {queued} jobs queued>"

    @property
    def n_idle(self) -> int:
        """How many threads neither work nor listen."""
        return self._n_idle

    def resize(self, n_workers: int) -> None:
        """Have at least so many threads that this number of jobs may run at once."""
        # Never fewer: a thread that ends might be the listener, and an idle one costs little.
        # One more than jobs, for one listens.
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
            # The listener looks for jobs itself when its handlers are done, and wakes others if
            # there are many.  So a job that it adds wakes nobody here.
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
        """Wait until all threads have stopped, then close what they used."""
        for thread in self._threads:  # may grow meanwhile
            thread.join()
        self.close()

    def close(self) -> None:
        """Give memory and descriptors back; no thread may be running."""
        while self._workspaces:
            self._workspaces.pop().close()
        self._idle_epoll.close()
        os.close(self._calls)

    def stop(self) -> None:
        """Let every thread end after its present job."""
        self._stopping = True
        self._call()

    def _call(self) -> None:
        """Wake one idle thread."""
        os.eventfd_write(self._calls, 1)

    def _serve(self) -> None:
        """Listen and work in turns, until the threads are stopped: what a thread runs."""
        try:
            while not self._stopping:
                if self._maybe_lead():
                    self._lead()
                else:
                    self._work()
            # One call wakes one thread.  Each that ends wakes the next.
            self._call()
        except BaseException as error:  # noqa: BLE001 - the thread ends here, and others may wait for it
            self._failed(error)

    # --- listening ------------------------------------------------------------------

    def _maybe_lead(self) -> bool:
        """Become the listener if there is none; return whether this thread has."""
        with self._lock:
            if self._leader:
                return False
            self._leader = threading.get_ident()
            return True

    def _lead(self) -> None:
        """Listen, and do the jobs that come of it, until another thread has taken the place."""
        while not self._stopping:
            self._listen()
            while self._urgent or self._patient:
                job = self._lend()
                if job is None:
                    # No other thread is idle, so none could listen meanwhile.  This one listens
                    # on, and the thread that is done first takes the next job.
                    break
                while job is not None:
                    self._run(job)
                    job = self._pop_while_lent()
                if not self._take_back():
                    return
        with self._lock:
            self._leader = 0

    def _lend(self) -> Job | None:
        """Lend the listener's place and return a job for this thread; None if it must listen on."""
        with self._lock:
            if not self._n_idle or not (self._urgent or self._patient):
                return None
            job = self._pop()
            self._is_lent = True
            needs_help = self._can_spare()
        # EPOLLONESHOT: the first event wakes one thread, which becomes the listener.  The others
        # sleep on.
        self._idle_epoll.modify(self._ears, _ARMED)
        if needs_help:
            self._call()
        return job

    def _pop_while_lent(self) -> Job | None:
        """Return another job for this thread, unless another thread listens by now."""
        # Until then this thread may go on without waking anybody.
        with self._lock:
            is_leading = self._leader == threading.get_ident()
            return self._pop() if is_leading and (self._urgent or self._patient) else None

    def _take_back(self) -> bool:
        """Stop lending the place; return whether this thread is still the listener."""
        with self._lock:
            if self._leader != threading.get_ident():
                return False
            self._is_lent = False
            self._idle_epoll.modify(self._ears, 0)
            return True

    # --- working --------------------------------------------------------------------

    def _work(self) -> None:
        """Do a job; if there is none, wait for one, or for an event that no thread listens for."""
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
        """Wait until there may be a job, or until an event makes this thread the listener."""
        events = [] if self._stopping else self._idle_epoll.poll()
        # The place is made free here, and `_serve` takes it next.  The thread that has lent it
        # sees that when its job is done.
        with self._lock:
            self._n_idle -= 1
            if self._is_lent and any(fd == self._ears for fd, _ in events):
                self._is_lent = False
                self._leader = 0

    def _can_spare(self) -> bool:
        """Return whether there is a job, and an idle thread that need not be ready to listen."""
        # While the place is lent, one idle thread is kept free for events.
        return bool(self._urgent or self._patient) and self._n_idle > self._is_lent

    def _run(self, job: Job) -> None:
        """Run a job in the workspace that was used last."""
        # Its memory is in the processor's cache.  Threads take turns, so a workspace for each
        # thread would be cold every time, and take more memory.
        try:
            workspace = self._workspaces.pop()
        except IndexError:
            workspace = Workspace()
        job(workspace)
        self._workspaces.append(workspace)

    def drop_workspaces(self) -> int:
        """Give back the memory that no job works in; return how much of it was counted."""
        n_counted = 0
        # A job that begins meanwhile makes a workspace of its own.
        while True:
            try:
                workspace = self._workspaces.pop()
            except IndexError:
                return n_counted
            n_counted += workspace.counted_nbytes
            workspace.close()

    def _pop(self) -> Job:
        """Return the next job, an urgent one first; the lock is held."""
        return (self._urgent or self._patient).popleft()

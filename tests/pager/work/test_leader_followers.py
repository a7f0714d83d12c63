"""The worker threads: one listens, others work, nothing is lost and nobody is deaf."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from lazyarr.pager.work.leader_followers import LeaderFollowers
from lazyarr.reading.workspace import Workspace

SECONDS = 20


class Office:
    """A threads whose listener takes calls from a queue and makes them."""

    def __init__(self, n_workers: int) -> None:
        self.calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.failures: list[BaseException] = []
        self.ears = os.eventfd(0, os.EFD_SEMAPHORE | os.EFD_CLOEXEC)
        self.threads = LeaderFollowers(
            n_workers, ears=self.ears, listen=self.listen, failed=self.fail
        )

    def listen(self) -> None:
        """Wait for a call, and make it."""
        os.eventfd_read(self.ears)
        self.calls.get()()

    def fail(self, error: BaseException) -> None:
        """Take down a failure, and let the others go."""
        self.failures.append(error)
        self.threads.stop()
        self.hear()

    def hear(self, call: Callable[[], None] = lambda: None) -> None:
        """Have the listener make a call."""
        self.calls.put(call)
        os.eventfd_write(self.ears, 1)

    def ask(self, call: Callable[[], object]) -> object:
        """Have the listener make a call, and wait for what comes of it."""
        answers: queue.SimpleQueue[object] = queue.SimpleQueue()
        self.hear(lambda: answers.put(call()))
        return answers.get(timeout=SECONDS)

    def add(self, job: Callable[[], object], *, urgent: bool = True) -> None:
        """Queue a job, as the listener does."""
        self.ask(lambda: self.threads.add(lambda _: job(), urgent=urgent))

    def close(self) -> None:
        """End the worker threads, as the pager does: from the listener."""
        self.hear(self.threads.stop)
        self.join()

    def join(self) -> None:
        """Wait until the worker threads has stopped."""
        self.threads.join()
        os.close(self.ears)


@pytest.fixture
def make_office() -> Iterator[Callable[[int], Office]]:
    """Start threads, which must all have ended when the test has."""
    offices: list[Office] = []
    before = set(threading.enumerate())

    def make(n_workers: int) -> Office:
        offices.append(Office(n_workers))
        offices[-1].threads.start()
        return offices[-1]

    yield make
    for office in offices:
        office.close()
    assert set(threading.enumerate()) <= before


class Gate:
    """A job that waits in the middle until it is let go."""

    def __init__(self, office: Office, *, urgent: bool = True) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()
        office.add(self.wait, urgent=urgent)

    def wait(self) -> None:
        self.entered.set()
        assert self.opened.wait(SECONDS)


@pytest.mark.parametrize("n_workers", [1, 2, 4])
def test_so_many_jobs_run_at_once(make_office, n_workers):
    """They would never meet otherwise."""
    office = make_office(n_workers)
    meeting = threading.Barrier(n_workers + 1)
    for _ in range(n_workers):
        office.add(lambda: meeting.wait(SECONDS))
    meeting.wait(SECONDS)


@pytest.mark.parametrize("n_workers", [1, 3])
def test_somebody_listens_while_all_work(make_office, n_workers):
    """A slow disk does not make the pager deaf, however many jobs wait."""
    office = make_office(n_workers)
    gates = [Gate(office) for _ in range(n_workers)]
    for gate in gates:
        assert gate.entered.wait(SECONDS)
    late = [Gate(office) for _ in range(3)]
    assert office.ask(lambda: "heard") == "heard"
    assert not any(gate.entered.is_set() for gate in late)
    for gate in gates + late:
        gate.opened.set()
    for gate in late:
        assert gate.entered.wait(SECONDS)


def test_urgent_jobs_go_first(make_office):
    """Each kind in the order in which it came."""
    office = make_office(1)
    gate = Gate(office)
    assert gate.entered.wait(SECONDS)
    order: list[int] = []
    done = threading.Event()
    for number, urgent in enumerate((False, True, False, True)):
        office.add(lambda number=number: order.append(number), urgent=urgent)
    office.add(done.set, urgent=False)
    gate.opened.set()
    assert done.wait(SECONDS)
    assert order == [1, 3, 0, 2]


def test_who_listens_does_the_only_job(make_office):
    """Nobody else wakes up for it."""
    office = make_office(2)
    workers: queue.SimpleQueue[int] = queue.SimpleQueue()

    def add() -> int:
        office.threads.add(lambda _: workers.put(threading.get_ident()), urgent=True)
        return threading.get_ident()

    for _ in range(20):
        office.ask(lambda: None)  # nobody works any more at what came before
        while office.threads.n_idle < 2:
            os.sched_yield()
        listener = office.ask(add)
        assert workers.get(timeout=SECONDS) == listener


def test_job_that_a_job_adds_is_done(make_office):
    """By whoever is ready first."""
    office = make_office(2)
    done = threading.Event()

    def first(_: Workspace) -> None:
        office.threads.add(lambda _: done.set(), urgent=True)

    office.ask(lambda: office.threads.add(first, urgent=True))
    assert done.wait(SECONDS)


def test_job_from_another_thread_finds_an_idle_worker(make_office):
    """Without anything for the listener to hear."""
    office = make_office(1)
    office.ask(lambda: None)
    done = threading.Event()
    office.threads.add(lambda _: done.set(), urgent=False)
    assert done.wait(SECONDS)


def test_crew_grows_and_never_shrinks(make_office):
    """More threads take effect at once; fewer would have to be waited for."""
    office = make_office(1)
    office.ask(lambda: office.threads.resize(3))
    office.ask(lambda: office.threads.resize(2))
    meeting = threading.Barrier(4)
    for _ in range(3):
        office.add(lambda: meeting.wait(SECONDS))
    meeting.wait(SECONDS)
    assert repr(office.threads).startswith("<LeaderFollowers: 4 threads, ")


def test_crew_that_has_not_begun_can_be_resized(make_office):
    """The first client's settings come before the first job."""
    office = Office(1)
    office.threads.resize(2)
    assert repr(office.threads) == "<LeaderFollowers: 0 threads, 0 idle, 0 jobs queued>"
    office.threads.start()
    meeting = threading.Barrier(3)
    for _ in range(2):
        office.add(lambda: meeting.wait(SECONDS))
    meeting.wait(SECONDS)
    office.close()


@pytest.mark.parametrize("place", ["job", "listener"])
def test_failure_is_told(place):
    """What a job or the listener lets through ends the thread, and somebody must know."""
    office = Office(2)
    office.threads.start()

    def fail(*_: object) -> None:
        raise MemoryError(place)

    if place == "listener":
        office.hear(fail)
    else:
        office.hear(lambda: office.threads.add(fail, urgent=True))
    office.join()
    assert [str(error) for error in office.failures] == [place]


def test_job_under_way_ends_before_its_thread_does():
    """Stopping waits for nobody, joining does."""
    office = Office(1)
    office.threads.start()
    gate = Gate(office)
    assert gate.entered.wait(SECONDS)
    office.hear(office.threads.stop)
    gate.opened.set()
    office.join()
    assert office.failures == []


def test_every_thread_has_a_workspace_of_its_own(make_office):
    """Two jobs at once never decode into the same memory."""
    office = make_office(2)
    meeting = threading.Barrier(3)
    addresses: list[int] = []

    def work(workspace: Workspace) -> None:
        addresses.append(workspace.unit.address)
        meeting.wait(SECONDS)

    for _ in range(2):
        office.ask(lambda: office.threads.add(work, urgent=True))
    meeting.wait(SECONDS)
    assert len(set(addresses)) == 2


def test_no_job_is_lost_and_none_is_done_twice(make_office):
    """Whoever adds them, listeners, workers and strangers at once."""
    office = make_office(3)
    done: queue.SimpleQueue[int] = queue.SimpleQueue()

    def add(number: int) -> None:
        office.threads.add(lambda _: done.put(number), urgent=number % 2 == 0)

    def add_more(start: int) -> None:
        for number in range(start, start + 100):
            add(number)

    strangers = [threading.Thread(target=add_more, args=(start,)) for start in (0, 100)]
    for stranger in strangers:
        stranger.start()
    for number in range(200, 300):
        office.hear(lambda number=number: add(number))
    office.add(lambda: add_more(300))
    for stranger in strangers:
        stranger.join()
    assert sorted(done.get(timeout=SECONDS) for _ in range(400)) == list(range(400))
    assert done.empty()


def test_memory_that_no_job_works_in_is_given_back(make_office):
    """With what was counted for it, so that it can be taken off the limit's account."""
    office = make_office(2)
    done: queue.SimpleQueue[tuple[Workspace, int]] = queue.SimpleQueue()

    def work(workspace: Workspace) -> None:
        workspace.unit.grow(4 << 20)
        done.put((workspace, workspace.take_growth()))

    office.ask(lambda: office.threads.add(work, urgent=True))
    workspace, growth = done.get(timeout=SECONDS)
    assert growth == (4 << 20) - (1 << 16)
    deadline = time.monotonic() + SECONDS
    while not (dropped := office.threads.drop_workspaces()) and time.monotonic() < deadline:
        time.sleep(0.001)  # the job has ended, its thread has yet to put the workspace back
    assert (dropped, workspace.nbytes) == (growth, 0)
    assert office.threads.drop_workspaces() == 0

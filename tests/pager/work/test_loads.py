"""Loads: in which order they are given out, by whom they are done, and how they end."""

from __future__ import annotations

import errno

import pytest

from lazyarr.errors import StoreError
from lazyarr.kernel import PAGE_NBYTES, Outcome, Stop
from lazyarr.pager.work import loader
from lazyarr.pager.work.decoders import Order
from lazyarr.plan import messages as m
from lazyarr.reading.read_queue import Urgency
from lazyarr.reading.workspace import Workspace
from lazyarr.units import Span
from lazyarr.wire import messages as w
from lazyarr.wire.jobs import News, Result
from tests.pager.serving import CLIENT, REGION

UNIT_NBYTES = 1 << 16


class Fetcher:
    """Keeps what it is asked for, until a test gives it."""

    def __init__(self) -> None:
        self.asked = {}
        self.hastened = []
        self.released = []
        self.n_flushes = 0

    def submit(self, source, unit, done, *, urgency):
        self.asked[unit] = (urgency, done)

    def hasten(self, source, unit):
        self.hastened.append(unit)

    def release(self, fetched):
        self.released.append(fetched)

    def flush(self):
        self.n_flushes += 1


class Link:
    """A network that is as it was."""

    def add_unit(self, nbytes): ...

    def differs(self, n_units, *, is_full):
        return False


def loaded(one):
    """Return the units in the order in which their first pages were installed."""
    pages = [span.start for span, _ in one.uffd.installed]
    return list(dict.fromkeys(page * PAGE_NBYTES // UNIT_NBYTES for page in pages))


def request(one, ticket, *spans):
    one.ask(m.Requested(CLIENT, REGION, ticket, tuple(Span(*span) for span in spans)))


# --- in the worker's threads ------------------------------------------------------------


def test_what_is_read_ahead_comes_last_until_somebody_waits_for_it(serve):
    """A thread that comes to wait lets its load overtake the others that nobody waits for."""
    one = serve(32, UNIT_NBYTES)
    one.executor.handle([m.ReadaheadChanged(16 * UNIT_NBYTES)])
    for unit in range(4):  # a reader that goes on in order
        one.fault(16 * unit)
        one.jobs.run()
    state = one.executor.machine.region(REGION)
    unit = next(unit for unit in range(32) if state.is_absent(unit))
    one.fault(16 * unit)
    ahead = sorted(state.loading.keys() - {unit})
    assert len(ahead) > 2
    one.fault(16 * ahead[-1])
    one.uffd.installed.clear()
    one.jobs.run()
    assert loaded(one)[:2] == [ahead[-1], unit]
    assert state.resident >= {unit, *ahead}


def test_loads_that_differ_share_no_job(serve):
    """A job is for one client and of one urgency, and not longer than is worth a thread."""
    one = serve(32, PAGE_NBYTES, is_open=False)
    start = one.executor.loads.start
    with one.executor.lock:
        for unit in range(4):
            one.executor.machine._units.begin(
                REGION, one.executor.machine.region(REGION), unit, CLIENT, urgent=unit != 2
            )
        for load in one.executor.machine._units.commands[-4:]:
            start(load)
        one.executor.loads.start_queued()
    assert len(one.jobs) == 3
    one.jobs.run()
    assert one.residency[:5] == [1, 1, 1, 1, 0]


def test_a_lack_of_descriptors_is_waited_out(serve, monkeypatch):
    """It says nothing of the unit: files that are kept open are closed, and it is tried again."""
    one = serve(2, UNIT_NBYTES, is_open=False)
    monkeypatch.setattr(loader, "_PAUSE_SECONDS", 0)
    load, left, spared = one.source.load, [2], []

    def lacking(*arguments, **options):
        if left[0]:
            left[0] -= 1
            raise StoreError("cannot open") from OSError(errno.EMFILE, "too many")
        return load(*arguments, **options)

    one.source.load = lacking
    one.executor.loads.loader.spare_descriptors = lambda: spared.append(1)
    request(one, 5, (1, 2))
    one.jobs.run()
    assert one.ours.receive().message == w.Done(5, [])
    assert (len(spared), one.residency) == (2, [0, 1])


def test_an_error_that_nobody_expects_ends_its_load_alone(serve, capfd):
    """The client is told which unit it was, and so is whoever reads stderr."""
    one = serve(2, UNIT_NBYTES, is_open=False)
    one.source.load = lambda *_: 1 / 0
    request(one, 5, (0, 1))
    one.jobs.run()
    (failure,) = one.ours.receive().message.failures
    assert failure["message"] == "unit 0 of 'a' in u: ZeroDivisionError: division by zero"
    assert "unexpected ZeroDivisionError" in capfd.readouterr().err


def test_a_unit_whose_client_has_gone_is_loaded_for_nobody(serve):
    """Its memory is not there any more, which is no failure of the unit."""
    one = serve(2, UNIT_NBYTES)
    one.uffd.copy = lambda *_, **__: Outcome(Stop.EXITED, 0)
    one.fault(0)
    one.jobs.run()
    assert one.executor.machine.counters["errors"] == 0
    assert one.uffd.poisoned == []
    assert one.executor.machine.n_loading == 0


@pytest.mark.parametrize("n_idle", [0, 3])
def test_parts_of_a_load_are_done_with_the_threads_that_are_idle(serve, n_idle):
    """Each once; memory that helpers have decoded in counts towards the limit."""
    one = serve(1, UNIT_NBYTES)
    one.jobs.n_idle = n_idle
    done = []

    def work(part, workspace):
        if part == 0:  # the others come to help now, as threads would
            one.jobs.run()
        workspace.tile.grow(1 << 20)
        done.append(part)

    before = one.executor.machine.held_nbytes
    workspace = Workspace()
    one.executor.loads.share(5, work, workspace)
    workspace.close()
    assert sorted(done) == [0, 1, 2, 3, 4]
    assert (one.executor.machine.held_nbytes > before) is (n_idle > 0)


# --- remote stores ----------------------------------------------------------------------


@pytest.fixture
def remote(serve):
    one = serve(8, UNIT_NBYTES, is_remote=True, is_open=False)
    one.source.link = Link()
    one.fetcher = Fetcher()
    one.executor.loads.make_fetcher = lambda: one.fetcher
    return one


def test_a_remote_unit_takes_a_thread_only_when_its_bytes_are_there(remote):
    """Faults come before requests at the fetcher; all of a step are submitted together."""
    remote.fault(0)
    request(remote, 5, (1, 3))
    assert not remote.jobs
    urgencies = {unit: urgency for unit, (urgency, _) in remote.fetcher.asked.items()}
    assert urgencies == {0: Urgency.FAULT, 1: Urgency.REQUEST, 2: Urgency.REQUEST}
    assert remote.fetcher.n_flushes == 2
    for unit in (2, 0, 1):
        fetched = (memoryview(b"bytes of a chunk"),)
        remote.fetcher.asked[unit][1](fetched)
        assert remote.fetcher.released == []
        remote.jobs.run()
        assert remote.fetcher.released.pop() is fetched
    assert remote.ours.receive().message == w.Done(5, [])
    assert remote.residency[:4] == [1, 1, 1, 0]


def test_a_remote_unit_that_cannot_be_had_is_an_error(remote):
    """By a thread: the fetcher's event loop must not be held up."""
    request(remote, 5, (3, 4))
    remote.fetcher.asked[3][1](StoreError("the server is away"))
    assert not remote.ours.is_readable()
    remote.jobs.run()
    (failure,) = remote.ours.receive().message.failures
    assert "the server is away" in failure["message"]


def test_what_is_fetched_ahead_is_hastened_once(remote):
    """When somebody comes to wait, and not when its bytes are there already."""
    with remote.executor.lock:
        state = remote.executor.machine.region(REGION)
        units = remote.executor.machine._units
        for unit in (4, 5):
            units.begin(REGION, state, unit, CLIENT, urgent=False)
            remote.executor.loads.start(units.commands[-1])
    assert {urgency for urgency, _ in remote.fetcher.asked.values()} == {Urgency.READAHEAD}
    remote.fault(4 * 16)
    remote.fault(4 * 16 + 1)
    assert remote.fetcher.hastened == [4]
    remote.fetcher.asked[5][1]((memoryview(b"x"),))
    remote.fault(5 * 16)
    assert remote.fetcher.hastened == [4]
    remote.jobs.run()
    assert remote.residency[5] == 1


# --- decoders ---------------------------------------------------------------------------


def test_what_a_decoder_could_not_do_is_done_again_from_the_beginning(serve, monkeypatch):
    """It may have installed a part: two versions of a chunk are never mixed."""
    one = serve(2, UNIT_NBYTES)
    loads, punched = one.executor.loads, []
    orders: list[Order] = []
    monkeypatch.setattr(loads.decoders, "max_processes", 1)
    monkeypatch.setattr(loads.decoders, "add", lambda order: not orders.append(order))
    monkeypatch.setattr(one.executor.regions[REGION], "punch", punched.append, raising=False)
    one.fault(3)
    assert not one.jobs
    (order,) = orders
    monkeypatch.setattr(loads.decoders, "max_processes", 0)
    with one.executor.lock:
        loads._on_result(order, Result(REGION, 0, News.FAILED))
    one.jobs.run()
    assert punched == [Span(0, 16)]
    assert loaded(one) == [0]
    assert one.residency == [1, 0]


def test_a_decoder_that_is_done_ends_the_load(serve, monkeypatch):
    """The request is answered, and what the decoder decodes in counts."""
    one = serve(2, UNIT_NBYTES)
    loads = one.executor.loads
    orders: list[Order] = []
    monkeypatch.setattr(loads.decoders, "max_processes", 1)
    monkeypatch.setattr(loads.decoders, "add", lambda order: not orders.append(order))
    request(one, 5, (1, 2))
    (order,) = orders
    before = one.executor.machine.held_nbytes
    with one.executor.lock:
        loads._on_result(order, Result(REGION, 1, News.DONE, 0.1, 0.1, 4096, 100))
    assert one.ours.receive().message == w.Done(5, [])
    assert one.executor.machine.held_nbytes == before + 4096
    assert one.executor.measurements.counters["units_by_decoders"] == 1

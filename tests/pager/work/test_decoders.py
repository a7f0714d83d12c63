"""Who is hired to decode, and when; over real sockets, with nobody behind them."""

from __future__ import annotations

import os
import socket
import threading
from types import SimpleNamespace

import pytest

from lazyarr.errors import PagerError
from lazyarr.memory_kind import MemoryKind
from lazyarr.pager.work.decoders import DecoderDiedError, Decoders, Order
from lazyarr.plan import messages as m
from lazyarr.wire.jobs import JOB_NBYTES, Job, News, Result

READY = Result(0, 0, News.READY).encode()


class Hirer:
    """Stands for supervisor and listener: keeps the far ends, and hears when it is told to."""

    def __init__(self, n_threads: int, *, unit_nbytes: int = 1 << 20) -> None:
        self.source = SimpleNamespace(can_lend=True)
        region = SimpleNamespace(is_remote=False, unit_nbytes=unit_nbytes, source=self.source)
        region.pipeline = b"{}"
        region.kind = MemoryKind.SHARED
        geometry = SimpleNamespace(unit_nbytes=unit_nbytes)
        state = SimpleNamespace(
            n_plain_units=10, addresses={}, geometry=geometry, kind=MemoryKind.SHARED
        )
        self.addresses = state.addresses
        machine = SimpleNamespace(region=lambda _: state)
        self.clients = {}
        self.refused: list[Order] = []
        self.ended: list[tuple[Order, Result]] = []
        self.lock = threading.Lock()
        core = SimpleNamespace(
            machine=machine, clients=self.clients, regions={1: region}, lock=self.lock
        )
        self.decoders = Decoders(
            core,
            refuse=self.refused.append,
            on_result=lambda *ended: self.ended.append(ended),
        )
        self.decoders.hire, self.decoders.watch = self.hire, self.watch
        self.decoders.unwatch = lambda fd: self.hears.pop(fd)
        self.decoders.resize(n_threads)
        self.far_ends: list[socket.socket] = []
        self.hears = {}

    def hire(self, n_threads: int, jobs: int) -> None:
        self.far_ends.append(socket.socket(fileno=os.dup(jobs)))

    def watch(self, fd, handler) -> None:
        self.hears[fd] = handler

    def hear(self) -> None:
        """Hear what has come of who was hired last."""
        list(self.hears.values())[-1]()


@pytest.fixture
def hirer():
    made: list[Hirer] = []

    def make(*arguments, **options):
        made.append(Hirer(*arguments, **options))
        return made[-1]

    yield make
    for each in made:
        for far_end in each.far_ends:
            far_end.close()
        each.decoders.close()


def order(unit: int = 0, **fields) -> Order:
    return Order(m.Load(1, unit, 1, urgent=True, **fields), None)


def test_nobody_is_hired_for_few_threads(hirer):
    """One interpreter feeds four."""
    one = hirer(4)
    assert not one.decoders.add(order())
    assert one.far_ends == []


def test_nobody_is_hired_for_what_the_worker_does_itself(hirer):
    """Small units, units that are only marked, and those that others share a page with."""
    assert not hirer(8, unit_nbytes=4096).decoders.add(order())
    one = hirer(8)
    assert not one.decoders.add(order(mark=True))
    assert not one.decoders.add(order(unit=10))
    assert one.far_ends == []


def test_the_worker_goes_on_alone_until_somebody_is_ready(hirer):
    """And takes back what cannot be given away."""
    one = hirer(8)
    assert not one.decoders.add(order())
    assert not one.decoders.add(order())
    assert len(one.far_ends) == 1
    one.far_ends[0].send(READY)
    one.hear()
    assert len(one.decoders) == 1
    assert one.decoders.add(order())
    assert one.refused == [order()]  # its client is gone


def test_who_can_not_start_is_not_hired_for_ever(hirer):
    """Three times, and then the worker stays alone."""
    one = hirer(8)
    for n_hired in (1, 2, 3):
        assert not one.decoders.add(order())
        assert len(one.far_ends) == n_hired
        one.far_ends[-1].close()
        one.hear()
    assert not one.decoders.add(order())
    assert len(one.far_ends) == 3
    assert not one.hears


def test_the_death_of_who_was_at_work_is_the_workers(hirer):
    """For nobody knows what it has left undone."""
    one = hirer(8)
    one.decoders.add(order())
    one.far_ends[0].send(READY)
    one.hear()
    one.far_ends[0].close()
    with pytest.raises(DecoderDiedError):
        one.hear()


def test_without_a_supervisor_nobody_is_hired(hirer):
    """There is nobody left who could start one."""
    one = hirer(8)

    def refuse(n_threads: int, jobs: int) -> None:
        raise PagerError("the other side of a channel does not read")

    one.decoders.hire = refuse
    assert not one.decoders.add(order())
    one.decoders.hire = one.hire
    assert not one.decoders.add(order())
    assert one.far_ends == []


def test_a_job_is_done_before_the_thread_that_gave_it_out_goes_on(hirer):
    """What has become of it is heard after it is written down who wants to know."""
    one = hirer(8)
    one.decoders.add(order())
    one.far_ends[0].send(READY)
    one.hear()
    one.addresses[1] = 1 << 40
    one.clients[1] = SimpleNamespace(uffd_of=lambda _: SimpleNamespace(fileno=lambda: 0))
    listener = threading.Thread(target=one.hear)

    def lend(unit, send) -> bool:
        is_sent = send(0, 0, 100)
        job = Job.decode(one.far_ends[0].recv(JOB_NBYTES))
        one.far_ends[0].send(Result(job.region, job.unit, News.DONE).encode())
        listener.start()
        listener.join(0.1)
        return is_sent

    one.source.lend = lend
    with one.lock:
        assert one.decoders.add(order(unit=3))
        assert one.ended == []
    listener.join()
    assert [(of, result.news) for of, result in one.ended] == [(order(unit=3), News.DONE)]
    one.hear()  # there is no more
    assert len(one.ended) == 1

"""The state machine, its lock and its commands, over memory that nobody has mapped."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from lazyarr.errors import KernelError
from lazyarr.kernel import PAGE_NBYTES, Outcome, pidfd_open
from lazyarr.memory_kind import MemoryKind
from lazyarr.plan import messages as m
from lazyarr.reading.workspace import Workspace
from lazyarr.units import Span
from lazyarr.wire import messages as w
from tests.pager.serving import ADDRESS, CLIENT, REGION

# --- loads ----------------------------------------------------------------------------


def test_a_fault_is_one_job_that_installs_and_publishes_the_unit(serve):
    """Nothing is done in the thread that heard of it, which goes on listening."""
    one = serve(4, 1 << 16)
    one.fault(17)
    assert (len(one.jobs), one.uffd.installed) == (1, [])
    one.jobs.run()
    assert b"".join(data for _, data in one.uffd.installed) == b"b" * (1 << 16)
    assert one.residency == [0, 1, 0, 0]
    assert one.executor.machine.resident_nbytes == 1 << 16


def test_a_small_unit_is_installed_by_the_thread_that_hears_of_its_fault(serve):
    """To wake another one would take longer than the unit does."""
    one = serve(4, PAGE_NBYTES)
    client = one.executor.clients[CLIENT]
    assert one.executor.serve_fast(client, ADDRESS + 2 * PAGE_NBYTES)
    assert not one.jobs
    assert one.uffd.installed == [(Span(2, 3), b"c" * PAGE_NBYTES)]
    assert one.residency == [0, 0, 1, 0]
    assert not one.executor.serve_fast(client, ADDRESS + 2 * PAGE_NBYTES)  # it is there


@pytest.mark.parametrize("is_open", [True, False])
@pytest.mark.parametrize("unit_nbytes", [1 << 20, (1 << 20) + 100])
def test_the_awaited_page_comes_first_whichever_way_a_unit_goes(serve, is_open, unit_nbytes):
    """From an open shard or not, in whole pages or not: each page is installed once."""
    one = serve(3, unit_nbytes, is_open=is_open)
    page = one.geometry.body_pages(1).start + 100
    one.fault(page)
    one.jobs.run()
    body = one.geometry.body_pages(1)
    installed = [pages for pages, _ in one.uffd.installed if pages.start in body]
    assert installed[0].start == page
    assert installed[0].size < body.size // 2
    assert sorted(n for pages in installed for n in range(*pages)) == list(range(*body))


def test_a_request_for_pages_is_answered_while_the_rest_is_on_its_way(serve):
    """`x[i]` returns when its row is there."""
    one = serve(2, 1 << 20)
    answered_after = []
    copy = one.uffd.copy

    def watch(*arguments: int, **options: int) -> Outcome:
        if one.ours.is_readable() and not answered_after:
            answered_after.append(len(one.uffd.installed))
        return copy(*arguments, **options)

    one.uffd.copy = watch
    one.ask(m.Requested(CLIENT, REGION, 5, (Span(1, 2),), pages=Span(300, 302)))
    one.jobs.run()
    assert one.ours.receive().message == w.Done(5, [])
    assert answered_after == [1]
    assert not one.ours.is_readable()


def test_loads_of_small_units_share_a_job(serve):
    """Waking a thread costs more than one of them does."""
    one = serve(32, PAGE_NBYTES, is_open=False)
    one.ask(m.Requested(CLIENT, REGION, 5, (Span(0, 32),)))
    assert len(one.jobs) == 2
    assert not one.ours.is_readable()
    one.jobs.run()
    assert one.ours.receive().message == w.Done(5, [])
    assert one.residency == [1] * 32


# --- what goes wrong --------------------------------------------------------------------


def test_a_unit_that_fails_is_poison_for_who_waits_and_an_error_for_who_asks(serve, capfd):
    """And neither for the other units."""
    one = serve(2, 1 << 16)
    one.source.failing.add(0)
    one.fault(3)
    one.jobs.run()
    assert one.uffd.poisoned == [3]
    assert "its checksum is wrong" in capfd.readouterr().err
    one.ask(m.Requested(CLIENT, REGION, 9, (Span(0, 2),)))
    one.jobs.run()
    done = one.ours.receive().message
    assert [failure["reason"] for failure in done.failures] == ["its checksum is wrong"]
    assert one.residency == [0, 1]


def test_a_unit_that_has_killed_workers_is_not_even_read(serve, capfd):
    """Once: the next time it may have been mended."""
    one = serve(2, 1 << 16, doomed={(REGION, 1)})
    assert not one.executor.serve_fast(one.executor.clients[CLIENT], ADDRESS + 20 * PAGE_NBYTES)
    one.fault(20)
    one.jobs.run()
    assert (one.source.n_loads, one.uffd.poisoned) == (0, [20])
    assert "died, repeatedly" in capfd.readouterr().err
    one.fault(20)
    one.jobs.run()
    assert one.residency == [0, 1]


def test_a_client_is_closed_when_the_last_load_into_it_has_ended(serve):
    """Its descriptors' numbers would be given to others, and the load would act on those."""
    one = serve(2, 1 << 16)
    one.fault(0)
    one.fault(20)
    one.executor.remove_client(CLIENT)
    assert not one.executor.has_clients()
    first, last = one.jobs.pop(0), one.jobs.pop(0)
    assert not one.is_closed
    for job, is_last in ((first, False), (last, True)):
        workspace = Workspace()
        job(workspace)
        workspace.close()
        assert one.is_closed is is_last
    one.jobs.run()
    assert REGION not in one.executor.regions


def test_a_client_is_expelled_once_and_not_after_it_has_left(serve, capfd):
    """What the kernel refuses of one that is gone, maybe but for its loads, is no news."""
    one, expelled = serve(2, 1 << 16), []
    one.executor.expelled = expelled.append
    error = KernelError("no such memory")
    for _ in range(2):
        one.executor.expel(CLIENT, error)
    assert expelled == [CLIENT]
    assert "no such memory" in capfd.readouterr().err
    other = serve(2, 1 << 16)
    other.executor.expelled = expelled.append
    other.fault(0)
    other.executor.remove_client(CLIENT)
    other.executor.expel(CLIENT, error)
    other.jobs.run()
    assert CLIENT not in other.executor.clients
    other.executor.expel(CLIENT, error)
    assert expelled == [CLIENT]
    assert not other.executor.is_served(CLIENT)
    assert "no such memory" not in capfd.readouterr().err


def test_who_does_not_read_answers_is_hung_up_on(serve):
    """Nobody waits for them."""
    one = serve(1, PAGE_NBYTES)
    for ticket in range(10_000):
        one.executor.expect(CLIENT, ticket, one.theirs)
        one.executor.answer(CLIENT, w.Done(ticket, [{"message": "x" * 10_000}]))
        if one.theirs.is_hung_up():
            break
    assert one.theirs.is_hung_up()


# --- kinds of memory --------------------------------------------------------------------


@pytest.mark.parametrize("kind", MemoryKind)
def test_only_memory_that_can_be_evicted_is_taken_out(serve, kind):
    """A private page may have been written to."""
    one = serve(2, 1 << 16, kind=kind)
    one.fault(0)
    one.jobs.run()
    one.ask(m.EvictionAsked(CLIENT, REGION, 3, Span(0, 2)))
    one.jobs.run()
    one.ours.receive()
    assert one.residency == [int(not kind.is_evictable), 0]


def test_what_a_thread_waits_to_write_to_is_mapped_before_it_is_lifted(serve):
    """From the first page on, and from one that was not mapped on: once, and not beside it."""
    one = serve(1, 1 << 16, kind=MemoryKind.TRACKED)
    one.executor.note_writers(
        CLIENT, [], [ADDRESS + 3 * PAGE_NBYTES + 8, ADDRESS + 9 * PAGE_NBYTES]
    )
    for _ in range(2):
        one.executor.carry_out([m.Unprotect(REGION, CLIENT, Span(2, 8))])
    assert one.uffd.mapped == [Span(2, 8), Span(3, 8), Span(2, 8)]
    assert one.uffd.unprotected == [Span(2, 8)] * 2
    one.executor.carry_out([m.Unprotect(REGION, CLIENT, Span(8, 10))])
    assert one.uffd.mapped[3:] == [Span(8, 10), Span(9, 10)]


def test_a_write_that_is_refused_is_a_signal_and_is_tried_again(serve, capfd):
    """By a process that lives on, in a thread that would wait for ever."""
    one = serve(1, 1 << 16, kind=MemoryKind.TRACKED)
    with subprocess.Popen(["sleep", "60"]) as process:
        one.executor.clients[CLIENT].pidfd = pidfd_open(process.pid)
        failure = m.Failure("the disk is full", {})
        one.executor.carry_out([m.Refuse(REGION, CLIENT, (2, 5), failure)])
        assert process.wait() == -signal.SIGBUS
        # The process is gone by now, which is not the worker's mistake.
        one.executor.carry_out([m.Refuse(REGION, CLIENT, (7,), failure)])
        os.close(one.executor.clients[CLIENT].pidfd)
    assert one.uffd.woken == [Span(2, 3), Span(5, 6), Span(7, 8)]
    line = "lazyarr: the disk is full; a thread that writes there gets SIGBUS\n"
    assert capfd.readouterr().err == 2 * line


def test_a_trace_has_arrays_that_are_gone(serve):
    """Until nobody records them; of a recording that is not known there is nothing."""
    served = serve(4, 2 * PAGE_NBYTES)
    executor = served.executor
    for ticket in (5, 6):
        served.ask(m.RecordingBegan(CLIENT, ticket))
    served.fault(4)
    served.jobs.run()
    expected = {
        "n_arrays": 1,
        "n_runs": 1,
        "n_left_out": 0,
        "arrays": [{"url": "u", "path": "a", "itemsize": 1}],
        "runs": [[0, 4 * PAGE_NBYTES, 6 * PAGE_NBYTES]],
    }
    assert executor.trace(CLIENT, 5, 0, 0) == expected
    served.ask(m.Detached(CLIENT, REGION, 7))
    assert REGION not in executor.regions
    assert executor.trace(CLIENT, 6, 0, 0) == expected
    assert executor.trace(CLIENT, 6, 1, 1) == expected | {"arrays": [], "runs": []}
    assert executor.trace(CLIENT + 1, 6, 0, 0) == executor.trace(CLIENT, 7, 0, 0) == {}


def test_a_schedule_is_loaded_while_nobody_waits(serve):
    """As a job that the step leaves for later, and in the order of the schedule."""
    served = serve(8, 2 * PAGE_NBYTES)
    served.executor.handle([m.ReadaheadChanged(1 << 20)])
    runs = tuple((REGION, Span(unit, unit + 1)) for unit in (5, 2, 7))
    served.ask(m.Scheduled(CLIENT, 5, 5, 0, runs, True))
    assert not sum(served.residency)
    served.jobs.run()
    assert served.residency == [0, 0, 1, 0, 0, 1, 0, 1]
    assert [place.start // 2 for place, _ in served.uffd.installed] == [2], "marks: 5 and 7"

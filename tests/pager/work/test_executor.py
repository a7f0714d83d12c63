"""The state machine, its lock and its commands, over memory that nobody has mapped."""

from __future__ import annotations

import pytest

from lazyarr.kernel import PAGE_NBYTES, Outcome
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

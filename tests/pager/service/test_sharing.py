"""Promises of regions: to whom, of what, and in which order everybody is told."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from lazyarr.kernel import PAGE_NBYTES
from lazyarr.memory_kind import MemoryKind
from lazyarr.pager.service.sharing import Sharing
from lazyarr.plan import messages as m
from lazyarr.units import Span
from lazyarr.wire import messages as w
from lazyarr.wire.channel import channel_pair
from tests.pager.serving import CLIENT, REGION

OTHER = 2
STORE = {"kind": "local"}


class Told:
    """A pager in which one client has a region, and another one asks for it."""

    def __init__(self, one) -> None:
        self.one = one
        self.executor = one.executor
        self.entered = []
        ledger = SimpleNamespace(enter=lambda client, body: self.entered.append((client, body)))
        self.due = []
        self.sharing = Sharing(one.executor, ledger, after=lambda _, act: self.due.append(act))
        self.other = SimpleNamespace(number=OTHER, notices=[], close=lambda: None)
        self.executor.add_client(self.other)
        self.ours, self.theirs = channel_pair()
        one.source.is_unchanged = lambda: True

    def expect(self, ticket: int) -> None:
        self.executor.expect(OTHER, ticket, self.theirs)

    def find(self, ticket: int = 5, *, limits: tuple = (), **changes: object) -> w.Found | None:
        """Ask for the region of an array; return the answer when it has come."""
        wanted = {"url": "u", "path": "a", "layout": "layout", "store": STORE} | changes
        self.expect(ticket)
        self.sharing.on_find_region(self.other, w.FindRegion(ticket, **wanted), limits)
        self.one.jobs.run()
        self.sharing.give_answers()
        return self.answer()

    def want(self, region: int, layout: str = "layout") -> w.Found | None:
        self.expect(6)
        self.sharing.on_want_region(self.other, w.WantRegion(6, region, layout))
        return self.answer()

    def answer(self) -> w.Found | None:
        if not self.ours.is_readable():
            return None
        received = self.ours.receive()
        self.n_descriptors = len(received.descriptors)
        for descriptor in received.descriptors:
            os.close(descriptor)
        return received.message

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()
        os.close(self.sharing.fileno())


@pytest.fixture
def tell(serve):
    made = []

    def make(**options):
        made.append(Told(serve(2, PAGE_NBYTES, **options)))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.mark.parametrize("ask", [Told.find, lambda told: told.want(REGION)])
def test_a_region_is_promised_to_everybody_before_its_client(tell, ask):
    """The supervisor is told first, then the machine, then the client, with the memory."""
    told = tell()
    found = ask(told)
    assert (found.region, found.offset, found.map_offset) == (REGION, 0, 0)
    assert told.n_descriptors == 2
    assert told.entered == [(OTHER, w.Reserve(REGION))]
    assert told.executor.machine.region(REGION).reserved == {OTHER}


def test_a_promised_region_stays_when_its_last_client_goes(tell):
    """Until the one that it was promised to has come, or has gone too."""
    told = tell()
    told.find()
    told.executor.handle([m.ClientLeft(CLIENT)])
    assert told.executor.machine.region(REGION) is not None
    told.executor.handle([m.ClientLeft(OTHER)])
    assert told.executor.machine.region(REGION) is None


@pytest.mark.parametrize(
    "changes",
    [{"url": "v"}, {"path": "b"}, {"layout": "other"}, {"store": {}}, {"limits": (1.0, 3, None)}],
)
def test_another_array_is_not_found(tell, changes):
    """Nor the same under other settings; no thread has to look at a store for that."""
    told = tell()
    assert told.find(**changes) == w.Found(5, -1, 0, 0)
    assert told.entered == []


def test_a_number_of_another_array_is_not_believed(tell):
    """It comes from a pickle, which may be old."""
    told = tell()
    assert told.want(REGION, "other").region == -1
    assert told.want(REGION + 1).region == -1


@pytest.mark.parametrize("kind", [kind for kind in MemoryKind if not kind.is_shared])
def test_private_memory_is_promised_to_nobody(tell, kind):
    """It lies in the page tables of one process."""
    told = tell(kind=kind)
    assert told.find().region == -1
    assert told.want(REGION).region == -1


@pytest.mark.parametrize("error", [None, OSError("gone"), ZeroDivisionError("unexpected")])
def test_a_store_that_has_changed_is_not_shared(tell, capfd, error):
    """Nor one that cannot be asked; what nobody expects is told on stderr."""
    told = tell()

    def is_unchanged():
        if error is not None:
            raise error
        return False

    told.one.source.is_unchanged = is_unchanged
    assert told.find().region == -1
    assert ("unexpected" in capfd.readouterr().err) is isinstance(error, ZeroDivisionError)


def test_who_has_the_region_is_told_so_without_a_promise(tell):
    """Also when it is about to unmap it: its departure and return would have one number."""
    told = tell()
    attached = m.Attached(OTHER, REGION, 1 << 41, told.one.geometry, MemoryKind.SHARED)
    told.executor.handle([attached])
    assert told.find().region == REGION
    assert (told.n_descriptors, told.entered) == (0, [])
    told.executor.handle([m.Requested(OTHER, REGION, 8, (Span(0, 1),))])
    told.executor.handle([m.Detached(OTHER, REGION, 9)])
    assert told.executor.machine.region(REGION).leaving == {OTHER: 9}
    assert told.want(REGION).region == REGION
    assert told.entered == []


def test_who_has_the_same_reference_gets_what_is_there(tell):
    """The pages of that time: the store may have changed.  Another reference does not."""
    told = tell()
    told.one.source.is_unchanged = lambda: False
    region = told.executor.regions[REGION]
    region.message = region.message._replace(origin="p:1")
    assert told.find().region == -1
    assert told.find(origin="p:2").region == -1
    assert told.find(origin="p:1", layout="other").region == -1
    told.due.pop()()
    assert told.find(origin="p:1").region == REGION
    assert told.entered == [(OTHER, w.Reserve(REGION))]


def test_one_opens_and_the_others_wait(tell):
    """For what it opens; if it does not, the next one may after a while."""
    told = tell()
    wanted = {"path": "b", "origin": "p:1"}
    assert told.find(**wanted).region == -1
    assert told.find(6, **wanted) is None
    assert told.find(7, **wanted) is None
    assert told.find(8, **wanted | {"origin": "p:2"}).region == -1
    told.due.pop(0)()  # nothing has been opened
    assert told.answer() == w.Found(6, -1, 0, 0)
    assert told.answer() is None
    region = told.executor.regions[REGION]
    region.message = region.message._replace(path="b", origin="p:1")
    told.sharing.on_opened("p:1")
    assert told.answer() == w.Found(7, REGION, 0, 0)
    while told.due:
        told.due.pop()()  # too late for anything
    assert told.answer() is None


def test_an_answer_to_a_client_that_has_gone_is_dropped(tell):
    """While a thread looked at the store; and so is the region's, if that has gone."""
    told = tell()
    told.expect(5)
    message = w.FindRegion(5, "u", "a", "layout", STORE)
    told.sharing.on_find_region(told.other, message, ())
    told.executor.remove_client(OTHER)
    told.one.jobs.run()
    told.sharing.give_answers()
    assert told.answer() is None
    assert told.entered == []

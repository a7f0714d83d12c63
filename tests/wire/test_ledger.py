"""The ledger holds what a new worker must know, and lets go of what nobody needs."""

from __future__ import annotations

import os

import pytest

from lazyarr.errors import PagerError
from lazyarr.wire import messages as w
from lazyarr.wire.channel import Received
from lazyarr.wire.ledger import Ledger, record_of

HELLO = w.Hello(w.VERSION, 1, 0, {})


def opened(region: int) -> w.OpenRegion:
    return w.OpenRegion(
        region=region,
        address=4096,
        offset=0,
        map_offset=0,
        url="u",
        path="",
        layout="{}",
        store={},
        is_remote=False,
        kind="SHARED",
    )


def descriptors(count: int) -> tuple[int, ...]:
    return tuple(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC) for _ in range(count))


@pytest.fixture
def ledger():
    """A ledger with one client that has one region."""
    ledger = Ledger()
    enter(ledger, 0, w.Join([]), 1)
    enter(ledger, 0, HELLO, 4)
    enter(ledger, 0, opened(7), 1)
    return ledger


def enter(ledger: Ledger, client: int, message: w.Message | None, n_descriptors: int = 0) -> None:
    ledger.enter(Received(record_of(client, message), descriptors(n_descriptors)))


def test_a_region_lives_as_long_as_somebody_has_it(ledger):
    """A region stays while a child has it, and goes with the last one."""
    enter(ledger, 1, w.Join([7]), 1)
    enter(ledger, 0, w.CloseRegion(5, 7))
    assert ledger.regions[7].addresses == {1: None}
    enter(ledger, 1, HELLO, 4)
    enter(ledger, 1, w.AttachRegion(7, 8192))
    assert ledger.regions[7].addresses == {1: 8192}
    enter(ledger, 1, None)
    assert not ledger.regions
    enter(ledger, 0, None)
    assert not ledger.clients


def test_a_region_stays_for_who_was_promised_it(ledger):
    """Until that attaches it, or does not want it; a promise takes nothing away."""
    enter(ledger, 1, w.Join([]), 1)
    enter(ledger, 1, HELLO, 4)
    enter(ledger, 1, w.Reserve(7))
    enter(ledger, 0, w.CloseRegion(5, 7))
    assert ledger.regions[7].addresses == {1: None}
    enter(ledger, 1, w.AttachRegion(7, 8192))
    enter(ledger, 1, w.Reserve(7))
    assert ledger.regions[7].addresses == {1: 8192}
    enter(ledger, 1, w.CloseRegion(6, 7))
    assert not ledger.regions
    enter(ledger, 0, None)
    enter(ledger, 1, None)


def test_a_region_that_is_forgotten_goes_whoever_has_it(ledger):
    """The worker says so when it has let go of the region, also after its clients' end."""
    before = len(os.listdir("/proc/self/fd"))
    enter(ledger, 0, opened(8), 1)
    enter(ledger, 5, w.Forgotten(8))
    enter(ledger, 5, w.Forgotten(8))
    assert list(ledger.regions) == [7]
    assert len(os.listdir("/proc/self/fd")) == before
    enter(ledger, 0, None)


def test_a_region_that_is_written_back_stays_until_it_is_forgotten(ledger):
    """With its memory, its store and the claim on it, though all who had it are gone."""
    before = len(os.listdir("/proc/self/fd"))
    enter(ledger, 0, opened(8)._replace(kind="TRACKED"), 1)
    enter(ledger, 0, w.CloseRegion(5, 8))
    assert ledger.regions[8].addresses == {}
    enter(ledger, 0, None)
    assert list(ledger.regions) == [8]
    found = ledger.regions[8]
    for descriptor in (found.objects.memfd, found.objects.map_memfd, *found.descriptors):
        os.fstat(descriptor)
    enter(ledger, 0, w.Forgotten(8))
    assert not ledger.regions
    assert len(os.listdir("/proc/self/fd")) < before


def test_a_region_stays_retired(ledger):
    """A worker that takes over lets nobody write to it."""
    enter(ledger, 0, w.Retire(3, 8))
    assert not ledger.regions[7].is_retired
    enter(ledger, 0, w.Retire(3, 7))
    assert ledger.regions[7].is_retired
    enter(ledger, 0, None)


def test_what_was_set_last_holds(ledger):
    """Whoever has set it, and though others come who have not heard of it."""
    enter(ledger, 0, w.Configure(1, {"threads": 3}))
    enter(ledger, 0, HELLO, 4)
    assert ledger.settings == {"threads": 3}
    enter(ledger, 1, w.Join([]), 1)
    enter(ledger, 1, HELLO._replace(settings={"threads": 4}), 4)
    assert ledger.settings == {"threads": 3}
    enter(ledger, 1, w.Configure(2, {"threads": 5}))
    assert ledger.settings == {"threads": 5}
    enter(ledger, 1, None)
    enter(ledger, 0, None)


def test_one_listening_socket_is_kept(ledger):
    """It outlives whoever gave it; another one is closed."""
    enter(ledger, 0, w.Listen("secret"), 1)
    first = ledger.listener
    before = set(os.listdir("/proc/self/fd"))
    enter(ledger, 0, w.Listen("secret"), 1)
    assert ledger.listener == first
    assert set(os.listdir("/proc/self/fd")) == before
    enter(ledger, 0, None)
    os.close(first)


def test_entering_twice_does_no_harm(ledger):
    """What two workers have entered is there once."""
    enter(ledger, 0, HELLO, 4)
    enter(ledger, 0, opened(7), 1)
    assert (len(ledger.clients), len(ledger.regions)) == (1, 1)
    enter(ledger, 0, None)
    enter(ledger, 0, None)
    assert (ledger.clients, ledger.regions) == ({}, {})


def test_settings_that_are_changed_are_those_of_the_client(ledger):
    """A new worker finds what was said last, and somebody unknown changes nothing."""
    enter(ledger, 0, w.Configure(5, {"threads": 2}))
    assert ledger.clients[0].hello == HELLO._replace(settings={"threads": 2})
    enter(ledger, 1, w.Join([]), 1)
    enter(ledger, 1, w.Configure(5, {"threads": 2}))
    assert ledger.clients[1].hello is None
    enter(ledger, 0, None)
    enter(ledger, 1, None)


def test_what_is_no_record_is_refused(ledger):
    """A message that is not a record, or holds none, raises PagerError."""
    with pytest.raises(PagerError, match="expected Record"):
        ledger.enter(Received(w.Ping(), ()))
    with pytest.raises(PagerError, match="holds no Ping"):
        enter(ledger, 0, w.Ping())
    enter(ledger, 0, None)


@pytest.mark.parametrize(
    ("message", "n_descriptors"),
    [(HELLO, 3), (w.Join([]), 0), (w.Join([]), 2), (opened(8), 9), (w.AttachRegion(7, 1), 1)],
)
def test_records_with_other_descriptors_are_refused_and_these_are_closed(
    ledger, message, n_descriptors
):
    """What a worker after this one would fail at is not kept."""
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(PagerError, match="cannot enter"):
        enter(ledger, 5, message, n_descriptors)
    assert len(os.listdir("/proc/self/fd")) == before
    assert (list(ledger.clients), list(ledger.regions)) == ([0], [7])
    enter(ledger, 0, None)


@pytest.mark.parametrize(
    ("message", "n_descriptors"),
    [
        (HELLO, 4),
        (opened(8), 1),
        (w.AttachRegion(7, 8192), 0),
        (w.Reserve(7), 0),
        (w.Configure(3, {"threads": 2}), 0),
        (None, 0),
    ],
)
def test_what_a_client_said_before_its_end_may_be_entered_after_it(ledger, message, n_descriptors):
    """The worker's threads enter both at once; nothing is kept for who will never let go of it."""
    enter(ledger, 1, w.Join([7]), 1)
    enter(ledger, 1, None)
    before = len(os.listdir("/proc/self/fd"))
    enter(ledger, 1, message, n_descriptors)
    assert len(os.listdir("/proc/self/fd")) == before
    assert list(ledger.clients) == [0]
    assert {number: [*r.addresses] for number, r in ledger.regions.items()} == {7: [0]}
    enter(ledger, 0, None)

"""What each kind of message becomes: events, entries in the ledger and answers, in which order.

Everything beside the handlers writes down what it is told.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from lazyarr.errors import PagerError
from lazyarr.memory_kind import MemoryKind
from lazyarr.pager.service.handlers import Handlers
from lazyarr.plan import messages as m
from lazyarr.plan.readahead import Advice
from lazyarr.units import Span
from lazyarr.wire import messages as w
from lazyarr.wire.channel import Received

CLIENT, REGION, TICKET, ADDRESS = 1, 7, 5, 1 << 40
CHANNEL = object()


class Told:
    """Handlers, and what they have told whom."""

    def __init__(self, *, mapped_by: tuple[int, ...] = (), refused: bool = False) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.client = SimpleNamespace(
            number=CLIENT, main=SimpleNamespace(signal=0), require=lambda _: None
        )
        self._refused = refused
        self.state = SimpleNamespace(addresses=dict.fromkeys(mapped_by, ADDRESS), geometry="pages")
        executor = SimpleNamespace(
            machine=SimpleNamespace(region={REGION: self.state}.get),
            regions={
                REGION: SimpleNamespace(
                    kind=MemoryKind.SHARED, is_remote=False, chunks_per_object=()
                )
            },
            handle=lambda events: self.calls.extend(("handle", event) for event in events),
            expect=lambda *call: self.calls.append(("expect", *call)),
            answer=lambda *call: self.calls.append(("answer", *call)),
            retire=lambda event: self.calls.append(("retire", event)),
            flush_last=lambda event: self.calls.append(("flush last", event)),
            said={REGION},
        )
        ledger = SimpleNamespace(enter=lambda *call: self.calls.append(("enter", *call)))
        self.handlers = Handlers(
            executor,
            ledger,
            sharing=SimpleNamespace(),
            policy=SimpleNamespace(apply=self._apply),
            measurements=SimpleNamespace(),
            inflight=SimpleNamespace(),
            hear_first=lambda client, channel: self.calls.append(("hear first", channel)),
        ).handlers

    def _apply(self, settings):
        if self._refused:
            raise PagerError("cannot use settings")
        self.calls.append(("apply", settings))
        return SimpleNamespace(raise_signal=settings["raise_signal"])

    def hear(self, message: w.Message) -> list[tuple[object, ...]]:
        """Handle a message; return what was told to whom."""
        self.handlers[type(message)](self.client, CHANNEL, Received(message, ()))
        return self.calls


EXPECTED = ("expect", CLIENT, TICKET, CHANNEL)


@pytest.mark.parametrize(
    ("message", "event"),
    [
        (
            w.Request(TICKET, REGION, [[0, 2], [5, 6]], []),
            m.Requested(CLIENT, REGION, TICKET, (Span(0, 2), Span(5, 6))),
        ),
        (
            w.Request(TICKET, REGION, [[3, 4]], [10, 12]),
            m.Requested(CLIENT, REGION, TICKET, (Span(3, 4),), pages=Span(10, 12)),
        ),
        (
            w.Request(TICKET, REGION, [[0, 2]], [], writes=True),
            m.Requested(CLIENT, REGION, TICKET, (Span(0, 2),), writes=True),
        ),
        (w.Flush(TICKET, REGION, 1, 4), m.FlushAsked(CLIENT, REGION, TICKET, Span(1, 4))),
        (w.Flush(TICKET, REGION, -1, 4), m.FlushAsked(CLIENT, REGION, TICKET, Span(0, 4))),
        (w.Evict(TICKET, REGION, 1, 4), m.EvictionAsked(CLIENT, REGION, TICKET, Span(1, 4))),
        (w.BeginRecording(TICKET), m.RecordingBegan(CLIENT, TICKET)),
        (w.EndRecording(TICKET, 3), m.RecordingEnded(CLIENT, TICKET, 3)),
        (
            w.Schedule(TICKET, 3, 5, [9, REGION], [1, 0], [[0, 2], [-4, 6]], False),
            m.Scheduled(CLIENT, TICKET, 3, 5, ((REGION, Span(0, 2)), (9, Span(0, 6))), False),
        ),
        *(
            (
                w.Advise(TICKET, REGION, 1, 4, advice.value),
                m.Advised(CLIENT, REGION, TICKET, Span(1, 4), advice),
            )
            for advice in Advice
        ),
    ],
)
def test_a_question_is_an_event_whose_ticket_is_expected_before(message, event):
    """The machine may answer in the same step; and what came on the first channel is heard."""
    assert Told().hear(message) == [("hear first", CHANNEL), EXPECTED, ("handle", event)]


def test_a_region_is_retired_by_the_executor():
    """It tells the supervisor when that is done."""
    told = Told().hear(w.Retire(TICKET, REGION))
    assert told == [
        ("hear first", CHANNEL),
        EXPECTED,
        ("retire", m.Retired(CLIENT, TICKET, REGION)),
    ]


def test_the_last_flush_of_a_client_is_known_to_the_executor():
    """What fails then the client says."""
    told = Told().hear(w.Flush(TICKET, REGION, 0, 4, True))
    event = m.FlushAsked(CLIENT, REGION, TICKET, Span(0, 4))
    assert told == [("hear first", CHANNEL), EXPECTED, ("flush last", event)]


def test_an_end_of_a_region_is_entered_after_what_came_before_it():
    """Entered before its opening is, a region would stay in the ledger for ever."""
    message = w.CloseRegion(TICKET, REGION)
    told = Told().hear(message)
    assert told[:2] == [("hear first", CHANNEL), ("enter", CLIENT, message)]
    assert told[-2:] == [EXPECTED, ("handle", m.Detached(CLIENT, REGION, TICKET))]


@pytest.mark.parametrize(
    "message",
    [
        w.Request(TICKET, REGION, [[0, 1]], [1]),
        w.Request(TICKET, REGION, [[0, 1]], [1, 2, 3]),
        w.Request(TICKET, REGION, [[0, 1, 2]], []),
        w.Request(TICKET, REGION, [[]], []),
        w.Advise(TICKET, REGION, 0, 1, "faster"),
        w.Schedule(TICKET, 3, 0, [REGION], [1], [[0, 1]], True),
        w.Schedule(TICKET, 3, 0, [REGION], [0, 0], [[0, 1]], True),
        w.Schedule(TICKET, 3, 0, [REGION], [0], [[0, 1, 2]], True),
        w.AttachRegion(REGION + 1, ADDRESS),
    ],
)
def test_what_means_nothing_is_refused_before_anybody_is_told(message):
    """An odd range, advice that is none, a region that is not there."""
    told = Told()
    with pytest.raises((PagerError, ValueError)):
        told.hear(message)
    assert told.calls == []


def test_a_region_is_attached_by_each_client_once():
    """A message may be acted on twice, by a worker that takes over."""
    message = w.AttachRegion(REGION, ADDRESS)
    attached = m.Attached(CLIENT, REGION, ADDRESS, "pages", MemoryKind.SHARED)
    assert Told(mapped_by=(CLIENT + 1,)).hear(message) == [("handle", attached)]
    assert Told(mapped_by=(CLIENT,)).hear(message) == []


def test_settings_are_applied_then_entered_then_answered():
    """The next worker gets those alone that can be used."""
    told, settings = Told(), {"raise_signal": 34}
    message = w.Configure(TICKET, settings)
    assert told.hear(message) == [
        ("apply", settings),
        ("enter", CLIENT, message),
        EXPECTED,
        ("answer", CLIENT, w.Done(TICKET, [])),
    ]
    assert told.client.main.signal == 34


def test_settings_that_cannot_be_used_are_not_entered():
    """And the client's main thread stays as it was."""
    told = Told(refused=True)
    with pytest.raises(PagerError):
        told.hear(w.Configure(TICKET, {"raise_signal": 34}))
    assert (told.calls, told.client.main.signal) == ([], 0)

"""The order in which the pager takes what its clients say."""

from __future__ import annotations

import os
import socket
import threading

import pytest

from lazyarr import settings
from lazyarr.client.session.rpc import Rpc
from lazyarr.errors import PagerError
from lazyarr.kernel import Features, Userfaultfd, create_memfd
from lazyarr.pager.lifecycle.inflight_record import InflightRecord
from lazyarr.pager.service.server import Pager
from lazyarr.wire import messages as w
from lazyarr.wire.channel import Channel, channel_pair
from lazyarr.wire.ledger import ClientRecord, Ledger, Objects, RegionRecord
from lazyarr.wire.packets import message_of


@pytest.fixture
def served():
    """A pager that does not run, its client's two channels, and the supervisor's end."""
    supervisor, to_supervisor = channel_pair()
    control, in_pager = channel_pair()
    side, side_in_pager = channel_pair()
    ledger = Ledger()
    ledger.clients[0] = ClientRecord(in_pager.detach())
    inflight = InflightRecord()
    pager = Pager(to_supervisor, ledger, inflight, set())
    ours, theirs = socket.socketpair()
    with Userfaultfd.open(Features(0)) as uffd, ours, theirs:
        memfds = [create_memfd("test") for _ in range(2)]
        hello = w.Hello(w.VERSION, os.getpid(), 0, settings.current().document())
        control.send(hello, (uffd.fileno(), *memfds, theirs.fileno()))
        control.send(w.OpenChannel(), (side_in_pager.fileno(),))
        for _ in range(2):
            pager._watch.listen()
        yield pager, control, side, supervisor
        pager._executor.clients[0].close()
        pager._threads.close()
        pager._watch.close()
        os.close(pager._sharing.fileno())
        os.close(pager._wakeup)
        for descriptor in (*memfds, inflight._memfd):
            os.close(descriptor)
    for channel in (supervisor, to_supervisor, control, side, side_in_pager):
        channel.close()


@pytest.mark.parametrize("kind", ["SHARED", "TRACKED"])
def test_an_array_that_cannot_be_taken_over_is_named(capfd, kind):
    """With what becomes of its processes and of what they had written, and what to do."""
    supervisor, to_supervisor = channel_pair()
    ledger, inflight = Ledger(), InflightRecord()
    opened = w.OpenRegion(7, 0, 0, 0, "file:///d/s.zarr", "g/x", "no layout", {}, False, kind)
    objects = Objects(create_memfd("test"), create_memfd("test"), n_regions=1)
    ledger.regions[7] = RegionRecord(opened, objects, (), {3: 1 << 20})
    pager = Pager(to_supervisor, ledger, inflight, set())
    said = capfd.readouterr().err
    assert said.startswith("lazyarr: cannot take over array 'g/x' of file:///d/s.zarr: ")
    assert "end with SIGBUS; " in said
    remedy = f"end process {os.getpid()}" if kind == "TRACKED" else "open it again"
    assert said.endswith(f"{remedy}\n")
    pager._threads.close()
    pager._watch.close()
    for descriptor in (pager._sharing.fileno(), pager._wakeup, inflight._memfd):
        os.close(descriptor)
    for channel in (supervisor, to_supervisor):
        channel.close()


def entered(supervisor: Channel) -> list[str]:
    """Return what the supervisor has been told."""
    found = []
    while supervisor.is_readable():
        received = supervisor.receive()
        for descriptor in received.descriptors:
            os.close(descriptor)
        if isinstance(received.message, w.Record):
            body = received.message.body
            found.append(type(message_of(body) if body else None).__name__)
    return found


def test_a_child_is_entered_before_its_parent_lets_go(served):
    """The other way round the ledger would not know the region when the child comes."""
    pager, control, side, supervisor = served
    child, in_pager = channel_pair()
    control.send(w.Join([7]), (in_pager.fileno(),))
    side.send(w.CloseRegion(1, 7))
    client = pager._executor.clients[0]
    pager._on_messages(client, client.channels[1])
    assert entered(supervisor) == ["Hello", "Join", "CloseRegion"]
    for channel in (child, in_pager):
        channel.close()
    pager._watch.listen()
    assert entered(supervisor) == ["NoneType"]


@pytest.mark.parametrize("pages", [[1], [1, 2, 3]])
def test_what_is_no_range_of_pages_costs_who_says_it_the_channel(served, pages):
    """And nobody else anything."""
    pager, control, side, _ = served
    channels = pager._executor.clients[0].channels
    n_channels = len(channels)
    side.send(w.Request(1, 1, [[0, 1]], pages))
    pager._watch.listen()
    assert len(channels) == n_channels - 1
    assert not control.is_hung_up()


@pytest.mark.parametrize(
    "message",
    [w.Request(7, 1, [[0, 1]], []), w.Evict(7, 1, 0, 1), w.WantStatistics(7)],
    ids=lambda message: type(message).__name__,
)
def test_a_question_that_has_killed_workers_is_refused_once(served, message):
    """Asked again it is answered: what killed them may be gone."""
    pager, _, side, _ = served
    pager._doomed.add((~0, 7))
    side.send(message)
    pager._watch.listen()
    (failure,) = side.receive().message.failures
    assert "died, repeatedly" in failure["message"]
    side.send(message)
    pager._watch.listen()
    answer = side.receive().message
    assert isinstance(answer, w.Statistics) or not answer.failures
    assert pager._inflight.read() == set()


def test_a_question_that_is_refused_is_an_error(served):
    """And is not asked again: of the pager, or of the chunk that was asked for."""
    pager, control, _, _ = served
    questions = Rpc(control, lambda: None)
    is_asked = threading.Event()

    def listen() -> None:
        while not is_asked.is_set():  # in how many events what is said comes is not told
            pager._watch.after(0.01, lambda: None)
            pager._watch.listen()

    for message, answer in ((w.Evict(7, 1, 0, 1), w.Done), (w.WantStatistics(7), w.Statistics)):
        pager._doomed.add((~0, 7))
        is_asked.clear()
        listener = threading.Thread(target=listen)
        listener.start()
        with pytest.raises(PagerError, match="died, repeatedly"):
            questions.ask(message, answer)
        is_asked.set()
        listener.join()
    questions.close()


@pytest.mark.parametrize("is_first", [True, False], ids=["first", "other"])
@pytest.mark.parametrize(
    ("message", "n_descriptors"),
    [
        (w.Record(0, {}), 3),
        (w.Hire(1), 1),
        (w.Found(1, 2, 0, 0), 2),
        (w.ClaimFound(1), 1),
        (w.Knock(w.VERSION, "secret"), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_comes_with_a_message_that_no_client_sends_is_closed(
    served, message, n_descriptors, is_first
):
    """The pager's own processes send such messages, and whoever gets them keeps what comes."""
    pager, control, side, _ = served
    client = pager._executor.clients[0]
    channel = client.channels[0 if is_first else 1]
    there, here = os.pipe()
    (control if is_first else side).send(message, (here,) * n_descriptors)
    os.close(here)
    with pytest.raises(PagerError, match="a client sends no"):
        pager._handle(client, channel, channel.hear())
    # The end of the pipe: nobody has the other side any more.
    os.set_blocking(there, False)
    assert os.read(there, 1) == b""
    os.close(there)

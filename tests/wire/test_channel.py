"""The channel: whole messages, descriptors that arrive, none that stay."""

from __future__ import annotations

import array
import os
import socket
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lazyarr.errors import FormatError, PagerError
from lazyarr.wire import channel
from lazyarr.wire import messages as w
from lazyarr.wire.channel import MAX_PACKET_NBYTES, Channel, channel_pair
from lazyarr.wire.packets import document_of, encode
from tests.wire.conftest import open_files
from tests.wire.strategies import messages

SMALL = w.WantStatistics(1)


def message_of(nbytes: int) -> w.Statistics:
    """Return a message whose packet has so many bytes."""
    empty = len(encode(w.Statistics(1, {"x": ""})))
    message = w.Statistics(1, {"x": "x" * (nbytes - empty)})
    assert len(encode(message)) == nbytes
    return message


def send_raw(channel: Channel, packet: bytes, descriptors: tuple[int, ...] = ()) -> None:
    """Send a packet past the channel's own checks."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
    with socket.socket(fileno=os.dup(channel.fileno())) as sock:
        sock.sendmsg([packet], rights if descriptors else [])


def close_all(descriptors: tuple[int, ...]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def same_file(a: int, b: int) -> bool:
    """Return whether two descriptors are of one open object."""
    return os.path.sameopenfile(a, b)


@given(st.lists(messages, max_size=4))
@settings(max_examples=40)
def test_messages_arrive_whole_and_in_order(sent):
    """Several packets in the socket stay several."""
    here, there = channel_pair()
    try:
        for message in sent:
            here.send(message)
        received = [there.receive().message for _ in sent]
        assert received == sent
        assert [type(message) for message in received] == [type(message) for message in sent]
        assert not there.is_readable()
    finally:
        here.close()
        there.close()


@pytest.mark.parametrize("n_descriptors", [1, 8])
@pytest.mark.parametrize("nbytes", [100, MAX_PACKET_NBYTES, MAX_PACKET_NBYTES + 1, 3 << 20])
def test_descriptors_come_with_their_message(channels, pipe, nbytes, n_descriptors):
    """Copies of them, in order, also with a message that is too large for a packet."""
    here, there = channels
    message = message_of(nbytes)
    here.send(message, [*pipe, *pipe, *pipe, *pipe][:n_descriptors])
    received = there.receive()
    try:
        assert received.message == message
        assert len(received.descriptors) == n_descriptors
        for place, descriptor in enumerate(received.descriptors):
            assert same_file(descriptor, pipe[place % 2])
            assert descriptor not in pipe
            assert not os.get_inheritable(descriptor)
    finally:
        close_all(received.descriptors)


@pytest.mark.parametrize("nbytes", [100, 3 << 20])
def test_message_that_was_peeked_at_comes_again(channels, pipe, nbytes):
    """Whole, with other copies of its descriptors, and so does the one behind it."""
    here, there = channels
    message = message_of(nbytes)
    here.send(message, pipe)
    here.send(SMALL)
    for peek in (True, True, False):
        received = there.receive(peek=peek)
        assert received.message == message
        assert [same_file(*pair) for pair in zip(received.descriptors, pipe, strict=True)] == [
            True,
            True,
        ]
        close_all(received.descriptors)
    assert there.receive(peek=True) == there.receive() == (SMALL, ())


def test_large_message_alone_brings_no_descriptor(channels):
    """The memory object that it came in is the channel's own affair."""
    here, there = channels
    message = w.Request(1, 2, [[n, n + 1] for n in range(0, 100_000, 2)], [])
    here.send(message)
    assert there.receive() == (message, ())


def test_too_many_descriptors_are_an_error_and_none_stays(channels, pipe):
    """Those that did arrive are closed."""
    here, there = channels
    before = open_files()
    send_raw(here, encode(SMALL), pipe * 10)
    with pytest.raises(PagerError, match="cut short"):
        there.receive()
    assert open_files() == before


def test_packet_that_is_too_long_is_an_error(channels, pipe):
    """What of it fits is not taken for a message."""
    here, there = channels
    send_raw(here, b" " * MAX_PACKET_NBYTES + b"{}", pipe)
    with pytest.raises(PagerError, match="cut short"):
        there.receive()


@pytest.mark.parametrize("packet", [b"{}", b"nonsense", b"spille", b'{"is": "Join", "a": 1}'])
def test_descriptors_of_nonsense_are_closed(channels, pipe, packet):
    """Nobody will ever own them."""
    here, there = channels
    send_raw(here, packet, pipe)
    with pytest.raises(PagerError, match="cannot read a message"):
        there.receive()
    here.send(SMALL)
    assert there.receive() == (SMALL, ())


def test_empty_packet_is_an_end(channels, pipe):
    """It cannot be told from one, and what came with it is closed."""
    here, there = channels
    send_raw(here, b"", pipe)
    assert there.receive() is None


class TestSpilled:
    """A packet in a memory object, from somebody who need not be what they say."""

    def refuse(self, channels: tuple[Channel, Channel], *descriptors: int) -> None:
        here, there = channels
        send_raw(here, b"spilled", descriptors)
        with pytest.raises(PagerError):
            there.receive()

    def test_nothing_came_with_it(self, channels):
        """The word alone is no message."""
        self.refuse(channels)

    def test_object_holds_nonsense(self, channels, pipe):
        """It is checked as any packet is."""
        with open(os.memfd_create("nonsense"), "r+b", buffering=0) as file:
            file.write(b"nonsense")
            self.refuse(channels, file.fileno(), *pipe)

    def test_message_as_long_as_any_may_be(self, channels):
        """It arrives, and so does the record of it; one that is longer is not sent."""
        here, there = channels
        nbytes = channel._MAX_SPILLED_NBYTES - channel._RECORD_NBYTES
        message = message_of(nbytes)
        here.send(message)
        assert there.receive() == (message, ())
        here.send(record := w.Record(1, document_of(message)))
        assert there.receive() == (record, ())
        with pytest.raises(FormatError, match=f"takes {nbytes + 1} bytes: up to {nbytes} may be"):
            here.send(message_of(nbytes + 1))
        assert not there.is_readable()

    def test_object_is_longer_than_any_message(self, channels):
        """It is not read, though what it holds would be a message."""
        here, there = channels
        with open(os.memfd_create("message"), "r+b", buffering=0) as file:
            file.write(encode(SMALL).ljust(channel._MAX_SPILLED_NBYTES + 1))
            send_raw(here, b"spilled", (file.fileno(),))
        with pytest.raises(PagerError, match="is larger than"):
            there.receive()

    def test_object_is_too_large(self, channels):
        """A sparse terabyte is not read into memory."""
        with open(os.memfd_create("sparse"), "r+b") as file:
            file.truncate(1 << 40)
            self.refuse(channels, file.fileno())

    def test_object_is_a_pipe(self, channels, pipe):
        """Reading from it would wait for ever."""
        self.refuse(channels, pipe[0])

    def test_object_is_a_directory(self, channels, tmp_path):
        """It has a size, and cannot be read."""
        directory = os.open(tmp_path, os.O_RDONLY)
        try:
            self.refuse(channels, directory)
        finally:
            os.close(directory)

    def test_object_can_only_be_written(self, channels, tmp_path):
        """The refusal is the kernel's."""
        with open(tmp_path / "file", "wb") as file:
            file.truncate(10)
            self.refuse(channels, file.fileno())

    def test_place_in_the_object_does_not_matter(self, channels):
        """It is read from its beginning, wherever the sender has left off."""
        here, there = channels
        with open(os.memfd_create("message"), "r+b", buffering=0) as file:
            file.write(encode(SMALL))
            send_raw(here, b"spilled", (file.fileno(),))
        assert there.receive() == (SMALL, ())


@given(st.binary(max_size=30))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_packets_do_not_break_a_channel(channels, packet):
    """The next message arrives all the same."""
    here, there = channels
    send_raw(here, b"x" + packet)
    with pytest.raises(PagerError):
        there.receive()
    here.send(SMALL)
    assert there.receive() == (SMALL, ())


def test_end_comes_after_what_was_sent(channels):
    """A process that says something and dies is heard."""
    here, there = channels
    here.send(SMALL)
    assert not there.is_hung_up()
    here.close()
    assert there.is_hung_up()
    assert there.is_readable()
    assert there.receive() == (SMALL, ())
    assert there.is_readable()
    assert there.receive() is None


def test_end_comes_also_when_the_other_side_had_unread_messages(channels):
    """The kernel calls that a reset; it is an end like any other."""
    here, there = channels
    there.send(SMALL)
    here.close()
    assert there.receive() is None


def test_both_sides_see_a_channel_that_was_hung_up(channels):
    """What was sent before arrives; hanging up twice is fine, and the descriptor stays."""
    here, there = channels
    here.send(SMALL)
    here.hang_up()
    here.hang_up()
    assert here.fileno() >= 0
    assert (there.receive(), there.receive()) == ((SMALL, ()), None)
    assert here.receive() is None


@pytest.mark.parametrize("message", [SMALL, w.OpenChannel()])
def test_descriptors_that_a_message_should_not_have_are_refused(channels, pipe, message):
    """They are closed, and a message that should have some is none without them."""
    here, there = channels
    here.send(message, pipe)
    with pytest.raises(PagerError, match="2 descriptors with"):
        there.hear(peek=True)
    with pytest.raises(PagerError, match="2 descriptors with"):
        there.hear()


def test_hearing_does_not_wait(channels):
    """Somebody else may have taken the message away that was announced."""
    _, there = channels
    with pytest.raises(PagerError, match="cannot read from a channel"):
        there.hear()


def test_what_is_no_end_of_a_channel_is_closed():
    """A file, a socket without packets."""
    before = open_files()
    with pytest.raises(PagerError, match="no socket"):
        Channel.from_descriptor(os.open("/dev/null", os.O_RDONLY))
    ends = socket.socketpair()
    with pytest.raises(PagerError, match="another kind"):
        Channel.from_descriptor(ends[0].detach())
    ends[1].close()
    assert open_files() == before


def test_sending_to_nobody_is_an_error_and_no_signal(channels):
    """Whoever sends learns it there."""
    here, there = channels
    there.close()
    with pytest.raises(PagerError, match="does not read"):
        here.send(SMALL)
    with pytest.raises(PagerError, match="does not read"):
        here.send(message_of(1 << 20))


def test_sender_may_refuse_to_wait(channels):
    """The pager does not stop for a client that does not read; what was sent before arrives."""
    here, there = channels
    n_sent = 0
    message = message_of(10_000)

    def send_on() -> None:
        nonlocal n_sent
        while True:
            here.send(message, wait=False)
            n_sent += 1

    with pytest.raises(PagerError, match="does not read"):
        send_on()
    assert n_sent > 0
    assert [there.receive().message for _ in range(n_sent)] == [message] * n_sent
    assert not there.is_readable()


def test_senders_on_one_end_do_not_mix(channels):
    """A forked child shares its parent's end for its first word."""
    here, there = channels
    twin = Channel.from_descriptor(os.dup(here.fileno()))

    def send_from(channel: Channel, number: int) -> None:
        for ticket in range(50):
            channel.send(w.Statistics(ticket, {str(number): "x" * (number * 1000)}))

    ends = enumerate((here, twin, here, twin))
    threads = [threading.Thread(target=send_from, args=(end, n)) for n, end in ends]
    for thread in threads:
        thread.start()
    seen: dict[str, list[int]] = {}
    for _ in range(200):
        message = there.receive().message
        ((number, text),) = message.document.items()
        assert len(text) == int(number) * 1000
        seen.setdefault(number, []).append(message.ticket)
    for thread in threads:
        thread.join()
    twin.close()
    assert all(tickets == list(range(50)) for tickets in seen.values())


def test_closed_channel_has_no_descriptor(channels):
    """Closing twice is fine, and the number is -1."""
    here, _ = channels
    assert repr(here) == f"<Channel: descriptor {here.fileno()}>"
    here.close()
    here.close()
    assert here.fileno() == -1


def test_ends_are_not_inherited_by_other_programs(channels):
    """Another program that keeps one would keep the pager from seeing the end."""
    assert [os.get_inheritable(end.fileno()) for end in channels] == [False, False]


def test_detached_descriptor_is_the_callers(channels):
    """And makes a channel again."""
    here, there = channels
    descriptor = here.detach()
    assert here.fileno() == -1
    again = Channel.from_descriptor(descriptor)
    again.send(SMALL)
    again.close()
    assert there.receive() == (SMALL, ())


def test_what_was_sent_is_heard_though_its_sender_closed_with_something_unread():
    """The kernel reports that before it gives what is queued, and only once."""
    ours, theirs = channel_pair()
    ours.send(w.Ping())
    theirs.send(w.Record(1, {}))
    theirs.send(w.Pong())
    theirs.close()
    assert ours.receive().message == w.Record(1, {})
    assert ours.receive().message == w.Pong()
    assert ours.receive() is None
    ours.close()

"""Who comes to the pager: how many may be silent, how long, and what they must say."""

from __future__ import annotations

import os
import time

import pytest

from lazyarr.pager.lifecycle import rendezvous
from lazyarr.pager.lifecycle.rendezvous import Rendezvous
from lazyarr.pager.watching import Watch
from lazyarr.wire import messages as w
from lazyarr.wire.channel import channel_pair
from lazyarr.wire.meeting import connect, listen, new_invitation


class Place:
    """A rendezvous that this thread serves, and who has been taken on there."""

    def __init__(self) -> None:
        self.invitation = new_invitation()
        self.watch = Watch()
        self.joined: list[int] = []
        self.rendezvous = Rendezvous(
            listen(self.invitation.name).detach(),
            self.invitation.secret,
            watch=self.watch,
            join=self.joined.append,
            settings=dict,
        )

    def come(self):
        return connect(self.invitation.name, timeout_seconds=5)

    def serve_until(self, condition) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline
            self.watch.after(0.01, lambda: None)
            self.watch.listen()

    def knock(self, channel, secret=None):
        ours, theirs = channel_pair()
        channel.send(w.Knock(w.VERSION, secret or self.invitation.secret), (theirs.fileno(),))
        self.serve_until(channel.is_readable)
        ours.close()
        theirs.close()
        return channel.receive().message


@pytest.fixture
def place():
    place = Place()
    yield place
    place.watch.close()
    place.rendezvous._listener.close()
    for descriptor in place.joined:
        os.close(descriptor)


def test_who_knows_the_secret_is_taken_on(place):
    """Others are told why not."""
    channel = place.come()
    assert isinstance(place.knock(channel, "secret"), w.Refused)
    channel.close()
    assert place.joined == []
    channel = place.come()
    assert isinstance(place.knock(channel), w.Welcome)
    channel.close()
    assert len(place.joined) == 1


def test_who_says_nothing_is_let_go_of(place, monkeypatch):
    """After a while, and the others are not."""
    monkeypatch.setattr(rendezvous, "_WORD_SECONDS", 0.2)
    silent = place.come()
    place.serve_until(silent.is_hung_up)
    channel = place.come()
    assert isinstance(place.knock(channel), w.Welcome)
    silent.close()
    channel.close()


def test_many_who_say_nothing_wait_in_the_queue(place, monkeypatch):
    """No more descriptors are held for them than so many; those behind them have their turn."""
    monkeypatch.setattr(rendezvous, "_MAX_SILENT", 8)
    monkeypatch.setattr(rendezvous, "_WORD_SECONDS", 0.5)
    before = len(os.listdir("/proc/self/fd"))
    silent = [place.come() for _ in range(50)]
    most = 0

    def count() -> bool:
        nonlocal most
        most = max(most, len(os.listdir("/proc/self/fd")) - before - len(silent))
        return silent[-1].is_hung_up()

    place.serve_until(count)
    assert 0 < most <= 8
    channel = place.come()
    assert isinstance(place.knock(channel), w.Welcome)
    for each in (*silent, channel):
        each.close()


def test_who_hangs_up_before_a_word_leaves_room(place, monkeypatch):
    """For as many as come."""
    monkeypatch.setattr(rendezvous, "_MAX_SILENT", 2)
    for _ in range(20):
        place.come().close()
    channel = place.come()
    assert isinstance(place.knock(channel), w.Welcome)
    channel.close()

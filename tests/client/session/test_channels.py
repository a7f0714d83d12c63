"""Channels that exchanges borrow."""

from __future__ import annotations

import os

import pytest

from lazyarr.client.session.channels import ChannelPool
from lazyarr.errors import PagerError
from lazyarr.known import identity_of
from lazyarr.wire import messages as w
from lazyarr.wire.channel import Channel


def opened(in_pager: Channel) -> Channel:
    """Return the other end of the channel that was opened last."""
    received = in_pager.receive(wait=False)
    assert received.message == w.OpenChannel()
    return Channel.from_descriptor(*received.descriptors)


def test_a_channel_is_opened_over_the_first_one_and_lent_again(channels):
    """The pager gets its end before anything comes on it."""
    control, in_pager = channels
    pool = ChannelPool(control)
    first = pool.borrow()
    first.send(w.Ping())
    pool.give_back(first)
    other = opened(in_pager)
    assert other.receive().message == w.Ping()
    assert pool.borrow() is first
    assert not in_pager.is_readable()
    pool.close()
    other.close()


def test_exchanges_at_once_have_a_channel_each(channels):
    """An answer is for whoever waits on its channel."""
    control, in_pager = channels
    pool = ChannelPool(control)
    first, second = pool.borrow(), pool.borrow()
    others = [opened(in_pager) for _ in range(2)]
    assert first is not second
    for number, channel in enumerate((first, second)):
        others[number].send(w.Done(number, []))
        assert channel.receive().message.ticket == number
    pool.close()
    for other in others:
        other.close()


def test_a_channel_whose_exchange_was_broken_off_is_closed(channels):
    """The answer is on its way, and would be taken for that to the next question."""
    control, in_pager = channels
    pool = ChannelPool(control)
    broken = pool.borrow()
    pool.drop(broken)
    other = opened(in_pager)
    assert (broken.fileno(), other.is_hung_up()) == (-1, True)
    assert pool.borrow() is not broken
    pool.close()
    other.close()
    opened(in_pager).close()


def test_a_channel_that_cannot_be_opened_leaves_nothing(channels):
    """The pager is gone; the next question is told so too."""
    control, in_pager = channels
    pool = ChannelPool(control)
    in_pager.close()
    n_files = len(os.listdir("/proc/self/fd"))
    with pytest.raises(PagerError):
        pool.borrow()
    assert len(os.listdir("/proc/self/fd")) == n_files


def test_closing_ends_every_channel(channels):
    """Those that are borrowed, those that are not, and the first."""
    control, in_pager = channels
    pool = ChannelPool(control)
    pool.borrow()
    pool.give_back(pool.borrow())
    others = [opened(in_pager) for _ in range(2)]
    pool.close()
    assert [end.is_hung_up() for end in (in_pager, *others)] == [True] * 3
    for other in others:
        other.close()


def test_detaching_ends_none(channels):
    """The pager would take the client for gone while its threads still touch arrays."""
    control, in_pager = channels
    pool = ChannelPool(control)
    channel = pool.borrow()
    other = opened(in_pager)
    pool.give_back(channel)
    descriptors = (control.fileno(), channel.fileno())
    pool.detach()
    assert (control.fileno(), channel.fileno()) == (-1, -1)
    assert not in_pager.is_hung_up()
    assert not other.is_hung_up()
    for descriptor in descriptors:
        os.close(descriptor)
    other.close()


def test_a_number_that_is_anothers_is_not_sent_on(channels, pipe):
    """Other code has closed the descriptors, and has files under their numbers now."""
    control, in_pager = channels
    pool = ChannelPool(control)
    lent = pool.borrow()
    other = opened(in_pager)
    taken = (control.fileno(), lent.fileno())
    for descriptor in taken:
        os.dup2(pipe[0], descriptor)
    with pytest.raises(PagerError, match="closed lazyarr's descriptors"):
        lent.send(w.Ping())
    with pytest.raises(PagerError, match="closed lazyarr's descriptors"):
        pool.borrow()
    pool.close()
    for descriptor in taken:
        assert identity_of(descriptor) == identity_of(pipe[0])
        os.close(descriptor)
    other.close()

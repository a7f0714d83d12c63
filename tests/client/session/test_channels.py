"""Channels that are lent to exchanges."""

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
    with pool.lend() as first:
        first.send(w.Ping())
    other = opened(in_pager)
    assert other.receive().message == w.Ping()
    with pool.lend() as again:
        assert again is first
    assert not in_pager.is_readable()
    pool.close()
    other.close()


def test_exchanges_at_once_have_a_channel_each(channels):
    """An answer is for whoever waits on its channel."""
    control, in_pager = channels
    pool = ChannelPool(control)
    with pool.lend() as first, pool.lend() as second:
        others = [opened(in_pager) for _ in range(2)]
        assert first is not second
        for number, channel in enumerate((first, second)):
            others[number].send(w.Done(number, []))
            assert channel.receive().message.ticket == number
    pool.close()
    for other in others:
        other.close()


@pytest.mark.parametrize("error", [KeyboardInterrupt, PagerError])
def test_a_channel_whose_exchange_was_broken_off_is_closed(channels, error):
    """The answer is on its way, and would be taken for that to the next question."""
    control, in_pager = channels
    pool = ChannelPool(control)
    with pytest.raises(error), pool.lend() as broken:
        raise error("example")
    other = opened(in_pager)
    assert (broken.fileno(), other.is_hung_up()) == (-1, True)
    with pool.lend() as channel:
        assert channel is not broken
    pool.close()
    other.close()
    opened(in_pager).close()


def test_a_channel_that_cannot_be_opened_leaves_nothing(channels):
    """The pager is gone; the next question is told so too."""
    control, in_pager = channels
    pool = ChannelPool(control)
    in_pager.close()
    n_files = len(os.listdir("/proc/self/fd"))
    with pytest.raises(PagerError), pool.lend():
        pass
    assert len(os.listdir("/proc/self/fd")) == n_files


def test_closing_ends_every_channel(channels):
    """Those that are lent, those that are not, and the first."""
    control, in_pager = channels
    pool = ChannelPool(control)
    with pool.lend():
        with pool.lend():
            others = [opened(in_pager) for _ in range(2)]
        pool.close()
    assert [end.is_hung_up() for end in (in_pager, *others)] == [True] * 3
    for other in others:
        other.close()


def test_detaching_ends_none(channels):
    """The pager would take the client for gone while its threads still touch arrays."""
    control, in_pager = channels
    pool = ChannelPool(control)
    with pool.lend() as channel:
        other = opened(in_pager)
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
    with pool.lend() as lent:
        other = opened(in_pager)
        taken = (control.fileno(), lent.fileno())
        for descriptor in taken:
            os.dup2(pipe[0], descriptor)
        with pytest.raises(PagerError, match="closed lazyarr's descriptors"):
            lent.send(w.Ping())
        with pytest.raises(PagerError, match="closed lazyarr's descriptors"), pool.lend():
            pass
    pool.close()
    for descriptor in taken:
        assert identity_of(descriptor) == identity_of(pipe[0])
        os.close(descriptor)
    other.close()

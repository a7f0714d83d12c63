"""Channels, and what every test must leave as it was."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from lazyarr.wire.channel import Channel, channel_pair


def open_files() -> set[str]:
    """Return every open descriptor of this process and what it is of."""
    paths = (f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd"))
    # The listing's own descriptor is closed by now.
    return {f"{path} {os.readlink(path)}" for path in paths if os.path.lexists(path)}


@pytest.fixture(autouse=True)
def leave_no_descriptor() -> Iterator[None]:
    """Fail the test that leaves a descriptor open."""
    before = open_files()
    yield
    assert open_files() - before == set()


@pytest.fixture
def channels() -> Iterator[tuple[Channel, Channel]]:
    """The two ends of a channel."""
    pair = channel_pair()
    yield pair
    for channel in pair:
        channel.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe: something to send whose arrival can be told."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)

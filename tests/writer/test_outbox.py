"""Objects on their way to the store."""

from __future__ import annotations

import pytest

from lazyarr.layout import ShardLevel
from lazyarr.store import open_store
from lazyarr.writer.outbox import Outbox
from lazyarr.writer.place import StorePlace
from lazyarr.writer.pump import Pump
from tests.writer.stores import new_url


@pytest.fixture
def place():
    return StorePlace(open_store(new_url(), writable=True))


@pytest.fixture
def outbox(place):
    pump = Pump(4, 1 << 20, "put")
    yield Outbox(place, pump)
    pump.close()


def test_last_of_a_key_is_what_stays(place, outbox):
    """Many changes of one object, on four threads, come in the order in which they were put."""
    for number in range(200):
        outbox.put("c/0", {0: b"%d" % number}, None, alignment_nbytes=1)
    outbox.drain()
    assert place.read("c/0") == b"199"
    assert repr(outbox) == "<Outbox of 0 objects>"


def test_object_without_chunks_is_taken_away(place, outbox):
    """All fill value: nothing is stored."""
    outbox.put("c/0", {0: b"x"}, None, alignment_nbytes=1)
    outbox.put("c/0", {0: None}, None, alignment_nbytes=1)
    outbox.drain()
    assert place.read("c/0") is None


@pytest.mark.parametrize("location", ["start", "end"])
def test_chunks_begin_where_they_should(place, outbox, location):
    """At multiples of the alignment, wherever the index is; the gaps are zeros."""
    level = ShardLevel(grid_shape=(4,), index_location=location)
    chunks = {0: b"a" * 100, 2: b"b" * 64, 3: b"c"}
    outbox.put("c/0", chunks, level, alignment_nbytes=64)
    outbox.drain()
    stored = place.read("c/0")
    start, stop = level.index_range(len(stored))
    index = level.parse_index(stored[start:stop], object_nbytes=len(stored))
    assert start % 64 == 0
    assert index.entry(1) is None
    rest = bytearray(stored)
    rest[start:stop] = bytes(stop - start)
    for entry, chunk in chunks.items():
        offset, nbytes = index.entry(entry)
        assert offset % 64 == 0
        assert stored[offset : offset + nbytes] == chunk
        rest[offset : offset + nbytes] = bytes(nbytes)
    assert not any(rest)

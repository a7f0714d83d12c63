from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lazyarr.committing.objects import StoredObject, assemble
from lazyarr.layout import ShardLevel
from lazyarr.writer.objects import OpenObject

chunks_by_entry = st.dictionaries(st.integers(0, 6), st.binary(min_size=1, max_size=50), min_size=1)


@given(chunks_by_entry, st.sampled_from(["start", "end"]), st.booleans(), st.booleans())
def test_assembled_shard_gives_its_chunks_back(chunks, location, little_endian, checksum):
    """Every chunk is found again, those that were left out are not there, whatever the index."""
    level = ShardLevel((7,), location, little_endian, checksum)
    stored = StoredObject(b"".join(assemble(chunks, level)), level)
    for entry in range(7):
        found = stored.chunk(entry)
        assert (None if found is None else bytes(found)) == chunks.get(entry)


def test_chunk_that_is_an_object_is_all_of_it():
    """Without a shard there is no index."""
    assert assemble({0: b"abc"}, None) == [b"abc"]
    assert bytes(StoredObject(b"abc", None).chunk(0)) == b"abc"


def test_chunks_follow_each_other_in_order():
    """Whatever order they came in, the chunks of a shard lie in the order of the index."""
    parts = assemble({3: b"ddd", 0: b"a", 2: b"cc"}, ShardLevel((4,)))
    assert parts[:3] == [b"a", b"cc", b"ddd"]


def test_object_is_complete_when_nothing_is_pending():
    """Not with a chunk in part, nor one that is being encoded again, nor one missing."""
    opened = OpenObject("c/0")
    opened.n_chunks = 2
    for entry in (0, 1):
        opened.begin_encoding(entry)
        assert not opened.is_complete
        opened.finish_encoding(entry, b"xyz")
    assert opened.is_complete
    assert opened.nbytes == 6
    opened.begin_encoding(1)
    opened.begin_encoding(1)
    opened.finish_encoding(1, b"old")
    assert not opened.is_complete
    opened.finish_encoding(1, None)
    assert opened.is_complete
    opened.begin_patching(0, np.zeros(5, "u1"))
    assert not opened.is_complete
    assert opened.nbytes == 5

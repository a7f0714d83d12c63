"""Tables of chunks in little memory: what comes back is the same, all else is refused."""

from __future__ import annotations

import binascii
import json
import pickle
import tracemalloc
import zlib
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazyarr.errors import FormatError
from lazyarr.layout.entries import Entries

PLACES = st.integers(0, 2**62)


@st.composite
def tables(draw):
    """Entries of every kind."""
    found = []
    for start, nbytes in draw(st.lists(st.tuples(PLACES, PLACES), max_size=20)):
        number, left_out = draw(st.integers(0, 2**32 - 1)), draw(st.integers(0, 2**64 - 1))
        whole = (number, start, start + nbytes)
        found.append(draw(st.sampled_from([None, whole, whole, (*whole, left_out or 1)])))
    return found


@given(tables())
def test_entries_come_back(found):
    """As text and from a pickle, one by one and as a tuple; equal ones have equal texts."""
    entries = Entries.of(found)
    assert list(entries) == found
    assert entries == tuple(found)
    assert entries[1:7:2] == tuple(found[1:7:2])
    document = json.loads(json.dumps(entries.document()))
    again = Entries.parse(document, len(found))
    assert again == entries
    assert hash(again) == hash(entries)
    assert Entries.of(again) is again
    assert again.document() == document
    assert pickle.loads(pickle.dumps(entries)) == entries
    assert entries.is_any_stored == any(entry is not None for entry in found)
    shifted = [e if e is None or len(e) == 3 else (*e[:3], e[3] << 1 & 2**64 - 1) for e in found]
    if all(e is None or len(e) == 3 or e[3] < 2**63 for e in found):
        assert list(entries.with_codec_before()) == shifted
    entries.check(2**32, 2**64 - 1)


def test_they_are_a_sequence():
    """Of entries, from either end; and none of them stored."""
    entries = Entries.of([(0, 1, 2), None])
    assert (entries[-2], entries[-1], (0, 1, 2) in entries) == ((0, 1, 2), None, True)
    for index in (2, -3):
        with pytest.raises(IndexError):
            entries[index]
    assert entries != ((0, 1, 2),)
    assert entries != [(0, 1, 2), None]
    assert repr(entries) == "<Entries: 2>"
    assert Entries.none(3) == (None,) * 3
    assert Entries.none(0) == ()


@pytest.mark.parametrize(
    "wrong", [[(0, 5, 4)], [(0, -1, 4)], [(3, 0, 1)], [None, (0, 0, 1, 4)], [(0, 0, 1, 8)]]
)
def test_entries_that_lead_nowhere_are_refused(wrong):
    """Before a chunk is looked for."""
    with pytest.raises(FormatError, match="an entry of placement"):
        Entries.of(wrong).check(3, 3)


def packed(data):
    return binascii.b2a_base64(zlib.compress(data), newline=False).decode()


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("bounds", None),
        ("bounds", "="),
        ("bounds", packed(bytes(63))),
        ("bounds", packed(bytes(65))),
        ("bounds", packed(bytes(64))[:-8]),
        ("bounds", packed(b"".join(bytes([k]) * 4 for k in [*bytes(7), 127] * 2))),
        ("numbers", packed(bytes(8))),
        ("numbers", 3),
        ("left_out", packed(bytes(4))),
        ("stored", []),
        ("more", None),
    ],
)
def test_text_that_describes_no_entries_is_refused(member, value):
    """Whatever is wrong with it."""
    document = Entries.of([(1, 0, 4), None, (0, 4, 8, 1), (0, 8, 9)]).document()
    Entries.parse(document, 4)
    with pytest.raises(FormatError):
        Entries.parse(document | {member: value}, 4)


def test_text_that_holds_more_takes_no_memory():
    """No more than the entries take that there must be."""
    document = Entries.none(4).document() | {"bounds": packed(bytes(2**26))}
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match="expected 64"):
            Entries.parse(document, 4)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_large_table_takes_little():
    """16 bytes for a chunk, and less as text: also where chunks have many lengths."""
    count = 200_000
    bounds = array("q")
    at = 2048
    for number in range(count):
        bounds.extend((at, at := at + 900 + number * 7919 % 256))
    entries = Entries(bounds)
    text = json.dumps(entries.document())
    assert len(text) < 3 * count
    tracemalloc.start()
    try:
        again = Entries.parse(json.loads(text), count)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert again[count - 1] == entries[count - 1]
    assert held < 24 * count + len(text) + 2**16
    assert peak < 80 * count + 4 * len(text)

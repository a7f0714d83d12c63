"""Messages: there and back, and what is not one."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lazyarr.errors import PagerError
from lazyarr.wire import messages as w
from lazyarr.wire.packets import decode, encode
from tests.wire.strategies import KINDS, json_values, messages, messages_of


@pytest.mark.parametrize("kind", KINDS)
def test_every_message_comes_back_as_it_was(kind):
    """Each kind, with anything in its fields."""

    @given(messages_of(kind))
    @settings(max_examples=15)
    def check(message):
        again = decode(encode(message))
        assert (type(again), again) == (kind, message)

    check()


def test_path_that_is_not_utf8_survives():
    """Python shows its bytes as lone surrogates, which JSON can hold as escapes."""
    message = w.OpenRegion(1, 4096, 0, 0, "file:///\udcff", "a\udcfe", "{}", {}, False, "SHARED")
    assert decode(encode(message)) == message


def test_infinite_timeout_survives():
    """JSON has no infinity; both sides are Python."""
    message = w.Configure(1, {"timeout": math.inf})
    assert decode(encode(message)) == message


def test_what_json_can_not_hold_goes_as_text():
    """An error's field must not keep the error from arriving."""
    failure = {"reason": ValueError("bad frame"), "byte_range": (1, 2)}
    assert decode(encode(w.Done(1, [failure]))) == w.Done(
        1, [{"reason": "bad frame", "byte_range": [1, 2]}]
    )


def check_packet(packet: bytes) -> None:
    """Check that a packet is a message or a PagerError, and nothing else."""
    try:
        message = decode(packet)
    except PagerError:
        return
    assert isinstance(message, KINDS)
    again = decode(encode(message))
    assert (type(again), again) == (type(message), message)


@given(st.binary(max_size=60))
@settings(max_examples=200)
def test_random_bytes_are_no_message(packet):
    """Whoever sends them gets an answer of a kind, and the reader lives."""
    with pytest.raises(PagerError):
        decode(packet)


@given(st.data())
@settings(max_examples=150)
def test_damaged_packet_is_a_message_or_an_error(data):
    """Bytes changed, cut off, put in twice."""
    packet = bytearray(encode(data.draw(messages)))
    start = data.draw(st.integers(0, len(packet)))
    packet[start : start + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    check_packet(bytes(packet))


@given(st.data())
@settings(max_examples=150)
def test_message_with_other_fields_is_a_message_or_an_error(data):
    """A field of another type, one too many, one too few, another name."""
    document = json.loads(encode(data.draw(messages)))
    for _ in range(data.draw(st.integers(1, 2))):
        name = data.draw(st.sampled_from([*document, "extra"]))
        if data.draw(st.booleans()):
            document[name] = data.draw(json_values)
        else:
            document.pop(name, None)
    check_packet(json.dumps(document).encode())


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"null",
        b"[]",
        b'"Join"',
        b"{}",
        b'{"is": null}',
        b'{"is": []}',
        b'{"is": "Message"}',
        b'{"is": "Join", "extra": 1}',
        b'{"is": "WantStatistics"}',
        b'{"is": "WantStatistics", "ticket": "1"}',
        b'{"is": "WantStatistics", "ticket": 1.0}',
        b'{"is": "WantStatistics", "ticket": true}',
        b'{"is": "WantStatistics", "ticket": -2}',
        b'{"is": "WantStatistics", "ticket": 9223372036854775808}',
        b'{"is": "WantStatistics", "ticket": ' + b"9" * 5000 + b"}",
        b'{"is": "Request", "ticket": 1, "region": 1, "units": [1]}',
        b'{"is": "Request", "ticket": 1, "region": 1, "units": [[1]]}',
        b'{"is": "Request", "ticket": 1, "region": 1, "units": [[1, 2, 3]]}',
        b'{"is": "Request", "ticket": 1, "region": 1, "units": [[1, true]]}',
        b'{"is": "Request", "ticket": 1, "region": 1, "units": {}}',
        b'{"is": "Done", "ticket": 1, "failures": [[]]}',
        b'{"is": "Configure", "ticket": 1, "settings": []}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
    ids=lambda packet: repr(packet[:60]),
)
def test_nonsense_is_refused(packet):
    """Fields are checked before they are believed, and a message never carries code."""
    with pytest.raises(PagerError, match="cannot read a message"):
        decode(packet)


@pytest.mark.parametrize("kind", ["Configure", "Record"])
def test_message_that_nests_too_deeply_is_refused(kind):
    """One that can be read can also be written, into a record too."""
    deep = "{}"
    for _ in range(40):
        deep = f'{{"a": {deep}}}'
    fields = {"Configure": '"ticket": 1, "settings"', "Record": '"client": 1, "body"'}[kind]
    with pytest.raises(PagerError, match="cannot read a message"):
        decode(f'{{"is": "{kind}", {fields}: {deep}}}'.encode())


def test_error_shows_how_the_packet_began():
    """Enough to tell what is at the other end, and printable."""
    with pytest.raises(PagerError) as caught:
        decode(b"GET / HTTP/1.1\r\n\xff" + b"x" * 1000)
    assert "GET / HTTP/1.1" in caught.value.message
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 250

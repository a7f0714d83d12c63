"""Deflated members of zip archives: their content, or an error."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazyarr.codecs.errors import DamagedChunkError
from lazyarr.codecs.zip_member import ZipMember


def member(content: bytes, header_nbytes: int = 0) -> tuple[ZipMember, bytes]:
    stream = zlib.compressobj(wbits=-15)
    return ZipMember(header_nbytes, zlib.crc32(content)), stream.compress(content) + stream.flush()


@given(st.binary(max_size=3000), st.integers(0, 200))
def test_a_chunk_is_what_follows_the_header(content, header_nbytes):
    """In one piece, or into memory."""
    codec, data = member(content, header_nbytes)
    chunk = content[header_nbytes:]
    assert bytes(codec.decode(data, len(chunk))) == chunk
    out = memoryview(bytearray(len(chunk)))
    codec.decode_into(data, out)
    assert bytes(out) == chunk


def test_a_large_chunk_comes_a_part_at_a_time():
    """Of bytes that compress a thousandfold, and of bytes that do not compress."""
    for content in (bytes(5 << 20), bytes(range(256)) * 4096, b""):
        codec, data = member(content)
        out = memoryview(bytearray(len(content)))
        codec.decode_into(data, out)
        assert out == content


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda data: data[:-1], "found no end"),
        (lambda data: b"", "found no end"),
        (lambda data: b"\xff" + data, "damaged"),
        (lambda data: member(b"other" * 200)[1], "CRC-32 of the member expected"),
    ],
)
def test_damage_is_an_error(change, text):
    """What is cut off, what does not decompress, and what is other content."""
    content = bytes(range(250)) * 4
    codec, data = member(content)
    with pytest.raises(DamagedChunkError, match=text):
        codec.decode(change(data), 1000)


@pytest.mark.parametrize("limit", [0, 1, 999, 1001])
def test_content_of_another_length_is_an_error(limit):
    """Longer than it may be; or shorter than the memory that it must fill."""
    codec, data = member(bytes(1000))
    with pytest.raises(DamagedChunkError, match="expected to have"):
        codec.decode_into(data, memoryview(bytearray(limit)))


def test_content_that_is_not_the_archives_is_not_encoded():
    """The checksum is a part of what the codec is."""
    with pytest.raises(ValueError, match="CRC-32"):
        ZipMember(0, 1).encode(b"x")

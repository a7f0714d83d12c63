"""What every compressor does, against the libraries that others write with."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazyarr.codecs.base import copy_into
from lazyarr.codecs.blosc import Blosc
from lazyarr.codecs.errors import DamagedChunkError
from lazyarr.codecs.numcodec import Numcodec
from lazyarr.codecs.standard_library import Bz2, Deflate, Lzma

CONTENT = bytes(range(256)) * 800
RAW = ((("dist", 4), ("id", lzma.FILTER_DELTA)), (("id", lzma.FILTER_LZMA2), ("preset", 1)))
CODECS = {
    "gzip": Deflate("gzip", 5),
    "zlib": Deflate("zlib", 5),
    "bz2": Bz2(9),
    "xz": Lzma(),
    "lzma": Lzma(lzma.FORMAT_ALONE, -1, 1),
    "raw lzma": Lzma(lzma.FORMAT_RAW, -1, None, RAW),
    "lz4": Numcodec.from_config({"id": "lz4"}),
    "blosc": Blosc("zstd", 5, 1, 0, 4),
    "blosc lz4": Blosc("lz4", 9, 2, 1024, 300),
    "blosc stored": Blosc("lz4", 0, 0, 0, 1),
}


def decode_into(codec, data, nbytes):
    """Decode into the middle of some memory whose ends must not change."""
    memory = bytearray(b"\xa5" * (nbytes + 64))
    try:
        codec.decode_into(data, memoryview(memory)[32 : 32 + nbytes])
    finally:
        assert memory[:32] == memory[-32:] == b"\xa5" * 32
    return bytes(memory[32:-32])


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_what_is_encoded_comes_back(name, kind):
    """Every compressor gives back its content, from and to any kind of memory."""
    codec = CODECS[name]
    stored = kind(codec.encode(kind(CONTENT)))
    assert decode_into(codec, stored, len(CONTENT)) == CONTENT
    assert bytes(codec.decode(stored, len(CONTENT) + 1)) == CONTENT


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("wrong", [-1, 1, -100_000])
def test_other_lengths_are_refused(name, wrong):
    """Content of another length than the memory is damage, and never written past it."""
    stored = CODECS[name].encode(CONTENT)
    with pytest.raises(DamagedChunkError, match=r"expected to have"):
        decode_into(CODECS[name], stored, len(CONTENT) + wrong)


@pytest.mark.parametrize("name", CODECS)
def test_cuts_and_rests_are_refused(name):
    """Data that lost its end is damage; what is behind it is left aside where others do so too."""
    stored = bytes(CODECS[name].encode(CONTENT))
    for wrong in (b"", stored[:1], stored[:-1], stored[:-9], stored[: len(stored) // 2]):
        with pytest.raises(DamagedChunkError):
            decode_into(CODECS[name], wrong, len(CONTENT))
    is_part = name in ("gzip", "xz")  # the rest could be more content
    if name == "lz4":  # whose blocks say nothing of their own length
        return
    if is_part:
        with pytest.raises(DamagedChunkError):
            decode_into(CODECS[name], stored + b"xyz", len(CONTENT))
    else:
        assert decode_into(CODECS[name], stored + b"xyz", len(CONTENT)) == CONTENT


@pytest.mark.parametrize("name", CODECS)
def test_memory_is_bounded(name):
    """A few bytes that hold 64 MiB are refused without making them."""
    stored = CODECS[name].encode(bytes(2**26))
    tracemalloc.start()
    try:
        with pytest.raises(DamagedChunkError):
            CODECS[name].decode(stored, 1000)
        assert tracemalloc.get_traced_memory()[1] < 2**24  # the dictionary of LZMA alone is 8 MiB
    finally:
        tracemalloc.stop()


@given(st.sampled_from(sorted(CODECS)), st.binary(min_size=1, max_size=300))
def test_any_content_comes_back(name, content):
    """Short content comes back too, of any length that a chunk can have."""
    codec = CODECS[name]
    assert decode_into(codec, codec.encode(content), len(content)) == content


@given(st.sampled_from(sorted(CODECS)), st.data())
def test_damage_raises_nothing_else(name, data):
    """A flipped byte is damage or other content of the same length."""
    stored = bytearray(CODECS[name].encode(CONTENT[:5000]))
    stored[data.draw(st.integers(0, len(stored) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(DamagedChunkError):
        decode_into(CODECS[name], stored, 5000)


@given(st.sampled_from(sorted(CODECS)), st.binary(max_size=100))
def test_arbitrary_bytes_raise_nothing_else(name, data):
    """Arbitrary bytes are damage or content, never another error."""
    with contextlib.suppress(DamagedChunkError):
        decode_into(CODECS[name], data, 100)


def test_several_gzip_members():
    """Members that follow one another are one content (RFC 1952, section 2.2)."""
    stored = b"".join(gzip.compress(CONTENT[i : i + 1000]) for i in range(0, len(CONTENT), 1000))
    assert decode_into(CODECS["gzip"], stored, len(CONTENT)) == CONTENT


@pytest.mark.parametrize("name", ["gzip", "bz2", "xz"])
def test_several_streams_are_read_in_bounded_memory_and_time(name):
    """However many there are; one that is damaged makes the content short, which is damage."""
    codec = CODECS[name]
    streams = [bytes(codec.encode(CONTENT[i : i + 1000])) for i in range(0, len(CONTENT), 1000)]
    assert decode_into(codec, b"".join(streams), len(CONTENT)) == CONTENT
    with pytest.raises(DamagedChunkError):
        decode_into(codec, b"".join(streams[:9]) + b"no stream" + streams[9], 10_000)
    with pytest.raises(DamagedChunkError):
        codec.decode(bytes(codec.encode(bytes(2**20))) * 100, 2**20)


def test_zeros_behind_gzip_are_padding():
    """As Python's module has it, also between members (gzip.py, `_read_eof`)."""
    one = gzip.compress(CONTENT[:5000], mtime=0)
    padded = one + bytes(100_000) + one + bytes(3)
    assert gzip.decompress(padded) == CONTENT[:5000] * 2
    assert decode_into(CODECS["gzip"], padded, 10_000) == CONTENT[:5000] * 2


def test_standard_library_reads_it():
    """What is written is what the standard library reads."""
    assert gzip.decompress(bytes(CODECS["gzip"].encode(CONTENT))) == CONTENT
    assert zlib.decompress(CODECS["zlib"].encode(CONTENT)) == CONTENT
    assert bz2.decompress(CODECS["bz2"].encode(CONTENT)) == CONTENT
    assert lzma.decompress(CODECS["xz"].encode(CONTENT)) == CONTENT


def test_copy_into_fills_exactly():
    """Bytes that are not compressed must be as long as the memory."""
    out = bytearray(4)
    copy_into(b"abcd", memoryview(out))
    assert out == b"abcd"
    for wrong in (b"", b"abc", b"abcde"):
        with pytest.raises(DamagedChunkError, match="chunk expected to have 4 bytes, found"):
            copy_into(wrong, memoryview(out))


def test_raw_lzma_is_what_numcodecs_writes():
    """Filters, which the stream does not say, come from the document."""
    import numcodecs

    filters = [dict(members) for members in RAW]
    codec = numcodecs.LZMA(format=lzma.FORMAT_RAW, filters=filters)
    assert CODECS["raw lzma"].decode(bytes(codec.encode(CONTENT)), len(CONTENT)) == CONTENT
    assert codec.decode(CODECS["raw lzma"].encode(CONTENT)) == CONTENT


def test_gzip_of_far_too_many_members_is_refused():
    """Empty ones cost more than their bytes."""
    with pytest.raises(DamagedChunkError, match="more than 32768 members"):
        Deflate("gzip").decode(gzip.compress(b"", mtime=0) * 33_000, 10)

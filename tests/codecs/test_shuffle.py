"""Shuffles and blocks of HDF5's filters: what its own filters have written is read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazyarr.codecs.blosc import MAX_TYPESIZE, decode_blocks
from lazyarr.codecs.errors import DamagedChunkError
from lazyarr.codecs.registry import make_codec
from lazyarr.codecs.shuffle import Bitshuffle, Lz4Blocks, Shuffle
from lazyarr.codecs.strings import Strings
from lazyarr.errors import FormatError

CONTENT = (np.arange(45) // 3).astype("<u2").tobytes()

# What hdf5plugin 7.1 made of it, by LZ4(nbytes=32) and Bitshuffle(nelems=16, cname=...).
WRITTEN = {
    "lz4": (
        Lz4Blocks(),
        "000000000000005a0000002000000019110001001101020011020200110302008004000400040005000000001b"
        "51050005000602001107020011080200a00900090009000a000a0000000017310a000b0200110c0200c00d000d"
        "000d000e000e000e00",
    ),
    "bits": (
        Bitshuffle(2, 16, "none"),
        "388ec00f00f00000000000000000000000000000000000000000000000000000e338fcc0ff0000ff0000000000"
        "000000000000000000000000000000000000008e0ff0ff0000000000000000000000000d000d000e000e000e00",
    ),
    "bits and lz4": (
        Bitshuffle(2, 0, "lz4"),
        "000000000000005a00000020000000117f388ec00f00f000010001500000000000000000129ee338fcc0ff0000"
        "ff00010050000000000000000012f0018e0ff0ff0000000000000000000000000d000d000e000e000e00",
    ),
    "bits and zstd": (
        Bitshuffle(2, 0, "zstd"),
        "000000000000005a000000200000001628b52ffd20206d000038388ec00f00f00001000b30020000001828b52f"
        "fd20207d000048e338fcc0ff0000ff0001003538020000001428b52ffd20105d0000288e0ff0ff00010006d002"
        "0d000d000e000e000e00",
    ),
}
CODECS = [
    *(Shuffle(size) for size in (1, 2, 7, MAX_TYPESIZE, 300)),
    Lz4Blocks(),
    *(Bitshuffle(2, block, name) for block in (0, 8) for name in ("none", "lz4", "zstd")),
    Bitshuffle(16, 64, "lz4"),
]


def decoded(codec, data, nbytes):
    """Decode into the middle of some memory whose ends must not change."""
    memory = bytearray(b"\xa5" * (nbytes + 64))
    try:
        codec.decode_into(data, memoryview(memory)[32 : 32 + nbytes])
    finally:
        assert memory[:32] == memory[-32:] == b"\xa5" * 32
    return bytes(memory[32:-32])


@pytest.mark.parametrize("name", WRITTEN)
def test_what_others_write_is_read(name):
    """By the filters that are registered for HDF5."""
    codec, text = WRITTEN[name]
    data = bytes.fromhex(text)
    assert decoded(codec, data, len(CONTENT)) == CONTENT
    assert codec.decode(data, 100) == CONTENT


@pytest.mark.parametrize("codec", CODECS, ids=repr)
@pytest.mark.parametrize("nbytes", [0, 1, 2, 15, 16, 255, 4099, 70_000])
def test_what_is_encoded_comes_back(codec, nbytes):
    """Of any length, also of one that is no multiple of an element."""
    random = np.random.default_rng(0).integers(0, 256, nbytes).astype("u1").tobytes()
    for content in (random, bytes(nbytes), bytes(range(256))[:nbytes]):
        stored = bytes(codec.encode(content))
        assert decoded(codec, stored, len(content)) == content
        assert codec.decode(stored, nbytes) == content


def test_a_block_of_the_length_of_its_content_is_compressed_all_the_same():
    """In a container of bitshuffle, which compresses all blocks."""
    random = np.random.default_rng(0).integers(0, 256, 128).astype("u1").tobytes()
    n_equal = 0
    for n in range(4, 12):
        # One repetition, so that compression gains about as much as it costs.
        repeated = random[:60] + random[10 : 10 + n] + random[60:]
        content = decoded(Bitshuffle(1, 128, "none"), repeated[:128], 128)
        stored = Bitshuffle(1, 128, "lz4").encode(content)
        n_equal += len(stored) == 12 + 4 + 128
        assert decoded(Bitshuffle(1, 128, "lz4"), stored, 128) == content
    assert n_equal


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_other_lengths_are_damage(codec):
    """Whether too much is stored or too little."""
    stored = bytes(codec.encode(bytes(4096)))
    for data, nbytes in ((stored, 4000), (stored, 5000), (stored[:-1], 4096), (b"", 4096)):
        with pytest.raises(DamagedChunkError):
            decoded(codec, data, nbytes)
    with pytest.raises(DamagedChunkError, match="expected to have up to 4095 bytes, found"):
        codec.decode(stored, 4095)


@given(st.sampled_from(CODECS), st.data())
def test_damage_raises_nothing_else(codec, data):
    """Changed bytes are damage or other content of the same length; nothing is written beyond."""
    content = data.draw(st.binary(min_size=1, max_size=300)) * 3
    stored = bytearray(codec.encode(content))
    change = data.draw(st.binary(min_size=1, max_size=4))
    at = data.draw(st.integers(0, len(stored) - 1))
    stored[at : at + len(change)] = change
    try:
        assert len(decoded(codec, bytes(stored), len(content))) == len(content)
        codec.decode(bytes(stored), 10_000)
    except DamagedChunkError:
        pass


def test_as_many_blocks_as_the_content_needs():
    """Not more, and not fewer."""
    out = bytearray(9)
    decode_blocks([b"abcdefgh", b"i"], memoryview(out), block_nbytes=8)
    assert out == b"abcdefghi"
    for blocks in ([], [b"abcdefgh"], [b"a", b"b", b"c"]):
        with pytest.raises(DamagedChunkError, match="in blocks of 8, found"):
            decode_blocks(blocks, memoryview(out), block_nbytes=8)


@pytest.mark.parametrize(
    ("name", "parameters", "match"),
    [
        ("shuffle", {"elementsize": 0}, "elementsize"),
        ("bitshuffle", {"elementsize": 256, "block_elements": 0, "compressor": "none"}, "element"),
        ("bitshuffle", {"elementsize": 4, "block_elements": 9, "compressor": "none"}, "multiple"),
        ("bitshuffle", {"elementsize": 4, "block_elements": 8, "compressor": "zip"}, "one of"),
        ("strings", {"elementsize": 4, "fields": [[0, 5, True]]}, "size of a field"),
        ("strings", {"elementsize": 4, "fields": [[4, 1, True]]}, "start of a field"),
        ("strings", {"elementsize": 4, "fields": [[0, 1, 2]]}, "is_spaces"),
        ("strings", {"elementsize": 4, "fields": [[0, 1, True]] * 20_000}, "up to"),
    ],
)
def test_parameters_are_checked(name, parameters, match):
    """They come from another process."""
    with pytest.raises(FormatError, match=match):
        make_codec(name, parameters)


def test_strings_end_at_the_first_zero_or_before_spaces():
    """What is between strings stays as it is."""
    codec = Strings(8, ((0, 3, False), (4, 4, True)))
    stored = b"a\0c-b c   c-    abc- \0 x"
    assert codec.decode(stored, 24) == b"a\0\0-b c\0  c-\0\0\0\0abc- \0 x"
    assert codec.encode(codec.decode(stored, 24)) == b"a\0\0-b c   c-    abc- \0 x"
    for wrong in (b"1234567", bytes(16)):
        with pytest.raises(DamagedChunkError):
            decoded(codec, wrong, len(wrong) - len(wrong) % 8 - 8 or 7)

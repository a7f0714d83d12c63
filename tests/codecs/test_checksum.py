from __future__ import annotations

import tracemalloc

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazyarr.codecs.checksum import Crc32c, crc32c
from lazyarr.codecs.errors import DamagedChunkError


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"", 0), (b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43)],
)
def test_known_values(data, expected):
    """The check value, and the examples of RFC 3720, appendix B.4."""
    assert crc32c(data) == crc32c(bytearray(data)) == crc32c(memoryview(data)) == expected


@pytest.mark.parametrize("nbytes", [32767, 32768, 32769, 200_000])
@pytest.mark.parametrize("start", [0, 1, 4099])
def test_size_and_place_do_not_show(nbytes, start):
    """The same value comes from bytes and from a part of other memory, copied or not."""
    data = bytes(range(251)) * 1000
    view = memoryview(bytearray(data))[start : start + nbytes]
    assert crc32c(view) == google_crc32c.value(data[start : start + nbytes])


def test_memory_is_let_go():
    """After the checksum of a large part, the memory can be resized again."""
    data = bytearray(100_000)
    crc32c(data)
    data.extend(b"x")
    assert len(data) == 100_001


def test_large_memory_is_not_copied():
    """The checksum of 64 MiB takes less than one of them."""
    data = bytearray(64 * 2**20)
    crc32c(data[:100_000])  # what is imported does not count
    tracemalloc.start()
    try:
        crc32c(memoryview(data))
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=100))
def test_codec_gives_back(data):
    """Encoded data decodes, without a copy."""
    stored = Crc32c().encode(data)
    assert bytes(Crc32c().decode(stored, len(data))) == data


@given(st.binary(min_size=1, max_size=100), st.data())
def test_every_flipped_bit_is_found(data, draw):
    """One bit anywhere, checksum included, is damage and says both values."""
    stored = bytearray(Crc32c().encode(data))
    stored[draw.draw(st.integers(0, len(stored) - 1))] ^= 1 << draw.draw(st.integers(0, 7))
    with pytest.raises(DamagedChunkError, match=r"^crc32c expected \w{8}, found \w{8}$"):
        Crc32c().decode(stored, 100)


def test_message_has_expected_and_found():
    """The stored value is what was expected, the computed one what was found."""
    with pytest.raises(DamagedChunkError) as caught:
        Crc32c().decode(b"123456789" + bytes(4), 100)
    assert caught.value.reason == "crc32c expected 00000000, found e3069283"


@pytest.mark.parametrize("data", [b"", b"abc"])
def test_too_short(data):
    """Data without room for a checksum is damage."""
    with pytest.raises(DamagedChunkError, match="last 4 bytes"):
        Crc32c().decode(data, 100)


def test_too_long():
    """The limit holds for content that is not compressed, too."""
    with pytest.raises(DamagedChunkError, match="up to 3 bytes, found 4"):
        Crc32c().decode(Crc32c().encode(b"abcd"), 3)

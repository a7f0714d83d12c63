from __future__ import annotations

import contextlib
import resource
import threading
import tracemalloc
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from lazyarr.codecs.errors import DamagedChunkError
from lazyarr.codecs.zstd import Zstd, scan_frames

CONTENT = bytes(range(256)) * 1500  # more than two blocks of 128 KiB
CONTENT_NBYTES = len(CONTENT)
SKIPPABLE = b"\x5f\x2a\x4d\x18\x04\x00\x00\x00skip"


def compress(data, **options):
    level = options.pop("level", 3)
    return zstandard.ZstdCompressor(level=level, **options).compress(data)


def stream(data, level=3):
    """Compress as a writer does that does not know how much will come."""
    writer = zstandard.ZstdCompressor(level=level).compressobj()
    return writer.compress(data) + writer.flush()


def decode(data, nbytes=CONTENT_NBYTES):
    """Decode into the middle of some memory whose ends must not change."""
    memory = bytearray(b"\xa5" * (nbytes + 64))
    try:
        Zstd().decode_into(data, memoryview(memory)[32 : 32 + nbytes])
    finally:
        assert memory[:32] == memory[-32:] == b"\xa5" * 32
    return bytes(memory[32:-32])


FRAMES = {
    "with size": compress(CONTENT),
    "without size": stream(CONTENT),
    "with checksum": compress(CONTENT, write_checksum=True),
    "without size, with checksum": compress(CONTENT, write_checksum=True, write_content_size=False),
    "two frames": compress(CONTENT[:1000]) + stream(CONTENT[1000:]),
    "with an empty frame": compress(b"") + compress(CONTENT),
    "with a skippable frame": SKIPPABLE + compress(CONTENT) + SKIPPABLE,
    "stored, not compressed": compress(CONTENT, level=-100),
    "strongest": compress(CONTENT, level=22),
    "strongest, without size": stream(CONTENT, level=22),
}


@pytest.mark.parametrize("name", FRAMES)
def test_every_kind_of_frame_decodes(name):
    """Frames with and without sizes, checksums and neighbours fill the memory exactly."""
    assert decode(FRAMES[name]) == CONTENT
    assert bytes(Zstd().decode(FRAMES[name], 2 * len(CONTENT))) == CONTENT


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("wrong", [-1, 1, -200_000, 200_000])
def test_other_lengths_are_refused(name, wrong):
    """Content that is shorter or longer than the memory is damage, and never written past it."""
    with pytest.raises(DamagedChunkError, match="expected to have"):
        decode(FRAMES[name], len(CONTENT) + wrong)


@pytest.mark.parametrize("name", FRAMES)
def test_every_cut_is_refused(name):
    """Data that lost its end is damage, also where only a checksum is missing."""
    data = FRAMES[name]
    for lost in (1, 2, 3, 4, 5, len(data) // 2, len(data) - 1, len(data) - 5):
        with pytest.raises(DamagedChunkError, match="zstd frame expected"):
            decode(data[:-lost])


@pytest.mark.parametrize("rest", [b"\0", b"abcde", b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18"])
def test_anything_after_the_frames_is_refused(rest):
    """What follows the last frame and is no frame is damage."""
    with pytest.raises(DamagedChunkError, match="zstd frame expected"):
        decode(FRAMES["with size"] + rest)


def test_wrong_checksum_is_refused():
    """A checksum of the content is checked."""
    for name in ("with checksum", "without size, with checksum"):
        data = bytearray(FRAMES[name])
        data[-1] ^= 1
        with pytest.raises(DamagedChunkError, match="checksum"):
            decode(data)


def test_empty_data_is_refused():
    """No frame at all holds too little."""
    with pytest.raises(DamagedChunkError, match="found 0 bytes"):
        decode(b"")


def claim(content_nbytes):
    """Return a frame of one byte that claims to hold much more."""
    return b"\x28\xb5\x2f\xfd\xe0" + content_nbytes.to_bytes(8, "little") + b"\x09\0\0x"


@pytest.mark.parametrize(
    "data",
    [
        claim(2**40),
        claim(2**63),
        # window of 2**41 bytes, one block that is the last and repeats a byte
        b"\x28\xb5\x2f\xfd\x00\xff" + (2**17 << 3 | 3).to_bytes(3, "little") + b"x",
        b"\x28\xb5\x2f\xfd\x00\xa0" + (2**17 << 3 | 3).to_bytes(3, "little") + b"x",
        compress(bytes(2**24)),
        stream(bytes(2**24), level=22),
    ],
    ids=["size", "huge size", "window", "wide window", "bomb", "bomb without size"],
)
@pytest.mark.parametrize(
    "read", [lambda d: Zstd().decode_into(d, OUT), lambda d: Zstd().decode(d, 1000)]
)
def test_memory_is_bounded_whatever_a_frame_claims(data, read):
    """Neither sizes nor windows make the library allocate more than the chunk may have."""
    tracemalloc.start()
    try:
        with pytest.raises(DamagedChunkError):
            read(data)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


OUT = memoryview(bytearray(1000))


@pytest.fixture
def little_memory():
    """Let the process have 32 MiB more of address space than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + 2**25
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.usefixtures("little_memory")
def test_wide_windows_are_narrowed():
    """A frame that asks for 128 MiB to hold little decodes without them."""
    frame = FRAMES["strongest, without size"]
    assert scan_frames(memoryview(frame))[0].window_nbytes == 2**27
    assert decode(frame) == CONTENT


def test_scan_frames_sees_what_a_frame_says():
    """Where frames end and how much they claim to hold is read from their headers."""
    first, second = compress(b"a" * 300), stream(b"b")
    frames = scan_frames(memoryview(first + SKIPPABLE + second))
    assert [frame.stop for frame in frames] == [
        len(first),
        len(first) + 12,
        len(first) + 12 + len(second),
    ]
    assert [frame.content_nbytes for frame in frames] == [300, 0, None]


@given(st.binary(max_size=2000), st.sampled_from([-5, 0, 3, 19]), st.booleans())
def test_encode_and_decode(content, level, checksum):
    """What is encoded comes back, at every level."""
    codec = Zstd(level, checksum)
    assert decode(codec.encode(content), len(content)) == content
    assert bytes(codec.decode(codec.encode(content), len(content))) == content


@given(st.sampled_from(sorted(FRAMES)), st.data())
def test_damage_raises_or_changes_nothing_else(name, data):
    """A flipped byte anywhere decodes to just as many bytes or is damage; nothing else happens."""
    frame = bytearray(FRAMES[name])
    frame[data.draw(st.integers(0, min(len(frame), 4096) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(DamagedChunkError):
        assert len(decode(frame)) == len(CONTENT)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_raise_nothing_else(data):
    """Arbitrary blocks after a valid header are damage or content, never another error."""
    with contextlib.suppress(DamagedChunkError):
        decode(b"\x28\xb5\x2f\xfd" + data, 100)


def test_threads_do_not_disturb_each_other():
    """Many threads decode with one codec at once."""
    codec, frame = Zstd(), FRAMES["with checksum"]
    wrong = []

    def work():
        for _ in range(20):
            out = bytearray(len(CONTENT))
            codec.decode_into(frame, memoryview(out))
            if out != CONTENT or codec.encode(CONTENT) != FRAMES["with size"]:
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("name", FRAMES)
def test_parts_are_right_as_soon_as_they_are_told_of(name):
    """While the rest is not decoded yet, and all of it at the end."""
    out = bytearray(CONTENT_NBYTES)
    told = []
    for nbytes in Zstd().decode_in_parts(FRAMES[name], memoryview(out)):
        assert out[:nbytes] == CONTENT[:nbytes]
        assert not any(out[nbytes:])
        told.append(nbytes)
    assert out == CONTENT
    assert len(told) >= 2
    assert told == sorted(set(told))
    assert told[-1] < CONTENT_NBYTES


def test_parts_of_a_frame_that_ends_early_end_in_an_error():
    """What was told of before that was right."""
    frame = bytearray(compress(CONTENT))
    assert frame[5:9] == CONTENT_NBYTES.to_bytes(4, "little")
    frame[5:9] = (2 * CONTENT_NBYTES).to_bytes(4, "little")  # RFC 8878, 3.1.1.1.4
    out = bytearray(2 * CONTENT_NBYTES)
    told = []

    def decode_all():
        for nbytes in Zstd().decode_in_parts(bytes(frame), memoryview(out)):
            told.append(nbytes)

    with pytest.raises(DamagedChunkError):
        decode_all()
    assert told
    assert out[: told[-1]] == CONTENT[: told[-1]]

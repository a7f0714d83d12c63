"""Strips and tiles of TIFF: what imagecodecs has written is read, and no byte beyond is touched."""

from __future__ import annotations

import contextlib

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazyarr.codecs.errors import DamagedChunkError
from lazyarr.codecs.registry import codec_document, make_codec, parse_codec
from lazyarr.codecs.tiff import BitOrder, Jpeg, Lzw, PackBits, PackedBits, Predictor
from tests.codecs.test_shuffle import decoded

CONTENT = (np.arange(960) // 7).astype("u1").tobytes()
STREAMS = {"lzw": Lzw(), "packbits": PackBits()}


@pytest.mark.parametrize("name", STREAMS)
def test_streams_of_others_are_read(name):
    """Whole; one that holds less than the chunk is damage, and one of LZW may hold more."""
    codec = STREAMS[name]
    stored = bytes(getattr(imagecodecs, f"{name}_encode")(CONTENT))
    assert decoded(codec, stored, 960) == bytes(codec.decode(stored, 1000)) == CONTENT
    assert decoded(codec, codec.encode(CONTENT), 960) == CONTENT
    for wrong, nbytes in [(stored, 961), (stored[:9], 960), (b"", 960)]:
        with pytest.raises(DamagedChunkError):
            decoded(codec, wrong, nbytes)
    if name == "lzw":
        assert decoded(codec, stored, 900) == CONTENT[:900]
    else:
        with pytest.raises(DamagedChunkError):
            decoded(codec, stored, 959)


@given(st.sampled_from(sorted(STREAMS)), st.integers(0, 1200), st.data())
def test_whatever_a_stream_is_nothing_else_is_written(name, nbytes, data):
    """It is content or damage."""
    stored = bytearray(data.draw(st.sampled_from([STREAMS[name].encode(CONTENT), b""])))
    stored += data.draw(st.binary(max_size=40))
    if stored:
        stored[data.draw(st.integers(0, len(stored) - 1))] ^= data.draw(st.integers(0, 255))
    with contextlib.suppress(DamagedChunkError):
        decoded(STREAMS[name], bytes(stored), nbytes)


@pytest.mark.parametrize("is_old", [False, True])
def test_codes_of_lzw_that_mean_nothing_are_damage(is_old):
    """The library imagecodecs would follow what is in its memory by chance."""

    def stream(*codes):
        width, bits = 9, 0
        for nth, code in enumerate(codes):
            bits |= code << (width * nth if is_old else width * (len(codes) - 1 - nth))
        n_bits = width * len(codes)
        if is_old:
            return bits.to_bytes(-(-n_bits // 8), "little")
        return (bits << -n_bits % 8).to_bytes(-(-n_bits // 8), "big")

    codec = Lzw()
    assert decoded(codec, stream(256, 7, 258, 259, 257), 6) == bytes([7] * 6)
    assert decoded(codec, stream(256, 7, 256, 256, 8, 257), 2) == bytes([7, 8])
    for codes, at in [
        ((256, 258, 257), 9),
        ((256, 300, 7, 257), 9),
        ((256, 7, 259, 257), 18),
        ((256, 7, 256, 258, 7, 257), 27),
        ((256, 7, 258, 261, 257), 27),
    ]:
        with pytest.raises(DamagedChunkError, match=f"the code at bit {at} means nothing"):
            decoded(codec, stream(*codes), 6)
        with pytest.raises(DamagedChunkError):
            codec.decode(stream(*codes), 6)


@pytest.mark.parametrize("dtype", ["|u1", "<u2", ">u2", "<i4", ">u4", "<f4", "<f8", ">i8"])
@pytest.mark.parametrize("kind", ["delta", "floating_point"])
def test_predictors_go_along_each_row(dtype, kind):
    """Of each sample by itself; a strip may have fewer rows, and behind it may be more."""
    if kind == "floating_point" and "f" not in dtype:
        return
    content = np.random.default_rng(0).integers(0, 200, (5, 8, 3)).astype(dtype)
    native = content.astype(content.dtype.newbyteorder("="))
    encode = {"delta": imagecodecs.delta_encode, "floating_point": imagecodecs.floatpred_encode}
    stored = encode[kind](native, axis=-2).astype(dtype).tobytes()
    codec = Predictor(dtype, 8, 3, True, kind)
    assert decoded(codec, stored, content.nbytes) == content.tobytes()
    assert codec.encode(content.tobytes()) == stored
    if kind == "delta":
        assert decoded(codec, stored, content[:3].nbytes) == content[:3].tobytes()
    for wrong, nbytes in [(stored[:-1], len(stored)), (stored, len(stored) - 1)]:
        with pytest.raises(DamagedChunkError):
            decoded(codec, wrong, nbytes)
    with pytest.raises(DamagedChunkError):
        decoded(codec._replace(cuts=False), stored + b"x", content.nbytes)


BITS = st.integers(1, 31).filter(lambda bits: bits % 8 > 0)


@given(BITS, st.integers(1, 9), st.integers(1, 3), st.integers(1, 4), st.data())
def test_elements_of_some_bits(bits, row, samples, n_rows, data):
    """Each row begins at a byte; too few bytes are damage."""
    dtype = (
        "|u1" if bits <= 8 else data.draw(st.sampled_from("<>")) + ("u2" if bits <= 16 else "u4")
    )
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    content = random.integers(0, 2**bits, n_rows * row * samples).astype(dtype)
    native = content.astype(content.dtype.newbyteorder("="))
    stored = bytes(imagecodecs.packints_encode(native, bits, runlen=row * samples))
    codec = PackedBits(dtype, row, samples, True, bits)
    assert decoded(codec, stored + b"more", content.nbytes) == content.tobytes()
    assert codec.decode(stored, content.nbytes) == content.tobytes()
    assert codec.encode(content.tobytes()) == stored
    for wrong, strict in [(stored[:-1], codec), (stored + b"x", codec._replace(cuts=False))]:
        with pytest.raises(DamagedChunkError, match="rows of"):
            decoded(strict, wrong, content.nbytes)


def test_bits_in_the_other_order():
    """The lowest one first; twice is none."""
    codec = make_codec("bit_order", {})
    assert codec == BitOrder()
    assert bytes(codec.decode(b"\x01\x05\xff", 3)) == b"\x80\xa0\xff"
    assert codec.encode(codec.decode(CONTENT, 960)) == CONTENT
    with pytest.raises(DamagedChunkError):
        codec.decode(CONTENT, 959)


PIXELS = np.add.outer(np.arange(24), np.arange(96)).astype("u1").reshape(24, 32, 3)


@pytest.mark.parametrize("samples", [1, 3])
def test_jpeg_is_what_imagecodecs_makes_of_it(samples):
    """In memory of its own size: other sizes are refused before any memory is taken for them."""
    pixels = np.ascontiguousarray(PIXELS[..., :samples].squeeze())
    codec = Jpeg(32, samples, "", None, None)
    assert parse_codec(codec_document(codec)) == codec
    stored = bytes(codec.encode(pixels.tobytes()))
    expected = imagecodecs.jpeg_decode(stored).tobytes()
    assert decoded(codec, stored, len(expected)) == codec.decode(stored, 5000) == expected
    at = stored.index(b"\xff\xc0") + 5
    huge = stored[:at] + b"\xff\xff\xff\xff" + stored[at + 4 :]
    for wrong in (huge, stored[:at], stored[:9], b"", b"\xff\xd8" + b"\xff" * 99):
        with pytest.raises(DamagedChunkError, match="jpeg expected to"):
            decoded(codec, wrong, len(expected))
    for nbytes in (len(expected) - 32 * samples, len(expected) + 1, 0):
        with pytest.raises(DamagedChunkError, match="jpeg expected to"):
            decoded(codec, stored, nbytes)
    with pytest.raises(DamagedChunkError):
        decoded(codec._replace(samples=4 - samples), stored, 24 * 32 * (4 - samples))


@given(st.data())
def test_jpeg_that_is_damaged_writes_nothing_else(data):
    """It is damage, or other pixels."""
    codec = Jpeg(32, 3, "", None, None)
    stored = bytearray(codec.encode(PIXELS.tobytes()))
    for _ in range(data.draw(st.integers(1, 3))):
        stored[data.draw(st.integers(0, len(stored) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(DamagedChunkError):
        decoded(codec, bytes(stored), PIXELS.nbytes)

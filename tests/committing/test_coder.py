from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from lazyarr.codecs import DamagedChunkError
from lazyarr.committing.coder import ChunkCoder
from lazyarr.formats.zarr import array_document, data_type_from_numpy, parse_node


def coder_of(dtype, chunks=(4, 3), fill_value=0):
    document = array_document(
        shape=(10, 3), dtype=data_type_from_numpy(np.dtype(dtype)), chunks=chunks,
        fill_value=fill_value,
    )  # fmt: skip
    metadata = parse_node(document, path="x")
    return ChunkCoder(metadata.layout(), metadata.dtype.to_numpy())


@pytest.mark.parametrize(
    ("dtype", "fill_value", "value", "is_fill"),
    [
        ("f8", 0.0, 0.0, True),
        ("f8", 0.0, -0.0, False),
        ("f8", -0.0, -0.0, True),
        ("f8", -0.0, 0.0, False),
        ("f4", np.nan, np.nan, True),
        ("f4", np.nan, 0.0, False),
        ("f2", 1.5, 1.5, True),
        ("c8", 1 + 2j, 1 + 2j, True),
        ("c8", 1 + 2j, 1, False),
        ("?", True, True, True),
        ("M8[s]", np.datetime64("NaT", "s"), np.datetime64("NaT", "s"), True),
        ("U3", "ab", "ab", True),
        ("V3", b"abc", np.void(b"abc"), True),
        (ml_dtypes.bfloat16, 2.0, 2.0, True),
        ([("a", "u1"), ("b", ">f8")], (1, 2.5), (1, 2.5), True),
        ([("a", "u1"), ("b", ">f8")], (1, 2.5), (2, 2.5), False),
    ],
    ids=str,
)
def test_fill_is_told_by_its_bits(dtype, fill_value, value, is_fill):
    """A chunk of nothing but the fill value is not stored; one that only equals it is."""
    coder = coder_of(dtype, fill_value=fill_value)
    part = np.full((4, 3), np.array(value, dtype))
    assert (coder.encode(part) is None) == is_fill


def test_other_nan_is_not_the_fill_value():
    """A NaN with a payload keeps it."""
    payload = np.array([0x7FC00001], "u4").view("f4")[0]
    coder = coder_of("f4", fill_value=np.nan)
    part = np.full((4, 3), payload)
    stored = coder.encode(part)
    assert stored is not None
    assert coder.decode(stored).tobytes() == part.tobytes()


@pytest.mark.parametrize("place", [0, 1, 600, 1023, 1024, 4095])
def test_one_other_element_is_found(place):
    """Wherever it is, beyond what is looked at first too."""
    coder = coder_of("i4", chunks=(4096, 1))
    part = np.zeros((4096, 1), "i4")
    part[place] = 1
    assert np.array_equal(coder.decode(coder.encode(part)), part)


@pytest.mark.parametrize(
    "part",
    [
        np.arange(12).reshape(4, 3),
        np.arange(12, dtype=">i8").reshape(4, 3),
        np.asfortranarray(np.arange(12).reshape(4, 3)),
        np.arange(48).reshape(8, 6)[::2, ::-2],
        np.broadcast_to(np.arange(3), (4, 3)),
        np.arange(12, dtype="i4").reshape(4, 3),
    ],
)
def test_any_memory_layout_is_stored_alike(part):
    """Order, strides, byte order and a narrower type of the input do not show in what is stored."""
    coder = coder_of("i8")
    assert coder.encode(part) == coder.encode(np.array(part, "<i8", order="C"))


def test_edge_chunk_is_padded_with_fill():
    """A chunk across the end decodes to whole size, with the fill value behind the end."""
    coder = coder_of("i2", fill_value=7)
    whole = coder.decode(coder.encode(np.zeros((1, 2), "i2")))
    expected = np.full((4, 3), 7)
    expected[:1, :2] = 0
    assert np.array_equal(whole, expected)


def test_missing_chunk_decodes_to_fill():
    """Into memory that can be written."""
    chunk = coder_of("i2", fill_value=7).decode(None)
    assert (chunk == 7).all()
    chunk[0] = 1


def test_stale_elements_are_cleared():
    """What lies outside of the array becomes the fill value."""
    coder = coder_of("i2", fill_value=7)
    cleared = coder.clear_outside(np.ones((4, 3), "i2"), (slice(0, 2), slice(0, 3)))
    assert cleared.tolist() == [[1] * 3] * 2 + [[7] * 3] * 2


def test_damage_is_an_error():
    """A chunk with a flipped bit does not decode."""
    coder = coder_of("i2")
    stored = bytearray(coder.encode(np.arange(12, dtype="i2").reshape(4, 3)))
    stored[5] ^= 1
    with pytest.raises(DamagedChunkError):
        coder.decode(bytes(stored))

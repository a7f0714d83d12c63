"""Frames of Blosc 2 as hdf5plugin 7.1 has written them, for HDF5's filter 32026."""

from __future__ import annotations

import binascii
import contextlib
import zlib

import h5py
import numpy as np
import pytest
from h5py import h5d, h5p, h5s, h5t
from hypothesis import given, settings
from hypothesis import strategies as st

import lazyarr
from lazyarr.codecs.blosc2 import Blosc2
from lazyarr.codecs.errors import DamagedChunkError

ROWS, COLUMNS = np.indices((300, 333))
CONTENT = {
    "blocks": (ROWS // 50 + COLUMNS // 40).astype("<f8"),
    "plain": np.arange(99, dtype="<i2"),
    "zeros": np.zeros(100_000, "<f8"),
    "one block": np.arange(12, dtype="<u4").reshape(3, 4),
}
# The frame of an array of one chunk each, packed by zlib.
FRAMES = {
    "blocks": (
        "eNqbtyLJKK0oMTeV4RIDA8PS8wxgwBazRIghlPkymKPAwABhMLDmgBRxXGLgYAAqB4pfBCHGQzfYwNKMrAww"
        "MPksg+A9BsYlSUZ5KSA92XcYGI8BadPpDEyToKYx6sAYvpMugbiX4EwGMMFwGyjJXBNmwcrYygF2B9DiHJgl"
        "SLYZAPEaoHpXFgaGjSwMOEElEGts1f+bwPC/lplhB8MHBg4BEQkI9UGGQYFDSUBFRM1whYJ9gfPTGzKCf9Qe"
        "Fh/SF5vv7cXOy5MTGlmb/ZszI7OB+eirdfu2/lXZYnag0aG07PqtOqYoqQcOEXOvbt82v2Eam0XAmnevom/7"
        "O2Uzy3BEOx9PDw5ldLR/jLD8LBvDIn8+1g+Wu6Ukc29vQ0eaS6cEeeEmGBt+ZTA+OC704///wrbz7yWvzAnw"
        "VhUNCWr0WrVyiZHplQBPViDPU1VrhYcpEi/AE8FzDUHiTXSNaHGN7GSNOMQU2SgaMWFp5IFVOhNYIyeyRpxY"
        "taZJNKJjqc4hJZ1TXRENqjonuNYcaNKZxbrmVJPOiS6dhtY1p7TWHHDSSVXUObRojcArTVxhn4nw/l8mBg8J"
        "GQUGJRU1DS3dFRv4A5yf3pIR3OP5Q9BRs0b/6HTPl4x7eRhCFOPUN/MejbNYcLh/Atvs3BNvWpmlvnWEpOQ4"
        "LxXne/FBecnBNGmj6ocNbbZKopK3A162M/9aveyKYYQKowAT3DJTAQY2BRHWB/wG05kEGUBwFRpgJEOgiSGD"
        "8WE/IygO5BMvyK//M3X/p/B/p+J/atc/xcbxwi8N4vzFLw3kfMEvDeRcGnUIVodMn/hnNa6EaYpImLGMDAUi"
        "wJQJTJgQioF/hYHdheS7AnXuP+rL/+uy/QnWWOzIyyAg2nRPSxyhMZeBQcCBgYnhT/AC7v9N5eG47FJCaDkK"
        "LNCAyZ+BraHA7m/whZfhzN31jFoPGibduopaTDW1skBSL3L6i4CVAPMTLqxPX3/lper+Jdf/zIr/7F11cv1L"
        "1UpP/Z/ZVWfXvzTdu+T6l0lxk65/mRX32bvOc/1P1b3Ppn+ZtG8ZkIj7BBSOv5xd5bn+pDeQeJmqtkyElZGd"
        "gwNc0gIdAXM3I6ZXpjACy3i2ewwMdxgYzgH5yjcwlAAAtSGqzQ=="
    ),
    "plain": (
        "eNqbtyLJKK0oMTeV4RIDA0PieQYwYLReIsQQynwZwmM4BmP0gxQxgYhjYOIiA8NFBsZDN9ggulgZYGDyWQb2"
        "ewwMdxgYWBlbmY6B1IK0w6SRVKoAcTJYjImZhZWNnYOTi5uHl49fQFBIWERUTFxCUkpaRlZOXkFRSVlFVU1d"
        "Q1NLW0dXT9/A0MjYxNTM3MLSytrG1s7ewdHJ2cXVzd3D08vbx9fPPyAwKDgkNCw8IjIqOiY2Lj4hMQlkCysj"
        "OwcHkAZhDbhzGDDAFEagF9ggXjgH5CvfwFACAGpuMI8="
    ),
    "zeros": (
        "eNqbtyLJKK0oMTeV4RIDA0PieQYIWLNEiCGU+TKYzWPKcBkqDFbEcYmBA8QCil9kACLGQzfYwJKMrDBlDJPP"
        "MrDfY2C4w8DAysjOwQHSBcQaMGlGBnTQOIURqIcNouccUED5BoYaADlEGQc="
    ),
    "one block": (
        "eNqbtyLJKK0oMTeV4RIDA8PS8wxgwGiyRIghlPkyhMdgAGO4gBSxgAgDMHGRgeEiA+OhG2wQXawMMDD5LIPg"
        "PQbGJUlGeSkgldl3GBiPAWnT6QxMk2Cmwc1nmQRSw3wJjclwG8SsCTNhZZzKYgCyD+QEmBVItqkAsQwQa2zV"
        "/6tgMJeBIYOBkYmZhZWNnYOTi5uBkcHjAysrIzsHB1ANCGvAzWDAAFMYgW5nu8fAcIeB4RyQr3wDQwkATWIs"
        "hA=="
    ),
}


def frame_of(name):
    return zlib.decompress(binascii.a2b_base64(FRAMES[name]))


@pytest.mark.parametrize("name", CONTENT)
def test_a_frame_holds_what_was_written(name):
    """Whole, in blocks that go beyond the array, and where no chunk is stored."""
    content, out = CONTENT[name].tobytes(), bytearray(CONTENT[name].nbytes)
    Blosc2().decode_into(frame_of(name), memoryview(out))
    assert out == content
    assert bytes(Blosc2().decode(frame_of(name), len(content))) == content
    with pytest.raises(DamagedChunkError):
        Blosc2().decode(frame_of(name), len(content) - 1)
    with pytest.raises(DamagedChunkError):
        Blosc2().decode_into(frame_of(name), memoryview(bytearray(len(content) + 8)))


def test_datasets_behind_the_filter_are_mapped(tmp_path):
    """As h5py reads them where it has the filter."""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for name, data in CONTENT.items():
            creation = h5p.create(h5p.DATASET_CREATE)
            creation.set_chunk(data.shape)
            creation.set_filter(32026, h5py.h5z.FLAG_OPTIONAL, (1, 0, data.itemsize, data.nbytes))
            kind, space = h5t.py_create(data.dtype), h5s.create_simple(data.shape)
            made = h5d.create(file.id, name.encode(), kind, space, creation)
            made.write_direct_chunk((0,) * data.ndim, frame_of(name))
    ds = lazyarr.open(tmp_path / "x.h5")
    for name, data in CONTENT.items():
        np.testing.assert_array_equal(ds[name][...], data)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(FRAMES)), st.data())
def test_changed_frames_are_errors_or_as_long_as_they_must_be(name, data):
    """In their headers above all; frames that are cut off are refused."""
    frame = bytearray(frame_of(name))
    nbytes = CONTENT[name].nbytes
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(frame) - 1) | st.integers(0, min(200, len(frame) - 1)))
        frame[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(DamagedChunkError):
        assert len(memoryview(Blosc2().decode(bytes(frame), nbytes))) <= nbytes
    cut = frame_of(name)[: data.draw(st.integers(0, len(frame) - 1))]
    with pytest.raises(DamagedChunkError):
        Blosc2().decode_into(cut, memoryview(bytearray(nbytes)))

"""Streams of ZFP as H5Z-ZFP 1.1 (hdf5plugin 7.1) has written them, for HDF5's filter 32013."""

from __future__ import annotations

import contextlib

import h5py
import numpy as np
import pytest
from h5py import h5d, h5p, h5s, h5t
from hypothesis import given, settings
from hypothesis import strategies as st

import lazyarr
from lazyarr.codecs.errors import DamagedChunkError
from lazyarr.codecs.registry import make_codec
from lazyarr.codecs.zfp import Zfp

# Type, shape, the filter's parameters, a chunk, and what h5py has read of it.
CHUNKS = {
    "accuracy": (
        "<f4",
        (7, 9),
        (269504785, 91252346, 1610612870, 3404726272),
        (
            "012d01100a016bdbdec9ca8b87f9844db83ba00d801065350b97116e42b4e91a0601307fa905b421"
            "102004028551810a10d012b647b1565412df960af6c411a5c1a2ae016d204102cd820c603b5d02d4"
            "cf6ec1d4990e288000140200112004210040804200"
        ),
        (
            "0000303b0090573f0078df3f0068f23f0060923f0000373e0000cebd00400e3f0080c53f0088fa3f"
            "00d8b33f00a0cf3e004002be0080943e00a0a23f0060f73f0060d33f00002f3f000079bd0080a63d"
            "00b07f3f0088eb3f00a0ea3f0040793f0000963d000064bd0000333f0068d43f0078f83f0048a23f"
            "00608b3e0000f2bd0080db3e0020b73f00a0f93f0080c33f0070073f0080edbd00c03c3e0008943f"
            "0018f33f00c8dd3f0070513f00000cbc0000c03b00d05b3f00b8df3f0088f03f00588f3f0040263e"
            "0080e2bd00500f3f0038c73f0040f93f00d8b23f0020ca3e0080ecbd00a09f3e00f8a63f0068f93f"
            "0018d13f00102a3f000094bd"
        ),
    ),
    "rate": (
        "<f8",
        (63,),
        (269504785, 91252346, 995, 36700160),
        (
            "0168e77c1d80a4133a01687df71d8076babd0188c7b21f80d68aa001488de71d80deb0ba0168f7ea"
            "1280a4126a016879b4148076ce9701483aa11380d677df0168a75b1380b698ed"
        ),
        (
            "000000000000b0bf000000000000ea3f000000000000fd3f000000000000ff3f000000000080f23f"
            "000000000000b83f000000000000b8bf000000000000e33f0000000000c0f83f000000000040fe3f"
            "0000000000c0f53f000000000000dd3f000000000000b8bf000000000000d23f000000000080f43f"
            "000000000080fe3f000000000080fa3f000000000000e53f000000000000a0bf000000000000b83f"
            "000000000000ef3f000000000080fd3f000000000080fd3f000000000000ef3f000000000000c23f"
            "000000000000c2bf000000000080e63f0000000000c0fa3f000000000080fe3f000000000080f43f"
            "000000000000d23f000000000000b8bf000000000000d83f000000000000f83f000000000000fe3f"
            "000000000000f83f000000000080e03f000000000000cabf000000000000ca3f0000000000c0f33f"
            "000000000080fd3f000000000080fc3f000000000000eb3f000000000000a03f000000000000a03f"
            "000000000000eb3f000000000080fc3f000000000080fd3f000000000080f23f000000000000b83f"
            "000000000000b8bf000000000000e33f0000000000c0f83f000000000040fe3f0000000000c0f53f"
            "000000000000dd3f000000000000b0bf000000000000d43f000000000000f53f000000000000ff3f"
            "000000000080fa3f000000000000e33f000000000000b8bf"
        ),
    ),
    "integers": (
        "<i4",
        (7, 9),
        (269504785, 91252346, 1610612868, 2281701376),
        (
            "1f000020001080300a8c2397500412941898f5cd07000008600022090e94657ebb90bcb46220bcf2"
            "01000070a81400953e000080002c605b48120accfff9a491943b1f000040304024d6c5f1f0597056"
            "b2bb097d1f00004000818840000010880804"
        ),
        (
            "00000000070000000f000000110000000a0000000100000000000000040000000d00000011000000"
            "0c00000003000000ffffffff020000000b000000110000000e000000060000000000000000000000"
            "080000001000000010000000080000000000000000000000060000000e000000110000000b000000"
            "02000000ffffffff030000000c000000110000000d0000000400000000000000010000000a000000"
            "110000000f000000070000000000000000000000070000000f000000100000000a00000001000000"
            "00000000050000000e000000110000000c00000003000000ffffffff020000000b00000011000000"
            "0e0000000600000000000000"
        ),
    ),
    "expert": (
        "<f4",
        (2, 2, 4, 2),
        (269504785, 91252346, 268632094, 4293918976, 3388969983, 493487),
        (
            "016d000000000000080004000000000c000000000000000000000000000002000100000000010020"
            "0000100000000000000000e00000040000001000800200c000002000a00000000000000000001400"
            "03801000d000008000000000b00000000000008000000c000000880003002100c004008000004000"
            "000100000000004001000800000028000d0000006004000000004001c0010000001000c000000000"
            "0000000005002400a00000c00100c00180000000001000c000000800000008000901050020010000"
            "000040014001000000000000010008000000a8000b000000e0070080000080004000000000000040"
            "00000800000008000500040080050000010040014000000000100080010000000000080001002500"
            "e002004001008000e001000000100000010000000000000002010000000700400100400040000000"
            "0010004000000000000020000d012100600400400000c0012001000000000040000000000000a000"
            "0101050020020080000000000001000000000080010000000000a0000a012500200100c000008001"
            "800000000000000001000800000088000c012500000000c00100c00120000000000000c000000800"
            "00008000010000004002008000008000000100000000000001000800000020000200200060010000"
            "0000800060010000001000c0000000000000200005000400200100c00000c0014000000000100000"
            "01000800000020000f012100000700400000c0004000000000100080010008000000a00006000000"
            "200200c001004001a001000000000080000008000000a80000010000000200c00000800160000000"
            "0010008001000000000008000d010000a001008000000000c0010000001000c00100000000000800"
        ),
        (
            "000080b3a46a573f2c19e03f6429f23f7e4a913fb063343ed876d3bd70c10d3f4d44fa3fd4a1b43f"
            "9488d23e3c6200be14ef963efa87a43f9dc4f73f96ead23f604d84bd88a5ae3d808b7f3f44ddea3f"
            "3abbe93f8dd47a3f8004983dd0136ebd6e95d43f7642f73f8250a23fd0628f3e08edfdbd58d9da3e"
            "74b3b63f6c6cfa3f"
        ),
    ),
}


def codec_of(name):
    header = b"".join(value.to_bytes(4, "little") for value in CHUNKS[name][2][1:])
    return make_codec("zfp", {"header": header.hex()})


@pytest.mark.parametrize("name", CHUNKS)
def test_a_chunk_holds_what_hdf5_reads(name):
    """In each mode: fixed accuracy and rate, reversible, and one of an odd size of blocks."""
    dtype, shape, _, data, expected = CHUNKS[name]
    codec, data, expected = codec_of(name), bytes.fromhex(data), bytes.fromhex(expected)
    assert (codec.dtype, codec.shape) == (dtype, shape)
    out = bytearray(len(expected))
    codec.decode_into(data, memoryview(out))
    assert out == expected
    assert bytes(codec.decode(data, len(expected))) == expected
    for wrong in (-1, 8):
        with pytest.raises(DamagedChunkError):
            codec.decode_into(data, memoryview(bytearray(len(expected) + wrong)))
    with pytest.raises(DamagedChunkError):
        codec.decode(b"", len(expected))


def test_datasets_behind_the_filter_are_mapped(tmp_path):
    """As h5py reads them where it has the filter."""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for name, (dtype, shape, values, data, _) in CHUNKS.items():
            creation = h5p.create(h5p.DATASET_CREATE)
            creation.set_chunk(shape)
            creation.set_filter(32013, h5py.h5z.FLAG_OPTIONAL, values)
            kind, space = h5t.py_create(np.dtype(dtype)), h5s.create_simple(shape)
            made = h5d.create(file.id, name.encode(), kind, space, creation)
            made.write_direct_chunk((0,) * len(shape), bytes.fromhex(data))
    ds = lazyarr.open(tmp_path / "x.h5")
    for name, (*_, expected) in CHUNKS.items():
        assert ds[name][...].tobytes() == bytes.fromhex(expected)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(CHUNKS)), st.binary(min_size=1, max_size=400))
def test_any_bytes_are_elements_or_an_error(name, data):
    """As many as there must be: nothing is read or written beside the memory for them."""
    codec = codec_of(name)
    with contextlib.suppress(DamagedChunkError):
        assert len(memoryview(codec.decode(data, codec.nbytes))) == codec.nbytes


@pytest.mark.parametrize(
    "header",
    ["", "zz", "7a6670" + "00" * 8, "00" * 12, "7a667005" + "ff" * 8, "7a667005" + "ff" * 16],
)
def test_headers_that_no_writer_has_are_refused(header):
    """Before any chunk is read; also such that want too much memory."""
    with pytest.raises(lazyarr.FormatError, match="codec 'zfp'"):
        make_codec("zfp", {"header": header})
    assert Zfp.name == "zfp"

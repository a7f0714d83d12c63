"""Codecs as documents: what comes back is the same codec, and everything else is refused."""

from __future__ import annotations

import json
import zlib

import pytest

from lazyarr.codecs import registry
from lazyarr.codecs.blosc import Blosc
from lazyarr.codecs.blosc2 import Blosc2
from lazyarr.codecs.by_imagecodecs import Lzf, Szip
from lazyarr.codecs.checksum import Crc32c
from lazyarr.codecs.numcodec import Numcodec
from lazyarr.codecs.packed import NarrowIntegers, Nbit, ScaleOffset
from lazyarr.codecs.registry import codec_document, parse_codec
from lazyarr.codecs.shuffle import Bitshuffle, Lz4Blocks, Shuffle
from lazyarr.codecs.standard_library import Bz2, Deflate, Lzma
from lazyarr.codecs.strings import Strings
from lazyarr.codecs.tiff import BitOrder, Lzw, PackBits, PackedBits, Predictor
from lazyarr.codecs.zfp import Zfp
from lazyarr.codecs.zip_member import ZipMember
from lazyarr.codecs.zstd import Zstd
from lazyarr.errors import FormatError

DATA = bytes(range(256)) * 4
CODECS = [
    Zstd(-7, True),
    Crc32c(),
    Blosc("zstd", 5, -1, 0, 4),
    Deflate("gzip", 9),
    Deflate("zlib", -1),
    Bz2(1),
    Lzma(),
    Lzma(3, -1, None, ((("dist", 4), ("id", 3)), (("id", 33), ("preset", 0)))),
    Shuffle(4),
    Bitshuffle(4, 64, "zstd"),
    Lz4Blocks(),
    Strings(256, ((1, 30, False), (40, 9, True))),
    ScaleOffset(">i4", 256, 0, "00000080"),
    ScaleOffset("<f8", 128, -3, None),
    Nbit(">u2", 512, 16, 0),
    NarrowIntegers(">i4", 32, 0),
    Blosc2(),
    Zfp("7a667005f20f000000000088"),
    Lzf(1000),
    Szip(169, 32, 8, 56),
    Szip(16, 16, 2, 9),
    Numcodec.from_config({"id": "delta", "dtype": "<u4"}, dtype="<u4"),
    Numcodec.from_config({"id": "shuffle", "elementsize": 4}),
    BitOrder(),
    Lzw(),
    PackBits(),
    Predictor("<u2", 16, 2, False, "delta"),
    Predictor(">i4", 8, 1, True, "delta"),
    Predictor("<f4", 8, 2, False, "floating_point"),
    PackedBits("|u1", 64, 1, False, 8),
    ZipMember(0, zlib.crc32(DATA)),
    ZipMember(100, zlib.crc32(bytes(100) + DATA)),
]


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_a_codec_comes_back_from_its_document(codec):
    """Also after a journey as JSON, and it decodes what the first one has encoded."""
    again = parse_codec(json.loads(json.dumps(codec_document(codec))))
    assert again == codec
    assert bytes(again.decode(bytes(codec.encode(DATA)), 4096)) == DATA


def test_every_codec_is_tried():
    """The registry has no codec that the tests above leave out."""
    # JPEG changes what it encodes: see test_tiff.
    assert {codec.name for codec in CODECS} == set(registry.CODECS) - {"jpeg"}


@pytest.mark.parametrize(
    "document",
    [
        None,
        {},
        {"name": "os"},
        {"name": ["zstd"]},
        {"name": "zstd"},
        {"name": "zstd", "level": 1},
        {"name": "zstd", "level": 1, "checksum": 1},
        {"name": "zstd", "level": 23, "checksum": False},
        {"name": "zstd", "level": True, "checksum": False},
        {"name": "zstd", "level": 1, "checksum": False, "more": 0},
        {"name": "crc32c", "level": 1},
        {"name": "deflate", "container": "zip", "level": 1},
        {"name": "deflate", "container": "gzip", "level": 10},
        {"name": "bz2", "level": 0},
        {"name": "lzma", "container": 3, "check": -1, "preset": None, "filters": []},
        {"name": "lzma", "container": 1, "check": -1, "preset": -1, "filters": []},
        {"name": "lzma", "container": 3, "check": -1, "preset": None, "filters": [[["id"]]]},
        {"name": "lzma", "container": 3, "check": -1, "preset": None, "filters": [[]] * 5},
        {
            "name": "lzma",
            "container": 3,
            "check": -1,
            "preset": None,
            "filters": [[["dict_size", 2**32 - 1], ["id", 33]]],
        },
        {"name": "blosc", "cname": "x", "clevel": 5, "shuffle": 1, "blocksize": 0, "typesize": 4},
        {"name": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 3, "blocksize": 0, "typesize": 4},
        {"name": "jpeg", "row": 1, "samples": 1, "tables": "0", "colours": None, "out_colours": 1},
        {"name": "jpeg", "row": 1, "samples": 1, "tables": "", "colours": None, "out_colours": 3},
        {"name": "packed_bits", "dtype": "<u2", "row": 4, "samples": 1, "cuts": False, "bits": 0},
        {"name": "packed_bits", "dtype": "|O8", "row": 4, "samples": 1, "cuts": False, "bits": 4},
        {
            "name": "predictor",
            "dtype": "<u2",
            "row": 0,
            "samples": 1,
            "kind": "delta",
        },
        {"name": "predictor", "dtype": "<u2", "row": 4, "samples": 1, "cuts": 1, "kind": "x"},
        {"name": "numcodec", "config": '{"id": "pickle"}', "dtype": None},
        {"name": "numcodec", "config": "[]", "dtype": None},
        {"name": "numcodec", "config": "{", "dtype": None},
        {"name": "numcodec", "config": '{"id": "shuffle"}', "dtype": 4},
        {"name": "numcodec", "config": '{"id": "shuffle"}', "dtype": "i4,O"},
        {"name": "numcodec", "config": " " * (2 << 20), "dtype": None},
    ],
    ids=lambda document: repr(document)[:60],
)
def test_what_is_no_codec_is_refused(document):
    """A name that is not known, a parameter too few or too many, a value out of its range."""
    with pytest.raises(FormatError):
        parse_codec(document)

from __future__ import annotations

import pytest

from lazyarr.codecs.blosc import Blosc
from lazyarr.codecs.checksum import Crc32c
from lazyarr.codecs.numcodec import Numcodec
from lazyarr.codecs.shuffle import Shuffle
from lazyarr.codecs.standard_library import Bz2, Deflate, Lzma
from lazyarr.codecs.zstd import Zstd
from lazyarr.errors import FormatError
from lazyarr.formats.zarr import parse_data_type
from lazyarr.formats.zarr.codec_names import parse_bytes_codec, parse_filter, parse_v2_codec

INT32 = parse_data_type("int32")


@pytest.mark.parametrize(
    ("name", "configuration", "expected"),
    [
        ("zstd", {"level": -7, "checksum": True}, Zstd(-7, checksum=True)),
        ("numcodecs.zstd", {"level": 1}, Zstd(1)),
        ("gzip", {"level": 0}, Deflate("gzip", 0)),
        ("numcodecs.gzip", {"level": 1}, Deflate("gzip", 1)),
        ("numcodecs.zlib", {}, Deflate("zlib", 1)),
        ("zlib", {"level": 9}, Deflate("zlib", 9)),
        ("numcodecs.bz2", {"level": 2}, Bz2(2)),
        ("numcodecs.lzma", {"format": 1, "check": -1, "preset": None, "filters": None}, Lzma()),
        ("crc32c", {}, Crc32c()),
        ("numcodecs.crc32c", {"location": "end"}, Crc32c()),
        (
            "blosc",
            {"cname": "zstd", "clevel": 1, "shuffle": "bitshuffle", "typesize": 2},
            Blosc("zstd", 1, 2, 0, 2),
        ),
        (
            "blosc",
            {"cname": "lz4", "clevel": 5, "shuffle": "noshuffle", "blocksize": 9},
            Blosc("lz4", 5, 0, 9, 4),
        ),
        ("numcodecs.blosc", {"shuffle": -1}, Blosc("lz4", 5, -1, 0, 4)),
        ("numcodecs.shuffle", {}, Shuffle(4)),
        (
            "numcodecs.crc32c",
            {"location": "start"},
            Numcodec('{"id": "crc32c", "location": "start"}'),
        ),
    ],
    ids=str,
)
def test_v3_names(name, configuration, expected):
    """Each name and its parameters give one codec, our own where there is one."""
    assert parse_bytes_codec(name, configuration, typesize=4) == expected


@pytest.mark.parametrize(
    ("name", "configuration"),
    [
        *[("zstd", {"level": level}) for level in (23, -131073, True, "x", 1.5, [])],
        *[("zstd", {"checksum": 1}), ("zstd", {"other": 1}), ("crc32c", {"other": 1})],
        *[("gzip", {"level": 10}), ("gzip", {"level": -2}), ("gzip", {"window": 1})],
        *[
            ("blosc", {key: value})
            for key, value in (("cname", "x"), ("cname", [1]), ("clevel", 10))
        ],
        *[("blosc", {"shuffle": value}) for value in ("auto", 3, [])],
        *[("blosc", {"typesize": -1}), ("blosc", {"blocksize": -1}), ("blosc", {"other": 1})],
        *[("numcodecs.bz2", {"level": 0}), ("numcodecs.lzma", {"format": 3})],
        ("numcodecs.lzma", {"format": 1, "filters": [{"id": 33}]}),
        ("numcodecs.lzma", {"format": 3, "filters": [{"id": 33, "dict_size": 2**31}]}),
        ("numcodecs.lzma", {"format": 3, "filters": [{"id": 99}]}),
        ("numcodecs.lzma", {"format": 3, "filters": [{"id": 3}] * 5}),
        *[("numcodecs.lzma", {"check": -2}), ("numcodecs.lzma", {"preset": -1})],
        *[("numcodecs.pickle", {}), ("numcodecs.delta", {"dtype": "<i4"}), ("zfpy", {}), ("x", {})],
    ],
    ids=str,
)
def test_v3_refused(name, configuration):
    """Unknown names, parameters and values are errors."""
    with pytest.raises(FormatError):
        parse_bytes_codec(name, configuration, typesize=4)


def test_filters_know_the_type_of_elements():
    """A filter that does not name the type of its elements takes the array's."""
    assert parse_filter("numcodecs.delta", {}, INT32) == Numcodec(
        '{"dtype": "<i4", "id": "delta"}', "<i4"
    )


@pytest.mark.parametrize("name", ["delta", "zstd", "vlen-utf8", "cast_value", "numcodecs.zfpy"])
def test_other_filters_are_refused(name):
    """What comes before `bytes` must be a filter that is known."""
    with pytest.raises(FormatError, match=r"cannot be mapped|is not known"):
        parse_filter(name, {}, INT32)


@pytest.mark.parametrize(
    ("config", "is_filter", "expected"),
    [
        ({"id": "zstd", "level": 0, "checksum": False}, False, Zstd(0)),
        (
            {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0},
            False,
            Blosc("lz4", 5, 1, 0, 4),
        ),
        ({"id": "zlib", "level": 1}, False, Deflate("zlib", 1)),
        (
            {"id": "shuffle", "elementsize": 2},
            True,
            Shuffle(2),
        ),
        ({"id": "delta", "dtype": "<i4"}, True, Numcodec('{"dtype": "<i4", "id": "delta"}', "<i4")),
    ],
    ids=str,
)
def test_v2_names(config, is_filter, expected):
    """Zarr v2 names codecs by `id`, next to their parameters."""
    assert parse_v2_codec(config, dtype=INT32, is_filter=is_filter) == expected


@pytest.mark.parametrize(
    "config", [None, "zlib", {}, {"id": 1}, {"id": "pickle"}, {"id": "vlen-utf8"}]
)
def test_v2_refused(config):
    """Codecs without an `id`, and those of objects, are errors."""
    for is_filter in (True, False):
        with pytest.raises(FormatError):
            parse_v2_codec(config, dtype=INT32, is_filter=is_filter)

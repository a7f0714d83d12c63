"""Compressors in Zarr's spelling."""

from __future__ import annotations

import pytest

from lazyarr.errors import FormatError
from lazyarr.formats.zarr.compressors import compressor_codecs


def codecs(compressor, level=None, *, itemsize=4, chunk_nbytes=1 << 19):
    return compressor_codecs(compressor, level, itemsize=itemsize, chunk_nbytes=chunk_nbytes)


def test_blosc_is_spelled_out():
    """Nothing is left to the defaults of a reader or a later writer."""
    assert codecs("blosc") == [
        {
            "name": "blosc",
            "configuration": {
                "cname": "zstd",
                "clevel": 1,
                "shuffle": "shuffle",
                "typesize": 4,
                "blocksize": 524288,
            },
        }
    ]


@pytest.mark.parametrize(
    ("itemsize", "shuffle", "typesize"),
    [(1, "bitshuffle", 1), (2, "shuffle", 2), (12, "shuffle", 12), (255, "shuffle", 255),
     (256, "shuffle", 1)],
)  # fmt: skip
def test_shuffle_goes_by_the_element(itemsize, shuffle, typesize):
    """Bits of single bytes, bytes of larger elements, up to what Blosc takes for one."""
    configuration = codecs("blosc", itemsize=itemsize)[0]["configuration"]
    assert (configuration["shuffle"], configuration["typesize"]) == (shuffle, typesize)


def test_each_has_its_level():
    """Levels are those of the compressor."""
    assert codecs("zstd")[0]["configuration"]["level"] == 3
    assert codecs("zstd", 22)[0]["configuration"]["level"] == 22
    assert codecs("blosc", 9)[0]["configuration"]["clevel"] == 9
    assert codecs("none") == []


@pytest.mark.parametrize(
    ("compressor", "options", "words"),
    [
        ("lz5", {}, r"compressor is 'lz5'; it must be one of \('zstd', 'blosc', 'none'\)"),
        ("none", {"level": 3}, "level is 3 where compressor is 'none'; leave it out"),
        ("blosc", {"level": 0}, "level of compressor 'blosc' is 0; it must lie between 1 and 9"),
        ("blosc", {"level": 10}, "is 10; it must"),
        ("blosc", {"level": "high"}, "is 'high'; it must"),
        ("blosc", {"chunk_nbytes": 2**31 - 16}, "blosc takes up to 2147483631; use smaller"),
    ],
)
def test_what_is_refused(compressor, options, words):
    """Unknown names, levels that a compressor has not, and chunks too large for Blosc."""
    with pytest.raises(FormatError, match=words):
        codecs(compressor, **options)

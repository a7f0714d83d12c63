from __future__ import annotations

import pytest

from lazyarr.codecs.checksum import Crc32c
from lazyarr.codecs.zstd import Zstd
from lazyarr.errors import FormatError
from lazyarr.formats.zarr import parse_data_type
from lazyarr.formats.zarr.codec_chain import CodecChain, parse_codecs
from lazyarr.layout import ShardLevel

INT32 = parse_data_type("int32")
UINT8 = parse_data_type("uint8")


def named(name, **configuration):
    return {"name": name, "configuration": configuration}


LITTLE = named("bytes", endian="little")
BIG = named("bytes", endian="big")
ZSTD = named("zstd", level=3, checksum=False)
CRC32C = {"name": "crc32c"}


def sharding(**changes):
    members = {
        "chunk_shape": [2, 3],
        "codecs": [LITTLE, ZSTD],
        "index_codecs": [LITTLE, CRC32C],
        **changes,
    }
    return named("sharding_indexed", **{k: v for k, v in members.items() if v is not ...})


def parse(codecs, *, chunk_shape=(4, 6), dtype=INT32):
    return parse_codecs(codecs, chunk_shape=chunk_shape, dtype=dtype)


def test_plain_chain():
    """Compressors follow `bytes`, whose byte order becomes that of the data type."""
    chain, dtype = parse([LITTLE, ZSTD, CRC32C])
    assert chain == CodecChain((0, 1), (Zstd(3), Crc32c()))
    assert dtype == INT32
    assert parse([BIG])[1].typestr == ">i4"


def test_names_alone():
    """A codec without parameters may be its name."""
    assert parse(["bytes", "crc32c"], dtype=UINT8)[0].codecs == (Crc32c(),)


def test_transpositions_add_up():
    """Each transposition works on what the one before it gives."""
    first, second = named("transpose", order=[2, 0, 1]), named("transpose", order=[1, 0, 2])
    chain, _ = parse([first, second, LITTLE], chunk_shape=(4, 5, 6))
    assert chain.order == (0, 2, 1)
    assert parse([named("transpose", order="F"), LITTLE])[0].order == (1, 0)


def test_shards():
    """The index of a shard counts its inner chunks along the axes it is stored in."""
    codecs = [named("transpose", order=[1, 0]), sharding(index_location="start")]
    chain, dtype = parse(codecs, chunk_shape=(6, 8))
    assert chain.sharding.level == ShardLevel((4, 2), "start")
    assert chain.innermost.codecs == (Zstd(3),)
    assert dtype == INT32


@pytest.mark.parametrize(
    ("index_codecs", "expected"),
    [
        ([LITTLE], ShardLevel((2, 2), checksum=False)),
        ([BIG, "crc32c"], ShardLevel((2, 2), little_endian=False)),
        (..., ShardLevel((2, 2))),
    ],
    ids=str,
)
def test_index_codecs(index_codecs, expected):
    """The index may be in either byte order, with a checksum or without."""
    assert parse([sharding(index_codecs=index_codecs)])[0].sharding.level == expected


def nested(depth):
    codecs = [LITTLE]
    for _ in range(depth):
        codecs = [sharding(chunk_shape=[1, 1], codecs=codecs)]
    return codecs


@pytest.mark.parametrize(
    "codecs",
    [
        *[
            None,
            {},
            [],
            [ZSTD],
            [3],
            [named("bytes", endian="middle")],
            [named("bytes", order="C")],
        ],
        *[["bytes"], [LITTLE, LITTLE], [LITTLE, named("transpose", order=[1, 0])]],
        [named("transpose", order=[0]), LITTLE],
        [named("transpose", order=[0, 0]), LITTLE],
        [named("transpose", order=[0, 2]), LITTLE],
        [named("transpose", order="A"), LITTLE],
        [named("transpose", order=[False, True]), LITTLE],
        [named("numcodecs.delta", dtype="<i4"), named("transpose", order=[1, 0]), LITTLE],
        [named("numcodecs.delta", dtype="<i4"), BIG],
        [named("numcodecs.delta", dtype="<i4"), sharding()],
        *[
            [LITTLE, name]
            for name in ("nothing like it", "numcodecs.nothing", "packbits", "vlen-utf8")
        ],
        [{"name": "nothing like it", "must_understand": False}, LITTLE],
        [LITTLE, sharding()],
        [sharding(), ZSTD],
        [sharding(chunk_shape=[3, 3])],
        [sharding(chunk_shape=[8, 6])],
        [sharding(chunk_shape=[0, 3])],
        [sharding(chunk_shape=[2])],
        [sharding(codecs=...)],
        [sharding(codecs=[])],
        [sharding(index_location="middle")],
        [sharding(index_codecs=[LITTLE, ZSTD])],
        [sharding(index_codecs=[LITTLE, named("crc32c", a=1)])],
        [sharding(index_codecs=[])],
        [sharding(index_codecs=["bytes"])],
        [sharding(other=1)],
        nested(5),
    ],
    ids=lambda codecs: str(codecs)[:70],
)
def test_what_is_refused(codecs):
    """Codecs that are not known, misplaced or misconfigured are errors."""
    with pytest.raises(FormatError):
        parse(codecs)


def test_shards_may_nest_to_a_depth():
    """Four levels of shards are fine."""
    assert parse(nested(4))[0].innermost.codecs == ()


def test_huge_indexes_are_refused():
    """A shard of more chunks than any writer makes is an error before memory is reserved."""
    with pytest.raises(FormatError, match="number of chunks in a shard"):
        parse([sharding(chunk_shape=[1, 1])], chunk_shape=(2**20, 2**20))


def test_compressed_shards_are_explained():
    """Nothing can be read out of a shard that is compressed as a whole."""
    with pytest.raises(FormatError, match="'zstd' follows 'sharding_indexed'"):
        parse([sharding(), ZSTD])

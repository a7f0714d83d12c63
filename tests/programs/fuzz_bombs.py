"""Programs of tests/fuzz/test_bombs.py."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import resource
import struct
import time
import zlib
from pathlib import Path

import numcodecs
import zstandard

from lazyarr.errors import FormatError
from lazyarr.formats.zarr import parse_node
from tests.fuzz.targets import PIPELINES

SLACK, BOMB = 32 << 20, 64 << 20
zeros = bytes(1 << 20)


def stream(compressor):
    """Return what a compressor makes of many zeros."""
    pieces = [compressor.compress(zeros) for _ in range(BOMB >> 20)]
    return b"".join(pieces) + compressor.flush()


def array(**changes):
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [4],
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2]}},
        "chunk_key_encoding": {"name": "default"},
        "fill_value": 0,
        "codecs": [{"name": "bytes"}],
        **changes,
    }


def text(nbytes, fill):
    configuration = {"length_bytes": nbytes}
    return array(
        data_type={"name": "null_terminated_bytes", "configuration": configuration}, fill_value=fill
    )


ZSTD, GZIP, ZLIB, BZ2, LZMA, RAW, LZ4, BLOSC, TWICE = 0, 2, 3, 4, 5, 6, 7, 8, 17


def run(name, function, *arguments):
    begin = time.process_time()
    try:
        function(*arguments)
        outcome = "a value"
    except Exception as error:
        outcome = next(c.__name__ for c in type(error).__mro__ if c in (FormatError, Exception))
        if outcome == "Exception":
            outcome = repr(error)
    seconds = time.process_time() - begin
    print(f"{name}: {outcome}{' late' if seconds > 5 else ''}")


def parse(document):
    parse_node(document, path="")


def make_chunks():
    """Return chunks by what is wrong with them, each with the number of its pipeline."""
    frame = zstandard.ZstdCompressor(level=1)
    empty = b"\x28\xb5\x2f\xfd\x20\x00"
    many = frame.compress(bytes(1 << 17))
    filters = [{"id": 3, "dist": 4}, {"id": 33, "preset": 0}]
    block = (1 << 17) << 3
    chunks = {
        "zstd that yields more": (ZSTD, stream(frame.compressobj())),
        "zstd that claims a terabyte": (
            ZSTD,
            empty[:4] + b"\xe0" + struct.pack("<Q", 1 << 40) + b"\x01\0\0",
        ),
        "zstd with a window of gigabytes": (ZSTD, empty[:4] + b"\0\xa8" + b"\x03\0\0x"),
        "zstd of run-length blocks": (
            ZSTD,
            empty[:4] + b"\0\xa8" + (block | 2).to_bytes(3, "little") * 600 + b"\x01\0\0",
        ),
        "zstd of many frames": (ZSTD, many * 600),
        "zstd of empty blocks": (ZSTD, empty + bytes(3 << 19) + b"\x01\0\0"),
        "zstd of empty frames": (ZSTD, b"\x50\x2a\x4d\x18\0\0\0\0" * (1 << 18)),
        "gzip": (GZIP, stream(zlib.compressobj(1, zlib.DEFLATED, 31))),
        "gzip of empty members": (GZIP, gzip.compress(b"", mtime=0) * (1 << 16)),
        "gzip of full members": (GZIP, gzip.compress(zeros) * 64),
        "zlib": (ZLIB, stream(zlib.compressobj(1))),
        "bz2": (BZ2, stream(bz2.BZ2Compressor(1))),
        "xz": (LZMA, stream(lzma.LZMACompressor(preset=0))),
        "raw lzma": (RAW, stream(lzma.LZMACompressor(format=lzma.FORMAT_RAW, filters=filters))),
        "lz4 that claims gigabytes": (LZ4, struct.pack("<I", 2**31 - 1) + bytes(100)),
        "blosc that claims gigabytes": (
            BLOSC,
            struct.pack("<4BIII", 2, 1, 1, 4, 2**31 - 1, 2**31 - 1, 116) + bytes(100),
        ),
        "blosc with blocks of gigabytes": (
            BLOSC,
            struct.pack("<4BIII", 2, 1, 1, 4, 1024, 2**31 - 1, 116) + bytes(100),
        ),
        "gzip in zstd": (TWICE, stream(zlib.compressobj(1, zlib.DEFLATED, 31))),
    }
    chunks["gzip in zstd"] = (
        TWICE,
        numcodecs.get_codec({"id": "crc32c"}).encode(frame.compress(chunks["gzip in zstd"][1])),
    )
    return chunks


def make_documents():
    """Return documents by what is wrong with them."""
    documents = {
        "elements of gigabytes": array(data_type="r17179869176", fill_value="AQ=="),
        "many large elements": {
            "zarr_format": 3,
            "node_type": "group",
            "consolidated_metadata": {
                "kind": "inline",
                "metadata": {f"a{i}": text((1 << 24) - i, "YQ==") for i in range(3000)},
            },
        },
        "fifty thousand lists": array(attributes={"a": [[[]]] * 50_000}),
        "nested attributes": array(attributes=json.loads('{"a":' * 500 + "1" + "}" * 500)),
        "nested codecs": array(codecs=json.loads('[{"a":' * 250 + "1" + "}]" * 250)),
        "an index of gigabytes": array(
            shape=[2**40],
            chunk_grid={"name": "regular", "configuration": {"chunk_shape": [2**30]}},
            codecs=[
                {
                    "name": "sharding_indexed",
                    "configuration": {"chunk_shape": [1], "codecs": [{"name": "bytes"}]},
                }
            ],
        ),
    }
    return {name: json.dumps(document).encode() for name, document in documents.items()}


def bombs_are_refused_in_little_memory():
    chunks, documents = make_chunks(), make_documents()
    out = memoryview(bytearray(1024))
    for layout in PIPELINES:  # imports what it needs, before there is a limit
        layout.decode(layout.encode(bytes(range(256)) * 4), out)

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + SLACK
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    for name, (pipeline, data) in chunks.items():
        run(name, PIPELINES[pipeline].decode, memoryview(data), out)
    for name, document in documents.items():
        run(name, parse, document)

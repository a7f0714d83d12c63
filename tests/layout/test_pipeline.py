from __future__ import annotations

import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazyarr.codecs.blosc import Blosc
from lazyarr.codecs.checksum import Crc32c
from lazyarr.codecs.errors import DamagedChunkError
from lazyarr.codecs.standard_library import Deflate
from lazyarr.codecs.zstd import Zstd
from lazyarr.layout.pipeline import Pipeline

BLOSC = Blosc("zstd", 1, 1, 1 << 17, 4)

CHAINS = [
    (),
    (Crc32c(),),
    (Zstd(),),
    (Zstd(), Crc32c()),
    (Crc32c(), Zstd(checksum=True)),
    (Deflate("gzip"), Zstd(), Crc32c()),
    (Zstd(), Deflate("zlib"), Crc32c()),
    (BLOSC,),
    (BLOSC, Crc32c()),
    (Deflate("gzip"), Crc32c()),
]
CHECKED_FIRST = [(Zstd(), Crc32c()), (BLOSC, Crc32c()), (Deflate("gzip"), Crc32c())]


def decode(pipeline, data):
    out = bytearray(pipeline.chunk_nbytes)
    pipeline.decode(data, memoryview(out))
    return bytes(out)


@given(st.sampled_from(CHAINS), st.binary(min_size=1, max_size=500))
def test_what_is_encoded_comes_back(codecs, content):
    """A chunk comes back through any chain, from bytes and from a view."""
    pipeline = Pipeline(len(content), codecs)
    stored = pipeline.encode(memoryview(bytearray(content)))
    assert stored == pipeline.encode(content)
    assert decode(pipeline, stored) == decode(pipeline, memoryview(stored)) == content


@pytest.mark.parametrize("codecs", CHAINS, ids=str)
@pytest.mark.parametrize("wrong", [-1, 1])
def test_other_lengths_are_refused(codecs, wrong):
    """A chunk of another length than the array's is damage."""
    stored = Pipeline(1000 + wrong, codecs).encode(bytes(1000 + wrong))
    with pytest.raises(DamagedChunkError):
        decode(Pipeline(1000, codecs), stored)


@pytest.mark.parametrize("codecs", CHAINS[1:], ids=str)
def test_bombs_are_refused(codecs):
    """A chunk that holds much more than it should is damage at any step."""
    stored = Pipeline(2**24, codecs).encode(bytes(2**24))
    with pytest.raises(DamagedChunkError):
        decode(Pipeline(1000, codecs), stored)


def test_wrong_use_is_an_error():
    """Memory of the wrong size is the caller's mistake, not damage."""
    pipeline = Pipeline(8, (Zstd(),))
    with pytest.raises(ValueError, match="out has 7 bytes, a chunk 8"):
        pipeline.decode(pipeline.encode(bytes(8)), memoryview(bytearray(7)))
    with pytest.raises(ValueError, match="data has 7 bytes, a chunk 8"):
        pipeline.encode(bytes(7))


@pytest.fixture
def nobody_switches():
    """Let threads take turns only where one of them gives up the GIL on purpose."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    yield
    sys.setswitchinterval(interval)


def ran_meanwhile(pipeline, stored):
    """Return whether another thread ran Python while a chunk was decoded."""
    ready, ran = threading.Lock(), []
    ready.acquire()
    out = memoryview(bytearray(pipeline.chunk_nbytes))

    def run():
        with ready:
            ran.append(True)

    thread = threading.Thread(target=run)
    thread.start()
    ready.release()
    pipeline.decode(stored, out)
    decoded_first = not ran
    thread.join()
    return not decoded_first


@pytest.mark.usefixtures("nobody_switches")
def test_decoding_releases_the_gil():
    """Other threads run Python while a chunk in the common chain decodes, unlike during a copy."""
    content = bytes(range(256)) * 2**17
    for codecs, expected in (((Zstd(), Crc32c()), True), ((), False)):
        pipeline = Pipeline(len(content), codecs)
        stored = pipeline.encode(content)
        pipeline.decode(stored, memoryview(bytearray(len(content))))  # imports what it needs
        # Another process may keep the processor from the other thread, but not every time.
        assert any(ran_meanwhile(pipeline, stored) for _ in range(10)) is expected


@pytest.mark.parametrize("codecs", CHECKED_FIRST, ids=str)
def test_parts_are_told_of_only_when_all_was_checked(codecs):
    """A wrong checksum is found before anything is decompressed."""
    content = bytes(range(256)) * 2000
    pipeline = Pipeline(len(content), codecs)
    assert pipeline.checks_first
    stored = pipeline.encode(content)
    out = bytearray(len(content))
    told = list(pipeline.decode_in_parts(stored, memoryview(out)))
    assert bool(told) == (not isinstance(codecs[0], Deflate))
    assert out == content
    out = bytearray(len(content))
    with pytest.raises(DamagedChunkError, match="crc32c"):
        next(pipeline.decode_in_parts(stored[:-5] + bytes(5), memoryview(out)))
    assert not any(out)


@pytest.mark.parametrize("codecs", [c for c in CHAINS if c not in CHECKED_FIRST], ids=str)
def test_other_chains_are_not_checked_first(codecs):
    """Nothing may be used of them before all of it is decoded."""
    assert not Pipeline(1000, codecs).checks_first

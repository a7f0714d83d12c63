"""Blosc: where it decodes to, and from how many threads."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazyarr.codecs.blosc import Blosc
from lazyarr.codecs.errors import DamagedChunkError
from tests.process.running import command_of
from tests.programs import blosc_threads as programs

CODEC = Blosc("zstd", 1, 1, 1 << 18, 4)
CONTENT = np.arange(2**20, dtype="f4").tobytes()


def test_chunks_are_decoded_in_place():
    """The memory of four megabytes is not made a second time."""
    stored, out = CODEC.encode(CONTENT), bytearray(len(CONTENT))
    CODEC.decode_into(stored, memoryview(out))  # what is imported does not count
    tracemalloc.start()
    try:
        CODEC.decode_into(stored, memoryview(out))
        assert tracemalloc.get_traced_memory()[1] < 2**16
    finally:
        tracemalloc.stop()
    assert out == CONTENT


def test_threads_decode_at_once():
    """Four threads decode two chunks a hundred times, and every one is whole."""
    contents = [CONTENT, np.arange(2**20, dtype=">i4").tobytes()]
    stored = [CODEC.encode(content) for content in contents]
    wrong = []

    def work():
        out = memoryview(bytearray(len(CONTENT)))
        for i in range(50):
            CODEC.decode_into(stored[i % 2], out)
            if out != contents[i % 2]:
                wrong.append(i)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_blosc_starts_no_threads():
    """Not in the main thread either: who decodes has threads of its own."""
    result = subprocess.run(
        [sys.executable, *command_of(programs.says_how_many_threads_it_has)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={"PYTHONPATH": ":".join(sys.path), "OPENBLAS_NUM_THREADS": "1"},
    )
    assert result.stdout == "1\n"


def test_user_decides_on_threads():
    """What was said to numcodecs before is left as it is."""
    result = subprocess.run(
        [sys.executable, *command_of(programs.says_what_it_has_left_to_numcodecs)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={"PYTHONPATH": ":".join(sys.path), "OPENBLAS_NUM_THREADS": "1"},
    )
    assert result.stdout.split()[1] == "True"


@pytest.mark.parametrize("at", range(16))
def test_damaged_headers_are_refused_or_bounded(at):
    """Any byte of the header may be anything: an error, or as many bytes as there should be."""
    stored = bytearray(CODEC.encode(CONTENT[: 2**16]))
    memory = bytearray(b"\xa5" * (2**16 + 64))
    for value in range(256):
        stored[at] = value
        with contextlib.suppress(DamagedChunkError):
            CODEC.decode_into(bytes(stored), memoryview(memory)[32:-32])
        assert memory[:32] == memory[-32:] == b"\xa5" * 32


@pytest.mark.parametrize("first", [0, 2**14 - 1, 2**14, 2**15, 2**15 + 1])
def test_a_last_block_of_two_bytes_can_be_what_is_wanted(first):
    """It comes together with the one before it."""
    content = CONTENT[: 2**15 + 2]
    codec = Blosc("zstd", 1, 1, 2**14, 2)
    out = memoryview(bytearray(len(content)))
    for stop in codec.decode_in_parts(codec.encode(content), out, first):
        assert out[first:stop] == content[first:stop]
    assert out == content


@given(st.data())
def test_parts_are_right_as_soon_as_they_are_told_of(data):
    """From the byte that is wanted first up to the one that is told; all of it at the end."""
    n_items = data.draw(st.integers(1, 2**18))
    typesize = data.draw(st.sampled_from([1, 2, 4, 8]))
    block_nbytes = data.draw(st.sampled_from([0, 1 << 12, 1 << 16, 3 << 15, 1 << 18]))
    shuffle = data.draw(st.sampled_from([0, 1, 2]))
    content = np.arange(n_items, dtype=f"u{typesize}").tobytes()
    codec = Blosc("zstd", 1, shuffle, block_nbytes, typesize)
    first = data.draw(st.integers(0, len(content) - 1))
    out = memoryview(bytearray(len(content)))
    told = [first]
    for stop in codec.decode_in_parts(codec.encode(content), out, first):
        assert out[first:stop] == content[first:stop]
        told.append(stop)
    assert out == content
    assert told == sorted(told)


def test_the_part_that_is_wanted_comes_first():
    """Blocks before it are decoded when all that follow are."""
    out = memoryview(bytearray(len(CONTENT)))
    parts = CODEC.decode_in_parts(CODEC.encode(CONTENT), out, 2**21 + 5)
    assert next(parts) == 2**21 + 2**18
    assert not any(out[: 2**21])
    assert not any(out[2**21 + 2**18 :])
    assert list(parts)[-1] == len(CONTENT)
    assert out == CONTENT


@pytest.mark.parametrize(
    "stored",
    [Blosc("zstd", 0, 0, 0, 4).encode(CONTENT), Blosc("zstd", 1, 1, 1 << 22, 4).encode(CONTENT)],
    ids=["copied", "one block"],
)
def test_what_has_no_blocks_is_decoded_at_once(stored):
    """Nothing is told of it before the end."""
    out = memoryview(bytearray(len(CONTENT)))
    assert list(CODEC.decode_in_parts(stored, out, 2**20)) == []
    assert out == CONTENT


@pytest.mark.parametrize("at", range(40))
def test_damaged_headers_are_refused_or_bounded_in_parts_too(at):
    """Any byte of the header and the places of blocks may be anything."""
    stored = bytearray(Blosc("zstd", 1, 1, 1 << 14, 4).encode(CONTENT[: 2**16 + 4096]))
    memory = bytearray(b"\xa5" * (2**16 + 4096 + 64))
    for value in range(256):
        stored[at] = value
        with contextlib.suppress(DamagedChunkError):
            for _ in CODEC.decode_in_parts(bytes(stored), memoryview(memory)[32:-32], 2**15):
                pass
        assert memory[:32] == memory[-32:] == b"\xa5" * 32

"""Blosc: where it decodes to, and from how many threads."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import tracemalloc

import numpy as np
import pytest

from lazyarr.format.blosc import Blosc
from lazyarr.format.errors import DamagedChunkError

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


PROGRAM = """
import os
from lazyarr.format.blosc import Blosc
codec = Blosc("zstd", 1, 1, 65536, 4)
stored = codec.encode(bytes(range(256)) * 65536)
codec.decode_into(stored, memoryview(bytearray(2**24)))
print(len(os.listdir("/proc/self/task")))
"""


def test_blosc_starts_no_threads():
    """Not in the main thread either: who decodes has threads of its own."""
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60,
        env={"PYTHONPATH": ":".join(sys.path), "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    assert result.stdout == "1\n"


def test_user_decides_on_threads():
    """What was said to numcodecs before is left as it is."""
    program = "from numcodecs import blosc\nblosc.use_threads = True\n" + PROGRAM
    program += "print(blosc.use_threads)"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60,
        env={"PYTHONPATH": ":".join(sys.path), "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
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

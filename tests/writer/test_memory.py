"""Saving takes as much memory as `create` says, however large the array is."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap

import pytest

# The promise: 128 MiB in work, 128 MiB on their way, 128 MiB that wait.  The rest is
# for the allocator, which gives threads pools of their own.
PROMISED_NBYTES = (3 * 128 + 64) * 2**20

PRELUDE = """
import resource, sys
import numpy, lazyarr
from lazyarr.writer import create
from lazyarr.settings import current
import zstandard, google_crc32c
SHAPE = (40, 4096, 4096)
TILE = numpy.random.default_rng(0).integers(0, 256, (4096, 4096), "u1")
class Endless:
    "Noise that does not compress, made when it is asked for."
    shape, dtype = SHAPE, numpy.dtype("u1")
    def __getitem__(self, index):
        rows, columns, cells = index
        part = numpy.stack([TILE[columns, cells] for _ in range(rows.start, rows.stop)])
        return part
def limit(nbytes):
    "Allow so much more of memory that is this process's own (getrlimit(2), RLIMIT_DATA)."
    with open("/proc/self/status") as file:
        (used,) = [int(line.split()[1]) * 1024 for line in file if line.startswith("VmData")]
    resource.setrlimit(resource.RLIMIT_DATA, (used + nbytes,) * 2)
limit(int(sys.argv[2]))
path = sys.argv[1]
"""

PROGRAMS = {
    "array-like": "lazyarr.save(path, Endless())",
    "one object per chunk": "lazyarr.save(path, Endless(), shards=None)",
    "many named arrays": "lazyarr.save(path, {str(i): Endless() for i in range(2)})",
    "memory map that has to be converted": """
        with open(path + ".data", "wb") as file:
            file.truncate(2**30)
        source = numpy.memmap(path + ".data", ">u2", "r+", shape=(32, 4096, 4096))
        source[:, 7, :] = 1
        lazyarr.save(path, source)
    """,
    "rows that are appended": """
        with create(path) as writer:
            array = writer.create_array("x", shape=(0, 4096, 4096), dtype="u1")
            for _ in range(40):
                array.append(TILE[None])
    """,
    "columns of large tiles": """
        with create(path) as writer:
            grid = {"chunks": (1, 1024, 1024), "shards": (20, 1024, 1024)}
            array = writer.create_array("x", shape=SHAPE, dtype="u1", **grid)
            for start in range(0, 4096, 512):
                array[:, start : start + 512, :] = numpy.broadcast_to(
                    TILE[start : start + 512], (40, 512, 4096)
                )
    """,
}


@pytest.fixture
def path(tmp_path):
    """A place for gigabytes that are not kept."""
    yield str(tmp_path / "x")
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("program", PROGRAMS)
def test_memory_is_bounded(path, program):
    """Two thirds of a gigabyte or more go through a fraction of that."""
    source = PRELUDE + textwrap.dedent(PROGRAMS[program])
    command = [sys.executable, "-c", source, path, str(PROMISED_NBYTES)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, result.stderr[-2000:]


def test_the_limit_is_one(path):
    """A program that has all of it in memory does not pass."""
    source = PRELUDE + "lazyarr.save(path, Endless()[0:40, 0:4096, 0:4096])"
    command = [sys.executable, "-c", source, path, str(PROMISED_NBYTES)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert "MemoryError" in result.stderr

"""Programs of tests/writer/test_memory.py."""

from __future__ import annotations

import resource

import google_crc32c  # noqa: F401 - before there is a limit
import numpy as np
import zstandard  # noqa: F401

import lazyarr
from lazyarr.writer import create

SHAPE = (40, 4096, 4096)
TILE = np.random.default_rng(0).integers(0, 256, (4096, 4096), "u1")


class Endless:
    """Noise that does not compress, made when it is asked for."""

    shape, dtype = SHAPE, np.dtype("u1")

    def __getitem__(self, index):
        rows, columns, cells = index
        return np.stack([TILE[columns, cells] for _ in range(rows.start, rows.stop)])


def limit(nbytes):
    """Allow so much more of memory that is this process's own (getrlimit(2), RLIMIT_DATA)."""
    with open("/proc/self/status") as file:
        (used,) = [int(line.split()[1]) * 1024 for line in file if line.startswith("VmData")]
    resource.setrlimit(resource.RLIMIT_DATA, (used + nbytes,) * 2)


def save_an_array(path):
    lazyarr.save(path, Endless())


def save_an_object_per_chunk(path):
    lazyarr.save(path, Endless(), shards=None)


def save_named_arrays(path):
    lazyarr.save(path, {str(i): Endless() for i in range(2)})


def save_a_memory_map(path):
    with open(path + ".data", "wb") as file:
        file.truncate(2**30)
    source = np.memmap(path + ".data", ">u2", "r+", shape=(32, 4096, 4096))
    source[:, 7, :] = 1
    lazyarr.save(path, source)


def append_rows(path):
    with create(path) as writer:
        array = writer.create_array("x", shape=(0, 4096, 4096), dtype="u1")
        for _ in range(40):
            array.append(TILE[None])


def write_columns(path):
    with create(path) as writer:
        grid = {"chunks": (1, 1024, 1024), "shards": (20, 1024, 1024)}
        array = writer.create_array("x", shape=SHAPE, dtype="u1", **grid)
        for start in range(0, 4096, 512):
            tile = TILE[start : start + 512]
            array[:, start : start + 512, :] = np.broadcast_to(tile, (40, 512, 4096))


WAYS = {
    "array-like": save_an_array,
    "one object per chunk": save_an_object_per_chunk,
    "many named arrays": save_named_arrays,
    "memory map that has to be converted": save_a_memory_map,
    "rows that are appended": append_rows,
    "columns of large tiles": write_columns,
}


def memory_is_bounded(path, nbytes, way):
    limit(int(nbytes))
    WAYS[way](path)


def the_limit_is_one(path, nbytes):
    limit(int(nbytes))
    lazyarr.save(path, Endless()[0:40, 0:4096, 0:4096])

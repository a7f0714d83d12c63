"""Writes plugins.h5 beside it: an array behind each filter of hdf5plugin, and its parameters."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np

SHAPE, CHUNKS = (13, 17), (8, 17)
TYPES = ("|u1", ">u2", "<i4", "<f4", ">f8")


def plugins_data(dtype):
    """Return the elements of the arrays of a type."""
    return (np.arange(np.prod(SHAPE)).reshape(SHAPE) ** 2 % 251).astype(dtype)


def _filters(plugins):
    """Yield all filters, each with a name."""
    for cname, shuffle in itertools.product(["blosclz", "lz4", "lz4hc", "zlib", "zstd"], range(3)):
        yield f"blosc {cname} {shuffle}", plugins.Blosc(cname=cname, clevel=5, shuffle=shuffle)
    for cname, filters in itertools.product(["blosclz", "lz4", "zlib", "zstd"], range(4)):
        yield f"blosc2 {cname} {filters}", plugins.Blosc2(cname=cname, clevel=5, filters=filters)
    for cname, nelems in itertools.product(["none", "lz4", "zstd"], [0, 8]):
        yield f"bitshuffle {cname} {nelems}", plugins.Bitshuffle(cname=cname, nelems=nelems)
    for nbytes in (0, 32):
        yield f"lz4 {nbytes}", plugins.LZ4(nbytes=nbytes)
    yield "zstd", plugins.Zstd()
    yield "bzip2", plugins.BZip2()
    others = {"shuffle": True, "fletcher32": True}
    yield "zstd and others", {**plugins.Zstd(), **others}
    yield "lz4 and others", {**plugins.LZ4(), **others}


def write(path):
    """Write the file."""
    import h5py
    import hdf5plugin

    chosen = [*_filters(hdf5plugin)]
    with h5py.File(path, "w") as file:
        for (name, options), dtype in zip(chosen, itertools.cycle(TYPES), strict=False):
            data = plugins_data(dtype)
            file.create_dataset(f"{dtype} {name}", data=data, chunks=CHUNKS, **options)


if __name__ == "__main__":
    write(Path(__file__).with_name("plugins.h5"))

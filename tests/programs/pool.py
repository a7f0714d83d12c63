"""A script with a pool, to be run by its path: workers that are spawned import it again.

Its arguments are a store, the same numbers in a file, and how workers are started.  Says of which
class their arrays are.
"""

from __future__ import annotations

import multiprocessing
import sys

import numpy as np

import lazyarr


def row(given):
    x, i = given
    return type(x).__name__, int(np.asarray(x)[i, 3, 4]), np.array(x[i])


def main(url, copy, method):
    x, data = lazyarr.open(url), np.load(copy)
    context = multiprocessing.get_context(method)
    with context.Pool(2) as pool:
        found = pool.map(row, [(x, i) for i in range(64)], chunksize=8)
    for expected, (_, element, elements) in zip(data, found, strict=True):
        assert element == expected[3, 4]
        assert (elements == expected).all()
    print(*{name for name, _, _ in found})


if __name__ == "__main__":
    main(*sys.argv[1:])

"""A script whose workers open what it has open, to be run by its path: they may import it again."""

from __future__ import annotations

import multiprocessing
import os
import sys

import numpy as np

import lazyarr


def touch(x, i, url):
    y = lazyarr.open(url)
    total = int(np.asarray(y).sum(dtype="u8"))
    stats = lazyarr.stats()
    return int(x[i, 0, 0]), (total, stats["pid"], stats["regions"])


def main(method, url):
    x = lazyarr.open(url)
    total = int(np.asarray(x).sum(dtype="u8"))
    with multiprocessing.get_context(method).Pool(2) as pool:
        found = pool.starmap(touch, [(x, i, url) for i in range(8)], chunksize=1)
    while (stats := lazyarr.stats())["units_loading"]:
        os.sched_yield()
    assert all(again == (total, stats["pid"], 1) for _, again in found), (found, stats)
    print(stats["units_loaded"])


if __name__ == "__main__":
    main(*sys.argv[1:])

"""A script with two workers, to be run by its path: those that are spawned import it again.

Its arguments are how the workers are started, a store, and the same numbers in a file.  The
workers wait for each other in the directory that the environment's ``MEETING`` names.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import sys
import time

import numpy as np

import lazyarr


def meet(n_workers):
    here = os.environ["MEETING"]
    open(os.path.join(here, str(os.getpid())), "w").close()
    deadline = time.monotonic() + 60
    while len(os.listdir(here)) < n_workers and time.monotonic() < deadline:
        os.sched_yield()


def read(x, i):
    """Pick and touch, once so many workers are at it; return also whose pages they are."""
    meet(2)
    raw = np.asarray(x)
    return os.getpid(), lazyarr.stats()["pid"], int(x[i].sum()) + int(raw[i - 9, 3, 4])


def with_pool(x, way):
    with multiprocessing.get_context(way).Pool(2) as pool:
        return pool.starmap(read, [(x, i) for i in range(64)], chunksize=1)


def with_futures(x):
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        return list(pool.map(read, [x] * 64, range(64)))


def with_loky(x):
    import joblib

    tasks = ((x[8:], i - 8) if i > 20 else (x, i) for i in range(64))
    run = joblib.Parallel(2, backend="loky", batch_size=1)
    return run(joblib.delayed(read)(*task) for task in tasks)


def main(way, url, copy):
    x, data = lazyarr.open(url), np.load(copy)
    ways = {"concurrent.futures": with_futures, "loky": with_loky}
    found = ways[way](x) if way in ways else with_pool(x, way)
    expected = [int(data[i].sum()) + int(data[i - 9, 3, 4]) for i in range(64)]
    assert [total for _, _, total in found] == expected
    assert len({pid for pid, _, _ in found}) == 2, found
    assert {pager for _, pager, _ in found} == {lazyarr.stats()["pid"]}
    while (stats := lazyarr.stats())["units_loading"]:
        os.sched_yield()
    assert (stats["units_loaded"], stats["regions"]) == (16, 1), stats
    print("shared")


if __name__ == "__main__":
    main(*sys.argv[1:])

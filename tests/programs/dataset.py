"""Programs of tests/test_dataset.py."""

from __future__ import annotations

import multiprocessing

import lazyarr


def read(group, i):
    return int(group["b"][i, 3]), lazyarr.stats()["pid"]


def who_unpickles_a_group_shares_its_pages(url):
    group = lazyarr.open(url)["s"]
    group["b"].prefetch()
    stats = lazyarr.stats()
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        found = pool.starmap(read, [(group, i) for i in range(1000)], chunksize=10)
    assert found == [(1000 * i + 3, stats["pid"]) for i in range(1000)], found
    print(lazyarr.stats()["units_loaded"] - stats["units_loaded"], stats["units_loaded"] > 9)

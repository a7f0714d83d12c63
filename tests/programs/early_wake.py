"""Programs of tests/process/test_early_wake.py."""

from __future__ import annotations

import os

import numpy as np

import lazyarr
from tests.programs.support import (
    settled,
)


def a_thread_goes_on_before_the_end_is_decoded(url):
    raw = np.asarray(lazyarr.open(url)).reshape(2, -1)
    print(raw[0, 0], raw[1, 0], flush=True)
    print(raw[1, -1])


def a_row_of_blosc_needs_its_own_blocks_alone(blosc_url, threads, row):
    lazyarr.configure(threads=int(threads))
    row = int(row)
    x = lazyarr.open(blosc_url)
    while int(threads) > 4 and not lazyarr.stats()["decoders"]:
        x[:4].prefetch()
        x.evict()
    found = x[row]
    try:
        x[4]
    except lazyarr.ChunkError as error:
        print("blosc" in str(error))
    print(x.residency().map[1], found.sum(dtype="u8"), np.asarray(x)[0, -1])


def a_thread_that_touches_blosc_needs_its_block_alone(blosc_url):
    raw = np.asarray(lazyarr.open(blosc_url))
    print(raw[7, -1], flush=True)
    print(raw[4, 1 << 18])


def what_was_left_of_a_chunk_that_failed_goes_with_the_next(url, threads, other):
    path = url + "/c/0/0"
    lazyarr.configure(threads=int(threads))
    x = lazyarr.open(url)
    while int(threads) > 4 and not lazyarr.stats()["decoders"]:
        x[:4].prefetch()
        x.evict()
    row = x[4]
    old = row.copy()
    try:
        x[7]
    except lazyarr.ChunkError:
        print("error")
    print(np.array_equal(row, old), settled()["resident_bytes"])
    os.rename(other, path)
    x[7]
    print([np.array_equal(x[i], np.full_like(old, i)) for i in range(4, 8)], (row == 4).all())
    x.evict()
    print(settled()["resident_bytes"], (np.asarray(x)[4:] == np.arange(4, 8)[:, None]).all())


def evicting_is_evicting_what_is_on_its_way_too(url):
    x = lazyarr.open(url)
    for row in (0, 9, 3):
        print(x[row, 2000])
        x.evict()
        stats = settled()
        print(x.residency().resident_units, stats["resident_bytes"])
        assert x[row, 2000] == row  # it is read again


def what_a_row_was_answered_from_is_counted(path):
    lazyarr.configure(readahead=0)
    x = lazyarr.open(path)
    for n_loaded, row in enumerate(range(0, len(x), 4), 1):
        x[row]
        found = lazyarr.stats()
        assert found["units_loaded"] == n_loaded, (found["units_loaded"], n_loaded)
        (array,) = found["arrays"]
        assert (array["units_loaded"], array["units_reloaded"]) == (n_loaded, 0), array
        assert (array["array"], array["units"]) == ("", 16), array

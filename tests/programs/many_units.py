"""Programs of tests/process/test_many_units.py."""

from __future__ import annotations

import threading
import time

import numpy as np

import lazyarr


def a_document_of_a_few_bytes_does_not_stop_the_pager(path):
    lazyarr.configure(stop_timeout=1)
    x = lazyarr.open(path)
    print(x.sum(dtype="i8"), x.residency().resident_nbytes, lazyarr.stats()["workers_lost"])


def what_is_asked_of_a_sparse_array_costs_what_is_in_memory(path):
    x = lazyarr.open(path)
    places = [0, 1 << 20, (1 << 44) + 5, (1 << 45) - 1]
    assert [int(x[place]) for place in places] == [7] * 4
    begin = time.monotonic()
    for array in (x, x[1 << 21 :], x[::-3]):
        here = array.residency()
        print(here.resident_units, here.total_units, repr(array).partition(" of ")[0])
        assert "units resident" in array.info
    x.advise("random")
    x.advise("normal")
    x.evict()
    assert x.residency().resident_units == 0
    stats = lazyarr.stats()
    assert stats["resident_bytes"] == 0 and stats["workers_lost"] == 0, stats
    assert time.monotonic() - begin < 10
    with open("/proc/self/status") as file:
        sizes = dict(line.split(":", 1) for line in file)
    assert int(sizes["RssShmem"].split()[0]) < 1 << 10, sizes["RssShmem"]


def others_are_served_while_very_much_is_asked_for(many_url, few_url):
    lazyarr.configure(memory_limit="4 GiB", readahead=0, stop_timeout=1)
    many, few = lazyarr.open(many_url), lazyarr.open(few_url)
    raw = np.asarray(few)
    few[0]
    done = threading.Event()

    def load():
        many.prefetch()
        done.set()

    threading.Thread(target=load).start()
    waited, row = [], 1
    while not done.is_set() and row < 62:
        begin = time.monotonic()
        assert few[row, 5] == row * 1024 + 5
        assert raw[row + 1, 7] == (row + 1) * 1024 + 7
        waited.append(time.monotonic() - begin)
        row += 2
    assert done.wait(80)
    assert many.residency().resident_units == 20_000
    print(len(waited), max(waited))
    assert len(waited) == 31, "the large request was done before the small ones"
    assert lazyarr.stats()["workers_lost"] == 0
    begin = time.monotonic()
    many.evict()
    assert many.residency().resident_units == 0

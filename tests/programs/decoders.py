"""Programs of tests/process/test_decoders.py."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import numpy as np

import lazyarr
from tests.programs.support import (
    exit_code,
    in_child,
    join_all,
    read_all,
    run_threads,
    settled,
    start_all,
)


def opened(url):
    """Return an array that may have decoders."""
    lazyarr.configure(threads=12)
    return lazyarr.open(url)


def ready(x, least=1):
    """Wait until an array has decoders, with nothing of it in memory."""
    while lazyarr.stats()["decoders"] < least:
        x.evict()
        x.prefetch()
    x.evict()


def every_way_of_reading_gives_what_is_stored(url, copy):
    x = opened(url)
    raw = np.asarray(x)
    data = np.load(copy)
    ready(x)
    before = lazyarr.stats()["units_by_decoders"]
    assert np.array_equal(x + 0, data)
    x.evict()
    for i in (5, 95, 40, 41, 6, 0):
        assert np.array_equal(x[i], data[i])
    x.evict()
    assert np.array_equal(x[[3, 90, 17, 16]], data[[3, 90, 17, 16]])
    x.evict()
    for i in range(96):
        assert raw[i, 3, 4] == data[i, 3, 4]
    assert read_all(x) == data.tobytes()
    x.evict()
    for i in reversed(range(96)):
        assert np.array_equal(raw[i], data[i])
    x.evict()
    wrong = []

    def touch(seed):
        for i in np.random.default_rng(seed).integers(96, size=200).tolist():
            if not np.array_equal(raw[i], data[i]):
                wrong.append(i)
            if seed == 0:
                x.evict()

    threads = [threading.Thread(target=touch, args=(seed,)) for seed in range(4)]
    run_threads(threads)
    assert not wrong
    x.evict()
    assert in_child(lambda: None if read_all(x) == data.tobytes() else sys.exit(1)) == 0
    mine = lazyarr.open(url, mode="c")
    mine[5] = 1
    assert np.array_equal(mine[4], data[4]) and (mine[5] == 1).all()
    stats = settled()
    assert stats["units_by_decoders"] > before + 100, stats
    assert not stats["errors"] and not stats["workers_lost"]


def none_is_started_where_one_process_is_enough(url):
    lazyarr.configure(threads=4)
    x = lazyarr.open(url)
    x.prefetch()
    print(lazyarr.stats()["decoders"], lazyarr.stats()["units_by_decoders"])
    lazyarr.configure(threads=16)
    x.evict()
    x.prefetch()
    while not lazyarr.stats()["decoders"]:
        pass


def there_are_no_more_than_the_threads_need(url):
    x = opened(url)
    ready(x, 3)
    for _ in range(20):
        x.evict()
        x.prefetch()
    print(lazyarr.stats()["decoders"])


def the_limit_holds(url, copy):
    x = opened(url)
    raw = np.asarray(x)
    data = np.load(copy)
    lazyarr.configure(memory_limit="16 MiB")
    ready(x)
    most = 0
    for _ in range(3):
        for i in range(96):
            assert np.array_equal(raw[i], data[i])
            most = max(most, lazyarr.stats()["resident_bytes"])
    print(0 < most <= 16 << 20)


def damage_is_an_error_with_everything_in_it(url):
    x = opened(url)
    raw = np.asarray(x)
    ready(x)
    shard = Path(url) / "c/0/0/0"
    sound = shard.read_bytes()
    with open(shard, "r+b") as file:
        file.seek(1000)
        file.write(bytes([sound[1000] ^ 1]))
    try:
        x[1]
    except lazyarr.ChunkError as error:
        print(error.chunk, "crc32c" in str(error))
    assert int(x[4, 0, 0]) == int(raw[4, 0, 0])
    with open(shard, "r+b") as file:
        file.seek(1000)
        file.write(sound[1000:1001])
    print(len(x[1]))


def one_that_is_killed_is_replaced_with_its_worker(url, copy):
    x = opened(url)
    raw = np.asarray(x)
    data, stop, wrong = np.load(copy), [], []

    def churn(seed):
        rng = np.random.default_rng(seed)
        while not stop:
            i = int(rng.integers(96))
            if rng.random() < 0.3:
                x.evict()
            for array in (raw, x):
                if not np.array_equal(array[i], data[i]):
                    wrong.append(i)

    threads = [threading.Thread(target=churn, args=(seed,)) for seed in range(3)]
    start_all(threads)
    for _ in range(8):
        ready(x)
        stats = lazyarr.stats()
        lost = stats["workers_lost"]
        print(stats["pid"], flush=True)
        sys.stdin.readline()
        while lazyarr.stats()["workers_lost"] == lost:
            pass
    stop.append(1)
    join_all(threads)
    print(wrong)


def without_descriptors_to_spare_the_worker_loads(url, copy):
    x = opened(url)
    data = np.load(copy)
    ready(x)
    print(lazyarr.stats()["pid"], flush=True)
    sys.stdin.readline()
    assert np.array_equal(x + 0, data)
    print(lazyarr.stats()["workers_lost"])


def one_that_is_stopped_is_replaced(url, copy):
    x = opened(url)
    data = np.load(copy)
    lazyarr.configure(stop_timeout=1.0)
    ready(x)
    print(lazyarr.stats()["pid"], flush=True)
    sys.stdin.readline()
    begin = time.monotonic()
    assert read_all(x) == data.tobytes()
    seconds = time.monotonic() - begin
    assert 0.5 < seconds < 8, seconds
    print(lazyarr.stats()["workers_lost"])


def a_unit_that_kills_them_is_given_up(url, way):
    x = opened(url)
    raw = np.asarray(x)
    ready(x)
    x[0]
    print(lazyarr.stats()["pid"], flush=True)
    try:
        print(int(x[1, 5] if way == "request" else raw[1, 5]))
    except lazyarr.ChunkError as error:
        print("ChunkError", error.chunk, error.reason)
        print(int(x[1, 5]))


def none_outlives_the_pager(url):
    x = opened(url)
    raw = np.asarray(x)
    ready(x)
    print(lazyarr.stats()["pid"], flush=True)
    sys.stdin.readline()
    raw[60, 0, 0]


def without_a_supervisor_they_work_on(url, copy):
    x = opened(url)
    data = np.load(copy)
    ready(x)
    print(lazyarr.stats()["pid"], flush=True)
    sys.stdin.readline()
    before = lazyarr.stats()["units_by_decoders"]
    assert np.array_equal(x + 0, data)
    print(lazyarr.stats()["units_by_decoders"] > before)


def a_client_that_is_killed_leaves_nothing(url):
    x = opened(url)
    ready(x)
    print("ready", flush=True)
    while True:
        x.evict()
        x.prefetch()


def a_child_that_is_forked_shares_them(url, copy):
    x = opened(url)
    data = np.load(copy)
    ready(x)
    pid = os.fork()
    if pid == 0:
        for _ in range(5):
            if read_all(x) != data.tobytes():
                os._exit(1)
            x.evict()
        os._exit(0)
    for _ in range(5):
        assert read_all(x) == data.tobytes()
        x.evict()
    print(exit_code(pid))

"""Programs of tests/process/test_write_back.py."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time

import numpy as np

import lazyarr
from lazyarr.kernel import PAGE_NBYTES, punch_hole
from tests.process.running import family
from tests.programs.support import join_all, start_all


def _mark():
    return "LAZYARR_TEST_MARK=" + os.environ["LAZYARR_TEST_MARK"]


def workers_die_while_arrays_are_written(url, copy, limit):
    lazyarr.configure(memory_limit=limit)
    x, expected = lazyarr.open(url, "r+"), np.load(copy)
    raw = np.asarray(x)
    n_threads = 3
    over, wrong = [], []

    def churn(number):
        # Rows of its own, so that it knows what is in them.
        rng = np.random.default_rng(number)
        rows = np.arange(number, len(x), n_threads)
        while not over:
            i, j = int(rng.choice(rows)), int(rng.integers(x.shape[1]))
            value = int(rng.integers(1000))
            choice = rng.integers(12)
            if choice < 3:
                x[i] = expected[i] = value
            elif choice < 6:
                raw[i, j] = expected[i, j] = value
            elif choice < 8:
                x[i, j] += 1
                expected[i, j] += 1
            elif choice < 9:
                x.evict()
            elif choice < 10 and rng.integers(5) == 0:
                x.flush()
            if not np.array_equal(raw[i], expected[i]):
                wrong.append(i)

    threads = [threading.Thread(target=churn, args=(number,)) for number in range(n_threads)]
    start_all(threads)
    rng = np.random.default_rng(9)
    for _ in range(10):
        time.sleep(rng.uniform(0, 0.2))
        os.kill(lazyarr.stats()["pid"], signal.SIGKILL)
    over.append(1)
    join_all(threads)
    assert not wrong, wrong
    assert np.array_equal(x, expected)
    x.flush()
    np.save(copy, expected)
    found = lazyarr.stats()
    print(found["workers_lost"], found["units_dirty"], found["bytes_dirty"])


def a_worker_dies_while_it_writes_back(url, copy):
    x, expected = lazyarr.open(url, "r+"), np.load(copy)
    for _ in range(3):
        x[:] = expected = expected + 1
        worker = lazyarr.stats()["pid"]
        flush = threading.Thread(target=x.flush)
        flush.start()
        # It has begun when something is in the store that was not, or is over.
        while flush.is_alive() and not lazyarr.stats()["units_written"]:
            time.sleep(0.001)
        os.kill(worker, signal.SIGKILL)
        flush.join()
    np.save(copy, expected)
    print(lazyarr.stats()["workers_lost"], lazyarr.stats()["units_dirty"])


def shards_are_replaced_by_s3(url, options, copy):
    options = json.loads(options)
    lazyarr.configure(memory_limit="256KiB")
    x, expected = lazyarr.open(url, "r+", storage_options=options), np.load(copy)
    rng = np.random.default_rng(3)
    for number in range(4):
        rows = rng.choice(len(x), 5, replace=False)
        for row in rows:
            x[row] = expected[row] = rng.integers(1000)
        if number == 1:
            os.kill(lazyarr.stats()["pid"], signal.SIGKILL)
        flush = threading.Thread(target=x.flush)
        flush.start()
        # Other rows of the same shards, while these are replaced.
        x.evict()
        assert np.array_equal(x, expected)
        flush.join()
        x.evict()
        assert np.array_equal(x, expected)
    x.flush()
    np.save(copy, expected)
    print(lazyarr.stats()["units_dirty"])


def a_client_is_killed_that_has_written(url, copy):
    x, expected = lazyarr.open(url, "r+"), np.load(copy)
    x[3] = expected[3] = 7
    np.asarray(x)[5:9, 2] = expected[5:9, 2] = 8
    np.save(copy, expected)
    found = lazyarr.stats()
    print(found["units_dirty"], found["bytes_dirty"], found["units_written"], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def a_client_is_killed_while_there_is_no_worker(url, copy):
    x, expected = lazyarr.open(url, "r+"), np.load(copy)
    x[3] = expected[3] = 7
    np.asarray(x)[5:9, 2] = expected[5:9, 2] = 8
    np.save(copy, expected)
    worker = lazyarr.stats()["pid"]
    supervisor, _ = family(_mark(), worker)
    os.kill(supervisor, signal.SIGSTOP)
    os.kill(worker, signal.SIGKILL)
    print(supervisor, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def a_worker_dies_while_it_writes_for_a_client_that_is_gone(url, copy):
    x, expected = lazyarr.open(url, "r+"), np.load(copy)
    x[:] = expected = expected + 1
    np.save(copy, expected)
    worker = lazyarr.stats()["pid"]
    # By a process that outlives this one, and is no client.
    late = f"sleep 0.05; kill -9 {worker}"
    subprocess.Popen(["/bin/sh", "-c", late], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.kill(os.getpid(), signal.SIGKILL)


def a_store_that_takes_nothing_for_a_while(url):
    x = lazyarr.open(url, "r+")
    x[3] = 7
    os.rename(f"{url}/c", f"{url}/kept")
    os.close(os.open(f"{url}/c", os.O_CREAT))
    try:
        x.flush()
    except lazyarr.LazyarrError as error:
        print(type(error).__name__, lazyarr.stats()["units_dirty"])
    os.unlink(f"{url}/c")
    os.rename(f"{url}/kept", f"{url}/c")
    print(x.flush().units, lazyarr.stats()["units_dirty"])


def a_store_that_takes_nothing_any_more(url):
    x = lazyarr.open(url, "r+")
    x[3:5] = 7
    os.rename(f"{url}/c", f"{url}/kept")
    os.close(os.open(f"{url}/c", os.O_CREAT))
    os.kill(os.getpid(), signal.SIGKILL)


def a_region_stays_retired(url):
    from lazyarr.client.session.process import current_session
    from lazyarr.wire import messages as w

    x = lazyarr.open(url, "r+")
    x[3] = 7
    raw = np.asarray(x)
    rpc = current_session().rpc
    done, _ = rpc.exchange(w.Retire(rpc.new_ticket(), x._memory.region.number), w.Done)
    assert not done.failures
    assert done.n_units
    os.kill(lazyarr.stats()["pid"], signal.SIGKILL)
    assert lazyarr.stats()["workers_lost"] == 1
    print(int(raw[3, 0, 0]), flush=True)
    raw[4] = 1


def a_page_is_taken_out_next_to_what_was_written(url, copy, how):
    x, expected = lazyarr.open(url, "r+"), np.load(copy)
    raw = np.asarray(x)
    raw[5], raw[6] = 5, 6
    expected[6] = 6
    # A page that row 5 fills alone, as madvise(MADV_REMOVE) takes it out.  The last element of
    # that row is on a page with the beginning of row 6.
    page = -(-5 * raw[0].nbytes // PAGE_NBYTES) * PAGE_NBYTES
    region = x._region
    punch_hole(region.memfd, region.offset + page, PAGE_NBYTES)
    if how == "killed":
        os.kill(lazyarr.stats()["pid"], signal.SIGKILL)
        assert lazyarr.stats()["workers_lost"] == 1
    assert raw[5, 8, 0] == expected[5, 8, 0]
    raw[5, -1, -1] = 9
    n_dirty = lazyarr.stats()["units_dirty"]  # rows 4 and 7 share pages with these
    x.flush()
    np.save(copy, expected)
    print(n_dirty, lazyarr.stats()["units_dirty"])

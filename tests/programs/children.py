"""Programs of tests/process/test_children.py."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import resource
import subprocess
import threading
import time

import numpy as np

import lazyarr
from lazyarr.client.session import process
from tests.programs import work
from tests.programs.support import (
    exit_code,
    in_child,
    join_all,
    read_all,
    start_all,
)

ROWS = range(8, 64, 7)


def with_multiprocessing(x, copy, method):
    with multiprocessing.get_context(method).Pool(3) as pool:
        found = pool.starmap(work.check, [(x, copy, i) for i in ROWS], chunksize=2)
        if method == "fork":
            found += pool.starmap(work.check_inherited, [(copy, i) for i in ROWS])
        pool.close()
        pool.join()
    return found


def with_futures(x, copy, method):
    context = multiprocessing.get_context(method)
    with concurrent.futures.ProcessPoolExecutor(3, mp_context=context) as pool:
        futures = [pool.submit(work.check, x, copy, i) for i in ROWS]
        if method == "fork":
            futures += [pool.submit(work.check_inherited, copy, i) for i in ROWS]
        return [future.result() for future in futures]


def with_joblib(x, copy, method):
    import joblib
    from joblib.externals.loky import get_reusable_executor

    with joblib.parallel_config(method, n_jobs=3):
        found = joblib.Parallel()(joblib.delayed(work.check)(x, copy, i) for i in ROWS)
    if method == "loky":
        get_reusable_executor().shutdown(wait=True)
    return found


POOLS = {
    "multiprocessing": with_multiprocessing,
    "concurrent.futures": with_futures,
    "joblib": with_joblib,
}


def workers_of_pools_read_right(url, copy, pool, method):
    x, data = lazyarr.open(url), np.load(copy)
    work.inherited = lazyarr.open(url)
    x[60], work.inherited[9]
    stop, wrong, rounds = [], [], []

    def churn(seed):
        rng = np.random.default_rng(seed)
        while not stop:
            i = int(rng.integers(60))
            if read_all(x[i : i + 4]) != data[i : i + 4].tobytes():
                wrong.append(i)
            if not (work.inherited[i] == data[i]).all():
                wrong.append(i)
            x.evict()
            rounds.append(i)

    threads = [threading.Thread(target=churn, args=(seed,)) for seed in range(2)]
    start_all(threads)
    while len(rounds) < 4:
        time.sleep(0.001)
    found = POOLS[pool](x, copy, method)
    stop.append(1)
    join_all(threads)
    assert not wrong, wrong
    assert found == [[]] * len(found)
    assert len(found) >= len(ROWS), found
    assert read_all(x) == data.tobytes()
    print("right")


def generations(url, copy):
    x, data = lazyarr.open(url), np.load(copy)

    def live(generation):
        rows = slice(generation * 8, generation * 8 + 8)
        if generation < 5:
            assert in_child(lambda: live(generation + 1)) == 0
        assert read_all(x[rows]) == data[rows].tobytes()
        assert (x[60 - generation] == data[60 - generation]).all()
        if generation < 5:
            assert in_child(lambda: live(generation + 1) if generation == 4 else None) == 0
            assert in_child(lambda: None if read_all(x[:48]) == data[:48].tobytes() else 1 / 0) == 0
        x.evict()

    live(0)
    assert read_all(x) == data.tobytes()


def children_that_end_at_once(url, copy):
    x, data = lazyarr.open(url), np.load(copy)
    x[0]
    for _ in range(100):
        if os.fork() == 0:
            os._exit(0)
        os.wait()
    assert read_all(x) == data.tobytes()


def a_storm_of_children(url, copy):
    # What most systems give; each client takes about ten of the pager's.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    x, data = lazyarr.open(url), np.load(copy)

    def n_descriptors(stats):
        return len(os.listdir(f"/proc/{stats['pid']}/fd"))

    assert read_all(x) == data.tobytes()  # every chunk's file is open from now on
    n_before = n_descriptors(lazyarr.stats())

    def child(seed):
        rng = np.random.default_rng(seed)
        for _ in range(3):
            i = int(rng.integers(60))
            if read_all(x[i : i + 2]) != data[i : i + 2].tobytes():
                return 1
            if not (x[i + 3] == data[i + 3]).all():
                return 2
        return 0

    x.evict()
    barrier, gate = os.pipe()
    begin, pids = time.monotonic(), []
    for seed in range(100):
        pid = os.fork()
        if pid == 0:
            os.close(gate)
            os.read(barrier, 1)
            os._exit(child(seed))
        pids.append(pid)
    os.close(gate)
    codes = [exit_code(pid) for pid in pids]
    seconds = time.monotonic() - begin
    assert codes == [0] * 100, codes
    assert seconds < 40, seconds
    assert read_all(x) == data.tobytes()
    stats = lazyarr.stats()
    while stats["clients"] > 1 and time.monotonic() < begin + 50:
        stats = lazyarr.stats()
    assert (stats["clients"], stats["workers_lost"]) == (1, 0), stats
    assert n_descriptors(stats) <= n_before + 2, (n_before, n_descriptors(stats))


def subprocesses_are_not_slowed(url):
    x = lazyarr.open(url)
    x[5]
    assert process.current_session() is not None
    n_forks = []
    os.register_at_fork(before=lambda: n_forks.append(1))
    subprocess.run(["/bin/true"], check=True)
    subprocess.run("true", shell=True, check=True, stdout=subprocess.PIPE, cwd="/")
    pid = os.posix_spawn("/bin/true", ["true"], os.environ)
    assert os.waitpid(pid, 0)[1] == 0
    print(len(n_forks), lazyarr.stats()["clients"])
    assert in_child(lambda: None) == 0
    print(len(n_forks))

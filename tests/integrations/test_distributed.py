"""Workers of distributed share one pager, get references, and stay within their memory."""

from __future__ import annotations

import os
import pickle
import re
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import dask
import dask.array
import numpy as np
import pytest
import zarr

import lazyarr
from tests.process.running import run_program, wait_until
from tests.process.test_rights import AS_NOBODY, needs_root
from tests.programs import workers_of_dask as programs
from tests.stores import images, write_zarr

distributed = pytest.importorskip("distributed")

pytestmark = pytest.mark.timeout(120)

DATA = images((40, 32, 64), np.int32)
N_UNITS = 10
HOST = socket.gethostname()
SECONDS = 60


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """A client of two worker processes."""
    with cluster_of(2, "2 GiB", tmp_path_factory.mktemp("workers")) as found:
        yield found


class cluster_of:
    """A client of some worker processes, each with a memory limit and one thread."""

    def __init__(self, n_workers, memory_limit, directory):
        self._cluster = distributed.LocalCluster(
            n_workers=n_workers,
            threads_per_worker=1,
            memory_limit=memory_limit,
            dashboard_address="127.0.0.1:0",
            local_directory=str(directory),
        )
        self._client = distributed.Client(self._cluster, timeout=SECONDS)

    def __enter__(self):
        return self._client

    def __exit__(self, *_):
        self._client.close(SECONDS)
        self._cluster.close(SECONDS)


@pytest.fixture
def url(tmp_path):
    """A store of an array of ten units that nobody has opened before."""
    return write_zarr(tmp_path / "d.zarr", DATA, name="x", chunks=(4, 32, 64))


def pager():
    """Return the process that loads the arrays of this one."""
    return lazyarr.stats()["pid"]


def loaded(url):
    """Return how often the pager of this process has loaded a unit of a store's array."""
    (array,) = (each for each in lazyarr.stats()["arrays"] if url in each["url"])
    return array["units_loaded"]


def n_resident(x):
    """Return how many units of an array are in memory."""
    return x.residency().resident_units


def kinds_of_data(dask_worker):
    """Return the types of what a worker has in memory."""
    return {type(value).__name__ for value in dask_worker.data.values()}


def row_sum(x, row):
    """Return the sum of one row, as a task does."""
    return int(x[row].sum())


def test_workers_share_one_pager(client, url):
    """With one memory limit; each chunk is decompressed once, whoever reads it."""
    x = lazyarr.open(url)["x"]
    futures = client.map(row_sum, [x] * 80, [*range(40), *range(39, -1, -1)], pure=False)
    sums = [int(row.sum()) for row in DATA]
    assert client.gather(futures) == [*sums, *reversed(sums)]
    assert x.to_dask().astype("i8").sum().compute() == sum(sums)
    assert loaded(url) == N_UNITS
    assert set(client.run(pager).values()) == {pager()}


def test_tasks_and_what_is_sent_hold_references(client, url):
    """In arguments, scattered, as results, between workers; never the elements."""
    x = lazyarr.open(url)["x"]
    x.prefetch()
    first, second = client.scheduler_info()["workers"]
    assert len(pickle.dumps((row_sum, x, 3))) < 2**13
    scattered = client.scatter(x, workers=[first], hash=False)
    tail = client.submit(lambda a: a[5:], scattered, workers=[second])
    again = client.submit(lambda a: a[1:], tail, workers=[first]).result(SECONDS)
    assert type(again) is lazyarr.LazyArray
    np.testing.assert_array_equal(again, DATA[6:])
    for worker in (first, second):
        (held,) = client.run(kinds_of_data, workers=[worker]).values()
        assert held == {"LazyArray"}
    assert loaded(url) == N_UNITS


def test_persisted_blocks(client, url):
    """They are read once, and computed on where they are."""
    blocks = lazyarr.open(url)["x"].to_dask().persist()
    distributed.wait(blocks, SECONDS)
    np.testing.assert_array_equal((blocks + 1).compute(), DATA + 1)
    np.testing.assert_array_equal(blocks[3:9].compute(), DATA[3:9])
    assert loaded(url) == N_UNITS


def rechunked(x):
    return x.rechunk((40, 7, 30)) * 2


def sent_by_p2p(x):
    with dask.config.set({"array.rechunk.method": "p2p"}):
        return x.rechunk((40, 8, 16)).rechunk((5, 32, 64))


CASES = {
    "rechunk": (rechunked, lambda x: x * 2),
    "p2p": (sent_by_p2p, lambda x: x),
    "map_blocks": (lambda x: x.map_blocks(lambda b: b[::-1] + 1), None),
    "map_overlap": (
        lambda x: x.map_overlap(lambda b: b + np.roll(b, 1, 0), depth={0: 1}, boundary="periodic"),
        lambda x: x + np.roll(x, 1, 0),
    ),
    "reductions": (lambda x: x.astype("i8").sum(axis=(0, 2)), lambda x: x.astype("i8").sum((0, 2))),
    "product": (
        lambda x: dask.array.tensordot(x.astype("f8"), x.astype("f8"), ([0, 2], [0, 2])),
        lambda x: np.tensordot(x.astype("f8"), x.astype("f8"), ([0, 2], [0, 2])),
    ),
    "picks": (lambda x: x[[3, 39, 3]][:, ::-5, DATA[0, 0] % 2 == 0],) * 2,
}


@pytest.mark.parametrize("name", CASES)
def test_operations_of_dask(client, url, name):
    """They give what NumPy gives."""
    operation, expected = CASES[name]
    found = operation(lazyarr.open(url)["x"].to_dask()).compute()
    if expected is None:
        wanted = np.concatenate([DATA[start : start + 4][::-1] + 1 for start in range(0, 40, 4)])
    else:
        wanted = expected(DATA)
    np.testing.assert_array_equal(found, wanted)


def test_results_are_stored(client, url, tmp_path):
    """By `dask.array.store`, into another store, from all workers."""
    x = lazyarr.open(url)["x"].to_dask()
    there = zarr.create_array(
        str(tmp_path / "o.zarr"), shape=x.shape, dtype=x.dtype, chunks=(8, 32, 64)
    )
    dask.array.store(x.rechunk((8, 32, 64)) + 1, there, lock=False)
    np.testing.assert_array_equal(lazyarr.open(tmp_path / "o.zarr"), DATA + 1)


def kill_once(x, row, mark):
    """Return the sum of a row; the first process that comes here is killed in the middle of it."""
    total = int(x[: row + 1].sum())
    with suppress(FileExistsError):
        Path(mark).touch(exist_ok=False)
        os.kill(os.getpid(), signal.SIGKILL)
    return total


def test_a_worker_that_is_killed(client, url, tmp_path):
    """Its tasks are computed again, right; the pager lives, and has the arrays of the others."""
    x = lazyarr.open(url)["x"]
    before = pager()
    futures = client.map(kill_once, [x] * 20, range(20), mark=str(tmp_path / "killed"), retries=2)
    assert client.gather(futures) == [int(DATA[: row + 1].sum()) for row in range(20)]
    assert (tmp_path / "killed").exists()
    assert pager() == before
    client.wait_for_workers(2, SECONDS)
    assert wait_until(lambda: lazyarr.stats()["clients"] <= 3)  # this process and two workers
    assert client.submit(row_sum, x, 39).result(SECONDS) == int(DATA[39].sum())
    assert loaded(url) == N_UNITS


# --- memory -----------------------------------------------------------------------------


SMALL_NBYTES = 400_000_000
ROW_NBYTES = 1 << 18


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A store of an array that is larger than a small worker's memory limit; row i holds i."""
    shape = (SMALL_NBYTES // ROW_NBYTES, 1 << 16)
    rows = np.broadcast_to(np.arange(shape[0], dtype="i4")[:, None], shape)
    url = tmp_path_factory.mktemp("large") / "l.zarr"
    lazyarr.save(url, {"x": rows}, chunks=(4, shape[1]))
    return str(url)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A client of two worker processes that have little memory, and where they spill."""
    directory = tmp_path_factory.mktemp("small")
    with (
        dask.config.set({"distributed.worker.memory.target": 0.1}),
        cluster_of(2, SMALL_NBYTES, directory) as found,
    ):
        yield found, directory


def peak_nbytes():
    """Return the most that was ever resident of this process, shared pages too."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


def scan(x):
    """Return what all rows of an array come to, with some work on each, and who worked."""
    total = sum(round(float(np.sqrt(row.astype("f8")).mean() ** 2)) for row in x)
    return total, os.getpid(), peak_nbytes()


def test_a_worker_is_not_ended_for_pages_of_the_pager(small, large):
    """It may read more than its own limit: what it has mapped goes in time, and comes again."""
    client, _ = small
    x = lazyarr.open(large)["x"]
    assert x.nbytes > 0.95 * SMALL_NBYTES
    worker, pid = min(client.run(os.getpid).items())
    for _ in range(2):
        found = client.submit(scan, x, workers=[worker], pure=False).result(SECONDS)
        assert found[:2] == (sum(range(len(x))), pid)
        assert found[2] < 0.95 * SMALL_NBYTES
    assert n_resident(x) == -(-len(x) // 4)  # the pager keeps it all the same


def test_a_worker_spills_references(small, url):
    """A reference that goes to the disk takes no room there, and is the array again."""
    client, directory = small
    x = lazyarr.open(url)["x"]
    x.prefetch()
    scattered = client.scatter(x, hash=False)
    # More than a tenth of the limit, at which these workers begin to spill what came first.
    workers = scattered.client.who_has(scattered)[scattered.key]
    others = [np.full(SMALL_NBYTES // 20, n, "u1") for n in range(3)]
    others = client.scatter(others, workers=workers, hash=False)
    (spilled,) = directory.rglob(f"*{scattered.key}*")
    assert spilled.stat().st_size < 2**13
    assert client.submit(row_sum, scattered, 7).result(SECONDS) == int(DATA[7].sum())
    assert int(others[1].result(SECONDS)[5]) == 1
    assert loaded(url) == N_UNITS


def open_and_scan(url):
    """Return what `scan` does of an array that this process opens, and what its pager holds."""
    x = lazyarr.open(url)["x"]
    found = *scan(x), pager(), lazyarr.config.memory_limit
    return *found, lazyarr.stats()["memory_limit"], lazyarr.stats()["resident_bytes"]


def test_workers_that_open_a_store_stay_within_their_limits(small, large):
    """Each has a pager, which holds half of the worker's limit at most."""
    client, _ = small
    client.restart(SECONDS)  # those that got a reference before have the pager of this process
    workers = client.scheduler_info()["workers"]
    found = [client.submit(open_and_scan, large, workers=[w], pure=False) for w in workers]
    found = client.gather(found)
    x = lazyarr.open(large)["x"]
    assert len({each[3] for each in found} | {pager()}) == 3
    for total, _, peak, _, limit, part, held in found:
        assert total == sum(range(len(x)))
        assert limit == SMALL_NBYTES // 2
        assert 0 < held <= part <= limit  # other tests' pagers have their part
        assert peak < 0.95 * SMALL_NBYTES


# --- other machines ---------------------------------------------------------------------


# Another machine's processes, and in place of a directory one that is empty.
ELSEWHERE = (
    "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
    "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"',
)  # fmt: skip


@pytest.fixture(params=[["--no-nanny"]])
def elsewhere(request, url, tmp_path):
    """A client of workers that have an empty directory in place of the store at `url`.

    There is one, unless the options say something else.
    """
    with cluster_of(0, 0, tmp_path) as client:
        command = [sys.executable, "-m", "distributed.cli.dask_worker", client.scheduler.address]
        options = (*request.param, "--nthreads=1", "--no-dashboard", "--death-timeout=30")
        place = tmp_path / "worker"
        place.mkdir()
        process = subprocess.Popen(
            [*ELSEWHERE, url, *command, "--local-directory", str(place), *options],
            stderr=subprocess.DEVNULL,
        )
        try:
            client.wait_for_workers(2 if "--nworkers=2" in options else 1, SECONDS)
            yield client
        finally:
            process.kill()  # and the worker with it
            process.wait(SECONDS)


@needs_root
def test_another_machine_opens_the_store_by_its_url(elsewhere, url, http_server):
    """Once for all tasks; a path that it does not have is an error that says which and where."""
    remote = Path(http_server.directory) / "d.zarr"
    write_zarr(remote, DATA, name="x", chunks=(4, 32, 64))
    near, far = lazyarr.open(url)["x"], lazyarr.open(f"{http_server.url}/d.zarr")["x"]
    http_server.requests()
    rows = elsewhere.gather(elsewhere.map(row_sum, [far] * 40, range(40), pure=False))
    assert rows == [int(row.sum()) for row in DATA]
    asked = [request.path for request in http_server.requests()]
    assert sorted(asked) == sorted({*asked})
    assert "/d.zarr/x/c/9/0/0" in asked
    scattered = elsewhere.scatter(near, hash=False)
    for future in (
        elsewhere.submit(len, near, pure=False),
        elsewhere.submit(len, scattered, pure=False),
        elsewhere.compute(near.to_dask()[3]),
    ):
        with pytest.raises(lazyarr.NodeNotFoundError, match=f"{url}.* on host {HOST}"):
            future.result(SECONDS)
    assert elsewhere.submit(row_sum, far, 2, pure=False).result(SECONDS) == int(DATA[2].sum())


def read_elsewhere(x):
    """Return the sum of all, and what the pager of this process is, has loaded and may hold."""
    total = sum(int(row.sum()) for row in x)
    stats = lazyarr.stats()
    return total, stats["pid"], stats["units_loaded"], stats["memory_limit"]


@needs_root
@pytest.mark.parametrize(
    "elsewhere", [["--nworkers=2", f"--memory-limit={SMALL_NBYTES}"]], indirect=True
)
def test_workers_of_another_machine_share_one_pager(elsewhere, http_server):
    """It loads each chunk once for both, and may hold what each of them might by itself."""
    write_zarr(Path(http_server.directory) / "d.zarr", DATA, name="x", chunks=(4, 32, 64))
    x = lazyarr.open(f"{http_server.url}/d.zarr")["x"]
    http_server.requests()
    workers = list(elsewhere.scheduler_info()["workers"])
    assert len(workers) == 2
    for _ in range(2):
        futures = [
            elsewhere.submit(read_elsewhere, x, workers=[each], pure=False) for each in workers
        ]
        (total, pid, n_loaded, limit), other = elsewhere.gather(futures)
    assert total == int(DATA.sum(dtype="i8"))
    assert other[:3] == (total, pid, n_loaded)
    assert n_loaded == N_UNITS
    assert SMALL_NBYTES // 2 < limit <= SMALL_NBYTES
    asked = [request.path for request in http_server.requests() if "/x/c/" in request.path]
    assert sorted(asked) == sorted({*asked})
    # Nor is that less when a worker opens a store by itself.
    for each in workers:
        opened = elsewhere.submit(open_and_scan, f"{http_server.url}/d.zarr", workers=[each])
        assert opened.result(SECONDS)[3] == pid
    last = elsewhere.submit(read_elsewhere, x, pure=False).result(SECONDS)
    assert SMALL_NBYTES // 2 < last[3] <= SMALL_NBYTES


@needs_root
def test_results_are_sent_without_rights(tmp_path):
    """Views of lazyarr's memory, and what holds some, where system calls wait for no page."""
    for parent in (tmp_path, *list(tmp_path.parents)[:2]):
        parent.chmod(0o755)
    tmp_path.chmod(0o777)
    ended = run_program(
        programs.results_are_sent_without_rights, tmp_path / "x.zarr", wrapper=AS_NOBODY
    )
    assert (ended.returncode, ended.stdout) == (0, "sent\n"), ended.stderr

"""On machines of many cores processes beside the worker decode; they may die like it."""

from __future__ import annotations

import os
import resource
import signal
import textwrap
from contextlib import suppress

import numpy as np
import pytest
import zarr
from zarr.codecs import GzipCodec

import lazyarr
from lazyarr.pager.supervisor import DEADLY
from tests.process.running import (
    children,
    decoders,
    end_program,
    ended_by,
    pagers,
    run_program,
    start_program,
    stop,
    wait_until,
)
from tests.process.test_supervisor import REASON, opens

SHAPE = (96, 256, 512)
DATA = np.random.default_rng(7).integers(0, 64, SHAPE, dtype="u1")
_SLOW_NBYTES = 64 << 20

# With these an array has decoders from here on.
READY = """
    lazyarr.configure(threads=12)
    x = lazyarr.open(sys.argv[1]); raw = np.asarray(x)
    def ready(least=1):
        while lazyarr.stats()["decoders"] < least:
            x.evict(); x.prefetch()
        x.evict()
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    path = tmp_path_factory.mktemp("decoders") / "x.zarr"
    lazyarr.save(path, DATA, chunks=(4, *SHAPE[1:]), shards=(32, *SHAPE[1:]))
    return path


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    path = tmp_path_factory.mktemp("decoders") / "x.npy"
    np.save(path, DATA)
    return path


def program(text: str) -> str:
    """Return a program that begins with decoders."""
    return textwrap.dedent(READY) + textwrap.dedent(text)


def test_every_way_of_reading_gives_what_is_stored(url, copy):
    """Asked for, picked, touched, scanned, by several threads, in a child, in mode "c"."""
    text = """
    data = np.load(sys.argv[2])
    ready()
    before = lazyarr.stats()["units_by_decoders"]
    assert np.array_equal(x + 0, data); x.evict()
    for i in (5, 95, 40, 41, 6, 0): assert np.array_equal(x[i], data[i])
    x.evict()
    assert np.array_equal(x[[3, 90, 17, 16]], data[[3, 90, 17, 16]]); x.evict()
    for i in range(96): assert raw[i, 3, 4] == data[i, 3, 4]
    assert read_all(x) == data.tobytes(); x.evict()
    for i in reversed(range(96)): assert np.array_equal(raw[i], data[i])
    x.evict()
    wrong = []
    def touch(seed):
        for i in np.random.default_rng(seed).integers(96, size=200).tolist():
            if not np.array_equal(raw[i], data[i]): wrong.append(i)
            if seed == 0: x.evict()
    threads = [threading.Thread(target=touch, args=(seed,)) for seed in range(4)]
    [t.start() for t in threads]; [t.join() for t in threads]
    assert not wrong
    x.evict()
    assert in_child(lambda: None if read_all(x) == data.tobytes() else sys.exit(1)) == 0
    mine = lazyarr.open(sys.argv[1], mode="c")
    mine[5] = 1
    assert np.array_equal(mine[4], data[4]) and (mine[5] == 1).all()
    stats = settled()
    assert stats["units_by_decoders"] > before + 100, stats
    assert not stats["errors"] and not stats["workers_lost"]
    """
    ended = run_program(program(text), url, copy)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_none_is_started_where_one_process_is_enough(url):
    """Nor before anything is read."""
    text = """
    lazyarr.configure(threads=4)
    x = lazyarr.open(sys.argv[1]); x.prefetch()
    print(lazyarr.stats()["decoders"], lazyarr.stats()["units_by_decoders"])
    lazyarr.configure(threads=16)
    x.evict(); x.prefetch()
    while not lazyarr.stats()["decoders"]: pass
    """
    ended = run_program(text, url)
    assert (ended.returncode, ended.stdout) == (0, "0 0\n"), ended.stderr


def test_there_are_no_more_than_the_threads_need(url):
    """Four threads to each."""
    text = """
    ready(3)
    for _ in range(20): x.evict(); x.prefetch()
    print(lazyarr.stats()["decoders"])
    """
    ended = run_program(program(text), url)
    assert (ended.returncode, ended.stdout) == (0, "3\n"), ended.stderr


def test_the_limit_holds(url, copy):
    """What is on its way elsewhere counts, and so does the memory it is decoded in."""
    text = """
    data = np.load(sys.argv[2])
    lazyarr.configure(memory_limit="16 MiB")
    ready()
    most = 0
    for _ in range(3):
        for i in range(96):
            assert np.array_equal(raw[i], data[i])
            most = max(most, lazyarr.stats()["resident_bytes"])
    print(0 < most <= 16 << 20)
    """
    ended = run_program(program(text), url, copy)
    assert (ended.returncode, ended.stdout) == (0, "True\n"), ended.stderr


def test_damage_is_an_error_with_everything_in_it(tmp_path):
    """As it is when the worker decodes; and what is mended is read."""
    path = tmp_path / "x.zarr"
    lazyarr.save(path, DATA, chunks=(4, *SHAPE[1:]), shards=SHAPE)
    text = """
    from pathlib import Path
    ready()
    shard = Path(sys.argv[1]) / "c/0/0/0"
    sound = shard.read_bytes()
    with open(shard, "r+b") as file:
        file.seek(1000); file.write(bytes([sound[1000] ^ 1]))
    try:
        x[1]
    except lazyarr.ChunkError as error:
        print(error.chunk, "crc32c" in str(error))
    assert int(x[4, 0, 0]) == int(raw[4, 0, 0])
    with open(shard, "r+b") as file:
        file.seek(1000); file.write(sound[1000:1001])
    print(len(x[1]))
    """
    ended = run_program(program(text), path)
    assert (ended.returncode, ended.stdout) == (0, "(0, 0, 0) True\n256\n"), ended.stderr


def test_one_that_is_killed_is_replaced_with_its_worker(url, copy):
    """All reads are right, whoever dies."""
    text = """
    data, stop, wrong = np.load(sys.argv[2]), [], []
    def churn(seed):
        rng = np.random.default_rng(seed)
        while not stop:
            i = int(rng.integers(96))
            if rng.random() < 0.3: x.evict()
            for array in (raw, x):
                if not np.array_equal(array[i], data[i]): wrong.append(i)
    threads = [threading.Thread(target=churn, args=(seed,)) for seed in range(3)]
    [t.start() for t in threads]
    for _ in range(8):
        ready()
        stats = lazyarr.stats()
        lost = stats["workers_lost"]
        print(stats["pid"], flush=True)
        sys.stdin.readline()
        while lazyarr.stats()["workers_lost"] == lost: pass
    stop.append(1); [t.join() for t in threads]
    print(wrong)
    """
    process, mark = start_program(program(text), url, copy)
    try:
        for _ in range(8):
            # The first of them is certainly at work, and the others may be about to, or
            # have been ended by the supervisor meanwhile.
            for pid in sorted(decoders(int(process.stdout.readline()))):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.stdin.write("\n")
            process.stdin.flush()
        stdout, stderr = process.communicate(timeout=60)
    finally:
        end_program(process)
    assert (stdout, process.returncode) == ("[]\n", 0), stderr
    lines = [line for line in stderr.splitlines() if "was to decode" not in line]
    line = "lazyarr: a process that decodes for the pager died of SIGKILL; another takes over"
    assert lines == [line] * 8
    assert wait_until(lambda: not pagers(mark), 1.0)


def test_without_descriptors_to_spare_the_worker_loads(url, copy):
    """A job whose descriptors do not come is not lost."""
    text = """
    data = np.load(sys.argv[2])
    ready()
    print(lazyarr.stats()["pid"], flush=True)
    sys.stdin.readline()
    assert np.array_equal(x + 0, data)
    print(lazyarr.stats()["workers_lost"])
    """
    process, mark = start_program(program(text), url, copy)
    try:
        for pid in decoders(int(process.stdout.readline())):
            n_open = len(os.listdir(f"/proc/{pid}/fd"))
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (n_open, n_open))
        stdout, stderr = process.communicate("\n", timeout=60)
    finally:
        end_program(process)
    assert (stdout, stderr, process.returncode) == ("0\n", "", 0)
    assert wait_until(lambda: not pagers(mark), 1.0)


def test_one_that_is_stopped_is_replaced(url, copy):
    """After `stop_timeout`, as a worker is."""
    text = """
    data = np.load(sys.argv[2])
    lazyarr.configure(stop_timeout=1.0)
    ready()
    print(lazyarr.stats()["pid"], flush=True)
    sys.stdin.readline()
    begin = time.monotonic()
    assert read_all(x) == data.tobytes()
    seconds = time.monotonic() - begin
    assert 0.5 < seconds < 8, seconds
    print(lazyarr.stats()["workers_lost"])
    """
    process, mark = start_program(program(text), url, copy)
    try:
        stop(*decoders(int(process.stdout.readline())))
        stdout, stderr = process.communicate("\n", timeout=60)
    finally:
        end_program(process)
    assert (stdout, process.returncode) == ("1\n", 0), stderr
    assert wait_until(lambda: not pagers(mark), 1.0)


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    """Chunks of one shard that take half a second to decode."""
    path = tmp_path_factory.mktemp("decoders") / "slow.zarr"
    data = np.random.default_rng(0).integers(0, 16, (2, _SLOW_NBYTES), dtype="u1")
    array = zarr.create_array(
        os.fspath(path),
        shape=data.shape,
        shards=data.shape,
        chunks=(1, _SLOW_NBYTES),
        dtype="u1",
        compressors=GzipCodec(level=1),
    )
    array[:] = data
    return path, int(data[1, 5])


def wait_for_opener(find, path):
    """Return the first process that is found to have a file open, at one look."""
    openers = []
    assert wait_until(lambda: openers.extend(p for p in find() if opens(p, path)) or openers, 30)
    return openers[0]


@pytest.mark.parametrize("way", ["request", "touch"])
def test_a_unit_that_kills_them_is_given_up(slow, way):
    """Whether a decoder crashes at it or the worker."""
    path, expected = slow
    text = """
    ready()
    x[0]
    print(lazyarr.stats()["pid"], flush=True)
    try:
        print(int(x[1, 5] if sys.argv[2] == "request" else raw[1, 5]))
    except lazyarr.ChunkError as error:
        print("ChunkError", error.chunk, error.reason)
        print(int(x[1, 5]))
    """
    process, mark = start_program(program(text), path, way)
    try:
        worker = int(process.stdout.readline())
        shard, first = path / "c/0/0", decoders(worker)
        os.kill(wait_for_opener(lambda: first, shard), signal.SIGSEGV)
        killed = {worker, *first}
        for _ in range(DEADLY - 1):
            pid = wait_for_opener(lambda: set(pagers(mark)) - killed, shard)
            os.kill(pid, signal.SIGSEGV)
            killed.add(pid)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        end_program(process)
    if way == "request":
        assert stdout == f"ChunkError (1, 0) {REASON}\n{expected}\n", stderr
    else:
        assert (stdout, process.returncode) == ("", -signal.SIGBUS)
        assert REASON in stderr


def test_none_outlives_the_pager(url):
    """When supervisor and worker are killed the decoders end too, and who waits dies loudly."""
    text = """
    ready()
    print(lazyarr.stats()["pid"], flush=True)
    sys.stdin.readline()
    raw[60, 0, 0]
    """
    process, mark = start_program(program(text), url)
    try:
        worker = int(process.stdout.readline())
        (supervisor,) = [p for p in pagers(mark) if worker in children(p)]
        assert len(decoders(worker)) >= 1
        stop(supervisor)
        for pid in (supervisor, worker):
            os.kill(pid, signal.SIGKILL)
        process.communicate("\n", timeout=30)
    finally:
        end_program(process)
    assert process.returncode == -signal.SIGBUS
    assert wait_until(lambda: not pagers(mark), 1.0)


def test_without_a_supervisor_they_work_on(url, copy):
    """Its death alone takes nothing away but who would replace them."""
    text = """
    data = np.load(sys.argv[2])
    ready()
    print(lazyarr.stats()["pid"], flush=True)
    sys.stdin.readline()
    before = lazyarr.stats()["units_by_decoders"]
    assert np.array_equal(x + 0, data)
    print(lazyarr.stats()["units_by_decoders"] > before)
    """
    process, mark = start_program(program(text), url, copy)
    try:
        worker = int(process.stdout.readline())
        (supervisor,) = [p for p in pagers(mark) if worker in children(p)]
        os.kill(supervisor, signal.SIGKILL)
        stdout, stderr = process.communicate("\n", timeout=30)
    finally:
        end_program(process)
    assert (stdout, process.returncode) == ("True\n", 0), stderr
    assert wait_until(lambda: not pagers(mark), 1.0)


def test_a_client_that_is_killed_leaves_nothing(url):
    """While its chunks are decoded elsewhere."""
    text = """
    ready()
    print("ready", flush=True)
    while True: x.evict(); x.prefetch()
    """
    process, mark = start_program(program(text), url)
    process.stdout.readline()
    process.kill()
    process.communicate(timeout=10)
    assert wait_until(lambda: not pagers(mark), 1.0)
    assert process.returncode == -signal.SIGKILL


def test_a_child_that_is_forked_shares_them(url, copy):
    """Parent and child read at once, and the child after the parent's end."""
    text = """
    data = np.load(sys.argv[2])
    ready()
    pid = os.fork()
    if pid == 0:
        for _ in range(5):
            if read_all(x) != data.tobytes(): os._exit(1)
            x.evict()
        os._exit(0)
    for _ in range(5):
        assert read_all(x) == data.tobytes()
        x.evict()
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """
    ended = run_program(program(text), url, copy)
    assert (ended_by(ended), ended.stdout) == ("0", "0\n"), ended.stderr

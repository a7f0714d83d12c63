"""Threads: many of them, arrays that end while others fault, interpreters that end too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lazyarr.testing import Behaviour
from tests.process.running import pagers, run_program, start_program, wait_until
from tests.process.stored import write_arrays
from tests.stores import images, write_zarr

DATA = images()


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    return write_zarr(tmp_path_factory.mktemp("threads") / "x.zarr", DATA, chunks=(4, 32, 128))


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    path = tmp_path_factory.mktemp("threads") / "x.npy"
    np.save(path, DATA)
    return path


RUN_64 = """
def run_64(work, n):
    "Run work(seed, random generator, ready) in 64 threads at once; nothing may go wrong."
    wrong, barrier = [], threading.Barrier(64)
    def run(seed):
        try:
            barrier.wait()
            rng = np.random.default_rng(seed)
            for _ in range(n): work(seed, rng)
        except BaseException as error:
            wrong.append(repr(error))
    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(64)]
    [t.start() for t in threads]; [t.join() for t in threads]
    assert not wrong, wrong
"""


def test_64_threads_on_the_same_array(url, copy):
    """They touch, ask, prefetch and evict the same units, and read right."""
    program = f"""{RUN_64}
x, data = lazyarr.open(sys.argv[1]), np.load(sys.argv[2])
raw = np.asarray(x)
def work(seed, rng):
    i, j = sorted(int(n) for n in rng.integers(64, size=2))
    assert raw[i:j + 1].tobytes() == data[i:j + 1].tobytes()
    assert np.array_equal(x[[i, j]], data[[i, j]])
    assert (x[i:j + 1].max(axis=0) == data[i:j + 1].max(axis=0)).all()
    if rng.random() < 0.3: x[i:j + 1].evict()
    if rng.random() < 0.3: x.prefetch(slice(i, j + 1), wait=bool(rng.random() < 0.5))
run_64(work, 8)
x.evict()
run_64(lambda *_: (x[5] == data[5]).all() or sys.exit(1), 1)
"""
    ended = run_program(program, url, copy)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_64_threads_on_arrays_of_their_own(tmp_path):
    """They open, read, pickle, close, fail to open and go, all at the same time."""
    arrays = write_arrays(tmp_path / "s.zarr")
    np.savez(tmp_path / "copies.npz", **{name: array.data for name, array in arrays.items()})
    program = f"""{RUN_64}
import gc, pickle
copies = dict(np.load(sys.argv[2]))
def work(seed, rng):
    name = sorted(copies)[seed % len(copies)]
    data = copies[name]
    i = int(rng.integers(len(data)))
    mode = "rc"[seed % 2]
    with lazyarr.open(sys.argv[1], mode) as dataset:
        x, again = dataset[name], dataset[name]
    assert x is again
    again = pickle.loads(pickle.dumps(x[i:]))
    assert again.tobytes() == data[i:].tobytes()
    assert read_all(x[i]) == data[i].tobytes()
    if mode == "c":
        x[i] = 3
        assert (np.asarray(x)[i] == 3).all()
    x.evict()
    del x
    assert np.array_equal(again, data[i:])
    if rng.random() < 0.1: gc.collect()
    try:
        lazyarr.open(sys.argv[1])["nothing"]
    except KeyError:
        pass
run_64(work, 3)
gc.collect()
deadline = time.monotonic() + 20
while lazyarr.stats()["regions"]: assert time.monotonic() < deadline, lazyarr.stats()
"""
    ended = run_program(program, tmp_path / "s.zarr", tmp_path / "copies.npz")
    assert (ended.returncode, ended.stderr) == (0, "")


def test_arrays_end_while_others_fault(url, copy):
    """Collected in cycles, at any moment, in whatever thread: what others read is right."""
    program = """
    import gc
    gc.set_threshold(50)
    x, data = lazyarr.open(sys.argv[1]), np.load(sys.argv[2])
    stop, wrong = [], []
    def read(seed):
        rng = np.random.default_rng(seed)
        while not stop:
            i = int(rng.integers(64))
            x[i].evict() if hasattr(x[i], "evict") else lazyarr.evict(x[i])
            if np.asarray(x)[i].tobytes() != data[i].tobytes(): wrong.append(i)
    def churn(seed):
        for i in range(40):
            other = lazyarr.open(sys.argv[1])
            if read_all(other[i]) != data[i].tobytes(): wrong.append(-i)
            cycle = [other, np.asarray(other)[i:]]
            cycle.append(cycle)
    readers = [threading.Thread(target=read, args=(seed,)) for seed in range(3)]
    churners = [threading.Thread(target=churn, args=(seed,)) for seed in range(3)]
    [t.start() for t in readers + churners]
    [t.join() for t in churners]
    stop.append(1); [t.join() for t in readers]
    assert not wrong, wrong
    """
    ended = run_program(program, url, copy)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_arrays_of_a_closed_dataset_stay_valid(tmp_path):
    """Closing lets go of what nobody has; closed twice, and by several threads, too."""
    arrays = write_arrays(tmp_path / "s.zarr")
    np.save(tmp_path / "copy.npy", arrays["tiles"].data)
    program = """
    data = np.load(sys.argv[2])
    dataset = lazyarr.open(sys.argv[1])
    x, view = dataset["tiles"], dataset["tiles"][3:, ::2]
    dataset["large"]
    threads = [threading.Thread(target=dataset.close) for _ in range(8)]
    [t.start() for t in threads]; [t.join() for t in threads]
    try:
        dataset["tiles"]
    except ValueError as error:
        print("closed" in str(error))
    deadline = time.monotonic() + 20
    while lazyarr.stats()["regions"] != 1: assert time.monotonic() < deadline
    assert np.array_equal(view, data[3:, ::2])
    assert read_all(x) == data.tobytes()
    del dataset
    x.evict()
    assert (x[5] == data[5]).all()
    """
    ended = run_program(program, tmp_path / "s.zarr", tmp_path / "copy.npy")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "True\n", "")


@pytest.mark.parametrize("ending", ["", "sys.exit(3)", "os._exit(3)"])
def test_the_interpreter_ends_while_threads_wait(http_server, ending):
    """With daemon threads in faults and in requests that nobody will answer."""
    write_zarr(Path(http_server.directory) / "x.zarr", DATA, chunks=(4, 32, 128))
    http_server.behave(Behaviour(delay_seconds=60), path="/c/9/")
    program = """
    faulthandler.cancel_dump_traceback_later()
    x = lazyarr.open(sys.argv[1])
    x[0]
    raw = np.asarray(x)[36:]
    copy = ctypes.CDLL(None).memcpy
    into = ctypes.create_string_buffer(8)
    address = raw.ctypes.data
    copy.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    for work in (lambda: copy(into, address, 8), lambda: x[36], lambda: x[36:40].sum()):
        threading.Thread(target=work, daemon=True).start()
    print("ready", flush=True)
    sys.stdin.readline()
    """
    process, mark = start_program(program + f"{ending}\n", f"{http_server.url}/x.zarr")
    tasks = Path(f"/proc/{process.pid}/task")

    def waits(where):
        return sum(where in (task / "wchan").read_text() for task in tasks.iterdir())

    try:
        assert process.stdout.readline() == "ready\n"
        assert wait_until(lambda: waits("userfault") and waits("wait_for_more_packets") == 2)
        _, stderr = process.communicate("go\n", timeout=5)
    finally:
        process.kill()
    assert (process.returncode, stderr) == (3 if ending else 0, "")
    assert wait_until(lambda: not pagers(mark), 1.0), pagers(mark)

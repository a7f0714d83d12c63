"""Children of every kind read right, and leave nothing behind.

A child that C code forks behind Python's back dies of SIGSEGV instead of reading
zeros: `test_2_a_child_forked_behind_pythons_back_dies` in test_silent_zeros.py.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.process.running import run_program
from tests.stores import images, write_zarr

DATA = images()

# What children do; a module, since those that are spawned must import it.
WORK = """
import ctypes, os
import numpy as np

INHERITED = DATA = None

def read_all(array):
    "Return the bytes through a raw pointer, with no lazyarr in the way."
    raw = np.asarray(array)
    return ctypes.string_at(raw.ctypes.data, raw.nbytes)

def check(x, path, i):
    "Read some rows by asking and by touching, here and in a child; return what was wrong."
    data = np.load(path)
    wrong = []
    if not np.array_equal(x[i], data[i]): wrong.append("asked")
    if read_all(x[i - 3:i + 1]) != data[i - 3:i + 1].tobytes(): wrong.append("touched")
    pid = os.fork()
    if pid == 0:
        os._exit(read_all(x[i - 8:]) != data[i - 8:].tobytes())
    if os.waitpid(pid, 0)[1]: wrong.append("in a grandchild")
    return wrong

def check_inherited(path, i):
    "The same with the array that was there when this process was forked."
    return check(INHERITED, path, i)
"""

CHURN = """
sys.path.insert(0, sys.argv[3])
import work
x, data = lazyarr.open(sys.argv[1]), np.load(sys.argv[2])
work.INHERITED = lazyarr.open(sys.argv[1])
x[60], work.INHERITED[9]
stop, wrong, rounds = [], [], []
def churn(seed):
    rng = np.random.default_rng(seed)
    while not stop:
        i = int(rng.integers(60))
        if read_all(x[i:i + 4]) != data[i:i + 4].tobytes(): wrong.append(i)
        if not (work.INHERITED[i] == data[i]).all(): wrong.append(i)
        x.evict()
        rounds.append(i)
threads = [threading.Thread(target=churn, args=(seed,)) for seed in range(2)]
[t.start() for t in threads]
while len(rounds) < 4: time.sleep(0.001)
ROWS = range(8, 64, 7)
"""

END = """
stop.append(1); [t.join() for t in threads]
assert not wrong, wrong
assert found == [[]] * len(found) and len(found) >= len(ROWS), found
assert read_all(x) == data.tobytes()
print("right")
"""

POOLS = {
    "multiprocessing": """
import multiprocessing
with multiprocessing.get_context(sys.argv[4]).Pool(3) as pool:
    found = pool.starmap(work.check, [(x, sys.argv[2], i) for i in ROWS], chunksize=2)
    if sys.argv[4] == "fork":
        found += pool.starmap(work.check_inherited, [(sys.argv[2], i) for i in ROWS])
    pool.close(); pool.join()
""",
    "concurrent.futures": """
import concurrent.futures, multiprocessing
context = multiprocessing.get_context(sys.argv[4])
with concurrent.futures.ProcessPoolExecutor(3, mp_context=context) as pool:
    futures = [pool.submit(work.check, x, sys.argv[2], i) for i in ROWS]
    if sys.argv[4] == "fork":
        futures += [pool.submit(work.check_inherited, sys.argv[2], i) for i in ROWS]
    found = [future.result() for future in futures]
""",
    "joblib": """
import joblib
from joblib.externals.loky import get_reusable_executor
arguments = [(x, sys.argv[2], i) for i in ROWS]
with joblib.parallel_config(sys.argv[4], n_jobs=3):
    found = joblib.Parallel()(joblib.delayed(work.check)(*a) for a in arguments)
if sys.argv[4] == "loky": get_reusable_executor().shutdown(wait=True)
""",
}
METHODS = ("fork", "forkserver", "spawn")


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    return write_zarr(tmp_path_factory.mktemp("children") / "x.zarr", DATA, chunks=(4, 32, 128))


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    path = tmp_path_factory.mktemp("children") / "x.npy"
    np.save(path, DATA)
    return path


@pytest.mark.parametrize(
    ("pool", "method"),
    [
        *(("multiprocessing", method) for method in METHODS),
        *(("concurrent.futures", method) for method in METHODS),
        ("joblib", "loky"),
        ("joblib", "multiprocessing"),
    ],
)
def test_workers_of_pools_read_right(url, copy, tmp_path, pool, method):
    """From arrays inherited and pickled, and so do their children, while the parent faults."""
    (tmp_path / "work.py").write_text(WORK)
    ended = run_program(CHURN + POOLS[pool] + END, url, copy, tmp_path, method)
    assert (ended.returncode, ended.stdout) == (0, "right\n"), ended.stderr


def test_generations(url, copy):
    """Five generations read right, each before and after its parent's touches."""
    program = """
    x, data = lazyarr.open(sys.argv[1]), np.load(sys.argv[2])
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
    """
    ended = run_program(program, url, copy)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_children_that_end_at_once(url, copy):
    """Nobody is told of children that are gone before the pager hears of them."""
    program = """
    x, data = lazyarr.open(sys.argv[1]), np.load(sys.argv[2])
    x[0]
    for _ in range(100):
        if os.fork() == 0: os._exit(0)
        os.wait()
    assert read_all(x) == data.tobytes()
    """
    ended = run_program(program, url, copy)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_storm_of_children(url, copy):
    """A hundred children that begin at once all read right, in time, and nothing is left."""
    program = """
    import resource
    # What most systems give; each client takes about ten of the pager's.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    x, data = lazyarr.open(sys.argv[1]), np.load(sys.argv[2])
    def n_descriptors(stats): return len(os.listdir(f"/proc/{stats['pid']}/fd"))
    assert read_all(x) == data.tobytes()  # every chunk's file is open from now on
    n_before = n_descriptors(lazyarr.stats())
    def child(seed):
        rng = np.random.default_rng(seed)
        for _ in range(3):
            i = int(rng.integers(60))
            if read_all(x[i:i + 2]) != data[i:i + 2].tobytes(): return 1
            if not (x[i + 3] == data[i + 3]).all(): return 2
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
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    seconds = time.monotonic() - begin
    assert codes == [0] * 100, codes
    assert seconds < 40, seconds
    assert read_all(x) == data.tobytes()
    stats = lazyarr.stats()
    while stats["clients"] > 1 and time.monotonic() < begin + 50: stats = lazyarr.stats()
    assert (stats["clients"], stats["workers_lost"]) == (1, 0), stats
    assert n_descriptors(stats) <= n_before + 2, (n_before, n_descriptors(stats))
    """
    ended = run_program(program, url, copy)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_subprocesses_are_not_slowed(url):
    """A program that is started costs nothing: no hook of ours runs, nobody joins the pager."""
    program = """
    import subprocess
    x = lazyarr.open(sys.argv[1])
    x[5]
    from lazyarr.client import process
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
    """
    ended = run_program(program, url)
    assert (ended.stdout, ended.stderr) == ("0 1\n1\n", "")

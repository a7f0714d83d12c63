"""Processes begin and end in every way, and nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import numpy as np
import pytest

import lazyarr
from lazyarr.testing import Behaviour
from tests.engines import ARRAYS
from tests.process.running import (
    end_program,
    ended_by,
    pagers,
    run_program,
    start_program,
    wait_until,
)
from tests.stores import images, write_zarr

DATA = images()


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    return write_zarr(tmp_path_factory.mktemp("life") / "x.zarr", DATA, chunks=(4, 32, 128))


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    path = tmp_path_factory.mktemp("life") / "x.npy"
    np.save(path, DATA)
    return path


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("", "0"),
        ("sys.exit(3)", "3"),
        ("os._exit(4)", "4"),
        ("raise ValueError", "1"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ("os.kill(os.getpid(), signal.SIGTERM)", "SIGTERM"),
        ("os.abort()", "SIGABRT"),
        ("os.execv('/bin/true', ['true'])", "0"),
    ],
)
def test_the_pager_ends_with_its_client(url, ending, code):
    """However a client ends, its pager ends within a second; run_program checks that."""
    ended = run_program(
        f"""
        faulthandler.disable()
        x = lazyarr.open(sys.argv[1])
        print(x[5, 0, 1], np.asarray(x)[50, 0, 1])
        sys.stdout.flush()
        {ending}
        """,
        url,
    )
    assert ended_by(ended) == code
    assert ended.stdout == f"{DATA[5, 0, 1]} {DATA[50, 0, 1]}\n"


@pytest.mark.parametrize("_", range(4))  # half of them die where it is not
def test_exec_is_survived_however_long_it_takes(tmp_path, _):
    """The pager hears of it by one descriptor while others, the lifeline too, are still open."""
    lazyarr.save(tmp_path / "g.zarr", {"x": DATA})
    program = """
    faulthandler.disable()
    group = lazyarr.open(sys.argv[1])
    slow_to_close = os.memfd_create("slow")  # closed between the channel and the lifeline
    os.posix_fallocate(slow_to_close, 0, 256 << 20)
    group["x"][5]
    os.execv("/bin/true", ["true"])
    """
    assert ended_by(run_program(program, tmp_path / "g.zarr")) == "0"


@pytest.mark.parametrize("way", ["requests", "faults"])
def test_the_pager_does_not_wait_for_what_nobody_wants_any_more(http_server, way):
    """A client that ends while a store stalls leaves nothing either; run_program checks that."""
    write_zarr(Path(http_server.directory) / "x.zarr", DATA, chunks=(4, 32, 128))
    http_server.behave(Behaviour(delay_seconds=20), path="/x.zarr/c/9/0/0")
    program = """
    x = lazyarr.open(sys.argv[1])
    print(x[5, 0, 1], flush=True)
    address, before = np.asarray(x)[38].ctypes.data, lazyarr.stats()[sys.argv[2]]
    libc = ctypes.CDLL(None)  # calls without the GIL
    touch = lambda: libc.memcmp(ctypes.c_void_p(address), b"", 1)
    ask = lambda: x[38]
    threading.Thread(target=touch if sys.argv[2] == "faults" else ask, daemon=True).start()
    while lazyarr.stats()[sys.argv[2]] == before: pass
    os.kill(os.getpid(), signal.SIGKILL)
    """
    ended = run_program(program, f"{http_server.url}/x.zarr", way)
    assert (ended_by(ended), ended.stdout) == ("SIGKILL", f"{DATA[5, 0, 1]}\n")


def test_exec_into_something_that_lives_on(url):
    """A client that becomes another program is no client any more."""
    program = """
    x = lazyarr.open(sys.argv[1])
    print(x[5, 0, 1], flush=True)
    os.execv("/bin/sleep", ["sleep", "30"])
    """
    process, mark = start_program(program, url)
    try:
        assert process.stdout.readline() == f"{DATA[5, 0, 1]}\n"
        assert wait_until(lambda: not pagers(mark), 5)
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()


def test_a_child_outlives_its_parent(url, copy):
    """A forked child goes on reading after its parent has ended."""
    program = """
    x, data = lazyarr.open(sys.argv[1]), np.load(sys.argv[2])
    x[5]
    parent = os.getpid()
    if os.fork() == 0:
        while os.getppid() == parent: time.sleep(0.01)
        assert read_all(x) == data.tobytes()
        assert (x[33] == data[33]).all()
        print("read all", flush=True)
        os._exit(0)  # at exit, faulthandler would wait for its thread, which a child has not
    """
    ended = run_program(program, url, copy)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "read all\n", "")


@pytest.mark.parametrize("engine", ARRAYS)
@pytest.mark.parametrize(
    "way", ["atexit.register(use)", "threading.Thread(target=lambda: (ended(), use())).start()"]
)
def test_arrays_are_opened_and_read_while_the_interpreter_ends(url, copy, engine, way):
    """Python 3.12 and later start no threads then; arrays do without."""
    program = f"""
    import atexit
    lazyarr.configure(engine=sys.argv[3])
    ended, data = threading.main_thread().join, np.load(sys.argv[2])
    def use():
        x = lazyarr.open(sys.argv[1])
        x.prefetch(slice(20, 30), wait=False)
        assert (x[5] == data[5]).all() and (x[[9, 40]] == data[[9, 40]]).all()
        assert x.sum() == data.sum() and lazyarr.stats()["units_loaded"]
        print("read")
    {way}
    """
    ended = run_program(program, url, copy, engine)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "read\n", "")


def test_arrays_that_outlive_what_is_in_modules(url):
    """Python empties the modules that somebody still has, as numba does, the newest first."""
    program = """
    x, mine = lazyarr.open(sys.argv[1]), lazyarr.open(sys.argv[1], mode="c")
    sys.kept = list(sys.modules.values())
    """
    ended = run_program(program, url)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_what_is_done_after_lazyarrs_own_end(url):
    """What is open can be read; nothing more can be opened, which the error says."""
    program = """
    import atexit
    def use():
        print(x[5, 0, 1], np.asarray(x)[50, 0, 1], lazyarr.stats())
        try: lazyarr.open(sys.argv[1])
        except lazyarr.PagerError as error: print(error)
    atexit.register(use)
    x = lazyarr.open(sys.argv[1])
    """
    ended = run_program(program, url)
    first, message = ended.stdout.splitlines()
    assert (ended.returncode, ended.stderr) == (0, "")
    assert first == f"{DATA[5, 0, 1]} {DATA[50, 0, 1]} {{}}"
    assert message.startswith("cannot open an array: the interpreter is ending")


def test_the_pager_is_nobodys_child(url):
    """os.wait() of the user's does not see the pager, nor is a zombie left."""
    program = """
    x = lazyarr.open(sys.argv[1])
    x[5]
    try:
        print(os.wait())
    except ChildProcessError:
        print("no children")
    """
    ended = run_program(program, url)
    assert (ended.stdout, ended.stderr) == ("no children\n", "")


def test_a_store_that_cannot_be_opened_leaves_nothing(tmp_path):
    """A pager that was started for nothing ends with its client too."""
    program = """
    try:
        lazyarr.open(sys.argv[1])
    except lazyarr.NodeNotFoundError as error:
        assert isinstance(error, (KeyError, FileNotFoundError))
        print(str(error).split(":")[0])
    """
    ended = run_program(program, tmp_path / "nothing.zarr")
    assert ended.stdout == "there is no array or group '/' in file\n"
    assert ended.stderr == ""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_pools(url, copy, tmp_path, method):
    """Workers of every start method read right, from inherited and from pickled arrays."""
    script = tmp_path / "main.py"
    script.write_text(
        """
import multiprocessing, sys
import numpy as np, lazyarr
def total(args):
    x, i = args
    return int(x[i].sum()) + int(np.asarray(x)[i, 3, 4])
if __name__ == "__main__":
    x, data = lazyarr.open(sys.argv[1]), np.load(sys.argv[2])
    context = multiprocessing.get_context(sys.argv[3])
    with context.Pool(2) as pool:
        totals = pool.map(total, [(x, i) for i in range(64)], chunksize=8)
    assert totals == [int(row.sum()) + int(row[3, 4]) for row in data]
    print("right")
"""
    )
    program = (
        "import runpy; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    if method == "fork":
        ended = run_program(program, script, url, copy, method)
    else:
        ended = run_program(
            "import subprocess; sys.exit(subprocess.call([sys.executable, *sys.argv[1:]]))",
            script,
            url,
            copy,
            method,
        )
    assert (ended.returncode, ended.stdout) == (0, "right\n"), ended.stderr


def test_fork_while_threads_fault(url, copy):
    """Children forked while the parent's threads wait in faults read right."""
    program = """
    x, data = lazyarr.open(sys.argv[1]), np.load(sys.argv[2])
    stop, wrong = [], []
    def churn(seed):
        rng = np.random.default_rng(seed)
        while not stop:
            i = int(rng.integers(64))
            if not (x[i] == data[i]).all() or read_all(x[i:]) != data[i:].tobytes(): wrong.append(i)
            x.evict()
    threads = [threading.Thread(target=churn, args=(seed,)) for seed in range(3)]
    [t.start() for t in threads]
    codes = [in_child(lambda: None if read_all(x) == data.tobytes() else sys.exit(1))
             for _ in range(20)]
    stop.append(1); [t.join() for t in threads]
    assert codes == [0] * 20, codes
    assert not wrong, wrong
    """
    ended = run_program(program, url, copy)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_interrupting_a_request(url):
    """Ctrl-C during a request raises KeyboardInterrupt, and everything goes on working."""
    program = """
    x = lazyarr.open(sys.argv[1])
    pager = lazyarr.stats()["pid"]
    stop(pager)
    print(pager, flush=True)
    try:
        x[5]
    except KeyboardInterrupt:
        os.kill(pager, signal.SIGCONT)
    print(x[5, 0, 1], x[44, 0, 1], np.asarray(x)[20, 0, 1])
    """
    process, _ = start_program(program, url)
    pager = int(process.stdout.readline())
    try:
        assert wait_until(lambda: in_system_call(process.pid, "wait_for_more_packets"))
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=20)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pager, signal.SIGCONT)
        end_program(process)
    said = " ".join(str(DATA[i, 0, 1]) for i in (5, 44, 20))
    assert (stdout, stderr, process.returncode) == (f"{said}\n", "", 0)


def in_system_call(pid: int, name: str) -> bool:
    """Return whether the main thread of a process waits in a kernel function of that name."""
    with open(f"/proc/{pid}/wchan") as file:
        return name in file.read()

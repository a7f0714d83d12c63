"""The engine that copies: with nothing of Linux, in forked children, interrupted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import lazyarr
from lazyarr.testing import Behaviour
from tests.process.running import pagers, run_program, start_program, wait_until
from tests.stores import images, write_zarr

DATA = images()


@pytest.fixture(autouse=True)
def copying(monkeypatch):
    """Set the engine as users do."""
    monkeypatch.setenv("LAZYARR_ENGINE", "copy")


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    return write_zarr(tmp_path_factory.mktemp("copying") / "x.zarr", DATA, chunks=(4, 32, 128))


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    path = tmp_path_factory.mktemp("copying") / "x.npy"
    np.save(path, DATA)
    return path


# What these systems do not have of Python's standard library.
MACOS = {
    "os": (
        "RWF_NOWAIT", "eventfd", "memfd_create", "MFD_CLOEXEC", "pidfd_open", "splice",
        "sched_getaffinity", "O_DIRECT", "O_PATH", "O_TMPFILE", "posix_fadvise",
    ),
    "errno": ("EREMOTEIO",),
    "mmap": ("MAP_NORESERVE", "MAP_POPULATE", "MADV_DONTFORK"),
    "select": ("epoll",),
    "signal": ("pidfd_send_signal",),
    "socket": ("SO_PEERCRED", "SOCK_CLOEXEC", "SCM_CREDENTIALS"),
}  # fmt: skip
WINDOWS = {
    "os": (
        *MACOS["os"], "O_CLOEXEC", "O_NONBLOCK", "O_DIRECTORY", "O_NOFOLLOW", "O_ASYNC", "pread",
        "preadv", "pwrite", "pwritev", "fork", "register_at_fork", "posix_spawn", "sysconf",
        "uname", "fwalk", "lockf", "F_TLOCK", "geteuid", "getuid", "getpgid", "fchmod", "sendfile",
        "setsid", "fchown", "mkfifo", "WNOHANG", "wait", "waitid", "sched_yield",
    ),
    "errno": MACOS["errno"],
    "mmap": ("MAP_ANONYMOUS", "MAP_PRIVATE", "MAP_SHARED", "PROT_READ", *MACOS["mmap"]),
    "select": ("epoll", "poll"),
    "signal": ("SIGBUS", "SIGKILL", "pidfd_send_signal", "pthread_sigmask", "valid_signals"),
    "socket": ("AF_UNIX", "SOCK_SEQPACKET", "SCM_RIGHTS", *MACOS["socket"]),
}  # fmt: skip
UNIX_MODULES = ("fcntl", "resource", "grp", "pwd", "termios", "syslog", "pty", "_posixshmem")
SYSTEMS = {
    "linux": ({}, UNIX_MODULES),  # a Linux that is a Unix in name only
    "darwin": (MACOS, ()),
    "win32": (WINDOWS, UNIX_MODULES),
}

# What lazyarr is built on is imported first: it has ways of its own with each system, as
# has platform.uname, which starts a program on Windows and keeps what it has found.
ELSEWHERE = """
import asyncio, concurrent.futures, errno, faulthandler, json, mmap, multiprocessing, os, select
import shutil, signal, socket, subprocess, sys, tempfile, threading, warnings
faulthandler.dump_traceback_later(60, exit=True)
import fsspec.asyn, fsspec.implementations.local, google_crc32c, numcodecs.blosc, zstandard
import numpy as np
__import__("platform").uname()
platform, system, url, copy, out = sys.argv[1:]
missing, refused = json.loads(system)
for module, names in missing.items():
    for name in names:
        vars(sys.modules[module]).pop(name, None)
if platform == "win32":
    os.supports_dir_fd, shutil._use_fd_functions = set(), False
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name in refused:
            raise ImportError(f"{platform} has no {name}")
for name in refused:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Refuse())
sys.platform = platform
import lazyarr
data = np.load(copy)
"""


def run_elsewhere(system, program, *arguments):
    """Return how a program ended that has of Python what another system would give it."""
    code = ELSEWHERE + textwrap.dedent(program)
    command = [sys.executable, "-W", "error", "-c", code, system, json.dumps(SYSTEMS[system])]
    return subprocess.run(
        [*command, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


@pytest.mark.parametrize("system", SYSTEMS)
def test_nothing_of_linux_is_needed(system, url, copy, tmp_path):
    """Stores are read, written, verified and described where Python has no more than this."""
    program = """
    x = lazyarr.open(url)
    assert type(x) is lazyarr.CopyArray
    assert (x[[5, 60]] == data[[5, 60]]).all() and (x[3:9].mean() == data[3:9].mean())
    assert "0 of" not in x.info and lazyarr.stats()["units_loaded"] == 4
    lazyarr.save(out, {"g/y": data, "z": x[5:9]}, attributes={"a": 1})
    with lazyarr.open(out) as ds:
        assert (np.asarray(ds["g/y"]) == data).all() and (ds["z"][1] == data[6]).all()
        assert ds.attrs == {"a": 1} and "y" in ds.tree()
    lazyarr.save(out, {"y": data[:5]}, overwrite=True)
    with lazyarr.create(out, overwrite=True) as store:
        store.create_array("log", shape=(0, 3), dtype="f4").append(np.ones((7, 3)))
    assert lazyarr.open(out)["log"].sum() == 21
    assert lazyarr.verify(out, progress=False).ok
    assert lazyarr.config.memory_limit > 0 and lazyarr.config.threads > 0
    mine = lazyarr.open(url, mode="c")
    mine[3] += 1
    assert (mine[3] == data[3] + 1).all()
    try:
        lazyarr.open(out + "-nothing")
    except lazyarr.NodeNotFoundError:
        print("right")
    """
    ended = run_elsewhere(system, program, url, copy, tmp_path / "out.zarr")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "right\n", ""), ended.stderr


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_another_system_copies_by_itself(system, url, copy, tmp_path, monkeypatch):
    """Without a setting there is a warning, once; with the other setting, an error."""
    monkeypatch.delenv("LAZYARR_ENGINE")
    program = """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert (lazyarr.open(url)[5] == data[5]).all() and (lazyarr.open(url)[7] == data[7]).all()
    (warning,) = caught
    assert warning.category is lazyarr.EngineWarning
    assert not lazyarr.doctor().usable and "Linux" in lazyarr.doctor().remedy
    lazyarr.configure(engine="userfaultfd")
    try:
        lazyarr.open(url)[5]
    except lazyarr.KernelUnsupportedError:
        print(warning.message)
    """
    ended = run_elsewhere(system, program, url, copy, tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "ENOSYS" in ended.stdout
    assert "use a Linux kernel" in ended.stdout


def test_it_is_chosen_without_a_word(url, copy):
    """Who sets the engine is not warned, and no pager is started."""
    program = """
    x, data = lazyarr.open(sys.argv[1]), np.load(sys.argv[2])
    assert (x[5] == data[5]).all()
    print("ready", flush=True)
    sys.stdin.read()
    """
    process, mark = start_program(program, url, copy)
    try:
        assert process.stdout.readline() == "ready\n"
        assert pagers(mark) == []
        stdout, stderr = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, stdout, stderr) == (0, "", "")


def test_children_read_right(url, copy):
    """Forked while threads load, before and after the parent has read; and grandchildren."""
    program = """
    x, data = lazyarr.open(sys.argv[1]), np.load(sys.argv[2])
    lazyarr.configure(threads=3)
    def check():
        assert (x[[60, 3, 17]] == data[[60, 3, 17]]).all()
        x.evict()
        assert (np.asarray(x) == data).all() and (lazyarr.open(sys.argv[1])[9] == data[9]).all()
    assert in_child(check) == 0
    stop, wrong = [], []
    def churn(seed):
        rng = np.random.default_rng(seed)
        while not stop:
            rows = rng.integers(0, 64, 8)
            if not (x[rows] == data[rows]).all(): wrong.append(rows)
            x.evict()
    threads = [threading.Thread(target=churn, args=(seed,)) for seed in range(4)]
    [t.start() for t in threads]
    codes = [in_child(check) for _ in range(30)]
    codes.append(in_child(lambda: None if in_child(check) == 0 else 1 / 0))
    stop.append(1); [t.join() for t in threads]
    assert codes == [0] * 31 and not wrong, (codes, wrong)
    """
    ended = run_program(program, url, copy)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_child_that_is_forked_while_a_thread_imports(url, copy):
    """What reading needs is imported by whoever reads first; a child can read all the same."""
    program = """
    import importlib.util
    x, data = lazyarr.open(sys.argv[1]), np.load(sys.argv[2])
    main, importing, forked = threading.get_ident(), threading.Event(), threading.Event()
    def is_waited_for():
        frame = sys._current_frames()[main]
        while frame and frame.f_code.co_name != "finish_imports": frame = frame.f_back
        return frame or forked.is_set()
    class Slow:
        def find_spec(name, path=None, target=None):
            if name == "zstandard":
                sys.meta_path.remove(Slow)
                spec = importlib.util.find_spec(name)
                Slow.create_module, Slow.real = spec.loader.create_module, spec.loader
                spec.loader = Slow
                return spec
        def exec_module(module):
            importing.set()
            while not is_waited_for(): pass
            Slow.real.exec_module(module)
    del sys.modules["zstandard"]  # as if nothing had needed it yet
    sys.meta_path.insert(0, Slow)
    reader = threading.Thread(target=lambda: x[5]); reader.start()
    assert importing.wait(30)
    def check():
        signal.alarm(20)
        assert (x[9] == data[9]).all()
    code = in_child(check)
    forked.set(); reader.join()
    print(code)
    """
    ended = run_program(program, url, copy)
    assert (ended.stdout, ended.stderr) == ("0\n", "")


def test_children_have_what_the_parent_has_read(url, copy):
    """A unit that is kept is not loaded again in a child; what it writes is its own."""
    program = """
    x, data = lazyarr.open(sys.argv[1], mode="c"), np.load(sys.argv[2])
    x.prefetch()
    x[5] = 7
    before = lazyarr.stats()["units_loaded"]
    def check():
        assert (x[5] == 7).all() and (x[9] == data[9]).all()
        x[5] = 8
        assert lazyarr.stats()["units_loaded"] == before
    assert in_child(check) == 0
    assert (x[5] == 7).all()
    """
    ended = run_program(program, url, copy)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("kind", ["http", "s3"])
def test_children_read_remote_stores(request, kind, copy):
    """A child has connections of its own, whatever the parent was fetching."""
    if kind == "http":
        server = request.getfixturevalue("http_server")
        lazyarr.save(f"{server.directory}/x.zarr", DATA, chunks=(4, 32, 128))
        url, options = f"{server.url}/x.zarr", {}
    else:
        server = request.getfixturevalue("s3_server")
        url, options = f"s3://{server.make_bucket()}/x.zarr", server.storage_options
        lazyarr.save(url, DATA, chunks=(4, 32, 128), storage_options=options)
    program = """
    import json
    x = lazyarr.open(sys.argv[1], storage_options=json.loads(sys.argv[3]))
    data = np.load(sys.argv[2])
    def check():
        assert (x[[60, 3, 17]] == data[[60, 3, 17]]).all()
    assert in_child(check) == 0
    check()
    x.evict()
    stop = []
    def churn():
        while not stop: check(); x.evict()
    thread = threading.Thread(target=churn)
    thread.start()
    codes = [in_child(check) for _ in range(5)]
    stop.append(1); thread.join()
    assert codes == [0] * 5, codes
    """
    ended = run_program(program, url, copy, json.dumps(options))
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_get_a_reference(url, copy, method, tmp_path):
    """Pickled arrays are opened by the worker, with the engine that its environment says."""
    script = tmp_path / "main.py"
    script.write_text(
        """
import multiprocessing, sys
import numpy as np, lazyarr
def row(args):
    x, i = args
    return type(x).__name__, x[i]
if __name__ == "__main__":
    x, data = lazyarr.open(sys.argv[1]), np.load(sys.argv[2])
    with multiprocessing.get_context(sys.argv[3]).Pool(2) as pool:
        for i, (name, found) in enumerate(pool.map(row, [(x, i) for i in range(12)])):
            assert name == "CopyArray" and (found == data[i]).all()
    print("right")
"""
    )
    command = [sys.executable, script, url, copy, method]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "right\n", ""), ended.stderr


def test_interrupting_a_read(http_server):
    """Ctrl-C while chunks are awaited raises KeyboardInterrupt, and everything goes on working."""
    lazyarr.save(f"{http_server.directory}/x.zarr", DATA, chunks=(4, 32, 128))
    program = """
    x = lazyarr.open(sys.argv[1])
    print(x[5, 0, 1], flush=True)
    for rows in (slice(8, 9), slice(12, 60)):
        sys.stdin.readline()
        try:
            np.asarray(x[rows])
        except KeyboardInterrupt:
            print("interrupted", flush=True)
    sys.stdin.readline()
    print(x[8, 0, 1], x[44, 0, 1], np.asarray(x)[20, 0, 1])
    """
    process, _ = start_program(program, f"{http_server.url}/x.zarr")
    try:
        assert process.stdout.readline() == f"{DATA[5, 0, 1]}\n"
        http_server.behave(Behaviour(delay_seconds=10), path="/c/")
        for _ in range(2):
            http_server.requests()
            process.stdin.write("\n")
            process.stdin.flush()
            assert wait_until(http_server.requests)
            process.send_signal(signal.SIGINT)
            assert process.stdout.readline() == "interrupted\n"
        http_server.behave(Behaviour())
        stdout, stderr = process.communicate("\n", timeout=60)
    finally:
        process.kill()
        process.wait()
    assert stdout.split() == [str(DATA[i, 0, 1]) for i in (8, 44, 20)]
    assert stderr == ""


def test_the_end_waits_for_nothing(http_server):
    """A process ends at once, whatever its helpers are waiting for."""
    lazyarr.save(f"{http_server.directory}/x.zarr", DATA, chunks=(4, 32, 128))
    program = """
    x = lazyarr.open(sys.argv[1])
    x[5]
    print("ready", flush=True)
    sys.stdin.readline()
    x.prefetch(wait=False)
    sys.stdin.readline()
    """
    process, _ = start_program(program, f"{http_server.url}/x.zarr")
    try:
        assert process.stdout.readline() == "ready\n"
        http_server.requests()
        http_server.behave(Behaviour(delay_seconds=60), path="/c/")
        process.stdin.write("\n")
        process.stdin.flush()
        assert wait_until(http_server.requests)
        stdout, stderr = process.communicate("\n", timeout=20)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, stdout, stderr) == (0, "", "")

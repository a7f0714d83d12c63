"""The engine that copies: with nothing of Linux, in forked children, interrupted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import numpy as np
import pytest

import lazyarr
from lazyarr.testing import Behaviour
from tests.process.running import pagers, run_program, start_program, wait_until
from tests.programs import copying as programs
from tests.programs import elsewhere, pool
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


def run_elsewhere(system, program, *arguments):
    """Return how a program ended that has of Python what another system would give it."""
    module, name, document = program.__module__, program.__qualname__, json.dumps(SYSTEMS[system])
    command = [sys.executable, "-W", "error", "-m", module, name, system, document]
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
    ended = run_elsewhere(
        system, elsewhere.nothing_of_linux_is_needed, url, copy, tmp_path / "out.zarr"
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "right\n", ""), ended.stderr


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_another_system_copies_by_itself(system, url, copy, monkeypatch):
    """Without a setting there is a warning, once; with the other setting, an error."""
    monkeypatch.delenv("LAZYARR_ENGINE")
    ended = run_elsewhere(system, elsewhere.another_system_copies_by_itself, url, copy)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "ENOSYS" in ended.stdout
    assert "use a Linux kernel" in ended.stdout


def test_it_is_chosen_without_a_word(url, copy):
    """Who sets the engine is not warned, and no pager is started."""
    process, mark = start_program(programs.it_is_chosen_without_a_word, url, copy)
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
    ended = run_program(programs.children_read_right, url, copy)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_child_that_is_forked_while_a_thread_imports(url, copy):
    """What reading needs is imported by whoever reads first; a child can read all the same."""
    ended = run_program(programs.a_child_that_is_forked_while_a_thread_imports, url, copy)
    assert (ended.stdout, ended.stderr) == ("0\n", "")


def test_children_have_what_the_parent_has_read(url, copy):
    """A unit that is kept is not loaded again in a child; what it writes is its own."""
    ended = run_program(programs.children_have_what_the_parent_has_read, url, copy)
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
    ended = run_program(programs.children_read_remote_stores, url, copy, json.dumps(options))
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_get_a_reference(url, copy, method):
    """Pickled arrays are opened by the worker, with the engine that its environment says."""
    command = [sys.executable, pool.__file__, url, copy, method]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "CopyArray\n", ""), ended.stderr


def test_interrupting_a_read(http_server):
    """Ctrl-C while chunks are awaited raises KeyboardInterrupt, and everything goes on working."""
    lazyarr.save(f"{http_server.directory}/x.zarr", DATA, chunks=(4, 32, 128))
    process, _ = start_program(programs.interrupting_a_read, f"{http_server.url}/x.zarr")
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
    process, _ = start_program(programs.the_end_waits_for_nothing, f"{http_server.url}/x.zarr")
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

"""Web servers that load a program and fork it then: their workers read right."""

from __future__ import annotations

import http.client
import importlib.metadata
import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tests.process.running import end_program, wait_until
from tests.stores import images, write_zarr

DATA = images()

PROGRAM = Path(__file__).parents[1] / "programs" / "application.py"

UWSGI = ("--wsgi-file", "program.py", "--http-socket", "socket", "--master", "--die-on-term")
GUNICORN = ("program:application", "--bind", "unix:socket")

SERVERS = {
    "uwsgi": ("uwsgi", *UWSGI, "--processes", "2"),
    "uwsgi, osafterfork": ("uwsgi", *UWSGI, "--processes", "2", "--py-call-osafterfork"),
    "uwsgi, hooks": ("uwsgi", *UWSGI, "--processes", "2", "--py-call-uwsgi-fork-hooks"),
    "uwsgi, lazy": ("uwsgi", *UWSGI, "--processes", "2", "--lazy-apps"),
    "uwsgi, threads": ("uwsgi", *UWSGI, "--processes", "2", "--threads", "2"),
    "gunicorn": ("gunicorn", *GUNICORN, "--workers", "2", "--preload"),
    "gunicorn, threads": ("gunicorn", *GUNICORN, "--workers", "2", "--preload", "--threads", "2"),
}


# Python is not told of their forks before they happen.  The memory of arrays is a gap in the
# workers until these find out, and Python's own memory may take its place (seen with 3.13).
PAST_HOOKS = {"uwsgi", "uwsgi, osafterfork", "uwsgi, threads"}


def script_of(name: str) -> str:
    """Return the program that a package has installed."""
    try:
        files = importlib.metadata.files(name) or ()
    except importlib.metadata.PackageNotFoundError:
        if name != "uwsgi":
            raise
        pytest.skip("uWSGI is not installed: it has to be compiled, which takes a C compiler")
    (found,) = {str(f.locate().resolve()) for f in files if f.parts[-2:] == ("bin", name)}
    return found


def listens(path: Path) -> bool:
    """Return whether a server takes what comes at a socket."""
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(str(path)) == 0


def ask(path: Path, row: int) -> str:
    """Return what the server says of a row; it listens at a socket in the file system."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(str(path))
        sock.sendall(b"GET /%d HTTP/1.0\r\n\r\n" % row)
        with closing(http.client.HTTPResponse(sock)) as answer:
            answer.begin()
            return answer.read().decode()


OSAFTERFORK = pytest.mark.skipif(
    sys.version_info >= (3, 13),
    reason="Python 3.13 aborts in PyOS_AfterFork_Child when PyOS_BeforeFork was not called before",
)


@pytest.mark.parametrize(
    "server",
    [
        pytest.param(server, marks=OSAFTERFORK if "osafterfork" in server else ())
        for server in SERVERS
    ],
)
def test_workers_read_right(tmp_path, server):
    """Both of them, what was loaded before they were forked and what was not, and nobody dies.

    Where another mapping has taken the memory's place there is an error that says so.
    """
    write_zarr(tmp_path / "x.zarr", DATA, chunks=(4, 32, 128))
    np.save(tmp_path / "x.npy", DATA)
    shutil.copy(PROGRAM, tmp_path / "program.py")
    name, *arguments = SERVERS[server]
    log = tmp_path / "log"
    paths = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    own = {"PYTHONPATH": paths, "LAZYARR_PYTHON": sys.executable, "LAZYARR_THREADS": "2"}
    with log.open("w") as file:
        process = subprocess.Popen(
            [script_of(name), *arguments],
            cwd=tmp_path,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **own},
        )
    try:
        assert wait_until(lambda: listens(tmp_path / "socket"), 30), log.read_text()
        answers: list[str] = []

        def have_both_answered() -> bool:
            answers.append(ask(tmp_path / "socket", len(answers) % 60))
            return len({answer.split()[1] for answer in answers}) == 2 and len(answers) >= 10

        try:
            assert wait_until(have_both_answered, 60), (answers, log.read_text())
        except http.client.RemoteDisconnected:  # what uWSGI makes of an exception
            assert server in PAST_HOOKS, log.read_text()
            assert "another mapping may have taken" in log.read_text(), log.read_text()
            return
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    finally:
        end_program(process)
    assert {answer.split()[0] for answer in answers} == {"1"}, log.read_text()
    assert len({answer.split()[1] for answer in answers}) == 2, log.read_text()

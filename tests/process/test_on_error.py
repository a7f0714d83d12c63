"""on_error="raise": an exception in the main thread, and zeros for nobody else."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time

import nbclient
import nbformat
import numpy as np
import pytest

from lazyarr.testing import Behaviour
from tests.process.running import (
    end_program,
    ended_by,
    pagers,
    run_program,
    start_program,
    wait_until,
)
from tests.process.test_rights import AS_NOBODY
from tests.programs import on_error as programs
from tests.stores import images, write_zarr

DATA = images()
DAMAGED = (3, 4, 7)


@pytest.fixture
def damaged(tmp_path):
    """A store with three chunks cut short, and what repairs them."""
    for parent in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        parent.chmod(0o755)
    url = write_zarr(tmp_path / "x.zarr", DATA, chunks=(4, 32, 128))
    np.save(tmp_path / "x.npy", DATA)
    for i in DAMAGED:
        chunk = tmp_path / f"x.zarr/c/{i}/0/0"
        (tmp_path / f"{i}.whole").write_bytes(chunk.read_bytes())
        chunk.write_bytes(chunk.read_bytes()[:-7])
    return url, tmp_path / "x.npy", tmp_path


@pytest.mark.parametrize("touch", programs.TOUCHES)
def test_touching_what_cannot_be_had_raises(damaged, touch):
    """Again and again, with all that ChunkError says; the rest, and later all, can be read."""
    url, copy, directory = damaged
    process, _ = start_program(
        programs.touching_what_cannot_be_had_raises, url, copy, touch, " ".join(map(str, DAMAGED))
    )
    try:
        assert process.stdout.readline() == "repair\n", process.communicate(timeout=20)
        for i in DAMAGED:
            chunk = directory / f"x.zarr/c/{i}/0/0"
            chunk.write_bytes((directory / f"{i}.whole").read_bytes())
        stdout, stderr = process.communicate("go\n", timeout=30)
    finally:
        end_program(process)
    assert (stdout, stderr, process.returncode) == ("", "", 0)


@pytest.mark.parametrize("touch", programs.REFUSALS)
def test_where_zeros_could_be_taken_for_data_there_is_sigbus(damaged, touch):
    """Also where it could not be made sure that an exception comes."""
    url, copy, _ = damaged
    ended = run_program(
        programs.where_zeros_could_be_taken_for_data_there_is_sigbus, url, copy, touch
    )
    assert (ended_by(ended), ended.stdout) == ("SIGBUS", ""), ended.stderr
    assert "(3, 0, 0)" in ended.stderr
    assert "Bus error" in ended.stderr


def test_nobody_else_sees_zeros(damaged):
    """Threads and a child look at the page all the time, by system calls that do not wait."""
    url, copy, _ = damaged
    wrapper = AS_NOBODY if os.geteuid() == 0 else ()
    ended = run_program(programs.nobody_else_sees_zeros, url, copy, wrapper=wrapper)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "0\n", "")


def test_workers_die_meanwhile(damaged):
    """Whatever a worker is doing when it is killed, there is an exception or a loud death."""
    url, copy, _ = damaged
    ends = []
    for seed in range(6):
        process, mark = start_program(programs.workers_die_meanwhile, url, copy)
        rng = random.Random(seed)
        try:
            assert process.stdout.readline() == "ready\n"
            deadline = time.monotonic() + 3
            while process.poll() is None and time.monotonic() < deadline:
                time.sleep(rng.random() * 0.2)
                # Worker or sentinel: those that are children of the supervisor.
                family = pagers(mark)
                below = [pid for pid in family if _parent(pid) in family]
                if below:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(rng.choice(below), signal.SIGKILL)
        finally:
            process.kill()
            stdout, _ = process.communicate(timeout=20)
        assert "no error" not in stdout
        ends.append(process.returncode)
    assert {-signal.SIGBUS, -signal.SIGKILL} >= set(ends), ends


def _parent(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().split()[3])
    except OSError:
        return 0


# CPython 3.13 and later look late for signals in children that other threads have forked.
FORKED_BY_THREADS = (0,) if sys.version_info < (3, 13) else (0, -signal.SIGBUS)


def test_children_raise_too(damaged):
    """A forked child has a main thread of its own; where that could not raise, it dies."""
    url, copy, _ = damaged
    ended = run_program(programs.children_raise_too, url, copy)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) in FORKED_BY_THREADS
    assert ended.stdout != "0\n" or not ended.stderr


def test_it_is_set_in_the_main_thread(damaged):
    """Elsewhere it is refused; what another thread has begun, the main one takes over."""
    url, _, _ = damaged
    ended = run_program(programs.it_is_set_in_the_main_thread, url)
    message = "on_error='raise' is for the main thread, and is to be set there"
    assert (ended.returncode, ended.stdout) == (0, f"{message}\n(3, 0, 0)\n"), ended.stderr


def test_a_store_that_stalls(http_server, tmp_path):
    """The wait of one call is bounded, however many chunks it touches; Ctrl-C comes with it."""
    write_zarr(tmp_path / "http/x.zarr", DATA, chunks=(4, 32, 128))
    process, _ = start_program(programs.a_store_that_stalls, f"{http_server.url}/x.zarr")
    try:
        assert process.stdout.readline() == "ready\n", process.communicate()
        http_server.requests()
        http_server.behave(Behaviour(delay_seconds=30))
        process.stdin.write("go\n")
        process.stdin.flush()
        assert wait_until(http_server.requests)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        end_program(process)
    lines = stdout.splitlines()
    assert len(lines) > 1, stderr
    assert set(lines[:-1]) <= {"interrupted", "ChunkError (1, 0, 0)"}
    assert float(lines[-1]) < 20
    assert process.returncode == 0


INTERACTIVE = {
    "python -i": [sys.executable, "-i", "-q"],
    "ipython": [sys.executable, "-m", "IPython", "--simple-prompt", "--no-banner", "--quick"],
}


@pytest.mark.parametrize("command", INTERACTIVE.values(), ids=INTERACTIVE.keys())
def test_interactive_sessions_live_on(damaged, tmp_path, command):
    """At a prompt a touch of a damaged chunk is a traceback, and the next line works."""
    url, _, _ = damaged
    session = f"""
import numpy as np, lazyarr
print(lazyarr.config.on_error)
raw = np.asarray(lazyarr.open({str(url)!r}))
raw.sum()
print("row", int(raw[40].sum()))
raw[13].sum()
print("row", int(raw[41].sum()))
"""
    ended = subprocess.run(
        command,
        input=session,
        capture_output=True,
        text=True,
        timeout=90,
        env={**os.environ, "IPYTHONDIR": str(tmp_path), "HOME": str(tmp_path)},
    )
    output = ended.stdout + ended.stderr
    assert ended.returncode == 0, output
    assert output.count("ChunkError") >= 2, output
    for row in (40, 41):
        assert f"row {int(DATA[row].sum())}" in output, output
    assert "raise" in ended.stdout


def test_scripts_are_not_interactive(damaged):
    """Without a prompt the default is SIGBUS."""
    url, _, _ = damaged
    ended = run_program(programs.scripts_are_not_interactive, url)
    assert (ended_by(ended), ended.stdout) == ("SIGBUS", "sigbus\n")


def test_notebooks_live_on(damaged, tmp_path):
    """In Jupyter a touch of a damaged chunk fails its cell, and the kernel lives."""
    url, _, _ = damaged
    cells = [
        f"import numpy as np, lazyarr; raw = np.asarray(lazyarr.open({str(url)!r}))",
        "raw.sum()",
        "print(lazyarr.config.on_error, int(raw[40].sum()))",
        "raw[13]",
        "print(int(raw[41].sum()))",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    client = nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3", allow_errors=True)
    client.execute(env={**os.environ, "IPYTHONDIR": str(tmp_path)})
    outputs = [cell.outputs for cell in notebook.cells]
    assert [o[0].get("ename") for o in outputs[1:]] == ["ChunkError", None, "ChunkError", None]
    # What is printed may come in several pieces.
    said = ["".join(output["text"] for output in outputs[number]) for number in (2, 4)]
    assert said == [f"raise {int(DATA[40].sum())}\n", f"{int(DATA[41].sum())}\n"]

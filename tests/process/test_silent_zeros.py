"""Each way to read zeros in place of data that is known, shown to be closed.

The numbers are those of the section "Silent zeros" in ARCHITECTURE.md.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import numpy as np
import pytest

import lazyarr
from tests.process.running import (
    end_program,
    ended_by,
    family,
    pagers,
    run_program,
    start_program,
    stop,
    wait_until,
)
from tests.programs import silent_zeros as programs
from tests.stores import images, write_zarr

DATA = images()


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    return write_zarr(tmp_path_factory.mktemp("zeros") / "x.zarr", DATA, chunks=(4, 32, 128))


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    path = tmp_path_factory.mktemp("zeros") / "x.npy"
    np.save(path, DATA)
    return path


@pytest.mark.parametrize("survivors", [0, 1])
def test_1_the_pager_dies_while_a_thread_waits(url, survivors):
    """1: A client whose pager is killed during its fault dies of SIGBUS, and reads nothing.

    Also when the process that is there for that is killed with it.
    """
    process, mark = start_program(programs.the_pager_dies_while_a_thread_waits, url)
    try:
        assert process.stdout.readline() == f"{DATA[0, 0, 1]}\n"
        worker = int(process.stdout.readline())
        supervisor, sentinel = family(mark, worker)
        stop(supervisor, worker)
        process.stdin.write("go\n")
        process.stdin.flush()
        assert wait_until(lambda: "userfault" in Path(f"/proc/{process.pid}/wchan").read_text())
        for pid in (supervisor, worker, sentinel)[: 3 - survivors]:
            os.kill(pid, signal.SIGKILL)
        stdout, stderr = process.communicate(timeout=20)
    finally:
        end_program(process)
    assert stdout == ""
    assert process.returncode == -signal.SIGBUS
    assert "Fatal Python error: Bus error" in stderr
    assert wait_until(lambda: not pagers(mark))


def test_1_the_client_keeps_its_own_descriptor(url):
    """1: The client holds a userfaultfd as long as it holds lazy memory."""
    x = lazyarr.open(url)
    targets = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # another thread has closed it meanwhile
            targets.append(os.readlink(entry))
    assert any("userfaultfd" in target for target in targets)
    assert x[3, 4, 5] == DATA[3, 4, 5]


def test_2_a_child_of_os_fork_reads_the_data(url, copy):
    """2: Forked children and grandchildren read right, before and after the parent's touches."""
    ended = run_program(programs.a_child_of_os_fork_reads_the_data, url, copy)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_2_a_child_forked_behind_pythons_back_dies(url):
    """2: A child that C code forked has no mapping: SIGSEGV, not zeros."""
    ended = run_program(programs.a_child_forked_behind_pythons_back_dies, url)
    assert (ended.returncode, ended.stdout) == (0, "-11\n")


def test_2_private_memory_in_children(url, copy):
    """2: A child inherits what was written in mode c, and reads the rest from the store."""
    ended = run_program(programs.private_memory_in_children, url, copy)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_3_a_child_acts_on_its_own_memory(url, copy):
    """3: What a child brings in does not land in the parent, nor the other way round."""
    ended = run_program(programs.a_child_acts_on_its_own_memory, url, copy)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_4_numpy_does_not_move_the_memory(url):
    """4: Nothing that an array offers calls mremap on its memory."""
    for mode in ("r", "c"):
        x = lazyarr.open(url, mode=mode)
        for array in (x, np.asarray(x)):
            with pytest.raises(ValueError, match=r"resize|own"):
                array.resize((1, 1))


def test_5_a_stray_mapping_that_touches_a_hole(url, copy):
    """5: Pages that another mapping has allocated as zeros are not taken for data."""
    ended = run_program(programs.a_stray_mapping_that_touches_a_hole, url, copy)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_6_huge_shared_pages(url, copy):
    """6: Where shared memory comes in huge pages, the data is right all the same."""
    setting = Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled")
    if os.geteuid() or not setting.exists():
        pytest.skip("changing shmem_enabled needs root and transparent huge pages")
    before = setting.read_text().split("[")[1].split("]")[0]
    setting.write_text("force")
    try:
        ended = run_program(programs.huge_shared_pages, url, copy)
    finally:
        setting.write_text(before)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_7_memory_is_registered_before_it_can_be_touched(url, copy):
    """7: A raw touch right after opening, from many threads, reads the data."""
    ended = run_program(programs.memory_is_registered_before_it_can_be_touched, url, copy)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("damage", ["truncated", "empty", "zeros", "wrong length"])
def test_8_damaged_chunks_give_errors(tmp_path, damage):
    """8: A chunk of the wrong length or content is an error if asked for, SIGBUS if touched."""
    url = write_zarr(tmp_path / "x.zarr", DATA, chunks=(4, 32, 128))
    chunk = tmp_path / "x.zarr/c/3/0/0"
    stored = chunk.read_bytes()
    other = (tmp_path / "x.zarr/c/4/0/0").read_bytes()
    damaged = {"truncated": stored[:-7], "empty": b"", "zeros": bytes(len(stored))}
    chunk.write_bytes(damaged.get(damage, other + other))
    x = lazyarr.open(url)
    with pytest.raises(lazyarr.ChunkError) as raised:
        x[13]
    assert (raised.value.chunk, raised.value.key) == ((3, 0, 0), "c/3/0/0")
    assert np.array_equal(x[17], DATA[17])
    ended = run_program(programs.damaged_chunks_give_errors, url)
    assert (ended_by(ended), ended.stdout) == ("SIGBUS", "")
    assert "chunk (3, 0, 0)" in ended.stderr
    assert "Fatal Python error: Bus error" in ended.stderr
    chunk.write_bytes(stored)
    assert np.array_equal(x[13], DATA[13])

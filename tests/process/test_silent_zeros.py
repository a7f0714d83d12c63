"""Each way to read zeros in place of data that is known, shown to be closed.

The numbers are those of the section "Silent zeros" in ARCHITECTURE.md.
"""

from __future__ import annotations

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
    program = """
    x = np.asarray(lazyarr.open(sys.argv[1]))
    print(x[0, 0, 1], flush=True)
    print(lazyarr.stats()["pid"], flush=True)
    sys.stdin.readline()
    print("read", x[40, 0, 1], flush=True)
    """
    process, mark = start_program(program, url)
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
    assert wait_until(lambda: not pagers(mark), 1.0)


def test_1_the_client_keeps_its_own_descriptor(url):
    """1: The client holds a userfaultfd as long as it holds lazy memory."""
    x = lazyarr.open(url)
    targets = [
        os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()
    ]
    assert any("userfaultfd" in target for target in targets)
    assert x[3, 4, 5] == DATA[3, 4, 5]


def test_2_a_child_of_os_fork_reads_the_data(url, copy):
    """2: Forked children and grandchildren read right, before and after the parent's touches."""
    program = """
    x, data = lazyarr.open(sys.argv[1]), np.load(sys.argv[2])
    raw = np.asarray(x)
    assert (raw[:8] == data[:8]).all()
    def child():
        assert read_all(x[4:40]) == data[4:40].tobytes()
        assert in_child(lambda: None if read_all(x) == data.tobytes() else sys.exit(3)) == 0
    assert in_child(child) == 0
    assert read_all(x) == data.tobytes()
    assert in_child(child) == 0
    assert settled()["units_loaded"] == 16, lazyarr.stats()
    """
    ended = run_program(program, url, copy)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_2_a_child_forked_behind_pythons_back_dies(url):
    """2: A child that C code forked has no mapping: SIGSEGV, not zeros."""
    program = """
    x = np.asarray(lazyarr.open(sys.argv[1]))
    address = x.ctypes.data
    assert x[0, 0, 1]
    pid = ctypes.CDLL(None).fork()
    if pid == 0:
        faulthandler.disable()
        os._exit(ctypes.c_uint8.from_address(address + 9000).value and 1)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """
    ended = run_program(program, url)
    assert (ended.returncode, ended.stdout) == (0, "-11\n")


def test_2_private_memory_in_children(url, copy):
    """2: A child inherits what was written in mode c, and reads the rest from the store."""
    program = """
    x, data = lazyarr.open(sys.argv[1], mode="c"), np.load(sys.argv[2])
    x[3] = data[3] = 7
    x[9, 2:5] = data[9, 2:5] = 8
    def child():
        assert read_all(x) == data.tobytes()
        x[20] = 1
    assert in_child(child) == 0
    assert read_all(x) == data.tobytes()
    assert in_child(child) == 0
    """
    ended = run_program(program, url, copy)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_3_a_child_acts_on_its_own_memory(url, copy):
    """3: What a child brings in does not land in the parent, nor the other way round."""
    program = """
    x, data = lazyarr.open(sys.argv[1], mode="c"), np.load(sys.argv[2])
    raw = np.asarray(x)
    def child():
        raw[:] = 9
        assert (raw == 9).all()
    assert in_child(child) == 0
    assert read_all(x) == data.tobytes()
    """
    ended = run_program(program, url, copy)
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
    program = """
    import mmap
    x, data = lazyarr.open(sys.argv[1]), np.load(sys.argv[2])
    (name,) = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")
               if os.path.islink(f"/proc/self/fd/{fd}")
               and os.readlink(f"/proc/self/fd/{fd}").startswith("/memfd:lazyarr ")]
    with open(name, "r+b") as file, mmap.mmap(file.fileno(), x.nbytes) as stray:
        assert not any(stray[::4096])
        assert read_all(x) == data.tobytes()
        assert stray[:] == data.tobytes()
    """
    ended = run_program(program, url, copy)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_6_huge_shared_pages(url, copy):
    """6: Where shared memory comes in huge pages, the data is right all the same."""
    setting = Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled")
    if os.geteuid() or not setting.exists():
        pytest.skip("changing shmem_enabled needs root and transparent huge pages")
    before = setting.read_text().split("[")[1].split("]")[0]
    program = """
    x, data = lazyarr.open(sys.argv[1]), np.load(sys.argv[2])
    assert (x[17] == data[17]).all()
    assert read_all(x) == data.tobytes()
    x.evict()
    assert (x[[60, 2, 33]] == data[[60, 2, 33]]).all()
    assert read_all(x) == data.tobytes()
    """
    setting.write_text("force")
    try:
        ended = run_program(program, url, copy)
    finally:
        setting.write_text(before)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_7_memory_is_registered_before_it_can_be_touched(url, copy):
    """7: A raw touch right after opening, from many threads, reads the data."""
    program = """
    data, wrong = np.load(sys.argv[2]), []
    def read(seed):
        for i in range(10):
            raw = np.asarray(lazyarr.open(sys.argv[1]))
            if raw[seed * 4 + 1, 3, 5] != data[seed * 4 + 1, 3, 5]: wrong.append(seed)
    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
    [t.start() for t in threads]; [t.join() for t in threads]
    assert not wrong
    """
    ended = run_program(program, url, copy)
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
    program = "print(int(np.asarray(lazyarr.open(sys.argv[1]))[13, 0, 0]))"
    ended = run_program(program, url)
    assert (ended_by(ended), ended.stdout) == ("SIGBUS", "")
    assert "chunk (3, 0, 0)" in ended.stderr
    assert "Fatal Python error: Bus error" in ended.stderr
    chunk.write_bytes(stored)
    assert np.array_equal(x[13], DATA[13])

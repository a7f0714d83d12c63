"""Programs of tests/process/test_rights.py."""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import pickle
import socket
import struct
import sys
import tempfile
import warnings

import numpy as np

import lazyarr
from lazyarr.kernel import current_identity
from tests.programs.support import (
    in_child,
    read_all,
    settled,
)


def refuse_userfaultfd():
    """Have the kernel refuse the call from here on (seccomp(2))."""
    number = {"x86_64": 323, "aarch64": 282}[os.uname().machine]
    # load the call's number; equal: return EPERM; else allow (seccomp(2), BPF).
    code = b"".join(
        struct.pack("HBBI", *op)
        for op in [
            (0x20, 0, 0, 0),
            (0x15, 0, 1, number),
            (0x06, 0, 0, 0x00050001),
            (0x06, 0, 0, 0x7FFF0000),
        ]
    )
    buffer = ctypes.create_string_buffer(code)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    program = struct.pack("HxxxxxxP", 4, ctypes.addressof(buffer))
    assert libc.prctl(22, 2, ctypes.create_string_buffer(program)) == 0, ctypes.get_errno()


def system_calls_find_what_others_have_brought(url, copy, brought):
    x, data = lazyarr.open(url), np.load(copy)
    assert not lazyarr.doctor().full_rights

    def bring():
        x.evict()
        if brought == "another process":
            assert in_child(lambda: None if read_all(x) == data.tobytes() else sys.exit(1)) == 0
        else:
            for row in range(20):
                assert int(np.asarray(x)[row, 1, 2]) == data[row, 1, 2]
        settled()

    def write(write):
        bring()
        with tempfile.TemporaryFile(buffering=0) as file:
            write(file)
            file.seek(0)
            return file.read()

    def write_prefetched(file):
        x.prefetch()
        os.write(file.fileno(), np.asarray(x))

    assert write(x.tofile) == data.tobytes()
    assert write(lambda file: np.save(file, x))[128:] == data.tobytes()
    assert write(write_prefetched) == data.tobytes()
    if sys.version_info >= (3, 12):
        assert write(lambda file: os.write(file.fileno(), x)) == data.tobytes()


def system_calls_write_to_memory():
    """What they cannot write to is an error, or they say how far they have come."""
    data = np.arange(64 * 4096).reshape(64, 4096)
    with tempfile.TemporaryDirectory() as place:
        data.tofile(f"{place}/new")
        lazyarr.save(f"{place}/x.zarr", np.zeros_like(data), chunks=(4, 4096), shards=None)
        for n_ready, read in itertools.product((0, 5, 16), (_read_buffered, _read_raw, _read_at)):
            for is_whole in (False, True):
                _write_by(read, place, data, n_ready, is_whole=is_whole)
        x = lazyarr.open(f"{place}/x.zarr", "r+")
        with open(f"{place}/new", "rb") as file:
            x[8:60] = np.fromfile(file, x.dtype, x[8:60].size).reshape(x[8:60].shape)
        assert (x[8:60] == data[:52]).all()
        x.flush()
        del x
        lazyarr.shutdown()


def _read_buffered(path, memory):
    with open(path, "rb") as file:
        return file.readinto(memory)


def _read_raw(path, memory):
    with open(path, "rb", buffering=0) as file:
        return file.readinto(memory)


def _read_at(path, memory):
    with open(path, "rb") as file:
        return os.preadv(file.fileno(), [memory], 0)


def _write_by(read, place, data, n_ready, *, is_whole):
    """Have a system call write to an array of which some chunks can be written to."""
    x = lazyarr.open(f"{place}/x.zarr", "r+")
    assert not lazyarr.doctor().full_rights
    x[...] = 0
    x.flush()
    x.prefetch()
    x[: 4 * n_ready] = 1
    n_written = 0
    try:
        n_written = read(f"{place}/new", x if is_whole else np.asarray(x))
    except OSError as error:
        assert error.errno == errno.EFAULT
    n = n_written // x.itemsize
    assert (np.asarray(x).reshape(-1)[:n] == data.reshape(-1)[:n]).all()
    if n_ready == 16 or (is_whole and sys.version_info >= (3, 12)):
        assert n_written == x.nbytes
    else:
        assert n_written <= n_ready * x.nbytes // 16


def a_user_without_rights_reads_everything(url, copy):
    assert os.geteuid() == 65534
    x, data = lazyarr.open(url), np.load(copy)
    assert not lazyarr.doctor().full_rights
    assert (x[[5, 60]] == data[[5, 60]]).all()
    assert int(np.asarray(x)[30, 1, 2]) == data[30, 1, 2]
    assert in_child(lambda: None if read_all(x) == data.tobytes() else sys.exit(1)) == 0
    x.evict()
    with tempfile.TemporaryFile() as file:
        x.tofile(file)
        np.save(file, x)
        assert file.tell() == 2 * x.nbytes + 128
    x.evict()
    if sys.version_info < (3, 12):
        x.prefetch(slice(9, 12))  # nobody asks an array of Python 3.11 before it is sent
    here, there = socket.socketpair()
    with here, there:
        here.sendall(x[9:12])
        received = there.recv(x[9:12].nbytes, socket.MSG_WAITALL)
    assert received == data[9:12].tobytes()
    x.evict()
    with tempfile.TemporaryFile(buffering=0) as file:
        try:
            os.write(file.fileno(), np.asarray(x)[9:12])
        except OSError as error:
            print(error.errno)


def a_kernel_that_refuses_is_explained(url):
    refuse_userfaultfd()
    lazyarr.configure(engine="userfaultfd")
    try:
        lazyarr.open(url)
    except lazyarr.KernelUnsupportedError as error:
        assert error.remedy and error.missing, vars(error)
        print(error)


def where_the_kernel_refuses_arrays_copy(url, copy):
    refuse_userfaultfd()
    data = np.load(copy)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        x = lazyarr.open(url)
        y = lazyarr.open(url)
        z = pickle.loads(pickle.dumps(x[3:9]))
    assert [type(a) for a in (x, y, z)] == [lazyarr.CopyArray] * 3
    (warning,) = caught
    assert warning.category is lazyarr.EngineWarning
    assert warning.filename == __file__, warning
    assert (x[[5, 60]] == data[[5, 60]]).all() and (z[2] == data[5]).all()
    assert (np.asarray(y) == data).all()
    assert in_child(lambda: None if (lazyarr.open(url)[7] == data[7]).all() else 1 / 0) == 0
    assert lazyarr.stats()["units_loaded"] > 0
    assert not lazyarr.doctor().usable
    try:
        print(os.wait())
    except ChildProcessError:
        print("no children")
    print(warning.message)


BECOMING = {
    "setuid": lambda: os.setuid(65534),
    "seteuid": lambda: os.seteuid(65534),
    "setegid": lambda: os.setegid(65534),
    "setgroups": lambda: os.setgroups([65534]),
}


def a_process_that_has_become_somebody_else_is_told(url, copy, way):
    x, data = lazyarr.open(url), np.load(copy)
    assert (x[5] == data[5]).all()
    old = lazyarr.stats()["pid"]
    BECOMING[way]()
    for ask in (lambda: x[40], lambda: x[[40, 50]], lambda: x[40:50].sum(), x.prefetch):
        try:
            ask()
            raise SystemExit("nothing was said")
        except lazyarr.PagerError as error:
            assert "opened as another user" in str(error)
    assert (x[5] == data[5]).all()
    assert (np.asarray(x)[60] == data[60]).all()
    y = lazyarr.open(url)
    assert (y[40] == data[40]).all()
    new = lazyarr.stats()["pid"]
    assert new != old
    assert in_child(lambda: None if (y[44] == data[44]).all() else sys.exit(1)) == 0
    with open(f"/proc/{new}/status") as file:
        status = dict(line.split(":", 1) for line in file)
    found = int(status["Uid"].split()[3]), int(status["Gid"].split()[3])
    assert found == current_identity()[:2], (found, current_identity())
    assert tuple(map(int, status["Groups"].split())) == tuple(os.getgroups())


def who_becomes_the_same_again_reads_on(url, copy):
    x, data = lazyarr.open(url), np.load(copy)
    assert (x[5] == data[5]).all()
    os.seteuid(65534)

    def told():
        try:
            x[40]
        except lazyarr.PagerError as error:
            return "opened as another user" in str(error)
        return False

    assert told()
    assert in_child(lambda: None if told() else sys.exit(1)) == 0
    os.seteuid(0)
    assert (x[40] == data[40]).all()


def a_user_that_the_pager_would_not_become_is_refused(url, copy):
    x, data = lazyarr.open(url), np.load(copy)
    assert (x[5] == data[5]).all()
    set_user = ctypes.CDLL(None).setfsuid
    set_user(65534)
    for ask in (lambda: x[40], lambda: lazyarr.open(url)):
        try:
            ask()
            raise SystemExit("nothing was said")
        except lazyarr.PagerError as error:
            print(str(error).split(":")[0])
    set_user(0)
    assert (lazyarr.open(url)[50] == data[50]).all()

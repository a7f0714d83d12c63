"""Memory that has not been read yet, handed to code that knows nothing of lazyarr."""

from __future__ import annotations

import ctypes
import os
import threading

import numba
import numpy as np
import pytest

import lazyarr
from tests.stores import images, write_zarr

DATA = images()


@pytest.fixture
def raw(tmp_path):
    url = write_zarr(tmp_path / "x.zarr", DATA, chunks=(4, 32, 128))
    return np.asarray(lazyarr.open(url))


def test_c_compares_it(raw):
    """The C function memcmp finds the bytes that were stored."""
    libc = ctypes.CDLL(None)
    size = ctypes.c_size_t(DATA.nbytes)
    assert (
        libc.memcmp(ctypes.c_void_p(raw.ctypes.data), DATA.ctypes.data_as(ctypes.c_void_p), size)
        == 0
    )


def test_numba_sums_it_in_parallel(raw):
    """Compiled code that runs on several threads without the GIL reads it right."""

    @numba.njit(parallel=True)
    def total(array):
        found = 0
        for i in numba.prange(array.shape[0]):
            for j in range(array.shape[1]):
                for k in range(array.shape[2]):
                    found += array[i, j, k]
        return found

    assert total(raw) == DATA.sum(dtype=np.int64)


def test_threads_share_it(raw):
    """Several threads that touch the same pages for the first time all read the data."""
    barrier, wrong = threading.Barrier(4), []

    def compare():
        barrier.wait()
        if raw.tobytes() != DATA.tobytes():
            wrong.append(threading.get_ident())

    threads = [threading.Thread(target=compare) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_kernel_reads_it(raw, tmp_path):
    """With full rights, a system call may be handed memory that is not there yet."""
    if not lazyarr.doctor().full_rights:
        pytest.skip("only users with full rights have faults of the kernel served")
    with open(tmp_path / "out", "wb", buffering=0) as file:
        assert os.write(file.fileno(), raw) == DATA.nbytes
    assert (tmp_path / "out").read_bytes() == DATA.tobytes()

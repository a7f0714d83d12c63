"""Kernels on which arrays can be read and not written to, played where the calls are made."""

from __future__ import annotations

import numpy as np
import pytest

from lazyarr.kernel import probe
from tests.process.running import run_program
from tests.programs import older_kernels as programs
from tests.stores import images, write_zarr


@pytest.mark.parametrize(
    ("release", "missing"),
    [("5.15", "WP_HUGETLBFS_SHMEM, CONTINUE_MODE_WP"), ("6.1", "CONTINUE_MODE_WP")],
)
def test_what_writing_needs_is_probed_for_and_reading_does_without(tmp_path, release, missing):
    """The reason is named with what to do; clients and their children have one userfaultfd."""
    data = images()
    np.save(tmp_path / "x.npy", data)
    url = write_zarr(tmp_path / "x.zarr", data, chunks=(4, 32, 128))
    ended = run_program(programs.reads_and_cannot_write, url, tmp_path / "x.npy", release)
    assert (ended.returncode, ended.stderr) == (0, "")
    refused, row = ended.stdout.splitlines()
    remedy = "use Linux 6.4 or newer, or pass engine='copy'"
    found = f"cannot write to arrays in memory: this kernel's userfaultfd lacks {missing}"
    assert refused == f"{missing} | {remedy} | {found}; {remedy}"
    assert row.split(maxsplit=1) == ["write_back", "no: arrays can be written to (mode 'r+')"]


@pytest.mark.skipif(not probe().write_back, reason="this kernel lacks what writing needs")
def test_each_process_has_a_userfaultfd_for_what_is_written_back(tmp_path):
    """Also forked children and theirs, and processes that join; the pager holds all of them."""
    data = images()
    np.save(tmp_path / "x.npy", data)
    url = write_zarr(tmp_path / "x.zarr", data, chunks=(4, 32, 128))
    ended = run_program(programs.each_process_has_two, url, tmp_path / "x.npy")
    assert (ended.returncode, ended.stderr) == (0, "")

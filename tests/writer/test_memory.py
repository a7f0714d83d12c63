"""Saving takes as much memory as `create` says, however large the array is."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from tests.process.running import command_of
from tests.programs import writer_memory as programs

# The promise: 128 MiB in work, 128 MiB on their way, 128 MiB that wait.  The rest is
# for the allocator, which gives threads pools of their own.
PROMISED_NBYTES = (3 * 128 + 64) * 2**20


@pytest.fixture
def path(tmp_path):
    """A place for gigabytes that are not kept."""
    yield str(tmp_path / "x")
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("way", programs.WAYS)
def test_memory_is_bounded(path, way):
    """Two thirds of a gigabyte or more go through a fraction of that."""
    command = command_of(programs.memory_is_bounded, path, PROMISED_NBYTES, way)
    result = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=240, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]


def test_the_limit_is_one(path):
    """A program that has all of it in memory does not pass."""
    command = command_of(programs.the_limit_is_one, path, PROMISED_NBYTES)
    result = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=240, check=False
    )
    assert "MemoryError" in result.stderr

"""ENOMEM: an operation that finds no memory left, provoked in a memory cgroup of a few MiB."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.programs import kernel as programs

MEMORY_CGROUP = Path("/sys/fs/cgroup/memory")


@pytest.fixture
def full_cgroup():
    """A memory cgroup of a few MiB that refuses memory rather than kill."""
    control = MEMORY_CGROUP / "memory.oom_control"
    if os.geteuid() != 0 or not control.exists():
        pytest.skip("needs root, and memory cgroups of version 1, which can refuse without killing")
    group = MEMORY_CGROUP / f"lazyarr-test-{os.getpid()}"
    group.mkdir()
    (group / "memory.limit_in_bytes").write_text(str(6 << 20))
    (group / "memory.oom_control").write_text("1")
    yield group
    group.rmdir()


@pytest.mark.parametrize("operation", ["copy", "zeropage", "continue_", "poison"])
def test_no_memory_is_an_outcome(full_cgroup, run_python, operation):
    """A pager can make room and try again, where the client's cgroup is full."""
    ended = run_python(programs.no_memory_is_an_outcome, str(full_cgroup), operation)
    assert (ended.stdout, ended.stderr) == ("no memory 0\n", "")

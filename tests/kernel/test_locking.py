"""Locks on directories: who has one, and when it ends."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lazyarr.kernel import lock_holder, try_lock
from tests.process.running import command_of
from tests.programs import kernel as programs


@pytest.fixture
def directory(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def test_lock_of_another_process_names_it_and_ends_with_it(tmp_path, directory):
    """Killed without warning, it has the lock no more."""
    command = [sys.executable, *command_of(programs.holds_a_lock, tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"locked\n"
        assert not try_lock(directory)
        assert lock_holder(directory) == holder.pid
        holder.kill()
    assert lock_holder(directory) is None
    assert try_lock(directory)


def test_second_opening_in_one_process_is_refused(tmp_path, directory):
    """A lock belongs to the open file, not to the process; closing ends it."""
    other = os.open(tmp_path, os.O_RDONLY)
    assert try_lock(other)
    assert not try_lock(directory)
    assert lock_holder(directory) == os.getpid()
    os.close(other)
    assert try_lock(directory)


def test_what_can_not_be_locked_counts_as_free():
    """As on file systems without locks: there is nobody to be told from."""
    fd = os.open("/proc/self", os.O_PATH)
    try:
        assert try_lock(fd)
        assert lock_holder(fd) is None
    finally:
        os.close(fd)

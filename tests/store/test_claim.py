"""Claims that one process takes and others hold."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lazyarr.errors import StoreError
from lazyarr.store import open_store
from lazyarr.store.claim import Claim
from tests.process.running import command_of
from tests.programs import commits


@pytest.fixture
def root(tmp_path):
    open_store(tmp_path / "s", writable=True).write("zarr.json", b"{}")
    return tmp_path / "s"


def claim(root):
    return open_store(root, writable=True).claim()


def test_claim_ends_with_the_last_that_was_handed_it(root):
    """Whoever closes first."""
    first = claim(root)
    second = Claim.received(os.dup(first.fileno()), str(root))
    assert second.identity == first.identity
    first.close()
    with pytest.raises(StoreError, match="this process has a writer"):
        claim(root)
    second.close()
    claim(root).close()


def test_descriptor_without_the_lock_is_no_claim(root):
    """Somebody else has the lock; the descriptor is closed."""
    held = claim(root)
    fd = os.open(root, os.O_RDONLY)
    with pytest.raises(StoreError, match="this process has a writer"):
        Claim.received(fd, str(root))
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(fd)
    held.close()


def test_closed_claim_has_no_descriptor(root):
    """It says what to do."""
    held = claim(root)
    held.close()
    with pytest.raises(ValueError, match="closed"):
        held.fileno()


def test_process_that_was_handed_a_claim_is_named_when_its_taker_is_dead(root):
    """/proc/locks does not have such a lock at all."""
    command = [sys.executable, *command_of(commits.claims_and_dies, root)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        pids = {int(process.stdout.readline()) for _ in range(2)}
        process.wait()
        (holder,) = pids - {process.pid}
        with pytest.raises(StoreError, match=rf"process {holder} is writing"):
            claim(root)
        process.stdin.close()
        assert process.stdout.read() == b""  # the holder has ended, too
    claim(root).close()

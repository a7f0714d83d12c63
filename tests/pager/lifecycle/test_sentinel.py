"""What the sentinel does for clients that write, when the rest of the pager has been killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import lazyarr
from lazyarr.kernel import (
    PAGE_NBYTES,
    Features,
    InstallMode,
    ScratchBuffer,
    Stop,
    Userfaultfd,
    probe,
    punch_hole,
)
from lazyarr.wire.channel import channel_pair, close_all
from lazyarr.wire.ledger import record_of
from lazyarr.wire.messages import Hello
from tests.process.running import command_of
from tests.programs import written_back as programs

KILLED = "lazyarr: the pager was killed; touching what is not loaded gives SIGBUS from now on\n"
SECONDS = 20

pytestmark = pytest.mark.skipif(
    not probe().write_back, reason="this kernel lacks what memory that is written back needs"
)


def start(program, descriptor, *arguments):
    os.set_inheritable(descriptor, True)
    return subprocess.Popen(
        [sys.executable, *command_of(program, descriptor, *arguments)],
        pass_fds=[descriptor],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(lazyarr.__file__).parents[1])},
    )


def install_protected(uffd, address, memfd):
    """Do what a worker has done: page 0 is there, 1 is missing, 2 was there and is evicted."""
    with ScratchBuffer(3 * PAGE_NBYTES) as scratch:
        scratch.view[:] = b"p" * scratch.nbytes
        for page in (0, 2):
            place = address + page * PAGE_NBYTES
            mode = int(InstallMode.WP)
            outcome = uffd.copy(place, scratch.address, PAGE_NBYTES, mode=mode)
            assert outcome.stop is Stop.DONE
    punch_hole(memfd, 2 * PAGE_NBYTES, PAGE_NBYTES)


def end_after(way):
    """Return how a client ended, what it and its sentinel have said, and what it has written."""
    ours, theirs = channel_pair()
    told, tells = channel_pair()
    with (
        start(programs.wants_to_write, theirs.fileno(), way) as client,
        start(programs.keeps_watch, told.fileno()) as watcher,
    ):
        try:
            theirs.close()
            told.close()
            received = ours.receive()
            hello, descriptors = received
            assert isinstance(hello, Hello)
            uffd, memfd, map_memfd, lifeline, writable = descriptors
            worker = Userfaultfd.from_fd(os.dup(writable), Features(hello.writable_features))
            install_protected(worker, int(client.stdout.readline()), memfd)
            tells.send(record_of(0, hello), (uffd, lifeline, writable))
            worker.close()
            close_all((uffd, map_memfd, lifeline, writable))
            tells.close()  # the end of the supervisor
            stdout, stderr = client.communicate("go\n", timeout=SECONDS)
            _, said = watcher.communicate(timeout=SECONDS)
            found = os.pread(memfd, 1, 0)
            os.close(memfd)
        finally:
            client.kill()
            watcher.kill()
            ours.close()
    assert watcher.returncode == 0
    assert found == b"p"
    assert stdout == ""
    return client.returncode, stderr, said


@pytest.mark.parametrize("way", ["write", "another thread", "without a name", "missing", "punched"])
def test_a_thread_that_waits_to_write_gets_sigbus(way):
    """Its write could not be noted; one that waits for a page gets it as ever."""
    status, stderr, said = end_after(way)
    assert (status, said) == (-signal.SIGBUS, KILLED)
    assert "Fatal Python error: Bus error" in stderr
    assert "in _act" in stderr


@pytest.mark.parametrize("way", ["blocked", "ignored", "handled"])
def test_a_process_that_does_not_hear_of_it_is_killed(way):
    """Or its thread would wait for ever."""
    status, _, said = end_after(way)
    assert status == -signal.SIGKILL
    assert said.startswith(KILLED)
    assert "is killed: nobody can note what it writes, and it takes no SIGBUS" in said


@pytest.mark.skipif(not probe().full_rights, reason="such system calls fail without full rights")
def test_a_write_inside_of_a_system_call_does_not_hang():
    """Which waits in the kernel, and takes no notice of a signal that has a handler."""
    status, _, _ = end_after("a system call")
    assert status in (-signal.SIGKILL, -signal.SIGBUS)

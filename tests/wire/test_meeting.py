"""A socket with a name: who can come, and what is left of it."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from lazyarr.errors import PagerError
from lazyarr.wire import meeting
from lazyarr.wire import messages as w
from lazyarr.wire.meeting import accept, connect, listen, new_invitation, pid_namespace
from tests.process.running import command_of
from tests.programs import pager as programs


@pytest.fixture
def name():
    return new_invitation().name


def test_who_knows_the_name_can_come(name):
    """A message goes through, both ways, and the socket is gone when it is closed."""
    with listen(name) as listener:
        here = connect(name, timeout_seconds=5)
        there = accept(listener)
        here.send(w.Ping())
        assert there.receive().message == w.Ping()
        there.send(w.Pong())
        assert here.receive().message == w.Pong()
        here.close()
        there.close()
    assert connect(name, timeout_seconds=5) is None


def test_a_name_is_taken_once(name):
    """The second one learns that there is one, and is none."""
    with listen(name):
        assert listen(name) is None
    with listen(name):
        pass


def test_accepting_waits_for_nobody(name):
    """The pager does other things while nobody comes."""
    with listen(name) as listener, pytest.raises(BlockingIOError):
        accept(listener)


def test_an_answer_is_not_waited_for_forever(name):
    """One who is let in and not answered has an error in time."""
    with listen(name):
        here = connect(name, timeout_seconds=0.05)
        begin = time.monotonic()
        with pytest.raises((OSError, PagerError)):
            here.receive()
        assert time.monotonic() - begin < 5
        here.close()


def test_another_users_process_is_not_let_in(name):
    """Nor does this one speak to another user's."""
    if os.geteuid():
        pytest.skip("becoming another user needs root")
    with listen(name) as listener:
        os.seteuid(65534)
        try:
            assert connect(name, timeout_seconds=5) is None
        finally:
            os.seteuid(0)
        assert accept(listener) is None


def test_processes_of_one_container_agree():
    """Threads and children have the same namespace, which has a number."""
    assert pid_namespace() == os.stat(f"/proc/{os.getpid()}/ns/pid").st_ino > 0


def test_a_process_in_a_namespace_below_is_not_let_in(name):
    """It has a number here, which is another one there: the kernel is asked, not the process."""
    if os.geteuid():
        pytest.skip("a namespace of process ids needs root")
    command = [sys.executable, *command_of(programs.comes_to, name)]
    with listen(name) as listener:
        for wrapper, may_come in (((), True), (("unshare", "--pid", "--fork"), False)):
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            with subprocess.Popen([*wrapper, *command], **pipes) as process:
                assert process.stdout.readline() == "True\n"
                channel = accept(listener)
                assert (channel is not None) == may_come
                if channel is not None:
                    channel.close()
                # Told, and not only hung up on: that would look like a worker that has died.
                said, _ = process.communicate("\n", timeout=20)
                assert ("another container" in said) != may_come


def test_a_process_that_has_ended_is_not_let_in(name):
    """Its number may be another's by now."""
    with listen(name) as listener:
        pid = os.fork()
        if pid == 0:
            connect(name, timeout_seconds=5)
            os._exit(0)
        os.waitpid(pid, 0)
        assert accept(listener) is None


def test_without_a_descriptor_of_the_peer_its_number_is_asked(name, monkeypatch):
    """Linux before 6.5 has no SO_PEERPIDFD."""
    monkeypatch.setattr(meeting, "_SO_PEERPIDFD", 9999)
    with listen(name) as listener:
        here = connect(name, timeout_seconds=5)
        there = accept(listener)
        there.close()
        here.close()


def test_invitations_are_not_alike():
    """They cannot be guessed from one another."""
    invitations = {new_invitation() for _ in range(100)}
    words = {word for invitation in invitations for word in invitation}
    assert len(words) == 200
    assert {len(word) for word in words} == {32}

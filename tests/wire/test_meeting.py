"""A socket with a name: who can come, and what is left of it."""

from __future__ import annotations

import os
import time

import pytest

from lazyarr.errors import PagerError
from lazyarr.wire import messages as w
from lazyarr.wire.meeting import accept, connect, listen, new_name, pid_namespace


@pytest.fixture
def name():
    return new_name()


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


def test_names_are_not_alike():
    """They can not be guessed from one another."""
    names = {new_name() for _ in range(100)}
    assert len(names) == 100
    assert {len(name) for name in names} == {32}

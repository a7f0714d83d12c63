"""What a worker leaves behind of what it was at."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from lazyarr.pager.lifecycle.inflight_record import InflightRecord
from lazyarr.pager.lifecycle.supervisor import DEADLY
from tests.process.running import command_of
from tests.programs import pager as programs


@pytest.fixture
def inflight():
    """An empty inflight."""
    inflight = InflightRecord()
    yield inflight
    inflight._view().release()
    os.close(inflight.fileno())


def test_each_thread_has_what_it_is_at(inflight):
    """Loads and questions, until they are done; others do not disturb it."""
    inflight.begin(7, 0)
    ended = threading.Thread(target=lambda: (inflight.begin(7, 1), inflight.end()))
    died = threading.Thread(target=lambda: inflight.begin_answer(0, 3))
    for thread in (ended, died):
        thread.start()
        thread.join()
    assert inflight.read() == {(7, 0), (~0, 3)}
    inflight.end()
    assert inflight.read() == {(~0, 3)}
    inflight.clear()
    assert inflight.read() == set()


def test_a_question_that_ends_three_workers_is_known_to_the_next():
    """So that it can be refused instead of killing that one too."""
    ended = subprocess.run(
        [
            sys.executable,
            *command_of(programs.a_question_that_ends_three_workers_is_known_to_the_next),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    lines = [f"{n_deaths} []" for n_deaths in range(DEADLY)]
    assert ended.stdout.splitlines() == [*lines, f"{DEADLY} {[(~0, 7)]}"]

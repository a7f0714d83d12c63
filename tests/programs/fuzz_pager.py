"""Programs of tests/fuzz/test_pager.py."""

from __future__ import annotations

import collections
import contextlib
import faulthandler
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

import lazyarr
from lazyarr.client.session.process import current_session
from tests.process.running import family, wait_until


class _Watched:
    """An array that is read while others are odd, and what its pager has open meanwhile."""

    def __init__(self, url, copy):
        self.url, self.x, self.expected = url, lazyarr.open(url), np.load(copy)
        assert np.array_equal(self.x[3], self.expected[3])
        self.control = current_session()._control.fileno()
        self.worker = lazyarr.stats()["pid"]
        mark = "LAZYARR_TEST_MARK=" + os.environ["LAZYARR_TEST_MARK"]
        self.supervisor, self.sentinel = family(mark, self.worker)
        # Once the sentinel has been told of this client, and holds its userfaultfd.
        assert wait_until(lambda: (self.sentinel, "anon_inode") in self.files())
        self.before = self.files()

    def files(self):
        """Return what the pager's processes have open, by kind, but for the chunks of x."""
        found = collections.Counter()
        for pid in (self.worker, self.supervisor, self.sentinel):
            for entry in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(FileNotFoundError):
                    name = os.readlink(entry)
                    found[pid, name.split(":[")[0]] += not name.startswith(self.url)
        return +found

    def run(self, module, *arguments):
        """Read all the time while another program runs; return what that has printed."""
        other = subprocess.Popen(
            [sys.executable, "-m", module, str(self.control), *arguments, f"{self.url}-other"],
            pass_fds=(self.control,),
            stdout=subprocess.PIPE,
            text=True,
        )
        reads = 0
        while other.poll() is None:
            faulthandler.dump_traceback_later(60, exit=True)
            self.read(reads % len(self.expected))
            reads += 1
        assert other.returncode == 0
        assert reads > 5
        assert wait_until(lambda: lazyarr.stats()["clients"] == 1)
        assert wait_until(lambda: not self.files() - self.before), self.files() - self.before
        assert lazyarr.stats()["pid"] == self.worker
        return other.communicate()[0]

    def read(self, i):
        self.x.evict()
        assert np.array_equal(self.x[i], self.expected[i])
        assert np.asarray(self.x)[-i - 1, 0, 0] == self.expected[-i - 1, 0, 0]


def clients_that_talk_nonsense_take_nobody_down(url, seed, count, copy):
    watched = _Watched(url, copy)
    n_taken = int(watched.run("tests.fuzz.hostile", seed, count))
    # Many messages come after `Hello`, and after others that were taken.
    assert n_taken >= int(count) // 3, n_taken
    found = lazyarr.stats()
    print(found["workers_lost"], found["regions"])


def clients_that_are_odd_take_nobody_down(url, copy):
    watched = _Watched(url, copy)
    watched.run("tests.fuzz.odd")
    assert lazyarr.stats()["workers_lost"] == 0
    # Nor the next worker, which goes by what the supervisor has been told.
    os.kill(watched.worker, signal.SIGKILL)
    watched.read(5)
    watched.read(6)
    found = lazyarr.stats()
    print(found["workers_lost"], found["regions"])

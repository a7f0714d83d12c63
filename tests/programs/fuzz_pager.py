"""Programs of tests/fuzz/test_pager.py."""

from __future__ import annotations

import collections
import contextlib
import faulthandler
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

import lazyarr
from lazyarr.client.session.process import current_session
from tests.process.running import family, wait_until


def clients_that_talk_nonsense_take_nobody_down(url, seed, count, copy):

    x = lazyarr.open(url)
    expected = np.load(copy)
    assert np.array_equal(x[3], expected[3])
    control = current_session()._control.fileno()

    def files():
        """Return what the pager's processes have open, by kind, but for the chunks of x."""
        found = collections.Counter()
        for pid in (worker, supervisor, sentinel):
            for entry in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(FileNotFoundError):
                    name = os.readlink(entry)
                    found[pid, name.split(":[")[0]] += not name.startswith(url)
        return +found

    mark = "LAZYARR_TEST_MARK=" + os.environ["LAZYARR_TEST_MARK"]
    worker = lazyarr.stats()["pid"]
    supervisor, sentinel = family(mark, worker)
    # Once the sentinel has been told of this client, and holds its userfaultfd.
    assert wait_until(lambda: (sentinel, "anon_inode") in files())
    before = files()
    hostile = subprocess.Popen(
        [sys.executable, "-m", "tests.fuzz.hostile", str(control), seed, count], pass_fds=(control,)
    )
    reads = 0
    while hostile.poll() is None:
        faulthandler.dump_traceback_later(60, exit=True)
        i = reads % len(expected)
        x.evict()
        assert np.array_equal(x[i], expected[i])
        assert np.asarray(x)[-i - 1, 0, 0] == expected[-i - 1, 0, 0]
        reads += 1
    assert hostile.returncode == 0
    assert reads > 5
    assert wait_until(lambda: lazyarr.stats()["clients"] == 1)
    assert wait_until(lambda: not files() - before), files() - before
    found = lazyarr.stats()
    assert found["pid"] == worker
    print(found["workers_lost"], found["regions"])

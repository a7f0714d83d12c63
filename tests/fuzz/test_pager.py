"""Clients that talk nonsense take nobody down with them."""

from __future__ import annotations

import numpy as np
import pytest

from tests.process.running import ended_by, run_program
from tests.stores import images, write_zarr

PROGRAM = """
import collections, subprocess
from pathlib import Path
from tests.process.running import family, wait_until
from lazyarr.client.process import current_session

url, seed, count = sys.argv[1:4]
x = lazyarr.open(url)
expected = np.load(sys.argv[4])
assert np.array_equal(x[3], expected[3])
control = current_session()._control.fileno()

def files():
    "Return what the pager's processes have open, by kind, but for the chunks of x."
    found = collections.Counter()
    for pid in (worker, supervisor, sentinel):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                name = os.readlink(entry)
                found[pid, name.split(":[")[0]] += not name.startswith(url)
            except FileNotFoundError:
                pass
    return +found

mark = "LAZYARR_TEST_MARK=" + os.environ["LAZYARR_TEST_MARK"]
worker = lazyarr.stats()["pid"]
supervisor, sentinel = family(mark, worker)
# Once the sentinel has been told of this client, and holds its userfaultfd.
assert wait_until(lambda: (sentinel, "anon_inode") in files())
before = files()
hostile = subprocess.Popen([sys.executable, "-m", "tests.fuzz.hostile", str(control), seed, count],
    pass_fds=(control,))
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
"""


@pytest.mark.timeout(120)
def test_clients_that_talk_nonsense_take_nobody_down(tmp_path):
    """Garbage, other descriptors, too many, half messages: others read on, and nothing stays."""
    data = images((64, 32, 64))
    url = write_zarr(tmp_path / "x.zarr", data, chunks=(4, 32, 64))
    np.save(tmp_path / "x.npy", data)
    ended = run_program(PROGRAM, url, 1, 60, tmp_path / "x.npy")
    assert ended_by(ended) == "0", ended.stderr
    assert ended.stdout == "0 1\n"
    kinds = (
        "cannot take on a client: ",
        "cannot serve a message of process ",
        "the pager's supervisor cannot enter a record: ",
    )
    lines = [line.removeprefix("lazyarr: ") for line in ended.stderr.splitlines()]
    assert lines
    # Nor is one client's channel ever taken for another's.
    assert not [line for line in lines if "temporarily unavailable" in line]
    assert all(line.startswith(kinds) for line in lines), lines

"""Raw scans are read ahead, and what is read is right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import lazyarr
from lazyarr.testing import Behaviour
from tests.process.running import run_program
from tests.stores import images, write_zarr

DATA = images((512, 32, 128))  # 4 MiB in 64 units, too large for the short way


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """Return a store of which no unit is small enough to be brought while others wait."""
    return write_zarr(tmp_path_factory.mktemp("ahead") / "x.zarr", DATA, chunks=(8, 32, 128))


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """Return the same numbers in a file."""
    path = tmp_path_factory.mktemp("ahead") / "x.npy"
    np.save(path, DATA)
    return path


PROGRAM = """
url, copy, mode = sys.argv[1:4]
x, data = lazyarr.open(url, mode=mode), np.load(copy)
raw = np.asarray(x)
before = {}
def counted(*names):
    global before
    now = lazyarr.stats()
    found = [now[name] - before.get(name, 0) for name in names]
    before = now
    return found
def read(rows):
    for row in rows: assert (raw[row] == data[row]).all(), row
"""
FORWARD, BACKWARD = "range(0, 512, 8)", "range(511, 0, -8)"
STRIDED = "range(0, 512, 24)"


@pytest.mark.parametrize("mode", ["r", "c"])
@pytest.mark.parametrize("rows", [FORWARD, BACKWARD, STRIDED])
def test_reader_in_order_waits_for_few_units(url, copy, rows, mode):
    """Each unit is loaded once; without readahead each is a fault."""
    ended = run_program(
        PROGRAM
        + """
n_units = len(eval(sys.argv[4]))
for row in eval(sys.argv[4]):
    read([row])
    settled()  # a reader that takes longer for a row than a load does
faults, loaded, ahead, errors = counted("faults", "units_loaded", "units_ahead", "errors")
assert (n_units <= loaded <= n_units + 2) and errors == 0, (loaded, errors)
assert ahead > n_units - 14, ahead
assert faults < 0.8 * n_units, faults
""",
        url,
        copy,
        mode,
        rows,
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_several_threads_and_processes_each_in_order(url, copy):
    """Each reads its own part, while the memory has room for a quarter of all."""
    ended = run_program(
        PROGRAM
        + """
lazyarr.configure(memory_limit="1 MiB", threads=2)
def part(k): read(range(128 * k, 128 * k + 128) if k % 2 else range(128 * k + 127, 128 * k - 1, -1))
for _ in range(3):
    children = []
    for k in range(2):
        pid = os.fork()
        if pid == 0:
            try: part(k); os._exit(0)
            except BaseException: import traceback; traceback.print_exc(); os._exit(1)
        children.append(pid)
    threads = [threading.Thread(target=part, args=(k,)) for k in (2, 3)]
    [t.start() for t in threads]; [t.join() for t in threads]
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0]
read(range(512)); read(range(511, -1, -1)); read([7, 8, 9, 300, 301, 302, 100])
resident, errors = counted("resident_bytes", "errors")
assert resident <= 1 << 20 and errors == 0, (resident, errors)
""",
        url,
        copy,
        "r",
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_evicting_while_readers_run(url, copy):
    """Units that are read ahead, marked or on their way may go at any moment."""
    ended = run_program(
        PROGRAM
        + """
stop = []
def disturb():
    chance = np.random.default_rng(1)
    while not stop:
        first = int(chance.integers(512))
        x[first:first + int(chance.integers(1, 200))].evict()
thread = threading.Thread(target=disturb); thread.start()
try:
    for _ in range(5):
        for row in range(512): assert (np.asarray(x[row]) == data[row]).all(), row
        read(range(511, -1, -1))
finally:
    stop.append(1); thread.join()
""",
        url,
        copy,
        "r",
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_advice_and_setting_are_followed(url, copy):
    """Random and a window of 0: nothing is read ahead; sequential: from the first touch on."""
    ended = run_program(
        PROGRAM
        + """
x.advise("random")
read(range(0, 128)); print(*counted("units_ahead"))
x[128:256].advise("sequential")
read([128]); print(counted("units_ahead")[0] > 4)
x[::-1].advise("normal")
with lazyarr.configure(readahead=0):
    read(range(256, 384)); print(*counted("units_ahead"))
read(range(384, 512)); print(counted("units_ahead")[0] > 8)
try: x.advise("backwards")
except ValueError as error: print(error)
x[:0].advise("random")
""",
        url,
        copy,
        "r",
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    said = "advice='backwards' is not one of normal, sequential, random"
    assert ended.stdout.splitlines() == ["0", "True", "0", "True", said]


def test_sparse_arrays_are_read_ahead(tmp_path):
    """Chunks that are not stored are zeros, also where they are marked."""
    data = np.zeros((512, 32, 128), np.uint16)
    data[::100] = 7
    url = write_zarr(tmp_path / "x.zarr", data, chunks=(8, 32, 128))
    np.save(tmp_path / "x.npy", data)
    ended = run_program(
        PROGRAM + 'read(range(512)); print(counted("units_ahead")[0] > 40)',
        url,
        tmp_path / "x.npy",
        "r",
    )
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", "True\n")


@pytest.mark.parametrize("shards", [None, (8, 32, 128)])
def test_what_stalls_for_nobody_holds_up_nobody(http_server, shards):
    """Over a network, what is read ahead leaves a connection free, and what is waited for goes on.

    Chunks 1 and 10 to 19 stall; one that is queued behind these is touched, and so is one far
    away.
    """
    path = Path(http_server.directory) / "x.zarr"
    write_zarr(path, DATA, chunks=(8, 32, 128), shards=shards)
    http_server.behave(Behaviour(delay_seconds=60), path="/x.zarr/c/1")
    program = """
    lazyarr.configure(connections=4)
    x = lazyarr.open(sys.argv[1])
    x.advise("sequential")
    raw = np.asarray(x)
    begin = time.monotonic()
    print(int(raw[0, 0, 1]), int(raw[200, 0, 1]), int(raw[400, 0, 1]), int(x[216, 0, 1]))
    assert lazyarr.stats()["units_ahead"] > 10
    assert time.monotonic() - begin < 40
    sys.stdout.flush()
    os._exit(0)
    """
    ended = run_program(program, f"{http_server.url}/x.zarr")
    expected = [DATA[row, 0, 1] for row in (0, 200, 400, 216)]
    assert ended.stdout.split() == [str(n) for n in expected], ended.stderr


def test_what_cannot_be_read_ahead_is_no_error_until_it_is_touched(tmp_path):
    """A damaged chunk behind the reader's window is nobody's; touching it is."""
    lazyarr.save(tmp_path / "x.zarr", DATA, chunks=(8, 32, 128), shards=(8, 32, 128))
    damaged = tmp_path / "x.zarr" / "c" / "9" / "0" / "0"
    damaged.write_bytes(b"\0" * 100)
    np.save(tmp_path / "x.npy", DATA)
    ended = run_program(
        PROGRAM
        + """
read(range(72))
try: x[72]
except lazyarr.ChunkError as error: print(error.chunk)
read(range(80, 512)); print(counted("units_ahead")[0] > 40)
""",
        tmp_path / "x.zarr",
        tmp_path / "x.npy",
        "r",
    )
    assert (ended.returncode, ended.stdout) == (0, "(9, 0, 0)\nTrue\n"), ended.stderr


def test_over_a_network_as_much_is_on_its_way_as_its_latency_asks_for(http_server):
    """Four units are what is read ahead from files then; sixteen the most."""
    path = Path(http_server.directory) / "x.zarr"
    write_zarr(path, DATA, chunks=(8, 32, 128))
    http_server.behave(Behaviour(delay_seconds=0.1))
    program = """
    lazyarr.configure(readahead="1 MiB")
    x = lazyarr.open(sys.argv[1])
    raw = np.asarray(x)
    for row in range(0, 256, 8): raw[row, 0, 0]
    settled()
    print(int(x.residency().map[32:].sum()))
    """
    ended = run_program(program, f"{http_server.url}/x.zarr")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert 8 < int(ended.stdout) <= 2 * 16

"""Stores that stall or fail for a while: nobody else waits, and the next touch tries again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lazyarr.testing import Behaviour
from tests.process.running import ended_by, pagers, run_program, start_program, wait_until
from tests.stores import images, write_zarr

DATA = images()
STALLED = Behaviour(delay_seconds=60)
LAYOUTS = {
    "one object": {"chunks": (4, 32, 128)},
    # More chunks than are fetched at once, all of them in the object that stalls.
    "one shard": {"chunks": (1, 2, 128), "shards": (16, 32, 128)},
}

PRELUDE = """
faulthandler.cancel_dump_traceback_later()
x, data = lazyarr.open(sys.argv[1]), np.load(sys.argv[2])
memcpy = ctypes.CDLL(None).memcpy
memcpy.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
def touch(i):
    "Return a row through a raw pointer, without the GIL."
    row = np.empty_like(data[i])
    memcpy(row.ctypes.data, np.asarray(x)[i].ctypes.data, row.nbytes)
    return row
def wait_in(work):
    threading.Thread(target=work, daemon=True).start()
"""


@pytest.fixture(params=LAYOUTS)
def url(request, http_server):
    write_zarr(Path(http_server.directory) / "x.zarr", DATA, **LAYOUTS[request.param])
    np.save(Path(http_server.directory) / "x.npy", DATA)
    return f"{http_server.url}/x.zarr"


def test_a_stalled_read_blocks_no_other(http_server, url):
    """Rows of other objects are read, raw and by request, while threads wait for the first."""
    http_server.behave(STALLED, path="x.zarr/c/0/")
    program = """
    wait_in(lambda: touch(0)); wait_in(lambda: x[1]); wait_in(lambda: x.prefetch(slice(0, 16)))
    print("ready", flush=True)
    sys.stdin.readline()
    for i in range(16, 64, 2):
        assert (touch(i) == data[i]).all()
        assert (x[i + 1] == data[i + 1]).all()
    print("read", flush=True)
    os._exit(0)
    """
    program = PRELUDE + program.replace("\n    ", "\n")
    process, mark = start_program(program, url, Path(http_server.directory) / "x.npy")
    try:
        assert process.stdout.readline() == "ready\n"
        asked: list[str] = []

        def is_asked() -> bool:
            asked.extend(request.path for request in http_server.requests())
            return any("/x.zarr/c/0/" in path for path in asked)

        assert wait_until(is_asked)
        stdout, stderr = process.communicate("go\n", timeout=30)
    finally:
        process.kill()
    assert (stdout, stderr) == ("read\n", "")
    assert wait_until(lambda: not pagers(mark), 2.0)


def test_what_failed_is_tried_again(http_server, url):
    """A request is an error while the server fails, and right as soon as it does not."""
    program = """
    lazyarr.configure(retries=0, timeout=5)
    x = lazyarr.open(sys.argv[1])
    x[60]
    print("ready", flush=True)
    for _ in range(3):
        sys.stdin.readline()
        try:
            print((x[5] == data[5]).all(), flush=True)
        except lazyarr.ChunkError as error:
            print(error.chunk[0] in (1, 5), flush=True)
    """
    program = PRELUDE + program.replace("\n    ", "\n")
    process, _ = start_program(program, url, Path(http_server.directory) / "x.npy")
    try:
        assert process.stdout.readline() == "ready\n"
        for behaviour in (Behaviour(status=503), Behaviour(wrong_bytes=True), Behaviour()):
            http_server.behave(behaviour, path="/c/")
            process.stdin.write("go\n")
            process.stdin.flush()
            assert process.stdout.readline() == "True\n"
        assert process.communicate(timeout=30) == ("", "")
    finally:
        process.kill()

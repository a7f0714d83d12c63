"""Stores that stall or fail for a while: nobody else waits, and the next touch tries again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lazyarr.kernel import probe
from lazyarr.testing import Behaviour
from tests.process.running import end_program, pagers, start_program, wait_until
from tests.process.stored import Damage, write_arrays
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
        end_program(process)
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
        end_program(process)


def test_a_refused_system_call_is_right_after_a_request(tmp_path):
    """Poison stays in its page until the unit is loaded, which a request or a neighbour does."""
    if not probe().full_rights:
        pytest.skip("without full rights system calls are refused before the pager is asked")
    arrays = write_arrays(tmp_path / "s.zarr")
    np.save(tmp_path / "x.npy", arrays["pages"].data)
    program = """
    x, data = lazyarr.open(sys.argv[1])["pages"], np.load(sys.argv[2])
    pages = np.asarray(x).view("u1").reshape(-1, 4096)
    def write(page):
        reader, writer = os.pipe()
        with open(reader, "rb") as source, open(writer, "wb", buffering=0) as target:
            try:
                target.write(pages[page])
            except OSError as error:
                return error.strerror
            return source.read(4096) == data.view("u1").reshape(-1, 4096)[page].tobytes()
    for _ in range(2):
        print(write(0), flush=True)
        sys.stdin.readline()
    x.prefetch(slice(0, 1))
    print(write(0), write(1), flush=True)
    """
    arrays["pages"].spoil(0, Damage.FLIPPED, 30, in_place=True)
    process, _ = start_program(program, tmp_path / "s.zarr", tmp_path / "x.npy")
    try:
        assert process.stdout.readline() == "Bad address\n"
        arrays["pages"].mend(in_place=False)
        stdout, stderr = process.communicate("go\ngo\n", timeout=30)
    finally:
        end_program(process)
    assert stdout == "Bad address\nTrue True\n"
    assert stderr.count("SIGBUS") == 1

"""Stores that stall or fail for a while: nobody else waits, and the next touch tries again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lazyarr.kernel import probe
from lazyarr.testing import Behaviour
from tests.process.running import end_program, pagers, start_program, wait_until
from tests.process.stored import Damage, write_arrays
from tests.programs import stalls as programs
from tests.stores import images, write_zarr

DATA = images()
STALLED = Behaviour(delay_seconds=60)
LAYOUTS = {
    "one object": {"chunks": (4, 32, 128)},
    # More chunks than are fetched at once, all of them in the object that stalls.
    "one shard": {"chunks": (1, 2, 128), "shards": (16, 32, 128)},
}


@pytest.fixture(params=LAYOUTS)
def url(request, http_server):
    write_zarr(Path(http_server.directory) / "x.zarr", DATA, **LAYOUTS[request.param])
    np.save(Path(http_server.directory) / "x.npy", DATA)
    return f"{http_server.url}/x.zarr"


def test_a_stalled_read_blocks_no_other(http_server, url):
    """Rows of other objects are read, raw and by request, while threads wait for the first."""
    http_server.behave(STALLED, path="x.zarr/c/0/")
    process, mark = start_program(
        programs.a_stalled_read_blocks_no_other, url, Path(http_server.directory) / "x.npy"
    )
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
    assert wait_until(lambda: not pagers(mark))


def test_what_failed_is_tried_again(http_server, url):
    """A request is an error while the server fails, and right as soon as it does not."""
    process, _ = start_program(
        programs.what_failed_is_tried_again, url, Path(http_server.directory) / "x.npy"
    )
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
    arrays["pages"].spoil(0, Damage.FLIPPED, 30, in_place=True)
    process, _ = start_program(
        programs.a_refused_system_call_is_right_after_a_request,
        tmp_path / "s.zarr",
        tmp_path / "x.npy",
    )
    try:
        assert process.stdout.readline() == "Bad address\n"
        arrays["pages"].mend(in_place=False)
        stdout, stderr = process.communicate("go\ngo\n", timeout=30)
    finally:
        end_program(process)
    assert stdout == "Bad address\nTrue True\n"
    assert stderr.count("SIGBUS") == 1

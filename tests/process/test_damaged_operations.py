"""A damaged chunk, and everything that is done with its array: ChunkError, whatever the size."""

from __future__ import annotations

import itertools

import pytest

from tests.process.running import run_program
from tests.programs import damaged_operations as programs
from tests.stores import images, write_zarr

LIMIT_NBYTES = 1 << 20
# From a page to four times the limit; a quarter of it is what one request may bring.
ROWS = {1: 1, 16: 1, 63: 4, 70: 4, 256: 16, 1000: 16}


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Give the URL of an array with one chunk in its middle cut short, by its number of rows."""
    found = {}
    for n_rows, n_chunk_rows in ROWS.items():
        path = tmp_path_factory.mktemp("damaged") / "x.zarr"
        found[n_rows] = write_zarr(path, images((n_rows, 8, 256)), chunks=(n_chunk_rows, 8, 256))
        chunk = path / f"c/{n_rows // n_chunk_rows // 2}/0/0"
        chunk.write_bytes(chunk.read_bytes()[:-7])
    return found


@pytest.mark.parametrize("mode", ["r", "c"])
@pytest.mark.parametrize(
    ("n_rows", "engine"),
    [*((n_rows, "userfaultfd") for n_rows in ROWS), (63, "copy"), (70, "copy")],
)
def test_every_operation_raises(stores, n_rows, engine, mode):
    """Those that read every element, and those that change it: none dies, none gives a result."""
    ended = run_program(programs.every_operation_raises, stores[n_rows], engine, mode)
    lines = ended.stdout.splitlines()
    wrong = [pair for pair in itertools.pairwise(lines) if pair[1].startswith("wrong")]
    assert (ended.returncode, wrong, lines[-1], ended.stderr) == (0, [], "end", "")

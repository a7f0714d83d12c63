"""Mode "r+" against users who do what nobody has thought of."""

from __future__ import annotations

import pytest

from tests.process.running import run_program
from tests.programs import writable_attacks as programs
from tests.programs.writable_attacks import ROWS
from tests.stores import write_zarr


@pytest.fixture
def url(tmp_path):
    """Return a store whose units share pages."""
    return write_zarr(tmp_path / "x.zarr", ROWS, "x", chunks=(3, 1000))


@pytest.mark.parametrize(
    "program",
    [
        programs.what_append_returned_is_flushed,
        programs.what_append_returned_is_in_the_store_when_it_is_closed,
        programs.what_another_opening_has_opened_is_flushed,
        programs.views_alone_are_flushed,
    ],
    ids=lambda program: program.__name__,
)
def test_flushed_by_the_dataset(url, program):
    """`Dataset.flush` and `close` write whatever this process has written to the group."""
    ended = run_program(program, url)
    assert (ended.returncode, ended.stderr) == (0, "")

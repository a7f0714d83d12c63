"""Clients that talk nonsense take nobody down with them."""

from __future__ import annotations

import numpy as np
import pytest

from tests.process.running import ended_by, run_program
from tests.programs import fuzz_pager as programs
from tests.stores import images, write_zarr


@pytest.mark.timeout(120)
def test_clients_that_talk_nonsense_take_nobody_down(tmp_path):
    """Garbage, other descriptors, too many, half messages: others read on, and nothing stays."""
    data = images((64, 32, 64))
    url = write_zarr(tmp_path / "x.zarr", data, chunks=(4, 32, 64))
    np.save(tmp_path / "x.npy", data)
    ended = run_program(
        programs.clients_that_talk_nonsense_take_nobody_down, url, 1, 60, tmp_path / "x.npy"
    )
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

"""Clients that talk nonsense take nobody down with them."""

from __future__ import annotations

import numpy as np
import pytest

from tests.process.running import ended_by, run_program
from tests.programs import fuzz_pager as programs
from tests.stores import images, write_zarr

# What the pager says when it lets go of such a client.
KINDS = (
    "cannot take on a client: ",
    "cannot serve a message of process ",
    "the pager's supervisor cannot enter a record: ",
)


@pytest.fixture
def store(tmp_path):
    """A store, and a copy of its array in a file."""
    data = images((64, 32, 64))
    np.save(tmp_path / "x.npy", data)
    return write_zarr(tmp_path / "x.zarr", data, chunks=(4, 32, 64)), tmp_path / "x.npy"


def lines_of(stderr: str) -> list[str]:
    return [line.removeprefix("lazyarr: ") for line in stderr.splitlines()]


@pytest.mark.timeout(120)
def test_clients_that_talk_nonsense_take_nobody_down(store):
    """Garbage, other descriptors, too many, half messages: others read on, and nothing stays."""
    url, copy = store
    program = programs.clients_that_talk_nonsense_take_nobody_down
    ended = run_program(program, url, 1, 60, copy)
    assert ended_by(ended) == "0", ended.stderr
    assert ended.stdout == "0 1\n"
    lines = lines_of(ended.stderr)
    assert lines
    # Nor is one client's channel ever taken for another's.
    assert not [line for line in lines if "temporarily unavailable" in line]
    assert all(line.startswith(KINDS) for line in lines), lines


@pytest.mark.timeout(120)
def test_clients_that_are_odd_take_nobody_down(store):
    """Each in its own way; the worker lives, and the next one is not told of what would end it."""
    ended = run_program(programs.clients_that_are_odd_take_nobody_down, *store)
    assert ended_by(ended) == "0", ended.stderr
    assert ended.stdout == "1 1\n"
    kinds = (
        *(*KINDS, "cannot serve process ", "what was written to "),
        "the pager's worker died of SIGKILL; another takes over",
    )
    lines = lines_of(ended.stderr)
    assert all(line.startswith(kinds) for line in lines), lines

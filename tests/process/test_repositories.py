"""icechunk repositories and fork, whose children icechunk's threads do not reach."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

from tests.process.running import run_program
from tests.programs import repositories as programs
from tests.repositories import commit, make_repository
from tests.stores import images

DATA = images((64, 512))


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A repository, and a file with what is in it."""
    directory = tmp_path_factory.mktemp("repositories")

    def write(store):
        group = zarr.open_group(store, mode="a")
        group.create_array("x", data=DATA, chunks=(16, 512))
        group.create_array("y", shape=(4,), chunks=(2,), dtype="i4")

    commit(make_repository(directory / "repo"), write)
    np.save(directory / "x.npy", DATA)
    return directory / "repo", directory / "x.npy"


@pytest.mark.parametrize(
    ("program", "engine"),
    [
        (programs.fork_after_reading, "userfaultfd"),
        (programs.fork_after_reading, "copy"),
        (programs.fork_while_it_is_imported, "userfaultfd"),
        (programs.fork_before_reading, "copy"),
        (programs.fork_after_others_used_it, "copy"),
    ],
)
def test_forked_children_are_never_stuck(places, program, engine, monkeypatch):
    """They read, or get an error that says which way of starting processes works."""
    monkeypatch.setenv("LAZYARR_ENGINE", engine)
    done = run_program(program, *places)
    assert done.returncode == 0, done.stderr
    assert not done.stderr

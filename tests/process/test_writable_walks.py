"""Random writes to arrays of several layouts, with flushes, evictions, forks and kills."""

from __future__ import annotations

import numpy as np
import pytest

from tests.process.running import run_program
from tests.process.test_writable import DATA, LAYOUTS, make
from tests.programs import writable as programs

_REPLACED = "lazyarr: the pager's worker died of SIGKILL; another takes over"


@pytest.mark.parametrize("layout", ["rows", "shards", "odd"])
def test_walks(tmp_path, layout):
    """Memory is what it must be after each step, and the store after each flush."""
    assert layout in LAYOUTS
    np.save(tmp_path / "x.npy", DATA)
    url = make(tmp_path, layout)
    ended = run_program(programs.walks, url, tmp_path / "x.npy", 7, 60)
    assert (ended.returncode, ended.stdout) == (0, "60\n"), ended.stderr
    assert {line for line in ended.stderr.splitlines() if line != _REPLACED} == set()

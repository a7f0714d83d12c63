"""Programs of tests/client/arrays/test_row_fast_path.py."""

from __future__ import annotations

import numpy as np

import lazyarr
from tests.programs.support import (
    in_child,
)


def a_forked_child_has_a_map_of_its_own(path, copy):
    x, data = lazyarr.open(path, mode="c"), np.load(copy)
    assert (x[3] == data[3]).all()

    def child():
        for row in (3, 30, -1):
            assert (x[row] == data[row]).all()

    assert in_child(child) == 0
    assert (x[30] == data[30]).all()

"""A script whose workers get what it has written, to be run by its path: they import it again."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys

import joblib
import numpy as np

import lazyarr


def total(x):
    return os.getpid(), int(x[3].sum()), int(x[40].sum())


def main(url):
    x = lazyarr.open(url, mode="c")
    np.asarray(x)[3] = 1
    expected = 32 * 128, int(np.asarray(x)[40].sum())
    for method in ("fork", "spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            (found,) = pool.map(total, [x])
        assert found[0] != os.getpid() and found[1:] == expected, (method, found)
    (found,) = joblib.Parallel(2, backend="loky")([joblib.delayed(total)(x)])
    assert found[0] != os.getpid() and found[1:] == expected, found
    pid = os.fork()
    if pid == 0:
        x[4] = 2
        there = pickle.loads(pickle.dumps(x))
        is_right = there[3].sum() == 32 * 128 and there[4].sum() == 2 * 32 * 128
        os._exit(not (is_right and (there[5:] == x[5:]).all()))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert (x[4] != 2).any()
    print("right")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""What workers of pools do in test_children.py.

Those that are spawned import it, and nothing here imports lazyarr: what they are given does.
"""

import ctypes
import os

import numpy as np

inherited = None  # an array that was there when a process was forked


def read_all(array):
    """Return the bytes through a raw pointer, with no lazyarr in the way."""
    raw = np.asarray(array)
    return ctypes.string_at(raw.ctypes.data, raw.nbytes)


def check(x, path, i):
    """Read some rows by asking and by touching, here and in a child; return what was wrong."""
    data = np.load(path)
    wrong = []
    if not np.array_equal(x[i], data[i]):
        wrong.append("asked")
    if read_all(x[i - 3 : i + 1]) != data[i - 3 : i + 1].tobytes():
        wrong.append("touched")
    pid = os.fork()
    if pid == 0:
        os._exit(read_all(x[i - 8 :]) != data[i - 8 :].tobytes())
    if os.waitpid(pid, 0)[1]:
        wrong.append("in a grandchild")
    return wrong


def check_inherited(path, i):
    """Do the same with the array that was there when this process was forked."""
    return check(inherited, path, i)

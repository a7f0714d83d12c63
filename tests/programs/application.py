"""What a web server loads, and forks then; it opens what lies in the working directory."""

import ctypes
import os

import numpy as np

import lazyarr

# Some is resident when it is forked, some is not.
x, data = lazyarr.open("x.zarr"), np.load("x.npy")
x[5], x[:8].sum(), lazyarr.open("x.zarr")[40]


def application(environ, start):
    i = int(environ["PATH_INFO"][1:])
    raw = np.asarray(x[i : i + 4])
    is_right = (x[i] == data[i]).all()
    is_right &= ctypes.string_at(raw.ctypes.data, raw.nbytes) == data[i : i + 4].tobytes()
    is_right &= x.sum() == data.sum()
    start("200 OK", [("Content-Type", "text/plain")])
    return [b"%d %d" % (is_right, os.getpid())]

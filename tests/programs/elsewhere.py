"""Programs of tests/process/test_copying.py that have less of Python than Linux gives.

Run as ``python -m tests.programs.elsewhere FUNCTION PLATFORM DOCUMENT ARGUMENTS...``.
"""

# What lazyarr is built on is imported first: it has ways of its own with each system, as
# has platform.uname, which starts a program on Windows and keeps what it has found.
import asyncio  # noqa: F401
import concurrent.futures  # noqa: F401
import errno  # noqa: F401
import faulthandler
import json
import mmap  # noqa: F401
import multiprocessing  # noqa: F401
import os
import platform
import select  # noqa: F401
import shutil
import signal  # noqa: F401
import socket  # noqa: F401
import subprocess  # noqa: F401
import sys
import tempfile  # noqa: F401
import threading  # noqa: F401
import warnings

import fsspec.asyn
import fsspec.implementations.local  # noqa: F401
import google_crc32c  # noqa: F401
import numcodecs.blosc  # noqa: F401
import numpy as np
import zstandard  # noqa: F401


def go_elsewhere(system, missing, refused):
    """Take away what another system has not; nothing of lazyarr is imported yet."""
    for module, names in missing.items():
        for name in names:
            vars(sys.modules[module]).pop(name, None)
    if system == "win32":
        os.supports_dir_fd, shutil._use_fd_functions = set(), False

    class Refuse:
        def find_spec(self, name, path=None, target=None):
            if name in refused:
                raise ImportError(f"{system} has no {name}")

    for name in refused:
        sys.modules.pop(name, None)
    sys.meta_path.insert(0, Refuse())
    sys.platform = system


def nothing_of_linux_is_needed(url, copy, out):
    import lazyarr

    data = np.load(copy)
    x = lazyarr.open(url)
    assert type(x) is lazyarr.CopyArray
    assert (x[[5, 60]] == data[[5, 60]]).all()
    assert x[3:9].mean() == data[3:9].mean()
    assert "0 of" not in x.info
    assert lazyarr.stats()["units_loaded"] == 4
    lazyarr.save(out, {"g/y": data, "z": x[5:9]}, attributes={"a": 1})
    with lazyarr.open(out) as ds:
        assert (np.asarray(ds["g/y"]) == data).all()
        assert (ds["z"][1] == data[6]).all()
        assert ds.attrs == {"a": 1}
        assert "y" in ds.tree()
    lazyarr.save(out, {"y": data[:5]}, overwrite=True)
    with lazyarr.create(out, overwrite=True) as store:
        store.create_array("log", shape=(0, 3), dtype="f4").append(np.ones((7, 3)))
    assert lazyarr.open(out)["log"].sum() == 21
    assert lazyarr.verify(out, progress=False).ok
    assert lazyarr.config.memory_limit > 0
    assert lazyarr.config.threads > 0
    mine = lazyarr.open(url, mode="c")
    mine[3] += 1
    assert (mine[3] == data[3] + 1).all()
    try:
        lazyarr.open(out + "-nothing")
    except lazyarr.NodeNotFoundError:
        print("right")


def another_system_copies_by_itself(url, copy):
    import lazyarr

    data = np.load(copy)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert (lazyarr.open(url)[5] == data[5]).all()
        assert (lazyarr.open(url)[7] == data[7]).all()
    (warning,) = caught
    assert warning.category is lazyarr.EngineWarning
    assert not lazyarr.doctor().usable
    assert "Linux" in lazyarr.doctor().remedy
    lazyarr.configure(engine="userfaultfd")
    try:
        lazyarr.open(url)[5]
    except lazyarr.KernelUnsupportedError:
        print(warning.message)


def main(name, system, document, *arguments):
    faulthandler.dump_traceback_later(60, exit=True)
    platform.uname()
    go_elsewhere(system, *json.loads(document))
    globals()[name](*arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])

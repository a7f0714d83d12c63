"""Programs of tests/process/test_limits.py."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys

import numpy as np

import lazyarr
from tests.programs.support import exit_code, in_child, read_all


def opens(url, copy):
    """Open and read everything, and say how that went."""
    try:
        x = lazyarr.open(url)
        assert (np.asarray(x) == np.load(copy)).all()
        print("right")
    except lazyarr.LazyarrError as error:
        print(type(error).__name__, error)


def opens_with_a_limit(url, copy, limit, soft, hard):
    resource.setrlimit(getattr(resource, limit), (int(soft), int(hard)))
    opens(url, copy)


def descriptors_that_are_missing_at_the_moment_are_named(url, copy):
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    data, x = np.load(copy), None

    def read(row):
        nonlocal x
        if x is None:
            x = lazyarr.open(url)
        assert (x[row] == data[row]).all()
        assert lazyarr.stats()["memory_limit"] > 0
        assert (lazyarr.open(url, mode="c")[row] == data[row]).all()

    def attempt(n_left):
        held = []
        while True:
            try:
                held.append(os.open("/", os.O_RDONLY))
            except OSError:
                break
        while n_left:
            os.close(held.pop())
            n_left -= 1
        try:
            read(5)
            print("right", flush=True)
        except (OSError, ImportError) as error:  # also of what imports for the first time
            assert "Too many open files" in str(error), error
            if isinstance(error, lazyarr.LazyarrError):
                assert "ulimit -n" in str(error), error
            print("named", flush=True)
        for descriptor in held:
            os.close(descriptor)
        read(9)
        open_now = len(os.listdir("/proc/self/fd"))
        for _ in range(8):
            read(13)
        # A thread closes, on a channel of its own: a leak would keep this from ending.
        while len(os.listdir("/proc/self/fd")) > open_now + 2:
            os.sched_yield()

    for n_left in range(24):
        assert in_child(lambda n_left=n_left: attempt(n_left)) == 0, n_left


def a_table_of_references_may_be_tens_of_megabytes(path, n_megabytes):
    import fsspec

    rows = np.arange(1000).reshape(10, 100)
    lazyarr.save(path, rows, compressor="none")
    files = fsspec.filesystem("file").find(path)
    table = {file[len(path) + 1 :]: [file] for file in files}
    table["filler"] = "x" * (int(n_megabytes) << 20)
    options = {"fo": table, "remote_protocol": "file"}
    try:
        x = lazyarr.open("reference://", storage_options=options)
        assert (np.asarray(x) == rows).all()
        print("right")
    except ValueError as error:
        print(error)
        options["fo"] = path + ".json"
        with open(options["fo"], "w") as file:
            json.dump(table, file)
        assert (np.asarray(lazyarr.open("reference://", storage_options=options)) == rows).all()


def more_processes_than_a_pager_has_descriptors_for(url, copy):
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    x, data = lazyarr.open(url), np.load(copy)
    assert (x[5] == data[5]).all()
    ours, theirs = os.pipe()
    pids = []
    for i in range(12):
        pids.append(os.fork())
        if pids[-1] == 0:
            os.close(theirs)
            is_right = (x[i * 4] == data[i * 4]).all() and read_all(x) == data.tobytes()
            if i < 4:
                os.read(ours, 1)  # stays until all have been born
            os._exit(0 if is_right else 2)
    os.close(theirs)
    assert {exit_code(pid) for pid in pids} == {0}
    assert read_all(x) == data.tobytes()
    assert lazyarr.stats()["workers_lost"] == 0


class Shortened:
    """A pager that has so many descriptors left, for good or until another process gives more."""

    def __init__(self):
        self.worker = lazyarr.stats()["pid"]
        self.hard = resource.prlimit(self.worker, resource.RLIMIT_NOFILE)[1]

    def shorten(self, n_left):
        used = {int(name) for name in os.listdir(f"/proc/{self.worker}/fd")}
        limit = max(n for n in range(1024) if len(set(range(n)) - used) == n_left)
        resource.prlimit(self.worker, resource.RLIMIT_NOFILE, (limit, self.hard))

    def shorten_for(self, seconds, n_left):
        self.shorten(n_left)
        lengthen = f"sleep {seconds}; prlimit --pid={self.worker} --nofile=1024:"
        return subprocess.Popen(["sh", "-c", lengthen])

    def lengthen(self):
        resource.prlimit(self.worker, resource.RLIMIT_NOFILE, (self.hard, self.hard))


def a_pager_that_lacks_descriptors_for_a_while(directory, copy, n_left):
    import zarr
    from numcodecs import LZMA

    data, opened, n_left = np.load(copy), [], int(n_left)
    for number in range(4):
        name, options = f"{directory}/{number}", {"compressors": [LZMA(preset=0)]}
        chunks = (8, *data.shape[1:])
        zarr.create_array(name, data=data, chunks=chunks, zarr_format=2, **options)
        opened.append(lazyarr.open(name))
    _other = lazyarr.open(directory + "/0", mode="c")
    pager = Shortened()
    lengthened = [pager.shorten_for(0.5, n_left)]
    assert (opened[0][5] == data[5]).all()  # its codec is imported now
    lengthened.append(pager.shorten_for(0.5, n_left))
    assert read_all(opened[1]) == data.tobytes()
    lengthened.append(pager.shorten_for(0.5, n_left))
    assert in_child(lambda: (read_all(opened[2]) == data.tobytes()) or sys.exit(1)) == 0
    lengthened.append(pager.shorten_for(0.5, n_left))
    again = lazyarr.open(directory + "/3")
    assert (again[[5, 60]] == data[[5, 60]]).all()
    assert read_all(opened[0]) == data.tobytes()
    for each in lengthened:
        assert each.wait() == 0
    assert lazyarr.stats()["workers_lost"] == 0
    assert lazyarr.stats()["errors"] == 0


def a_pager_that_lacks_descriptors_for_good_says_so(url, copy):
    lazyarr.configure(retries=1)
    data = np.load(copy)
    x = lazyarr.open(url)
    pager = Shortened()
    pager.shorten(0)
    try:
        x[5]
    except lazyarr.ChunkError as error:
        print(error.reason)
    pager.lengthen()
    assert (x[5] == data[5]).all()

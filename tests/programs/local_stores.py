"""Programs of tests/store: other processes at the same files."""

import json
import os
import sys

from lazyarr.store import open_reference
from lazyarr.store.cache import DiskCache
from lazyarr.store.local import LocalStore


def holds_a_lock(path):
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    os.lockf(fd, os.F_TLOCK, 0)
    print("locked", flush=True)
    sys.stdin.read()


def file_that_is_cleared_away_is_written_again(path, n_times):
    n_left = int(n_times)

    def hook(event, arguments):
        nonlocal n_left
        if event == "os.rename" and n_left:
            n_left -= 1
            os.unlink(arguments[0], dir_fd=arguments[2])

    sys.addaudithook(hook)
    LocalStore(path, writable=True).write("c/0", b"whole")


def puts_into_a_cache(directory, *names):
    disk = DiskCache(directory, 10_000, complain=print)
    for name in names:
        assert disk.put(name, bytes(500), "v")


def opens_a_reference():
    description, descriptors, key = json.load(sys.stdin)
    store = open_reference(description, descriptors)
    sys.stdout.buffer.write(store.read_range(key, 3, 700))
    store.close()

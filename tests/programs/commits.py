"""Programs of tests/committing: processes that commit units, hand on claims, or read meanwhile."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import lazyarr
from lazyarr.committing import Committer
from lazyarr.formats.zarr import parse_node
from lazyarr.reading.units import geometry_of
from lazyarr.store import open_store
from lazyarr.store.claim import Claim


def open_committer(root, *, durable=True):
    """Return a committer of array "x", the units' geometry, and the type of its elements."""
    metadata = parse_node(Path(root, "x/zarr.json").read_bytes(), path="x").native()
    layout = metadata.layout()
    geometry = geometry_of(layout)
    store = open_store(root, writable=True)
    store.durable = durable
    committer = Committer(store, "x", layout, geometry, url=store.url)
    return committer, geometry, metadata.dtype.to_numpy()


def commit_generation(committer, geometry, dtype, units, generation, *, with_fill=False):
    """Have all elements of some units tell generation and unit, and commit them.

    Or, of some generations, be the fill value, so that the chunk is not stored.
    """
    for group in committer.group(units):
        chunks = {}
        for unit in group:
            n_elements = geometry.unit_bytes(unit).size // dtype.itemsize
            data = np.zeros(n_elements, dtype)
            if with_fill and (generation + unit) % 3 == 0:
                chunks.update(committer.encode(unit, data.data))
                continue
            # Random bytes below the number: chunks of one number would be of one length.
            noise = np.random.default_rng((generation, unit)).integers(0, 1 << 16, n_elements)
            data += (generation << 24) + (unit << 16) + noise
            chunks.update(committer.encode(unit, data.data))
        committer.put(chunks)
    committer.sync()


def commits_without_end(root, first, with_fill):
    """Commit generation after generation, of some units each."""
    committer, geometry, dtype = open_committer(root)
    print("ready", flush=True)
    for generation in itertools.count(int(first)):
        units = np.random.default_rng(generation).permutation(geometry.n_units)
        some = sorted(map(int, units[:5]))
        commit_generation(committer, geometry, dtype, some, generation, with_fill=bool(with_fill))


def is_killed_often(root, first, n_times):
    """Have children commit, and kill each of them at some moment."""
    rng = np.random.default_rng(int(first))
    for k in range(int(n_times)):
        generation = int(first) + 1000 * k
        pid = os.fork()
        if pid == 0:
            committer = open_committer(root)
            for step in range(10**6):
                units = np.random.default_rng(generation + step).permutation(16)[:5]
                commit_generation(*committer, sorted(map(int, units)), generation + step)
            os._exit(0)
        time.sleep(rng.uniform(0.004, 0.05))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        print("killed" if os.WIFSIGNALED(status) else "done", flush=True)


def reads_without_end(root, engine, n_rounds):
    """Read rows at random; every row is of one generation.

    Memory is given up after each round, so that each is read from the store.
    """
    lazyarr.configure(engine=engine)
    x = lazyarr.open(root)["x"]
    rng = np.random.default_rng()
    newest = 0
    for _ in range(int(n_rounds)):
        for row in rng.integers(0, len(x), 50):
            marks = np.unique(np.asarray(x[row]) >> 16)
            assert len(marks) == 1, (row, marks)
            assert marks[0] == 0 or marks[0] & 0xFF == row // 4, (row, marks)
            newest = max(newest, int(marks[0]) >> 8)
        lazyarr.evict(x)
    # Whoever opens it again sees what has been put since.
    while np.max(np.asarray(lazyarr.open(root)["x"])) >> 24 <= newest:
        pass
    print(newest, flush=True)


def claims_and_dies(root):
    """Claim a store, hand the claim to a child, and end."""
    store = open_store(root, writable=True)
    fd = store.claim().fileno()
    os.set_inheritable(fd, True)
    script = ["-m", "tests.programs", "commits:has_been_handed_a_claim", root, str(fd)]
    subprocess.Popen([sys.executable, *script], pass_fds=[fd])
    print(os.getpid(), flush=True)


def has_been_handed_a_claim(root, fd):
    """Hold the claim until the standard input ends."""
    claim = Claim.received(int(fd), root)
    print(os.getpid(), flush=True)
    sys.stdin.read()
    claim.close()

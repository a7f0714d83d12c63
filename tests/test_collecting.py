"""Cyclic garbage stays while a library with a lock of its own calls back."""

from __future__ import annotations

import gc
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np

from lazyarr.collecting import without_collection
from tests.process.running import run_program
from tests.programs import collecting as programs
from tests.servers import http_server  # noqa: F401 - a fixture
from tests.store.forked import succeeds_in_child


class Ring:
    """An object in a cycle, which calls a function when it is freed."""

    def __init__(self, function) -> None:
        self.function = function
        self.itself = self

    def __del__(self) -> None:
        self.function()


def test_h5py_does_not_wait_for_the_thread_that_brings_its_bytes(tmp_path, http_server):  # noqa: F811
    """That thread would wait for h5py's lock as soon as it collects garbage."""
    path = Path(http_server.directory) / "x.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(1000.0)
        for number in range(30):
            file.create_dataset(f"g{number}/x", data=np.zeros(20_000), chunks=(500,))
    ended = run_program(
        programs.objects_of_h5py_are_freed_by_the_thread_that_brings_bytes,
        path,
        f"{http_server.url}/x.h5",
    )
    assert (ended.returncode, ended.stdout) == (0, "True True\n"), ended.stderr


def test_nothing_is_collected_in_any_thread_until_the_last_block_ends():
    """Blocks of two threads overlap, and one has another in it."""
    freed = []

    def leave_garbage() -> None:
        Ring(lambda: freed.append(threading.get_ident()))
        for _ in range(10):
            _ = [[] for _ in range(2 * gc.get_threshold()[0])]

    with ThreadPoolExecutor(1) as other:
        first, second = without_collection(), without_collection()
        with first:
            with without_collection():
                other.submit(second.__enter__).result()
            leave_garbage()
        other.submit(leave_garbage).result()
        assert (gc.isenabled(), freed) == (False, [])
        other.submit(second.__exit__, None, None, None).result()
    assert gc.isenabled()
    for _ in itertools.takewhile(lambda _: len(freed) < 2, itertools.count()):
        leave_garbage()


def test_a_collection_that_runs_already_is_waited_for():
    """It may be about to free what waits for the lock that comes next."""
    began, ends, done = threading.Event(), threading.Event(), []

    def take_long() -> None:
        began.set()
        ends.wait()
        done.append(True)

    def enter() -> bool:
        with without_collection():
            return bool(done)

    Ring(take_long)
    with ThreadPoolExecutor(2) as threads:
        collects = threads.submit(gc.collect)
        began.wait()
        enters = threads.submit(enter)
        while gc.isenabled():
            pass
        ends.set()
        assert enters.result()
        collects.result()
    assert gc.isenabled()


def test_a_collector_that_is_off_stays_off():
    """Programs have reasons of their own."""
    gc.disable()
    try:
        with without_collection():
            assert not gc.isenabled()
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_finalizer_that_a_collection_runs_may_open_files():
    """It cannot wait for the collection that it is part of."""
    entered = []

    def enter() -> None:
        with without_collection():
            entered.append(gc.isenabled())

    Ring(enter)
    gc.collect()
    assert (entered, gc.isenabled()) == ([False], True)


def test_a_forked_child_has_the_blocks_of_its_own_thread_alone():
    """Those of others never end there."""
    with ThreadPoolExecutor(1) as other:
        block = without_collection()
        other.submit(block.__enter__).result()
        assert succeeds_in_child(gc.isenabled)

        def ends_its_own() -> bool:
            was_enabled = gc.isenabled()
            own.__exit__(None, None, None)
            return not was_enabled and gc.isenabled()

        own = without_collection()
        with own:
            assert succeeds_in_child(ends_its_own)
        other.submit(block.__exit__, None, None, None).result()
    assert gc.isenabled()

"""A program whose children write stores and are killed; says what they left behind.

Run as ``dying.py SCENARIO DIRECTORY SEED``.  For every file operation of the scenario one
child is killed just before it, and some more at random moments.  Where several threads work
their operations come in another order each time, and some are enough.  Children are forked
from a process that has everything imported and no threads.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import lazyarr
from lazyarr.writer import open_writer
from tests.writer.stores import partials, read_array, read_tree, same

OPERATIONS = {
    *("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"),
    *("os.listdir", "os.scandir", "ctypes.call_function"),
}
OLD = np.arange(1, 171, dtype="i4").reshape(17, 10)
NEW = OLD[:13] * 1000
MORE = OLD + 5000
LARGE = np.random.default_rng(1).integers(0, 9, (80, 10_000), "u2")
GRID = {"chunks": (4, 10), "shards": (12, 10)}


def save(path: Path, array: np.ndarray, **options: object) -> None:
    data = {"g/x": array, "y": array[::-1]}
    lazyarr.save(path, data, **GRID, consolidated=True, **options)


def copy_old(path: Path) -> None:
    """Make a store of old rows: a copy of one that is written once."""
    written = path.parent.with_suffix(".old")
    if not written.exists():
        save(written, OLD, durable=False)  # the disk is not in question here, and it takes time
    shutil.copytree(written, path)


def holds(path: Path, array: np.ndarray) -> bool:
    """Return whether a store holds what `save` wrote: arrays, groups, consolidated metadata."""
    tree = read_tree(path)
    names = json.loads((path / "zarr.json").read_bytes())["consolidated_metadata"]["metadata"]
    return (
        tree.keys() == {"g/x", "y"}
        and same(tree["g/x"], array)
        and same(tree["y"], array[::-1])
        and names.keys() == {"g", "g/x", "y"}
    )


def leftovers(*directories: Path) -> list[Path]:
    """Return the temporary files in some directories."""
    return [path for directory in directories for path in directory.glob(".lazyarr-tmp-*")]


class New:
    """A store where none was: there is none, or all of it."""

    STEP = 1  # a death before each of so many operations

    def prepare(self, path: Path) -> None:
        pass

    def act(self, path: Path) -> None:
        save(path, NEW)

    def check(self, path: Path) -> bool:
        return not path.exists() or holds(path, NEW)

    def recover(self, path: Path) -> bool:
        save(path, OLD, overwrite=True, durable=False)
        return holds(path, OLD)


class Overwrite(New):
    """A store in place of another: the old one, or the new one."""

    STEP = 2  # its operations are those of `New`, and a few more

    def prepare(self, path: Path) -> None:
        copy_old(path)

    def act(self, path: Path) -> None:
        save(path, NEW, overwrite=True)

    def check(self, path: Path) -> bool:
        return holds(path, OLD) or holds(path, NEW)


class OverwriteLarge(Overwrite):
    """The same with work for several threads, to be killed while they compress and write."""

    STEP = 3

    def act(self, path: Path) -> None:
        grid = {"chunks": (1, 10_000), "shards": (20, 10_000)}
        lazyarr.save(path, {"g/x": LARGE}, **grid, consolidated=True, overwrite=True)

    def check(self, path: Path) -> bool:
        return holds(path, OLD) or same(read_tree(path)["g/x"], LARGE)


class Append(New):
    """Rows added to a store, in two steps: old rows are never lost, lengths are true."""

    def prepare(self, path: Path) -> None:
        copy_old(path)

    def act(self, path: Path) -> None:
        with open_writer(path) as writer:
            writer["g/x"].append(NEW[:5])
            writer["g/x"].append(NEW[5:])
            writer["y"].append(NEW)

    def check(self, path: Path) -> bool:
        first, second = read_array(path / "g/x"), read_array(path / "y")
        lengths = {len(OLD), len(OLD) + len(NEW)}
        copies = json.loads((path / "zarr.json").read_bytes())["consolidated_metadata"]["metadata"]
        for name, found in (("g/x", first), ("y", second)):
            # A copy may be behind, when the writer died before the last step; not ahead.
            if not {len(found), copies[name]["shape"][0]} <= lengths:
                return False
            if copies[name]["shape"][0] > len(found):
                return False
        expected = np.concatenate([OLD, NEW]), np.concatenate([OLD[::-1], NEW])
        return same(first, expected[0][: len(first)]) and same(second, expected[1][: len(second)])

    def recover(self, path: Path) -> bool:
        """Append other rows, fewer, and look also behind them, where dead rows may lie."""
        before = read_array(path / "g/x")
        with open_writer(path) as writer:
            writer["g/x"].append(MORE[:1])
        with open_writer(path) as writer:
            writer["g/x"].append(MORE[1:2])
        members = json.loads((path / "zarr.json").read_bytes())["consolidated_metadata"]["metadata"]
        found = read_array(path / "g/x")
        n_rows = len(found)
        document = path / "g/x/zarr.json"
        inside_shard = -(-n_rows // 12) * 12
        resized = json.loads(document.read_bytes()) | {"shape": [inside_shard, 10]}
        document.write_text(json.dumps(resized))
        behind = read_array(path / "g/x")[n_rows:]
        return (
            same(found, np.concatenate([before, MORE[:2]]))
            and members["g/x"]["shape"][0] == n_rows
            and not behind.any()
            and not leftovers(path, path / "g/x", path / f"g/x/c/{(n_rows - 1) // 12}")
        )


class AddArray(Append):
    """An array added to a store: it is there with all rows, or not."""

    def act(self, path: Path) -> None:
        with open_writer(path) as writer:
            added = writer.create_array("g/h/z", shape=NEW.shape, dtype="i4", **GRID)
            added[...] = NEW

    def check(self, path: Path) -> bool:
        tree = read_tree(path)
        return same(tree["g/x"], OLD) and ("g/h/z" not in tree or same(tree["g/h/z"], NEW))

    def recover(self, path: Path) -> bool:
        if "g/h/z" in read_tree(path):
            return True
        with open_writer(path) as writer:
            writer.create_array("g/h/z", shape=OLD.shape, dtype="i4", **GRID)[:6] = OLD[:6]
        found = read_tree(path)["g/h/z"]
        return same(found[:6], OLD[:6]) and not found[6:].any()


SCENARIOS = {s.__name__: s for s in (New, Overwrite, OverwriteLarge, Append, AddArray)}


def run_child(act: Callable[[], None], *, die_before: int) -> tuple[int, int]:
    """Return how a child ended, and how many file operations it made until then."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        count = 0

        def hook(event: str, _: object) -> None:
            nonlocal count
            if event in OPERATIONS:
                count += 1
                if count == die_before:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        act()
        os.write(writer, str(count).encode())
        os._exit(0)
    os.close(writer)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    n_operations = int(os.read(reader, 20) or 0)
    os.close(reader)
    return status, n_operations


def run_child_for(act: Callable[[], None], seconds: float) -> None:
    """Have a child killed after some time, wherever it is."""
    pid = os.fork()
    if pid == 0:
        act()
        os._exit(0)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def trial(name: str, directory: Path, kill: Callable[[Callable[[], None]], object]) -> str | None:
    """Return what is wrong after one death, or None."""
    scenario = SCENARIOS[name]()
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    path = directory / "x.zarr"
    scenario.prepare(path)
    kill(lambda: scenario.act(path))
    if not scenario.check(path):
        return "neither old nor new"
    # And the file by which the writer had claimed the name, which the next one takes over.
    left = [name for name in partials(directory) if not name.endswith(".partial-claim")]
    if len(left) > 1:
        return f"left {left}"
    if not scenario.recover(path):
        return "the next writer failed"
    return f"still left {partials(directory)}" if partials(directory) else None


def main(name: str, directory: Path, seed: int) -> None:
    """Print the number of deaths and, by when they were, what was wrong after them."""
    wrong: dict[str, str] = {}

    def note(when: str, kill: Callable[[Callable[[], None]], object]) -> None:
        found = trial(name, directory, kill)
        if found is not None:
            wrong[when] = found

    counts: list[int] = []
    started = time.perf_counter()
    note("not at all", lambda act: counts.append(run_child(act, die_before=0)[1]))
    seconds = time.perf_counter() - started
    (n_operations,) = counts
    operations = range(1, n_operations + 1, SCENARIOS[name].STEP)
    for n in operations:
        note(f"before operation {n}", lambda act, n=n: run_child(act, die_before=n))
    source = random.Random(seed)
    for _ in range(12):
        after = source.uniform(0, seconds)
        note(f"after {after} s", lambda act, after=after: run_child_for(act, after))
    print(json.dumps({"n_deaths": len(operations) + 12, "wrong": wrong}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))

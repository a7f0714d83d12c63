"""Readers and writers in several processes, while everything that can fail beneath them does.

``python -m tests.process.soak --seconds 600`` prints a summary, and ends with 1 when
a process got an answer that is not right, or none, or ended by itself, or when a store lacks
what was written to it.

What is read raw comes from a store that is sound: a page that cannot be had is SIGBUS.
From the stores that are not, arrays are read by request into memory that is not evicted,
or in forked children, which may die.

Writers are killed, alone or with their pager, and their stores take nothing for a while.  Each
keeps a journal (`tests.process.writers`), with which what zarr-python reads is compared whenever
one has ended, before another one goes on with its store.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from lazyarr.kernel import exchange_paths
from lazyarr.testing import Behaviour, HttpServer, serve_directory
from tests.process.readers import COUNTED, NO_PAGER, Shared, Slot
from tests.process.running import decoders, pagers, parent_of, wait_until
from tests.process.stored import Damage, StoredArray, write_arrays
from tests.process.writers import Differences, Journal, make_store

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Soak", "main"]

# Longer than the pager takes to find that a worker is stopped, and a store to time out.
_HANG_SECONDS = 90.0
_PAUSE_SECONDS = 0.1
_STOPPED_SECONDS = 60.0
_EXPECTED_LINES = (
    "another takes over",
    "a thread that waits for it gets SIGBUS",
    "a process that was to decode for the pager died of SIGKILL",  # before it could
    "the pager was killed; touching what is not loaded gives SIGBUS from now on",
)
_ENVIRONMENT = {
    "LAZYARR_MEMORY_LIMIT": "1 MiB",
    "LAZYARR_TIMEOUT": "1",
    "LAZYARR_RETRIES": "2",
}
_BEHAVIOURS = [
    Behaviour(),
    Behaviour(status=503),
    Behaviour(status=500),
    Behaviour(status=403),
    Behaviour(drop=True),
    Behaviour(truncate=True),
    Behaviour(wrong_bytes=True),
    Behaviour(delay_seconds=0.2),
]
_STALLED = Behaviour(delay_seconds=20)


class Program:
    """A process of a soak, and those that follow it under the same number.

    Parameters
    ----------
    module : str
        What it runs.
    number : int
        Which one it is.
    arguments : list
        What else it is given.
    directory : Path
        For its logs.
    environment : dict
        What it has in its environment beside what all have.
    """

    def __init__(
        self,
        module: str,
        number: int,
        arguments: list[object],
        directory: Path,
        environment: dict[str, str],
    ) -> None:
        self.number = number
        self.name = f"{module} {number}"
        self.mark = f"LAZYARR_TEST_MARK=soak-{os.getpid()}-{number}"
        self._command = [sys.executable, "-m", f"tests.process.{module}", str(number)]
        self._arguments = arguments
        self._directory = directory
        self._environment = environment
        self._n_started = 0
        self.start()

    def start(self) -> None:
        """Start it, or the next one."""
        self._n_started += 1
        name, value = self.mark.split("=")
        with self._log().open("wb") as log:
            self.process = subprocess.Popen(
                [*self._command, *(str(argument) for argument in self._arguments)],
                stderr=log,
                env={**os.environ, **_ENVIRONMENT, **self._environment, name: value},
            )

    def said(self) -> list[str]:
        """Return the lines that it and its pager have said and that nothing accounts for."""
        lines = self._log().read_text().splitlines()
        return [line for line in lines if not line.endswith(_EXPECTED_LINES)]

    def _log(self) -> Path:
        return self._directory / f"log-{self.number}-{self._n_started}"


class WrittenStore:
    """The store of a writer, which can be made to take nothing.

    Parameters
    ----------
    path : Path
        Where it is made.
    number : int
        Which writer's it is.
    """

    def __init__(self, path: Path, number: int) -> None:
        self._chunks, self._aside = path / "c", path / "kept"
        self._path = path
        self.journal = Journal(path.with_name(f"journal-{number}"))
        self.takes_nothing = False
        make_store(path, number)
        self._chunks.mkdir()

    def fail(self) -> None:
        """Have it take nothing: a writer follows no link, and readers do."""
        self._aside.symlink_to("kept")
        exchange_paths(self._aside, self._chunks)
        self.takes_nothing = True

    def mend(self) -> None:
        """Have it take everything again."""
        if self.takes_nothing:
            exchange_paths(self._aside, self._chunks)
            self._aside.unlink()
            self.takes_nothing = False

    def compare(self, *, has_flushed_alone: bool) -> Differences:
        """Return how what zarr-python reads differs from the journal, which follows it then."""
        journal = self.journal
        found = np.asarray(zarr.open_array(str(self._path), mode="r")[...]).astype(np.int64)
        least = journal.flushed if has_flushed_alone else journal.written
        differences = journal.compare(found, least)
        # What was begun, and is not there, is written anew by the next writer.
        journal.written[:] = np.minimum(journal.written, found.min(axis=1))
        journal.flushed[:] = journal.written
        return differences


class Soak:
    """One run.

    Parameters
    ----------
    directory : Path
        For stores and logs.
    server : HttpServer
        Serves the directory.
    n_readers, n_writers, n_threads : int
        How many processes of either kind, and threads in each.
    seed : int
        Of all random choices but those of the scheduler.
    """

    def __init__(
        self,
        directory: Path,
        server: HttpServer,
        *,
        n_readers: int,
        n_writers: int,
        n_threads: int,
        seed: int,
    ) -> None:
        self.server = server
        self.random = random.Random(seed)
        self.shared = Shared(directory / "shared", n_readers + n_writers, n_threads)
        self.bad: list[StoredArray] = []
        for name in ("sound.zarr", "bad.zarr", "remote.zarr"):
            arrays = write_arrays(directory / name)
            if name == "bad.zarr":
                self.bad = list(arrays.values())

        def start(module: str, number: int, *urls: str) -> Program:
            arguments = [self.random.getrandbits(32), directory, *urls]
            # Two processes decode beside each worker of a reader's.
            environment = {"LAZYARR_THREADS": "8" if module == "readers" else "2"}
            return Program(module, number, arguments, directory, environment)

        self.readers = [start("readers", number, server.url) for number in range(n_readers)]
        self.stores: dict[int, WrittenStore] = {}
        for number in range(n_readers, n_readers + n_writers):
            self.stores[number] = WrittenStore(directory / f"written-{number}.zarr", number)
        self.writers = [start("writers", number) for number in self.stores]
        self.programs = [*self.readers, *self.writers]
        self.done: Counter[str] = Counter()
        self.problems: list[str] = []
        self._killed: dict[int, int] = {}
        self._last_stop = time.monotonic()
        self._moved = [(0, time.monotonic())] * (len(self.programs) * n_threads)

    # --- what goes wrong ------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        """Make trouble for some time, then let the processes check everything and end."""
        rows = [self.shared.row(program.number, 0) for program in self.programs]
        if not wait_until(lambda: all(row[Slot.WORKER] for row in rows), seconds=_HANG_SECONDS):
            self.problems.append("not all processes have begun")
        # Each kind once at least, however slow the machine is, and then at random.
        if self.writers:
            self.kill_writer()
            self.fail()
        self.spoil()
        self.kill()
        stop = time.monotonic() + seconds
        troubles: list[tuple[Callable[[], None], int]] = [
            *((trouble, 10) for trouble in (self.kill, self.spoil, self.mend, self.misbehave)),
            *((t, 3) for t in (self.fail, self.recover, self.kill_writer) if self.writers),
        ]
        choices, weights = zip(*troubles, strict=True)
        while time.monotonic() < stop and not self.problems:
            self.random.choices(choices, weights)[0]()
            if time.monotonic() - self._last_stop > _STOPPED_SECONDS:
                self._last_stop = time.monotonic()
                self.kill(signal.SIGSTOP)
            time.sleep(_PAUSE_SECONDS)
            self.look_after()
        for array in self.bad:
            array.mend(in_place=False)
        for number in self.stores:
            self.take_again(number)
        self.server.behave(Behaviour())
        self.shared.stop()
        while not self.problems and any(p.process.poll() is None for p in self.programs):
            time.sleep(_PAUSE_SECONDS)
            self.look_after()
        self.end()

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        """Kill or stop the worker of some process's pager, or what decodes for it.

        If it is not the worker from before.
        """
        known = self._workers(self.programs)
        new = [n for n, worker in known.items() if self._killed.get(n) != worker]
        if new:
            number = self.random.choice(new)
            self._killed[number] = worker = known[number]
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                victims = [worker, *decoders(worker)]
                os.kill(self.random.choice(victims), how)
                self.done[how.name] += 1

    def _workers(self, programs: list[Program]) -> dict[int, int]:
        """Return the worker that each process has, by the process's number."""
        known = {p.number: int(self.shared.row(p.number, 0)[Slot.WORKER]) for p in programs}
        return {n: pid for n, pid in known.items() if _is_worker(pid, self.programs[n].mark)}

    def kill_writer(self) -> None:
        """Kill a writer, or its pager, or both; look into the store, and start the next one."""
        workers = self._workers(self.writers)
        if not workers:
            return
        number = self.random.choice(list(workers))
        writer, worker = self.programs[number], workers[number]
        self.take_again(writer.number)
        how = self.random.choice(("writer", "writer and worker", "pager", "pager and writer"))
        if how.startswith("pager") and not _kill_pager(worker, writer.mark):
            return
        if "worker" in how:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        if "writer" in how:
            writer.process.kill()
        self.done[f"killed: {how}"] += 1
        self.follow(writer, has_pager=not how.startswith("pager"))
        self.shared.row(number, 0)[Slot.WORKER] = 0
        writer.start()
        for index in self._indexes(writer.number):
            self._moved[index] = (self._moved[index][0], time.monotonic())

    def follow(self, writer: Program, *, has_pager: bool) -> None:
        """Wait until a writer and its pager have ended, and compare the store with its journal."""
        if not wait_until(lambda: writer.process.poll() is not None, seconds=_HANG_SECONDS):
            self.problems.append(f"{writer.name} hangs after its pager was killed")
            return
        if not wait_until(lambda: not pagers(writer.mark), seconds=_HANG_SECONDS):
            self.problems.append(f"pagers left behind: {pagers(writer.mark)}")
        # Who was killed with the pager, or dies for want of it, leaves what was flushed; the
        # pager of another writes back what is in memory, or the writer has done so itself.
        is_saved = has_pager or writer.process.returncode in (0, NO_PAGER)
        store = self.stores[writer.number]
        found = store.compare(has_flushed_alone=not is_saved)
        row = self.shared.row(writer.number, 0)
        row[Slot.LOST] += found.n_lost
        row[Slot.WRONG] += found.n_wrong
        if any(found):
            self.problems.append(f"{writer.name} ended with {writer.process.returncode}: {found}")
        if has_pager:
            self.listen_to(writer)

    def fail(self) -> None:
        """Let the store of a writer take nothing, once its threads do what may fail then."""
        number = self.random.choice(list(self.stores))
        if self.stores[number].takes_nothing:
            return
        self.shared.row(number, 0)[Slot.CAREFUL] = 1
        before = self._counts(number)
        process = self.programs[number].process

        def is_careful() -> bool:
            counts = zip(self._counts(number), before, strict=True)
            return process.poll() is not None or all(now >= then + 2 for now, then in counts)

        if wait_until(is_careful, seconds=_HANG_SECONDS) and process.poll() is None:
            self.stores[number].fail()
            self.done["failures"] += 1

    def recover(self) -> None:
        """Let the store of a writer take everything again."""
        self.take_again(self.random.choice(list(self.stores)))

    def take_again(self, number: int) -> None:
        """Let a store take everything, and tell its writer."""
        self.stores[number].mend()
        self.shared.row(number, 0)[Slot.CAREFUL] = 0

    def spoil(self) -> None:
        """Damage an object."""
        self.random.choice(self.bad).spoil(
            self.random.getrandbits(20),
            self.random.choice(list(Damage)),
            self.random.getrandbits(20),
            in_place=self.random.random() < 0.5,
        )
        self.done["damaged"] += 1

    def mend(self) -> None:
        """Make an array sound again."""
        self.random.choice(self.bad).mend(in_place=self.random.random() < 0.5)

    def misbehave(self) -> None:
        """Let the server fail, or stall for ever with one object."""
        if self.random.random() < 0.3:
            self.server.behave(_STALLED, path=f"large/c/{self.random.randrange(32)}/")
        else:
            self.server.behave(self.random.choice(_BEHAVIOURS), path="/c/")
        self.done["misbehaviours"] += 1

    # --- what must not -----------------------------------------------------------------------

    def _indexes(self, number: int) -> range:
        return range(number * self.shared.n_threads, (number + 1) * self.shared.n_threads)

    def _counts(self, number: int) -> list[int]:
        """Return how many operations each thread of a process has done."""
        threads = range(self.shared.n_threads)
        return [int(self.shared.row(number, thread)[Slot.OPERATIONS]) for thread in threads]

    def look_after(self) -> None:
        """Note processes that have ended, and threads that have not moved for too long."""
        now = time.monotonic()
        for program in self.programs:
            process = program.process
            if process.poll():
                self.problems.append(f"{program.name} ended with {process.returncode}")
            counts = self._counts(program.number)
            for thread, index in enumerate(self._indexes(program.number)):
                if counts[thread] != self._moved[index][0] or process.poll() is not None:
                    self._moved[index] = (counts[thread], now)
                elif now - self._moved[index][1] > _HANG_SECONDS:
                    self.problems.append(f"thread {thread} of {program.name} hangs")
                    process.send_signal(signal.SIGUSR1)  # faulthandler's

    def end(self) -> None:
        """End what still runs, and look at what everybody has said and written."""
        if self.problems:
            time.sleep(1)  # for the tracebacks
        for program in self.programs:
            program.process.kill()
            program.process.wait()
        for writer in self.writers:
            self.follow(writer, has_pager=True)
        for reader in self.readers:
            if not wait_until(lambda mark=reader.mark: not pagers(mark)):
                self.problems.append(f"pagers left behind: {pagers(reader.mark)}")
            self.listen_to(reader)

    def listen_to(self, program: Program) -> None:
        """Note what a process has said that it should have had no reason for."""
        others = program.said()
        if others:
            self.problems.append("\n".join([f"{program.name} said:", *others[:100]]))

    def summary(self, seconds: float) -> str:
        """Return what was done and what came of it."""
        counts = self.shared.totals()
        killed = {
            name.removeprefix("killed: "): n
            for name, n in self.done.items()
            if name.startswith("killed: ")
        }
        errors = [counts[s] for s in (Slot.CHUNK_ERRORS, Slot.SIGBUS, Slot.STORE_ERRORS)]
        parts = ", ".join(f"{counts[slot]} {slot.name.lower()}" for slot in COUNTED)
        return "\n".join(
            [
                f"soak of {seconds:.0f} s: {len(self.readers)} readers and {len(self.writers)} "
                f"writers with {self.shared.n_threads} threads each",
                f"operations done   {counts[Slot.OPERATIONS]} ({parts})",
                f"kills survived    {counts[Slot.WORKERS_LOST]} ({self.done['SIGKILL']} killed, "
                f"{self.done['SIGSTOP']} stopped)",
                f"writers killed    {sum(killed.values())} "
                f"({', '.join(f'{n} {how}' for how, n in sorted(killed.items()))})",
                f"pagers killed     {counts[Slot.PAGERS_LOST]} while nobody wrote",
                f"evictions         {counts[Slot.EVICTIONS]}",
                f"objects damaged   {self.done['damaged']}",
                f"misbehaviours     {self.done['misbehaviours']}",
                f"stores that fail  {self.done['failures']}",
                f"errors expected   {sum(errors)} ({errors[0]} of chunks, {errors[1]} SIGBUS in "
                f"children, {errors[2]} of stores that take nothing)",
                f"wrong answers     {counts[Slot.WRONG]}",
                f"writes lost       {counts[Slot.LOST]}",
                *(f"PROBLEM: {problem}" for problem in self.problems),
            ]
        )

    def is_clean(self) -> bool:
        """Return whether every answer was right, nothing was lost, and nobody hung or died."""
        counts = self.shared.totals()
        return not self.problems and counts[Slot.WRONG] == counts[Slot.LOST] == 0


def _is_worker(pid: int, mark: str) -> bool:
    """Return whether a process is a worker of some process's, and none that got its number."""
    try:
        return all(
            b"pager/__main__.py" in Path(f"/proc/{each}/cmdline").read_bytes()
            and mark.encode() in Path(f"/proc/{each}/environ").read_bytes().split(b"\0")
            for each in (pid, parent_of(pid))
        )
    except OSError:
        return False


def _kill_pager(worker: int, mark: str) -> bool:
    """Kill a worker and its supervisor, and leave the sentinel alive; return whether it was one."""
    try:
        supervisor = parent_of(worker)
        os.kill(supervisor, signal.SIGSTOP)
    except OSError:
        return False
    is_worker = _is_worker(worker, mark)
    if is_worker:
        os.kill(worker, signal.SIGKILL)
    os.kill(supervisor, signal.SIGKILL if is_worker else signal.SIGCONT)
    return is_worker


def main(arguments: list[str]) -> int:
    """Run a soak; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.process.soak")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--readers", type=int, default=4)
    parser.add_argument("--writers", type=int, default=3)
    parser.add_argument("--threads", type=int, default=3)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    options: Any = parser.parse_args(arguments)
    print(f"seed {options.seed}", file=sys.stderr)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as directory, serve_directory(directory) as server:
        soak = Soak(
            Path(directory),
            server,
            n_readers=options.readers,
            n_writers=options.writers,
            n_threads=options.threads,
            seed=options.seed,
        )
        try:
            soak.run(options.seconds)
        finally:
            for program in soak.programs:
                program.process.kill()
        print(soak.summary(time.monotonic() - begin))
        return 0 if soak.is_clean() else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Readers in several processes, while everything that can fail beneath them does.

``python -m tests.process.soak --seconds 600`` prints a summary, and ends with 1 when
a reader got an answer that is not right, or none, or ended by itself.

What is read raw comes from a store that is sound: a page that cannot be had is SIGBUS.
From the stores that are not, arrays are read by request into memory that is not evicted,
or in forked children, which may die.
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

from lazyarr.testing import Behaviour, HttpServer, serve_directory
from tests.process.readers import COUNTED, Shared, Slot
from tests.process.running import decoders, pagers, wait_until
from tests.process.stored import Damage, StoredArray, write_arrays

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
)
_ENVIRONMENT = {
    "LAZYARR_MEMORY_LIMIT": "1 MiB",
    "LAZYARR_TIMEOUT": "1",
    "LAZYARR_RETRIES": "2",
    "LAZYARR_THREADS": "8",  # two processes decode beside each worker
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


class Soak:
    """One run.

    Parameters
    ----------
    directory : Path
        For stores and logs.
    server : HttpServer
        Serves the directory.
    n_processes, n_threads : int
        How many readers, and threads in each.
    seed : int
        Of all random choices but those of the scheduler.
    """

    def __init__(
        self, directory: Path, server: HttpServer, *, n_processes: int, n_threads: int, seed: int
    ) -> None:
        self.directory = directory
        self.server = server
        self.random = random.Random(seed)
        self.shared = Shared(directory / "shared", n_processes, n_threads)
        self.bad: list[StoredArray] = []
        for name in ("sound.zarr", "bad.zarr", "remote.zarr"):
            arrays = write_arrays(directory / name)
            if name == "bad.zarr":
                self.bad = list(arrays.values())
        self.mark = f"LAZYARR_TEST_MARK=soak-{os.getpid()}"
        self.readers = [self.start_reader(number) for number in range(n_processes)]
        self.done: Counter[str] = Counter()
        self.problems: list[str] = []
        self._killed: dict[int, int] = {}
        self._last_stop = time.monotonic()
        self._moved = [(0, time.monotonic())] * (n_processes * n_threads)

    def start_reader(self, number: int) -> subprocess.Popen[bytes]:
        name, value = self.mark.split("=")
        arguments = [number, self.random.getrandbits(32), self.directory, self.server.url]
        with (self.directory / f"log-{number}").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.process.readers", *map(str, arguments)],
                stderr=log,
                env={**os.environ, **_ENVIRONMENT, name: value},
            )

    # --- what goes wrong ------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        """Make trouble for some time, then let the readers check everything and end."""
        stop = time.monotonic() + seconds
        troubles: list[Callable[[], None]] = [self.kill, self.spoil, self.mend, self.misbehave]
        while time.monotonic() < stop and not self.problems:
            self.random.choice(troubles)()
            if time.monotonic() - self._last_stop > _STOPPED_SECONDS:
                self._last_stop = time.monotonic()
                self.kill(signal.SIGSTOP)
            time.sleep(_PAUSE_SECONDS)
            self.look_after()
        for array in self.bad:
            array.mend(in_place=False)
        self.server.behave(Behaviour())
        self.shared.stop()
        while not self.problems and any(reader.poll() is None for reader in self.readers):
            time.sleep(_PAUSE_SECONDS)
            self.look_after()
        self.end()

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        """Kill or stop the worker of a reader's pager, or what decodes for it.

        If it is not the worker from before.
        """
        number = self.random.randrange(len(self.readers))
        worker = int(self.shared.row(number, 0)[Slot.WORKER])
        if worker and self._killed.get(number) != worker and _is_pager(worker):
            self._killed[number] = worker
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                victims = [worker, *decoders(worker)]
                os.kill(self.random.choice(victims), how)
                self.done[how.name] += 1

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

    def look_after(self) -> None:
        """Note readers that have ended, and threads that have not moved for too long."""
        now = time.monotonic()
        for number, reader in enumerate(self.readers):
            if reader.poll():
                self.problems.append(f"reader {number} ended with {reader.returncode}")
            for thread in range(self.shared.n_threads):
                index = number * self.shared.n_threads + thread
                count = int(self.shared.row(number, thread)[Slot.OPERATIONS])
                if count != self._moved[index][0] or reader.poll() is not None:
                    self._moved[index] = (count, now)
                elif now - self._moved[index][1] > _HANG_SECONDS:
                    self.problems.append(f"thread {thread} of reader {number} hangs")
                    reader.send_signal(signal.SIGUSR1)  # faulthandler's

    def end(self) -> None:
        """End what still runs, and look at what everybody has said."""
        if self.problems:
            time.sleep(1)  # for the tracebacks
        for reader in self.readers:
            reader.kill()
            reader.wait()
        if not wait_until(lambda: not pagers(self.mark)):
            self.problems.append(f"pagers left behind: {pagers(self.mark)}")
        for number in range(len(self.readers)):
            lines = (self.directory / f"log-{number}").read_text().splitlines()
            others = [line for line in lines if not line.endswith(_EXPECTED_LINES)]
            if others:
                self.problems.append("\n".join([f"reader {number} said:", *others[:100]]))

    def summary(self, seconds: float) -> str:
        """Return what was done and what came of it."""
        counts = self.shared.totals()
        parts = ", ".join(f"{counts[slot]} {slot.name.lower()}" for slot in COUNTED)
        return "\n".join(
            [
                f"soak of {seconds:.0f} s: {len(self.readers)} processes with "
                f"{self.shared.n_threads} threads each",
                f"operations done   {counts[Slot.OPERATIONS]} ({parts})",
                f"kills survived    {counts[Slot.WORKERS_LOST]} ({self.done['SIGKILL']} killed, "
                f"{self.done['SIGSTOP']} stopped)",
                f"evictions         {counts[Slot.EVICTIONS]}",
                f"objects damaged   {self.done['damaged']}",
                f"misbehaviours     {self.done['misbehaviours']}",
                f"errors expected   {counts[Slot.CHUNK_ERRORS]} ChunkError, "
                f"{counts[Slot.SIGBUS]} SIGBUS in children",
                f"wrong answers     {counts[Slot.WRONG]}",
                *(f"PROBLEM: {problem}" for problem in self.problems),
            ]
        )

    def is_clean(self) -> bool:
        """Return whether every answer was right and nobody hung or died."""
        return not self.problems and self.shared.totals()[Slot.WRONG] == 0


def _is_pager(pid: int) -> bool:
    try:
        return b"pager/__main__.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def main(arguments: list[str]) -> int:
    """Run a soak; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.process.soak")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--threads", type=int, default=3)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    options: Any = parser.parse_args(arguments)
    print(f"seed {options.seed}", file=sys.stderr)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as directory, serve_directory(directory) as server:
        soak = Soak(
            Path(directory),
            server,
            n_processes=options.processes,
            n_threads=options.threads,
            seed=options.seed,
        )
        try:
            soak.run(options.seconds)
        finally:
            for reader in soak.readers:
                reader.kill()
        print(soak.summary(time.monotonic() - begin))
        return 0 if soak.is_clean() else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

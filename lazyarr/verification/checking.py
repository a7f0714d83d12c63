"""Chunks checked on several threads, and counted."""

from __future__ import annotations

import threading
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from lazyarr.errors import ChunkError, StoreError
from lazyarr.reading.workspace import Workspace
from lazyarr.verification.report import Report

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TypeAlias

    from lazyarr.verification.checker import Checker
    from lazyarr.verification.survey import Survey

    _Job: TypeAlias = tuple[Checker, tuple[int, ...] | None]
    """An array, and a chunk of it, or None for the checksum that all chunks have together."""

__all__ = ["Tally", "check_all"]


def check_all(checkers: Sequence[Checker], tally: Tally, n_threads: int) -> None:
    """Check all chunks on several threads; any error other than a chunk's own ends the check."""
    jobs = _Jobs(checkers)
    with tally, ThreadPoolExecutor(n_threads, "lazyarr-verify") as threads:
        try:
            futures = [threads.submit(_work, jobs, tally) for _ in range(n_threads)]
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            jobs.stop()  # also for Ctrl-C, or the threads would be waited for
    for future in futures:
        future.result()


def _work(jobs: _Jobs, tally: Tally) -> None:
    """Check chunks until there are no more."""
    workspace = Workspace()
    try:
        while (job := jobs.take()) is not None:
            checker, chunk = job
            try:
                if chunk is None:
                    checker.check_whole()
                    continue
                stored_nbytes = checker.check(chunk, workspace)
            except ChunkError as error:
                cause = error.__cause__
                if isinstance(cause, StoreError) and cause.transient:
                    raise cause from None
                tally.add_damaged(error, is_chunk=chunk is not None)
            else:
                tally.add(stored_nbytes, checker.decoded_nbytes(chunk))
    finally:
        workspace.close()


class _Jobs:
    """The chunks that nobody has taken yet, and the arrays that have one checksum for all."""

    def __init__(self, checkers: Sequence[Checker]) -> None:
        self._lock = threading.Lock()
        self._jobs = _jobs(checkers)
        self._is_stopped = False

    def take(self) -> _Job | None:
        """Return the checker of an array and a chunk of it; None when there are no more."""
        with self._lock:
            return None if self._is_stopped else next(self._jobs, None)

    def stop(self) -> None:
        """Have no more taken."""
        self._is_stopped = True


def _jobs(checkers: Sequence[Checker]) -> Iterator[_Job]:
    for checker in checkers:
        yield checker, None
        for chunk in checker.chunks():
            yield checker, chunk


class Tally:
    """The counts of what all threads have checked so far, and the progress bar."""

    def __init__(self, n_chunks: int, damaged: list[ChunkError], *, progress: bool) -> None:
        from tqdm.auto import tqdm

        self._lock = threading.Lock()
        self._bar = tqdm(total=n_chunks, unit="chunk", desc="verify", disable=not progress)
        self._damaged = list(damaged)
        self._n_checked = self._n_missing = self._stored_nbytes = self._decoded_nbytes = 0

    def __enter__(self) -> None:
        self._bar.__enter__()

    def __exit__(self, *exception: object) -> None:
        self._bar.__exit__(*exception)

    def add(self, stored_nbytes: int | None, decoded_nbytes: int) -> None:
        """Count a chunk that is intact, or, without stored bytes, missing."""
        with self._lock:
            if stored_nbytes is None:
                self._n_missing += 1
            else:
                self._n_checked += 1
                self._stored_nbytes += stored_nbytes
                self._decoded_nbytes += decoded_nbytes
            self._bar.update()

    def add_damaged(self, error: ChunkError, *, is_chunk: bool) -> None:
        """Count a chunk that is damaged, or an array as a whole, whose chunks are counted too."""
        # Without what led to it: the frames would keep the chunk's bytes in memory.
        error.__cause__ = error.__context__ = None
        with self._lock:
            self._damaged.append(error.with_traceback(None))
            if is_chunk:
                self._n_checked += 1
                self._bar.update()

    def report(self, url: str, survey: Survey) -> Report:
        """Return the report on what was checked."""
        order = {checker.path: place for place, checker in enumerate(survey.checkers)}
        return Report(
            url=url,
            arrays=len(survey.checkers),
            chunks_checked=self._n_checked,
            chunks_missing=self._n_missing,
            stored_nbytes=self._stored_nbytes,
            decoded_nbytes=self._decoded_nbytes,
            damaged=tuple(sorted(self._damaged, key=lambda e: (order.get(e.array, -1), e.chunk))),
            skipped=tuple(survey.skipped),
            unguarded=tuple(c.path for c in survey.checkers if not c.is_guarded),
            strays=tuple(survey.strays),
            stale=tuple(survey.stale),
        )

"""Noting in which order arrays are touched first, for a later run to load them by.

What was noted is kept in a file; `lazyarr.client.trace_file` says what is in it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

from lazyarr.client.session import process
from lazyarr.client.trace_file import MAX_RANGES, write_trace
from lazyarr.client.warning import warn_user
from lazyarr.errors import LazyarrError, PagerError, PerformanceWarning
from lazyarr.opening.engines import begin_engine

if TYPE_CHECKING:
    from types import TracebackType

    from lazyarr.client.session.session import Session

__all__ = ["record"]

_LINE_RANGES = 1000


class record:  # noqa: N801 - used as a function is, as `contextlib.suppress`
    """Note which parts of arrays are touched first, and in which order, while the block runs.

    At its end the order is written to a file, also when the block raises.  `Dataset.replay` and
    `LazyArray.replay` have the same parts loaded in that order in a later run, before they are
    touched.

    Parameters
    ----------
    path : str or os.PathLike
        The file to write; it replaces one that is there.  Its directory must exist.

    Raises
    ------
    LazyarrError
        When the arrays of this process are copies: nobody sees them being touched.
    OSError
        When the file cannot be written.

    Warns
    -----
    PerformanceWarning
        When what was noted is lost, because the process that fills pages died meanwhile: nothing
        is written then.  When there was no room for all of it.

    Notes
    -----
    All arrays of this process are noted, and those of processes that share its pages: forked
    children and workers.  What is in memory before the block begins, and stays there, is touched
    without a word, and is not noted.  So record a run that begins with nothing loaded.  Notes are
    kept of a million ranges, of neighbouring chunks each.  What is loaded ahead while somebody
    records is noted when it is touched, which costs a page fault for each chunk.  In memory that
    belongs to one process alone (mode ``"c"``) nothing is loaded ahead then.

    Examples
    --------
    >>> import lazyarr, numpy, tempfile
    >>> directory = tempfile.TemporaryDirectory()
    >>> url, trace = f"{directory.name}/x.zarr", f"{directory.name}/epoch.trace"
    >>> lazyarr.save(url, {"x": numpy.arange(9)})
    >>> ds = lazyarr.open(url)
    >>> if isinstance(ds["x"], lazyarr.LazyArray):
    ...     with lazyarr.record(trace):
    ...         total = ds["x"].sum()
    ...     lazyarr.open(url).replay(trace)  # in a later run
    >>> directory.cleanup()
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.path.abspath(os.fspath(path))  # the block may change the directory
        self._session: Session | None = None
        self._recording = self._pid = 0

    def __repr__(self) -> str:
        return f"<lazyarr.record: {self._path}>"

    def __enter__(self) -> record:
        """Begin to note."""
        if begin_engine() == "copy":
            raise LazyarrError(
                "cannot record which parts of arrays are touched first: arrays are copies here, "
                "not memory that fills on touch; 'lazyarr doctor' says why"
            )
        # Now, and not after hours of work.
        if not os.access(os.path.dirname(self._path), os.W_OK):
            directory = os.path.dirname(self._path)
            kind = PermissionError if os.path.isdir(directory) else FileNotFoundError
            raise kind(f"cannot write a trace into the directory {directory!r}")
        session = process.session()
        self._recording = session.begin_recording()
        self._session, self._pid = session, os.getpid()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Write what was noted."""
        session, self._session = self._session, None
        # A child that was forked in the block ends it too.  The recording is its parent's.
        if session is None or self._pid != os.getpid():
            return
        try:
            self._end(session)
        except (LazyarrError, OSError) as failure:
            if error is None:
                raise
            error.add_note(f"The trace {self._path} could not be written: {failure}")

    def _end(self, session: Session) -> None:
        try:
            try:
                n_left_out = write_trace(self._path, _read_pager(session, self._recording))
            finally:
                session.end_recording(self._recording)
        except _LostError:
            n_left_out = None
        except PagerError:
            if not session.rpc.is_broken:
                raise
            n_left_out = None
        if n_left_out is None:
            warn_user(
                f"the trace {self._path} was not written: the process that fills pages has died "
                "meanwhile, and with it what was noted; record another run",
                PerformanceWarning,
            )
        elif n_left_out:
            warn_user(
                f"the trace {self._path} does not have all: {n_left_out} chunks, or groups of "
                f"small ones, were touched after there were {MAX_RANGES} ranges",
                PerformanceWarning,
            )


class _LostError(Exception):
    """The pager knows nothing of a recording."""


def _read_pager(session: Session, recording: int) -> Iterator[dict[str, Any]]:
    """Give what was noted, as lines of a trace."""
    n_arrays = start = 0
    found = _ask(session, recording, 0, 0)
    # Others touch arrays meanwhile: what there was at first is the trace.
    all_arrays, all_runs = found["n_arrays"], found["n_runs"]
    while True:
        for array in found["arrays"]:
            yield {"array": array}
        n_arrays += len(found["arrays"])
        for number, runs in groupby(found["runs"][: all_runs - start], lambda run: run[0]):
            ranges = [place for _, *span in runs for place in span]
            for first in range(0, len(ranges), 2 * _LINE_RANGES):
                yield {"ranges": [number, *ranges[first : first + 2 * _LINE_RANGES]]}
        start += len(found["runs"])
        if n_arrays >= all_arrays and start >= all_runs:
            break
        found = _ask(session, recording, start, n_arrays)
    yield {"end": all_runs, "left_out": found["n_left_out"]}


def _ask(session: Session, recording: int, start: int, n_arrays: int) -> dict[str, Any]:
    found = session.trace(recording, start, n_arrays)
    if not found:
        raise _LostError
    return found

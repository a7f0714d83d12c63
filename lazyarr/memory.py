"""What is in memory, and how much of it may be: for any array on lazyarr's memory."""

from __future__ import annotations

import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

from lazyarr import settings
from lazyarr.client.session import process
from lazyarr.errors import LazyarrError, PagerError
from lazyarr.opening import engines
from lazyarr.units import Span

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import TypeGuard

    import numpy as np

    from lazyarr.client.arrays.residency import Residency
    from lazyarr.client.session.region import Region
    from lazyarr.copying.array import CopyArray
    from lazyarr.flush_report import FlushReport
    from lazyarr.kernel import KernelSupport

__all__ = [
    "config",
    "configure",
    "doctor",
    "evict",
    "flush",
    "prefetch",
    "rescue",
    "residency",
    "shutdown",
    "stats",
]


def prefetch(array: np.ndarray[Any, Any], *, wait: bool = True, progress: bool = False) -> None:
    """Have everything under an array brought into memory.

    Parameters
    ----------
    array : ndarray
        A `LazyArray`, or any view of one, also a plain one, found by its address; or a
        `CopyArray`.
    wait : bool
        Whether to wait until it is there.
    progress : bool
        Whether to show a progress bar on stderr.

    Raises
    ------
    TypeError
        When the array does not lie in lazyarr's memory.
    ChunkError
        When a chunk cannot be had, and `wait` is true.
    ValueError
        When it is larger than the memory limit.
    """
    from lazyarr.client.arrays.prefetch import prefetch_units

    if _is_copying(array):
        array.prefetch(wait=wait, progress=progress)
        return
    region, units = _find(array, to_load=True)
    prefetch_units(region, units, wait=wait, progress=progress)
    if wait:
        region.owner.map_here(region, units)


def evict(array: np.ndarray[Any, Any]) -> None:
    """Have the chunks under an array taken out of memory; the next touch reads them again.

    Raises
    ------
    TypeError
        When the array does not lie in lazyarr's memory.
    """
    if _is_copying(array):
        array.evict()
        return
    region, units = _find(array)
    for span in units:
        region.owner.evict(region, span)


def residency(array: np.ndarray[Any, Any]) -> Residency:
    """Return how much of what lies under an array is in memory.

    Raises
    ------
    TypeError
        When the array does not lie in lazyarr's memory.
    """
    from lazyarr.client.arrays.residency import residency_of

    if _is_copying(array):
        return array.residency()
    region, units = _find(array)
    return residency_of(region, units)


def flush(array: np.ndarray[Any, Any], *, progress: bool = False) -> FlushReport:
    """Have what was written to the chunks under an array be in the store, durably.

    Parameters
    ----------
    array : ndarray
        A `LazyArray` of mode ``"r+"``, or any view of one, also a plain one, found by its address;
        or a `CopyArray`.
    progress : bool
        Whether to show a progress bar on stderr.

    Raises
    ------
    TypeError
        When the array does not lie in lazyarr's memory.
    StoreError
        When something could not be written.  It stays in memory, and the next flush tries again.
    """
    from lazyarr.client.arrays.indexing import units_of_view
    from lazyarr.client.session.flushing import flush_arrays, flush_regions

    if not hasattr(array, "dtype") and hasattr(array, "flush"):
        raise TypeError(f"expected an array, found {type(array).__qualname__}; call its flush()")
    if _is_copying(array):
        return flush_arrays([array], progress=progress)
    region = _region_of(array)
    units = units_of_view(region, array, to_load=False)
    hull = [(region, Span(units[0].start, units[-1].stop))] if units else []
    return flush_regions(hull, progress=progress)


def rescue(of: Mapping[str, Any] | np.ndarray[Any, Any]) -> FlushReport:
    """Write what is only in memory to the store, though the process that fills pages is gone.

    All of an array is written, whatever view of it is given.  It can be read afterwards as far
    as it is in memory, and written to no more.  `flush` and `close` do the same where they find
    that process gone; an array that is opened anew has another one.

    Parameters
    ----------
    of : Dataset or ndarray
        A dataset, or an array of mode ``"r+"``.

    Raises
    ------
    LazyarrError
        When that process lives, or something could not be written.
    """
    from lazyarr.client.session.flushing import regions_of, rescue_regions

    given: Any = of
    open_arrays = getattr(given, "_open_arrays", None)  # of a dataset
    regions = [_region_of(given)] if open_arrays is None else regions_of(open_arrays())[0]
    for region in regions:
        # Asked, for sockets of processes that have just been killed may be open for a moment.
        with suppress(PagerError):
            region.owner.statistics()
            raise LazyarrError(
                "cannot rescue what the pager still has: it lives, and writes by itself; call "
                "flush()"
            )
    return rescue_regions(regions)


def _region_of(array: np.ndarray[Any, Any]) -> Region:
    """Return the memory that an array lies in, also where its pager is gone."""
    from lazyarr.client.session.region import Memory

    base: Any = array
    while base is not None:
        if isinstance(base, Memory):
            return base.region
        base = getattr(base, "base", None)
    return _find(array)[0]


def _is_copying(array: object) -> TypeGuard[CopyArray]:
    """Return whether an array is of the engine that copies."""
    copying = sys.modules.get("lazyarr.copying.array")
    return copying is not None and isinstance(array, copying.CopyArray)


def _find(array: np.ndarray[Any, Any], *, to_load: bool = False) -> tuple[Region, list[Span]]:
    import numpy as np

    from lazyarr.client.arrays.indexing import units_of_view

    live = process.current_session()
    if isinstance(array, np.ndarray) and live is not None:
        region = live.find(array.__array_interface__["data"][0])
        if region is not None:
            return region, units_of_view(region, array, to_load=to_load)
    found = f"{type(array).__module__}.{type(array).__qualname__}"
    raise TypeError(
        f"expected an array in memory that lazyarr fills, found {found} elsewhere; give one from "
        "lazyarr.open, or a view of it"
    )


def stats() -> dict[str, Any]:
    """Return what this process's pager has done: counts, bytes, times, memory.

    Returns
    -------
    dict
        ``faults``, ``requests``, ``units_loaded``, ``bytes_installed``, ``evictions``,
        ``errors``, ``bytes_fetched`` and ``retries`` so far; ``resident_bytes``,
        ``private_bytes`` (of mode ``"c"``) and ``memory_limit``; ``units_loading``, which
        are on their way at the moment: a page is there a moment before it is counted;
        ``units_ahead``, ``ahead_read`` and ``ahead_evicted``: what was read ahead, and what
        is known of its use; ``units_reloaded``, how many of ``units_loaded`` had been there
        before and went for want of room; of mode ``"r+"`` ``units_dirty`` and ``bytes_dirty``,
        which were written to and are not in the store yet, ``units_written`` and
        ``bytes_written``, what was put there; under ``arrays``, for each array that anything was
        loaded of, its ``url``, ``array`` (path), ``units``, ``units_resident``,
        ``units_dirty``, ``units_loaded``, ``units_reloaded`` and ``loads_per_unit``, and its
        number in the pager, ``region``; and
        under ``steps`` for each step of a load how often it was
        taken and how many seconds it took.  Of the pager: ``pid`` of its worker,
        ``workers_lost`` and ``uptime_seconds``, ``clients`` and ``regions`` (arrays) that it
        serves, ``decoders`` (processes beside the worker) and ``units_by_decoders``.
        Empty before the first array is opened.  Of the engine that `open` uses now, and of
        this process alone, without what only a pager has, where there is none.
    """
    if engines.chosen_engine() == "copy":
        from lazyarr.copying.loader import loader

        return loader.statistics()
    live = process.current_session()
    return {} if live is None else live.statistics()


def shutdown() -> None:
    """Let go of the pager and end lazyarr's threads; what is opened next begins anew.

    A program need not call it: the pager ends with the process, and the thread that releases
    arrays ends by itself soon after the last of them.  It is for programs that check for
    threads and processes left behind, and for a fork whose child should have no part of lazyarr.

    Raises
    ------
    LazyarrError
        When arrays are still referenced, by datasets that were not closed too: their memory
        would fill no more.  Arrays of the engine that copies may be.

    Examples
    --------
    >>> import lazyarr
    >>> lazyarr.shutdown()
    """
    from lazyarr.opening.open_array import forget_reopened

    forget_reopened()
    process.shutdown()
    copying = sys.modules.get("lazyarr.copying.loader")
    if copying is not None:
        copying.loader.shutdown()


def doctor() -> KernelSupport:
    """Return what this kernel allows this user, what is missing, and what mends it."""
    from lazyarr.kernel import probe

    return probe()


class _Config:
    """What holds for this process; change it with `configure`."""

    def __getattr__(self, name: str) -> Any:
        """Return one setting."""
        return getattr(settings.current(), name)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(
            f"cannot set config.{name}: settings are changed with"
            f" lazyarr.configure({name}={value!r:.80})"
        )

    def __repr__(self) -> str:
        return repr(settings.current())

    def __dir__(self) -> list[str]:
        return [name for name in settings.Settings._fields if not name.startswith("_")]


config = _Config()
"""The settings that hold: ``lazyarr.config.memory_limit`` and so on."""


class _Restore:
    """Puts settings back at the end of a ``with`` block."""

    def __init__(self, before: settings.Settings, changed: tuple[str, ...]) -> None:
        self._before = before
        self._changed = changed

    def __enter__(self) -> None:
        """Do nothing: the settings hold already."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        settings.put_back(self._before, self._changed)


def configure(**changes: Any) -> _Restore:
    """Change settings of this process, at once and for a running pager too.

    Parameters
    ----------
    memory_limit : int or str
        How many bytes may be resident, over all arrays, as ``"4 GiB"``.  Half of the memory
        unless set, of which other pagers of this user that were not told otherwise, as those of
        the workers of a cluster, have their part: `stats` says how much is left.  A worker of
        dask's has at most half of its own limit, unless set.  What chunks are
        decoded in counts, and so does memory of mode ``"c"``.  That cannot be taken
        out again: other arrays give way to it, down to half of the limit, and beyond
        that the limit does not hold.
    threads : int
        How many threads decompress; a running pager takes on more, never fewer.  More than
        four are spread over processes.
    readahead : int or str
        How many bytes may be read at once before they are touched, where an array is read in
        order; 0 for none.  From files it is a quarter of that; over a network what bandwidth
        and latency, which are measured, ask for.
    timeout : float
        Seconds that one chunk may take to be fetched; for arrays opened later.
    retries : int
        How often a failed transfer is tried again; for arrays opened later.
    connections : int
        How many requests to remote stores may be under way at once.
    cache_dir : str or os.PathLike or None
        A directory of yours alone in which the chunks that are fetched over HTTP and from S3
        are kept from one run to the next; None to keep none.  For arrays opened later.
    cache_limit : int or str
        How many bytes they may take there, as ``"10 GiB"``; for arrays opened later.
    on_error : {"sigbus", "raise"}
        What a thread gets that touches, past lazyarr's own methods, a page which
        cannot be had: SIGBUS, or `ChunkError` in the main thread; see the notes.
        ``"raise"`` is the default in interactive sessions.
    stop_timeout : float
        Seconds after which a process of the pager's that does not answer, stopped or
        stuck, is replaced; 10 unless set.
    engine : {"auto", "userfaultfd", "copy"}
        How arrays that are opened later are filled; see `lazyarr.open`.
    python : str or os.PathLike or None
        The Python interpreter that becomes the pager, where it cannot be found: in programs
        that have Python inside, and in frozen ones.  It must be of this one's version.  For
        the next pager that is started.

    Returns
    -------
    context manager
        Puts the old values back when it is left.

    Raises
    ------
    TypeError
        For a name that is no setting.
    ValueError
        For a value that a setting cannot take; for ``on_error="raise"`` outside of the
        main thread.

    Notes
    -----
    With ``on_error="raise"`` the machine code that touches reads zeros, and the exception
    comes when it has returned: at the end of a call (``raw.sum()``), but for operators
    and indexing (``raw + 1``, ``raw[5]``) only with the next call, function or turn of a
    loop, since Python looks for signals there.  What the interrupted statements have
    assigned is not data.  No other thread or process sees the zeros.  Other threads than
    the main one get SIGBUS, and so does the main one where the zeros could not be kept
    from others: on memory of mode ``"c"``, or while other threads do not sleep.

    Examples
    --------
    >>> import lazyarr
    >>> with lazyarr.configure(memory_limit="1 GiB"):
    ...     lazyarr.config.memory_limit
    1073741824
    """
    if changes.get("on_error") == "raise" and not _is_main_thread():
        raise ValueError("on_error='raise' is for the main thread, and is to be set there")
    return _Restore(settings.replace(**changes), tuple(changes))


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()

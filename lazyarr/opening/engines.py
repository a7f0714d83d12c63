"""Which engine fills arrays: page faults, or copies of what is asked for."""

from __future__ import annotations

import itertools
import sys
from typing import TYPE_CHECKING, Protocol, cast

from lazyarr import settings
from lazyarr.client.session import finalizers, process
from lazyarr.client.session.interpreter import NoPagerError
from lazyarr.client.warning import warn_user
from lazyarr.errors import EngineWarning
from lazyarr.kernel import arrive

if TYPE_CHECKING:
    from typing import Any

    from lazyarr.client.array_ref import ArrayRef, StoreHolder
    from lazyarr.client.arrays.lazyarray import LazyArray
    from lazyarr.errors import KernelUnsupportedError
    from lazyarr.flush_report import FlushReport

__all__ = ["Making", "begin_engine", "chosen_engine", "copy_instead", "find_making"]

_automatic: str | None = None
_n_warnings = itertools.count()  # asking for the next one is atomic


class Making(Protocol):
    """How an engine makes arrays: a module."""

    def make_array(self, node: ArrayRef, holder: StoreHolder) -> LazyArray:
        """Return the array of a node, with nothing read."""
        ...

    def restride(
        self,
        array: LazyArray,
        start: int,
        dtype: Any,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
    ) -> LazyArray:
        """Return a view of an array by its place in the memory of the whole."""
        ...

    def anchor_of(self, array: LazyArray) -> Any:
        """Return what lives for as long as a view of an array does; those below take it."""
        ...

    def flush(self, anchor: Any) -> FlushReport | None:
        """Have what was written to an array be in the store, durably."""
        ...

    def leave_behind(self, anchor: Any) -> bool:
        """If the pager of an array is gone, have it written back and read-only; return whether."""
        ...

    def retire(self, anchor: Any) -> None:
        """Have what was written be in the store, and let nobody write to the array any more."""
        ...


def begin_engine() -> str:
    """Return the engine for what is opened now, after starting what it needs.

    Raises
    ------
    KernelUnsupportedError
        When this system cannot have the engine that is set.
    PagerError
        When no pager can be started.
    """
    global _automatic
    arrive()
    # The limit of another process's pager is for all of its clients.
    if "distributed.worker" in sys.modules and not process.is_guest():
        from lazyarr.integrations.distributed import worker_memory_limit

        worker_nbytes = worker_memory_limit()
        if worker_nbytes is not None:
            settings.lower_default(worker_nbytes // 2)
    chosen = chosen_engine()
    if chosen == "copy":
        finalizers.start()
        return "copy"
    if sys.platform == "linux":
        # First of all: the pager starts up while this process reads and imports.
        try:
            process.begin()
        except NoPagerError as error:
            return copy_instead(error)
    elif chosen is not None and (refusal := _refusal()) is not None:
        raise refusal
    if chosen is None:
        chosen = _automatic = _choose()
    return chosen


def chosen_engine() -> str | None:
    """Return the engine for what is opened now; None when that is not known yet."""
    wanted = settings.current().engine
    return _automatic if wanted == "auto" else wanted


def _choose() -> str:
    """Return the engine that this system has; say so once if it is not the better one."""
    refusal = _refusal()
    if refusal is None:
        return "userfaultfd"
    process.abandon()
    return _begin_copying(refusal.message, refusal.remedy)


def copy_instead(error: NoPagerError) -> str:
    """Return the engine that copies, for a process in which no pager can be started.

    Raises the error instead where the user has set the engine or the interpreter, or where
    this process has arrays of a pager already.
    """
    current = settings.current()
    if current.engine != "auto" or current.python is not None or process.has_begun():
        raise error
    return _begin_copying(f"cannot start the pager: {error.found}", error.remedy)


def _begin_copying(reason: str, remedy: str) -> str:
    """Let arrays be copied from now on, and say so once."""
    global _automatic
    finalizers.start()
    _automatic = "copy"
    if next(_n_warnings) == 0:
        warn_user(
            "arrays are not memory that fills on touch, each read makes a copy: "
            f"{reason}; to mend it: {remedy}; to accept it: LAZYARR_ENGINE=copy",
            EngineWarning,
        )
    return "copy"


def _refusal() -> KernelUnsupportedError | None:
    """Return why no userfaultfd opens; None when one does."""
    from lazyarr.kernel import probe
    from lazyarr.kernel.diagnosis import unopenable

    support = probe()
    return None if support.usable else unopenable(support.attempts, support.surroundings)


def find_making(engine: str) -> Making:
    """Return how an engine makes arrays."""
    # Imported here: one of them is needed, after the pager has been started.
    if engine == "copy":
        from lazyarr.copying import making as copying

        # A `CopyArray` has the methods of a `LazyArray` that are used of it.
        return cast("Making", copying)
    from lazyarr.client.arrays import making

    return making

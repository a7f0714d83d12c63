"""Which engine fills arrays: page faults, or copies of what is asked for."""

from __future__ import annotations

import importlib
import itertools
import sys
import warnings
from typing import TYPE_CHECKING, Protocol, cast

from lazyarr import settings
from lazyarr.client import janitor, process
from lazyarr.errors import EngineWarning

if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

    from lazyarr.client.hierarchy import Hierarchy
    from lazyarr.client.lazyarray import LazyArray
    from lazyarr.client.node import ArrayNode
    from lazyarr.errors import KernelUnsupportedError

__all__ = ["Making", "begin_engine", "chosen_engine", "find_making"]

# By name, since the second stands above this layer.
_MAKINGS = {"userfaultfd": "lazyarr.client.making", "copy": "lazyarr.copying.making"}

_automatic: str | None = None
_n_warnings = itertools.count()  # asking for the next one is atomic


class Making(Protocol):
    """How an engine makes arrays: a module."""

    @staticmethod
    def make_array(node: ArrayNode, hierarchy: Hierarchy) -> LazyArray:
        """Return the array of a node, with nothing read."""
        ...

    @staticmethod
    def restride(
        array: LazyArray,
        start: int,
        dtype: Any,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
    ) -> LazyArray:
        """Return a view of an array by its place in the memory of the whole."""
        ...


def begin_engine() -> str:
    """Return the engine for what is opened now, after starting what it needs.

    Raises
    ------
    KernelUnsupportedError
        When this system can not have the engine that is set.
    PagerError
        When no pager can be started.
    """
    global _automatic
    chosen = chosen_engine()
    if chosen == "copy":
        janitor.start()
        return "copy"
    if sys.platform == "linux":
        # First of all: the pager starts up while this process reads and imports.
        process.begin()
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
    global _automatic
    refusal = _refusal()
    if refusal is None:
        return "userfaultfd"
    process.abandon()
    janitor.start()
    _automatic = "copy"
    if next(_n_warnings) == 0:
        warnings.warn(
            "arrays are not memory that fills on touch, each read makes a copy: "
            f"{refusal.message}; to mend it: {refusal.remedy}; to accept it: LAZYARR_ENGINE=copy",
            EngineWarning,
            stacklevel=_depth(),
        )
    return "copy"


def _depth() -> int:
    """Return how many frames of lazyarr's lie above the caller's, itself included, and one more."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - as the warnings module does
    depth = 1
    while frame is not None and frame.f_globals.get("__name__", "").startswith("lazyarr."):
        frame, depth = frame.f_back, depth + 1
    return depth


def _refusal() -> KernelUnsupportedError | None:
    """Return why no userfaultfd opens; None when one does."""
    from lazyarr.kernel import probe
    from lazyarr.kernel.diagnosis import unopenable

    support = probe()
    return None if support.usable else unopenable(support.attempts, support.surroundings)


def find_making(engine: str) -> Making:
    """Return how an engine makes arrays."""
    return cast("Making", importlib.import_module(_MAKINGS[engine]))

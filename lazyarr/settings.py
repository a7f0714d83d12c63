"""What can be set for a process, where it comes from, and what holds now."""

from __future__ import annotations

import math
import operator
import os
import re
import sys
from collections.abc import Callable, Collection
from typing import Any

from lazyarr.cgroups import memory_nbytes
from lazyarr.values import Value

__all__ = [
    "Settings",
    "adopt",
    "current",
    "lower_default",
    "parse_nbytes",
    "put_back",
    "raise_default",
    "replace",
    "subscribe",
]

_UNITS = {
    "": 1, "b": 1,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
    "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40,
}  # fmt: skip
# A healthy worker may well be silent for less than that on a busy machine.
_LEAST_STOP_SECONDS = 0.5
# As in lazyarr.pager.checking: a system starts no more threads than that.
_MAX_THREADS = 1024
_MAX_CONNECTIONS = 1024
_ENGINES = ("auto", "userfaultfd", "copy")


def parse_nbytes(size: int | str) -> int:
    """Return a size in bytes.

    Parameters
    ----------
    size : int or str
        Bytes, or a number with a unit: B, kB, MB, GB, TB (powers of 1000), KiB, MiB,
        GiB, TiB (powers of 1024); the B of these may be left out, as in 1G and 1Gi.

    Raises
    ------
    ValueError
        When it is not a size.

    Examples
    --------
    >>> parse_nbytes("4 GiB"), parse_nbytes("512M")
    (4294967296, 512000000)
    """
    try:
        nbytes = _read_size(size) if isinstance(size, str) else operator.index(size)
    except (TypeError, ValueError, KeyError, OverflowError):
        nbytes = -1
    if nbytes < 0 or isinstance(size, bool):
        raise ValueError(f"not a size: {size!r:.80}; give bytes, or a number and a unit as '4 GiB'")
    return nbytes


def _read_size(text: str) -> int:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text, re.IGNORECASE)
    if match is None:
        raise ValueError(text)
    number, scale = match[1], _UNITS[match[2].lower()]
    # Whole numbers are exact, also beyond the 53 bits of a float.
    return int(number) * scale if "." not in number else int(float(number) * scale)


def _n_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _is_interactive() -> bool:
    """Return whether somebody sits at this interpreter: python -i, IPython, Jupyter."""
    if sys.flags.interactive or hasattr(sys, "ps1"):
        return True
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return get_ipython is not None and get_ipython() is not None


def _check_on_error(value: str) -> str:
    if value not in ("sigbus", "raise"):
        raise ValueError(f"on_error={value!r:.80} is neither 'sigbus' nor 'raise'")
    return value


def _check_engine(value: str) -> str:
    if value not in _ENGINES:
        raise ValueError(f"engine={value!r:.80} is not one of {', '.join(map(repr, _ENGINES))}")
    return value


def _size(name: str) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        try:
            nbytes = parse_nbytes(value)
        except ValueError as error:
            raise ValueError(f"{name} is {error}") from None
        if nbytes == 0:
            raise ValueError(f"{name}={value!r} leaves no room for any data; give more")
        return nbytes

    return check


def _check_cache_dir(value: Any) -> str | None:
    if value is None:
        return None
    try:
        path = os.fsdecode(value)
    except TypeError:
        path = ""
    if not path or "\0" in path:
        raise ValueError(
            f"cache_dir={value!r:.80} names no directory; give the path of one, or None"
        )
    # The pager has a working directory of its own.
    return os.path.abspath(os.path.expanduser(path))


def _check_python(value: Any) -> str | None:
    """Return the path of a program; one without a directory is looked for as the shell does."""
    if value is None:
        return None
    try:
        name = os.path.expanduser(os.fsdecode(value))
    except TypeError:
        name = ""
    places = os.get_exec_path() if name and os.path.dirname(name) == "" else [""]
    for path in (os.path.abspath(os.path.join(place, name)) for place in places):
        if "\0" not in path and os.path.isfile(path):
            return path
    raise ValueError(
        f"python={value!r:.80} names no program; give the path of an interpreter, or None"
    )


def _check_readahead(value: int | str) -> int:
    try:
        return parse_nbytes(value)
    except ValueError as error:
        raise ValueError(f"readahead is {error}") from None


def _seconds(name: str, *, least: float = 0.0) -> Callable[[Any], float]:
    def check(value: Any) -> float:
        try:
            seconds = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            seconds = math.nan
        if not least <= seconds < math.inf or seconds == 0:
            wanted = f"from {least}" if least else "above 0"
            raise ValueError(f"{name}={value!r:.80} is not a number of seconds {wanted}")
        return seconds

    return check


def _whole(name: str, *, least: int, most: float = math.inf) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        try:
            number = int(value)
            is_whole = number == float(value) and not isinstance(value, bool)
        except (TypeError, ValueError, OverflowError):
            number, is_whole = 0, False
        if not is_whole or not least <= number <= most:
            to = "" if most == math.inf else f" to {most}"
            raise ValueError(f"{name}={value!r:.80} is not a whole number from {least}{to}")
        return number

    return check


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "memory_limit": _size("memory_limit"),
    "threads": _whole("threads", least=1, most=_MAX_THREADS),
    "timeout": _seconds("timeout"),
    "retries": _whole("retries", least=0),
    "on_error": _check_on_error,
    "stop_timeout": _seconds("stop_timeout", least=_LEAST_STOP_SECONDS),
    "connections": _whole("connections", least=1, most=_MAX_CONNECTIONS),
    "cache_dir": _check_cache_dir,
    "cache_limit": _size("cache_limit"),
    "engine": _check_engine,
    "readahead": _check_readahead,
    "python": _check_python,
}


# What each process decides for itself; the pager goes by the rest, for all its clients.
_OWN = ("on_error", "engine", "python")


class Settings(Value):
    """What holds for this process.

    Attributes
    ----------
    memory_limit : int
        Bytes of array memory that may be resident at once; half of what the machine
        has, or the smallest cgroup around this process, unless set.  That half is for all pagers
        of this user together that were not told otherwise.  A worker of dask's has at most half of
        its own limit.
    threads : int
        Threads that decompress; one for each processor, unless set.  More than four are spread
        over processes.
    timeout : float
        Seconds that one chunk may take to be fetched, retries included.
    retries : int
        How often a read that failed in transport is tried again.
    on_error : str
        What a thread gets that touches a page which cannot be had: ``"sigbus"``, or
        with ``"raise"`` the main thread an exception where possible.  That is the
        default in interactive sessions.
    stop_timeout : float
        Seconds after which a worker of the pager's that does not answer, stopped or
        stuck, is replaced; a day at most.
    connections : int
        How many requests to remote stores may be under way at once.
    engine : str
        How arrays are filled: ``"userfaultfd"``, as memory; ``"copy"``, by copies of what
        is asked for; ``"auto"``, as memory where the kernel allows that.
    readahead : int
        Bytes that may be read at once before they are touched, by bandwidth and latency of a
        network; a quarter of that from files.  0 for none.
    cache_dir : str or None
        The directory in which fetched chunks are kept from one run to the next, if any.
    cache_limit : int
        How many bytes they may take there.
    python : str or None
        The interpreter that becomes the pager; one like this process's, unless set.
    """

    memory_limit: int
    threads: int
    timeout: float = 60.0
    retries: int = 6
    on_error: str = "sigbus"
    stop_timeout: float = 10.0
    connections: int = 32
    engine: str = "auto"
    readahead: int = 128 << 20
    cache_dir: str | None = None
    cache_limit: int = 10 << 30
    python: str | None = None
    # How many bytes all pagers of this user together may hold that were told no limit; 0 where
    # this process was told one.
    _shared_limit: int = 0

    def document(self) -> dict[str, Any]:
        """Return the settings as an object that JSON can hold."""
        return self._asdict()


def _from_environment() -> Settings:
    """Return the defaults, overridden by ``LAZYARR_MEMORY_LIMIT`` and its like."""
    half_nbytes = memory_nbytes() // 2
    values: dict[str, Any] = {"memory_limit": half_nbytes, "threads": _n_cpus()}
    values["_shared_limit"] = 0 if os.environ.get("LAZYARR_MEMORY_LIMIT") else half_nbytes
    if _is_interactive():
        values["on_error"] = "raise"
    for name, check in _CHECKS.items():
        text = os.environ.get(f"LAZYARR_{name.upper()}")
        if text:  # an empty one is as good as none, as the shell's ${NAME:-...} has it
            try:
                values[name] = check(text)
            except ValueError as error:
                raise ValueError(f"environment variable LAZYARR_{name.upper()}: {error}") from None
    return Settings(**values)


_current: Settings | None = None
_listeners: list[Callable[[Settings], None]] = []


def current() -> Settings:
    """Return the settings that hold."""
    global _current
    if _current is None:
        _current = _from_environment()
    return _current


def replace(**changes: Any) -> Settings:
    """Change settings, tell the listeners, and return what held before.

    Raises
    ------
    TypeError
        For a name that is no setting.
    ValueError
        For a value that the setting cannot take; nothing is changed then.
    """
    unknown = sorted(changes.keys() - _CHECKS.keys())
    if unknown:
        raise TypeError(f"no such setting: {', '.join(unknown)}; there are {', '.join(_CHECKS)}")
    before = current()
    checked = {name: _CHECKS[name](value) for name, value in changes.items()}
    if "memory_limit" in checked:
        checked["_shared_limit"] = 0
    _change(checked)
    return before


def put_back(before: Settings, names: Collection[str]) -> None:
    """Let some settings hold again that held before, and tell the listeners."""
    names = {*names, *(("_shared_limit",) if "memory_limit" in names else ())}
    _change({name: getattr(before, name) for name in names})


def _change(values: dict[str, Any]) -> None:
    global _current
    _current = current()._replace(**values)
    for listener in _listeners:
        listener(_current)


def lower_default(memory_limit: int) -> None:
    """Let this process hold no more than so many bytes, unless a limit was set for it.

    What all pagers of this user hold together stays as it was.
    """
    document = current().document()
    if document["_shared_limit"] and memory_limit < document["memory_limit"]:
        _change({"memory_limit": memory_limit})


def raise_default(memory_limit: int) -> None:
    """Let this process and its pager hold so many bytes, unless a limit was set or is higher.

    No more than all pagers of this user together may hold.
    """
    before = current()
    wanted = min(memory_limit, before.document()["_shared_limit"])
    if wanted > before.memory_limit:
        _change({"memory_limit": wanted})


def adopt(document: dict[str, Any]) -> None:
    """Let what holds in a pager that this process joins hold here too; nobody is told.

    How this process fills arrays, and what it does about errors, stays its own.

    Raises
    ------
    ValueError
        For a value that a setting cannot take.
    """
    global _current
    names = (_CHECKS.keys() & document.keys()) - set(_OWN)
    values = {name: _CHECKS[name](document[name]) for name in names}
    values["_shared_limit"] = document.get("_shared_limit", 0)
    _current = current()._replace(**values)


def subscribe(listener: Callable[[Settings], None]) -> None:
    """Have `listener` called with the settings whenever they change."""
    _listeners.append(listener)

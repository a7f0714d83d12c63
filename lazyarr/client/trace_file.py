"""The file of a trace: in which order arrays were touched first, and loading in that order.

The file is text, a JSON object in each line.  The first line has the version.  Then follow arrays
and ranges, as they come: ``{"array": ...}`` says which array it is, and ``{"ranges": [number,
start, stop, ...]}`` has bytes of the memory of the array of that number, counted from 0.  The last
line says how many ranges there are.  Of memory, and not of chunks, so a trace holds when the store
gets other chunks.
"""

from __future__ import annotations

import json
import math
import os
from array import array as packed
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, Any, NoReturn

from lazyarr.client.warning import warn_user
from lazyarr.errors import EngineWarning, FormatError
from lazyarr.units import Span
from lazyarr.values import Struct, Value

if TYPE_CHECKING:
    from lazyarr.client.session.region import Region, RegionOwner

__all__ = [
    "MAX_RANGES",
    "Trace",
    "TracedArray",
    "names_below",
    "read_trace",
    "replay",
    "schedule",
    "write_trace",
]

_VERSION = 1
MAX_RANGES = 1 << 20
"""How many ranges a trace has at most: as many as the pager notes."""
_MAX_ARRAYS = 1 << 16
_MAX_AXES = 64
_MAX_LINE_NBYTES = 1 << 20


class TracedArray(Value):
    """An array of a trace.

    Attributes
    ----------
    url : str
        Its store, without credentials.
    path : str
        Its place there.
    shape : tuple of int
        Its lengths, as its users see them.
    dtype : str
        Its elements, in the machine's byte order.
    itemsize : int
        Bytes of an element.
    """

    url: str
    path: str
    shape: tuple[int, ...]
    dtype: str
    itemsize: int

    @property
    def nbytes(self) -> int:
        """Bytes of its memory."""
        return math.prod(self.shape) * self.itemsize

    def require_same(self, node: object, path: str | os.PathLike[str]) -> None:
        """Raise ValueError unless what is in its place is an array of this shape and type.

        Parameters
        ----------
        node : LazyArray, CopyArray or Dataset
            What is there.  Of a view, the stored array counts.
        path : str or os.PathLike
            The trace, for the message.
        """
        source = getattr(node, "_source", None)
        about = None if source is None else source.about()
        found = "a group" if about is None else f"{tuple(about['shape'])} of {about['dtype']}"
        if found != f"{self.shape} of {self.dtype}":
            raise ValueError(
                f"the trace {os.fspath(path)} is of other data: array {self.path or '/'!r} was "
                f"{self.shape} of {self.dtype}, now it is {found}; record it again"
            )


class Trace(Struct):
    """What was touched, in the order of first touches.

    Attributes
    ----------
    arrays : list of TracedArray
        What is spoken of.
    n_left_out : int
        How many chunks, or groups of them, the recording had no room for.
    """

    arrays: list[TracedArray]
    n_left_out: int
    _ranges: packed[int]

    def __len__(self) -> int:
        """How many ranges there are."""
        return len(self._ranges) // 3

    def add(self, ranges: list[Any]) -> bool:
        """Add the number of an array and, by twos, bytes of its memory; return False if not that.

        What is before the first one that is wrong may have been added.
        """
        if len(ranges) % 2 == 0 or not 0 <= _count(ranges[0]) < len(self.arrays):
            return False
        number, *places = ranges
        nbytes = self.arrays[number].nbytes
        for start, stop in zip(places[::2], places[1::2], strict=True):
            if not 0 <= _count(start) < _count(stop) <= nbytes:
                return False
            self._ranges.extend((number, start, stop))
        return True

    def named(self) -> str:
        """Return its first arrays by path and store, for messages."""
        some = [f"{array.path or '/'!r} of {array.url}" for array in self.arrays[:3]]
        more = len(self.arrays) - len(some)
        return (", ".join(some) or "none") + (f", and {more} more" if more else "")

    def ranges(self) -> Iterator[tuple[int, Span]]:
        """Give the number of an array, and bytes of its memory, in order."""
        places = iter(self._ranges)
        for number, start, stop in zip(places, places, places, strict=True):
            yield number, Span(start, stop)


def write_trace(path: str, lines: Iterable[dict[str, Any]]) -> int:
    """Write a trace, which is there as a whole or not at all; return how much it lacks.

    Parameters
    ----------
    path : str
        The file, in a directory that exists.
    lines : iterable of dict
        What comes after the line with the version.
    """
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{name[:100]}-{os.urandom(6).hex()}")
    line: dict[str, Any] = {}
    try:
        with open(temporary, "x", encoding="ascii") as file:
            for line in chain([{"lazyarr_trace": _VERSION}], lines):
                file.write(json.dumps(line, separators=(",", ":")) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    return int(line["left_out"])


def read_trace(path: str | os.PathLike[str]) -> Trace:
    """Return what a file of `record` has.

    Raises
    ------
    FormatError
        When it is none, is damaged, or was written by a later version.
    OSError
        When it cannot be read.
    """
    trace, end = Trace([], 0, packed("Q")), None
    with open(path, "rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(_MAX_LINE_NBYTES), b"")):
            document = _parse(line)
            if number == 0:
                _check_version(document, path)
            elif end is not None or not _add(trace, document):
                end = document if end is None else {}
                trace.n_left_out = _count(end.get("left_out"))
                if end.keys() != {"end", "left_out"} or _count(end["end"]) != len(trace):
                    _refuse(path, f"line {number + 1} is {line[:40]!r}")
            if trace.n_left_out < 0 or len(trace) > MAX_RANGES or len(trace.arrays) > _MAX_ARRAYS:
                _refuse(path, f"line {number + 1} is {line[:40]!r}")
    if end is None:
        _refuse(path, "it ends before its last line")
    return trace


def names_below(trace: Trace, url: str, path: str) -> dict[int, str]:
    """Return the arrays that lie below a group: their numbers, and their names there."""
    start = f"{path}/" if path else ""
    return {
        number: array.path[len(start) :]
        for number, array in _arrays_of(trace, url)
        if array.path.startswith(start) and array.path != start
    }


def _arrays_of(trace: Trace, url: str) -> list[tuple[int, TracedArray]]:
    """Return the arrays of a store, with their numbers.

    Where there are none, those of another one, if all are of that: the store may have moved.
    """
    urls = {array.url for array in trace.arrays}
    wanted = url if url in urls or len(urls) != 1 else urls.pop()
    return [(number, array) for number, array in enumerate(trace.arrays) if array.url == wanted]


def replay(array: Any, path: str | os.PathLike[str]) -> None:
    """Have the array that is stored of a view loaded in the order of a trace; see `x.replay`."""
    trace = read_trace(path)
    found = dict(_arrays_of(trace, array.url))
    numbers = [number for number, traced in found.items() if traced.path == array.path]
    if not numbers:
        raise ValueError(
            f"the trace {os.fspath(path)} has nothing of array {array.path or '/'!r} of "
            f"{array.url}: it has {trace.named()}"
        )
    for number in numbers:
        found[number].require_same(array, path)
    schedule(trace, dict.fromkeys(numbers, array))


def schedule(trace: Trace, arrays: Mapping[int, Any]) -> None:
    """Have the pager load arrays, by their numbers, in the order of a trace; of views, the whole.

    Where they are copies, nothing can be loaded ahead, and a warning says so.
    """
    if not all(hasattr(array, "_region") for array in arrays.values()):
        warn_user(
            "nothing is loaded ahead by a trace: arrays are copies here; 'lazyarr doctor' says why",
            EngineWarning,
        )
        return
    regions = {number: array._region for number, array in arrays.items()}  # noqa: SLF001
    # A process that has begun anew with another pager may have arrays of both.
    owners = {id(region.owner): region.owner for region in regions.values() if region is not None}
    for owner in owners.values():
        owner.schedule(_runs(trace, regions, owner))


def _runs(
    trace: Trace, regions: Mapping[int, Region | None], owner: RegionOwner
) -> Iterator[tuple[Region, Span]]:
    """Give the units of the ranges, but for what the range before it has."""
    last: tuple[Region, Span] | None = None
    for number, span in trace.ranges():
        region = regions.get(number)
        if region is None or region.owner is not owner:
            continue
        units = region.geometry.units_of_bytes(span)
        # Several chunks that are in one now.
        if last is None or region is not last[0] or units & last[1] != units:
            last = (region, units)
            yield last


def _refuse(path: str | os.PathLike[str], found: str) -> NoReturn:
    raise FormatError(
        f"cannot read the trace {os.fspath(path)}: {found}; it was cut short or changed, or is no "
        "file of lazyarr.record"
    )


def _parse(line: bytes) -> dict[str, Any]:
    """Return the object in a line; an empty one if there is none."""
    try:
        document = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _check_version(document: dict[str, Any], path: str | os.PathLike[str]) -> None:
    version = document.get("lazyarr_trace")
    if type(version) is int and version > _VERSION:
        raise FormatError(
            f"cannot read the trace {os.fspath(path)}: it is of version {version}, this lazyarr "
            f"reads version {_VERSION}; record it again, or use a later lazyarr"
        )
    if _count(version) != _VERSION or len(document) != 1:
        _refuse(path, "its first line is that of another file")


def _count(value: object) -> int:
    """Return a number that counts something; -1 for anything else."""
    return value if type(value) is int and 0 <= value < 1 << 63 else -1


def _add(trace: Trace, document: dict[str, Any]) -> bool:
    """Add an array, or some ranges; return False if a line has neither."""
    if document.keys() == {"array"}:
        array = _array_of(document["array"])
        if array is not None:
            trace.arrays.append(array)
        return array is not None
    if document.keys() == {"ranges"}:
        return isinstance(document["ranges"], list) and trace.add(document["ranges"])
    return False


def _array_of(document: Any) -> TracedArray | None:
    """Return the array that an object describes; None if it describes none."""
    if not isinstance(document, dict) or document.keys() != set(TracedArray._fields):
        return None
    shape = document["shape"]
    if not isinstance(shape, list) or len(shape) > _MAX_AXES:
        return None
    numbers = [*shape, document["itemsize"]]
    texts = [document[name] for name in ("url", "path", "dtype")]
    if min(map(_count, numbers)) < 0 or not all(isinstance(text, str) for text in texts):
        return None
    return TracedArray(**{**document, "shape": tuple(shape)})

"""What clients and the pager say to each other.

Every message is one JSON object in one packet: ``{"is": NAME, ...fields}``.
Messages are checked field by field before they are believed, and nothing is
ever unpickled: a message can carry a value, never code.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any, TypeAlias

from lazyarr.errors import PagerError

__all__ = [
    "AttachRegion",
    "CloseRegion",
    "Configure",
    "Done",
    "Evict",
    "Hello",
    "Join",
    "Message",
    "OpenChannel",
    "OpenRegion",
    "Request",
    "Statistics",
    "VERSION",
    "WantStatistics",
    "decode",
    "encode",
]

VERSION = 1
"""Raised whenever a message changes its meaning; both sides must have the same."""


@dataclasses.dataclass(frozen=True, slots=True)
class Hello:
    """A client says who it is.

    Carries its userfaultfd, the memory objects of its arrays and of their residency
    maps, and the far end of its lifeline.
    """

    version: int
    pid: int
    features: int
    settings: dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Join:
    """A forked child, or another process, wants to be a client; carries its channel's far end."""


@dataclasses.dataclass(frozen=True, slots=True)
class OpenChannel:
    """A client wants to speak on one more channel; carries its far end."""


@dataclasses.dataclass(frozen=True, slots=True)
class OpenRegion:
    """A client has mapped and registered memory for an array.

    `map_offset` is where in the memfd the residency map lies, one byte per unit;
    `offset` is where the array's own memory lies, -1 when it is private.
    Carries the descriptors that the store's reference speaks of.
    """

    region: int
    address: int
    offset: int
    map_offset: int
    url: str
    path: str
    document: str
    zarr_format: int
    store: dict[str, Any]
    is_remote: bool


@dataclasses.dataclass(frozen=True, slots=True)
class AttachRegion:
    """A client has mapped and registered a region that another client opened."""

    region: int
    address: int


@dataclasses.dataclass(frozen=True, slots=True)
class CloseRegion:
    """A client wants to unmap a region, and waits until it may."""

    ticket: int
    region: int


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """A client wants units to be resident: half-open ranges ``[start, stop]``."""

    ticket: int
    region: int
    units: list[list[int]]


@dataclasses.dataclass(frozen=True, slots=True)
class Evict:
    """A client wants units to be taken out."""

    ticket: int
    region: int
    start: int
    stop: int


@dataclasses.dataclass(frozen=True, slots=True)
class Configure:
    """Settings have changed."""

    ticket: int
    settings: dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class WantStatistics:
    """A client wants to know what the pager has done."""

    ticket: int


@dataclasses.dataclass(frozen=True, slots=True)
class Done:
    """The answer: what was asked for is done, but for the failures."""

    ticket: int
    failures: list[dict[str, Any]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True)
class Statistics:
    """The answer to `WantStatistics`."""

    ticket: int
    document: dict[str, Any]


Message: TypeAlias = (
    Hello
    | Join
    | OpenChannel
    | OpenRegion
    | AttachRegion
    | CloseRegion
    | Request
    | Evict
    | Configure
    | WantStatistics
    | Done
    | Statistics
)

_KINDS: dict[str, type[Message]] = {
    kind.__name__: kind
    for kind in (
        Hello, Join, OpenChannel, OpenRegion, AttachRegion, CloseRegion,
        Request, Evict, Configure, WantStatistics, Done, Statistics,
    )
}  # fmt: skip
_JSON_TYPES: dict[str, type[Any]] = {
    "int": int,
    "bool": bool,
    "str": str,
    "dict[str, Any]": dict,
    "list[list[int]]": list,
    "list[dict[str, Any]]": list,
}


def encode(message: Message) -> bytes:
    """Return the packet for a message."""
    fields = {f.name: getattr(message, f.name) for f in dataclasses.fields(message)}
    document = {"is": type(message).__name__, **fields}
    return json.dumps(document, separators=(",", ":"), default=str).encode()


def decode(packet: bytes) -> Message:
    """Return the message in a packet.

    Raises
    ------
    PagerError
        When it is not one: the two sides are of different versions, or the
        sender is not what it says.
    """
    try:
        document = json.loads(packet)
        kind = _KINDS[document.pop("is")]
        wanted = dataclasses.fields(kind)
        if document.keys() != {f.name for f in wanted}:
            raise ValueError("other fields")
        for f in wanted:
            _check(document[f.name], str(f.type))
        return kind(**document)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        shown = packet[:80].decode("ascii", "backslashreplace")
        raise PagerError(
            f"cannot read a message: {type(error).__name__} in {shown!r}; "
            "client and pager must be of one version"
        ) from None


def _check(value: Any, annotation: str) -> None:
    """Raise ValueError when a field does not hold what it should."""
    wanted = _JSON_TYPES[annotation]
    if not isinstance(value, wanted) or isinstance(value, bool) != (wanted is bool):
        raise ValueError(annotation)
    if wanted is int and not -1 <= value < 1 << 63:
        raise ValueError("no address, offset or count")
    check_item = _ITEM_CHECKS.get(annotation)
    if check_item is not None and not all(check_item(item) for item in value):
        raise ValueError(annotation)


def _is_range(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(n) is int for n in value)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


_ITEM_CHECKS: dict[str, Callable[[Any], bool]] = {
    "list[list[int]]": _is_range,
    "list[dict[str, Any]]": _is_object,
}

"""What clients and the pager say to each other.

Every message is one JSON object in one packet: ``{"is": NAME, ...fields}``.
Messages are checked field by field before they are believed, and nothing is
ever unpickled: a message can carry a value, never code.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from lazyarr.errors import PagerError

__all__ = [
    "MAX_DESCRIPTORS",
    "Advise",
    "AttachRegion",
    "CloseRegion",
    "Configure",
    "Done",
    "Evict",
    "FindRegion",
    "Found",
    "Hello",
    "Join",
    "Knock",
    "Listen",
    "Message",
    "OpenChannel",
    "OpenRegion",
    "Ping",
    "Pong",
    "Record",
    "Refused",
    "Request",
    "Reserve",
    "Statistics",
    "VERSION",
    "WantFailure",
    "WantRegion",
    "WantStatistics",
    "Welcome",
    "carried_by",
    "decode",
    "document_of",
    "encode",
    "message_of",
]

VERSION = 1
"""Raised whenever a message changes its meaning; both sides must have the same."""


class Hello(NamedTuple):
    """A client says who it is.

    Carries its userfaultfd, the memory objects of its arrays and of their residency
    maps, and the far end of its lifeline.
    """

    version: int
    pid: int
    features: int
    settings: dict[str, Any]


class Join(NamedTuple):
    """A child that is about to be forked will be a client; carries its channel's far end.

    `regions` are those that it will have, which must not be forgotten until then.
    """

    regions: list[int]


class Listen(NamedTuple):
    """A client gives the pager a socket at which processes that it did not fork can come.

    Carries the socket, which listens already.  A second one is not used.
    """


class Knock(NamedTuple):
    """A process that was not forked wants to be a client; said to the listening socket.

    `namespace` is the inode of its namespace of process ids: only in the same one do both
    mean the same process by a number.  Carries the far end of the channel that it will
    speak on; may be said again, with the same end, when no answer came.
    """

    version: int
    namespace: int


class Welcome(NamedTuple):
    """The answer to `Knock`: the process may say `Hello` on its channel.

    `settings` are those that hold in the pager, and hold for the process from now on.
    """

    settings: dict[str, Any]


class Refused(NamedTuple):
    """The other answer to `Knock`."""

    reason: str


class OpenChannel(NamedTuple):
    """A client wants to speak on one more channel; carries its far end."""


class OpenRegion(NamedTuple):
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


class AttachRegion(NamedTuple):
    """A client has mapped and registered a region that another client opened."""

    region: int
    address: int


class WantRegion(NamedTuple):
    """A client wants to have a region that another client has; it knows what array it is."""

    ticket: int
    region: int
    document: str


class FindRegion(NamedTuple):
    """A client opens an array, and wants to have a region of it that others have.

    Only if whatever was read for it is certainly still what is stored.  The fields are
    those of `OpenRegion`.
    """

    ticket: int
    url: str
    path: str
    document: str
    zarr_format: int
    store: dict[str, Any]


class Found(NamedTuple):
    """The answer to `WantRegion` and `FindRegion`; `region` is -1 when there is none.

    Carries the memory objects of the array and of its residency map, in which it lies at
    `offset` and `map_offset`; the client must attach the region or close it, and until then it
    is not forgotten.  Carries nothing when the client has the region already.
    """

    ticket: int
    region: int
    offset: int
    map_offset: int


class CloseRegion(NamedTuple):
    """A client wants to unmap a region, and waits until it may."""

    ticket: int
    region: int


class Request(NamedTuple):
    """A client wants units to be resident: half-open ranges ``[start, stop]``."""

    ticket: int
    region: int
    units: list[list[int]]


class Evict(NamedTuple):
    """A client wants units to be taken out."""

    ticket: int
    region: int
    start: int
    stop: int


class Advise(NamedTuple):
    """A client says how units will be read: one of the words of `mmap.madvise`."""

    ticket: int
    region: int
    start: int
    stop: int
    advice: str


class Configure(NamedTuple):
    """Settings have changed."""

    ticket: int
    settings: dict[str, Any]


class WantFailure(NamedTuple):
    """A client's main thread raises now, and wants to know what; the answer is `Done`."""

    ticket: int


class WantStatistics(NamedTuple):
    """A client wants to know what the pager has done."""

    ticket: int


class Record(NamedTuple):
    """The worker tells its supervisor what a client has said, before it acts on it.

    `body` is the client's message as an object, and empty when the client is gone.
    Carries what the message carried; for `Join`, the channel that the client is on.
    """

    client: int
    body: dict[str, Any]


class Reserve(NamedTuple):
    """The worker has promised a client a region; only in a record."""

    region: int


class Ping(NamedTuple):
    """The supervisor wants to know whether the worker still answers."""


class Pong(NamedTuple):
    """It does."""


class Done(NamedTuple):
    """The answer: what was asked for is done, but for the failures."""

    ticket: int
    failures: list[dict[str, Any]]


class Statistics(NamedTuple):
    """The answer to `WantStatistics`."""

    ticket: int
    document: dict[str, Any]


Message: TypeAlias = (
    Hello
    | Join
    | Listen
    | Knock
    | Welcome
    | Refused
    | OpenChannel
    | OpenRegion
    | AttachRegion
    | WantRegion
    | FindRegion
    | Found
    | CloseRegion
    | Request
    | Evict
    | Advise
    | Configure
    | WantFailure
    | WantStatistics
    | Record
    | Reserve
    | Ping
    | Pong
    | Done
    | Statistics
)

_KINDS: dict[str, type[Message]] = {
    kind.__name__: kind
    for kind in (
        Hello, Join, Listen, Knock, Welcome, Refused, OpenChannel,
        OpenRegion, AttachRegion, WantRegion, FindRegion, Found, CloseRegion,
        Request, Evict, Advise, Configure, WantFailure, WantStatistics,
        Record, Reserve, Ping, Pong, Done, Statistics,
    )
}  # fmt: skip
MAX_DESCRIPTORS = 8
"""How many descriptors a message carries at most."""

# All other kinds carry none: what nobody expects nobody would close.
_CARRIED: dict[type[Message], range] = {
    Hello: range(4, 5),
    Join: range(1, 2),
    Listen: range(1, 2),
    Knock: range(1, 2),
    Found: range(0, 3, 2),
    OpenChannel: range(1, 2),
    OpenRegion: range(MAX_DESCRIPTORS + 1),
    Record: range(MAX_DESCRIPTORS + 1),
}

# Of what may hold anything.  The sender's JSON encoder can nest deeper than the
# reader's, and a message that can be read must also go into a record.
_MAX_DEPTH = 32

_JSON_TYPES: dict[str, type[Any]] = {
    "int": int,
    "bool": bool,
    "str": str,
    "dict[str, Any]": dict,
    "list[int]": list,
    "list[list[int]]": list,
    "list[dict[str, Any]]": list,
}


def carried_by(message: Message) -> range:
    """Return how many descriptors a message may carry."""
    return _CARRIED.get(type(message), range(1))


def encode(message: Message) -> bytes:
    """Return the packet for a message."""
    return json.dumps(document_of(message), separators=(",", ":"), default=str).encode()


def document_of(message: Message) -> dict[str, Any]:
    """Return a message as an object that JSON can hold."""
    return {"is": type(message).__name__, **message._asdict()}


def decode(packet: bytes) -> Message:
    """Return the message in a packet.

    Raises
    ------
    PagerError
        When it is not one: the two sides are of different versions, or the
        sender is not what it says.
    """
    try:
        return message_of(json.loads(packet))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        shown = packet[:80].decode("ascii", "backslashreplace")
        raise PagerError(
            f"cannot read a message: {type(error).__name__} in {shown!r}; "
            "client and pager must be of one version"
        ) from None


def message_of(document: dict[str, Any]) -> Message:
    """Return the message that an object describes; raise ValueError or its like when none."""
    fields = {name: value for name, value in document.items() if name != "is"}
    kind = _KINDS[document["is"]]
    if fields.keys() != set(kind._fields):
        raise ValueError("other fields")
    for name, annotation in kind.__annotations__.items():
        # What NamedTuple makes of an annotation that is a string (typing.ForwardRef).
        _check(fields[name], annotation.__forward_arg__)
        if annotation.__forward_arg__ in _FREE:
            _refuse_deep(fields[name], _MAX_DEPTH + (kind is Record))
    return kind(**fields)


def _refuse_deep(value: Any, limit: int) -> None:
    """Raise ValueError when a value nests deeper than it may."""
    level = [value]
    for _ in range(limit):
        inner = [node.values() if isinstance(node, dict) else node for node in level]
        level = [v for values in inner for v in values if isinstance(v, dict | list)]
        if not level:
            return
    raise ValueError("nests too deeply")


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


def _is_number(value: Any) -> bool:
    return type(value) is int


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


_FREE = ("dict[str, Any]", "list[dict[str, Any]]")
_ITEM_CHECKS: dict[str, Callable[[Any], bool]] = {
    "list[int]": _is_number,
    "list[list[int]]": _is_range,
    "list[dict[str, Any]]": _is_object,
}

"""What clients and the pager say to each other: the kinds of messages.

`packets` makes packets of them, and messages of packets.
"""

from __future__ import annotations

from typing import Any

from lazyarr.values import Value

__all__ = [
    "KINDS",
    "MAX_DESCRIPTORS",
    "VERSION",
    "Advise",
    "AttachRegion",
    "CloseRegion",
    "Configure",
    "Done",
    "Evict",
    "FindRegion",
    "Found",
    "Hello",
    "Hire",
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
    "WantFailure",
    "WantRegion",
    "WantStatistics",
    "Welcome",
]

VERSION = 1
"""Raised whenever a message changes its meaning; both sides must have the same."""

MAX_DESCRIPTORS = 8
"""How many descriptors a message carries at most."""


class Message(Value):
    """What one side says to the other.

    Attributes
    ----------
    carries : range
        How many descriptors may come with it.
    """

    # What nobody expects nobody would close.
    carries = range(1)


class Hello(Message):
    """A client says who it is.

    Carries its userfaultfd, the memory objects of its arrays and of their residency
    maps, and the far end of its lifeline.
    """

    carries = range(4, 5)

    version: int
    pid: int
    features: int
    settings: dict[str, Any]


class Join(Message):
    """A child that is about to be forked will be a client; carries its channel's far end.

    `regions` are those that it will have, which must not be forgotten until then.
    """

    carries = range(1, 2)

    regions: list[int]


class Listen(Message):
    """A client gives the pager a socket at which processes that it did not fork can come.

    Carries the socket, which listens already.  A second one is not used.
    """

    carries = range(1, 2)


class Hire(Message):
    """A worker wants a process that decodes, by `threads` threads; carries the end for its jobs."""

    carries = range(1, 2)

    threads: int


class Knock(Message):
    """A process that was not forked wants to be a client; said to the listening socket.

    `namespace` is the inode of its namespace of process ids: only in the same one do both
    mean the same process by a number.  Carries the far end of the channel that it will
    speak on; may be said again, with the same end, when no answer came.
    """

    carries = range(1, 2)

    version: int
    namespace: int


class Welcome(Message):
    """The answer to `Knock`: the process may say `Hello` on its channel.

    `settings` are those that hold in the pager, and hold for the process from now on.
    """

    settings: dict[str, Any]


class Refused(Message):
    """The other answer to `Knock`."""

    reason: str


class OpenChannel(Message):
    """A client wants to speak on one more channel; carries its far end."""

    carries = range(1, 2)


class OpenRegion(Message):
    """A client has mapped and registered memory for an array.

    `map_offset` is where in the memfd the residency map lies, one byte per unit;
    `offset` is where the array's own memory lies, -1 when it is private.
    Carries the descriptors that the store's reference speaks of.
    """

    carries = range(MAX_DESCRIPTORS + 1)

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


class AttachRegion(Message):
    """A client has mapped and registered a region that another client opened."""

    region: int
    address: int


class WantRegion(Message):
    """A client wants to have a region that another client has; it knows what array it is."""

    ticket: int
    region: int
    document: str


class FindRegion(Message):
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


class Found(Message):
    """The answer to `WantRegion` and `FindRegion`; `region` is -1 when there is none.

    Carries the memory objects of the array and of its residency map, in which it lies at
    `offset` and `map_offset`; the client must attach the region or close it, and until then it
    is not forgotten.  Carries nothing when the client has the region already.
    """

    carries = range(0, 3, 2)

    ticket: int
    region: int
    offset: int
    map_offset: int


class CloseRegion(Message):
    """A client wants to unmap a region, and waits until it may."""

    ticket: int
    region: int


class Request(Message):
    """A client wants units to be resident: half-open ranges ``[start, stop]``.

    It is answered when all of them are, or, where it names a range of pages of its only unit,
    when these can be read.
    """

    ticket: int
    region: int
    units: list[list[int]]
    pages: list[int]


class Evict(Message):
    """A client wants units to be taken out."""

    ticket: int
    region: int
    start: int
    stop: int


class Advise(Message):
    """A client says how units will be read: one of the words of `mmap.madvise`."""

    ticket: int
    region: int
    start: int
    stop: int
    advice: str


class Configure(Message):
    """Settings have changed."""

    ticket: int
    settings: dict[str, Any]


class WantFailure(Message):
    """A client's main thread raises now, and wants to know what; the answer is `Done`."""

    ticket: int


class WantStatistics(Message):
    """A client wants to know what the pager has done."""

    ticket: int


class Record(Message):
    """The worker tells its supervisor what a client has said, before it acts on it.

    `body` is the client's message as an object, and empty when the client is gone.
    Carries what the message carried; for `Join`, the channel that the client is on.
    """

    carries = range(MAX_DESCRIPTORS + 1)

    client: int
    body: dict[str, Any]


class Reserve(Message):
    """The worker has promised a client a region; only in a record."""

    region: int


class Ping(Message):
    """The supervisor wants to know whether the worker still answers."""


class Pong(Message):
    """It does."""


class Done(Message):
    """The answer: what was asked for is done, but for the failures."""

    ticket: int
    failures: list[dict[str, Any]]


class Statistics(Message):
    """The answer to `WantStatistics`."""

    ticket: int
    document: dict[str, Any]


KINDS: dict[str, type[Message]] = {kind.__name__: kind for kind in Message.__subclasses__()}
"""Every kind of message, by its name."""

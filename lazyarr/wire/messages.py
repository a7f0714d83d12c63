"""The kinds of messages that clients, the pager's worker and its supervisor send each other.

`packets` makes packets of messages, and messages of packets.
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
    "BeginRecording",
    "ClaimFound",
    "CloseRegion",
    "Configure",
    "Done",
    "EndRecording",
    "Evict",
    "FindRegion",
    "Flush",
    "Forgotten",
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
    "Retire",
    "Schedule",
    "Statistics",
    "Trace",
    "WantClaim",
    "WantFailure",
    "WantRegion",
    "WantStatistics",
    "WantTrace",
    "Welcome",
]

VERSION = 10
"""Raised whenever a message changes its meaning; both sides must have the same."""

MAX_DESCRIPTORS = 8
"""How many descriptors a message carries at most."""


class Message(Value):
    """A message from one process to another.

    Attributes
    ----------
    carries : range
        How many descriptors may come with the message.
    """

    # A receiver closes only the descriptors that it expects.  So a message with any other number
    # is refused, and all of its descriptors are closed.
    carries = range(1)


class Hello(Message):
    """The first message of a client.

    Carries the client's userfaultfd, the memory object of its arrays, the memory object of
    their residency maps, and the pager's end of its lifeline.  A client that may have writable
    arrays (`MemoryKind.writes_back`) adds the userfaultfd of these; `writable_features` are what
    that one has turned on.  The pager seals the memory objects, so that they never get shorter.
    """

    # Two userfaultfds and two memory objects for a client, however many arrays it opens: each
    # descriptor counts against the limits of client, worker and supervisor.
    carries = range(4, 6)

    version: int
    pid: int
    features: int
    settings: dict[str, Any]
    writable_features: int = 0


class Join(Message):
    """A client announces a child that it is about to fork.

    Carries the pager's end of the channel that the child will use.  `regions` are the regions
    that the child will have; the pager must not forget them until then.
    """

    # Sent before the fork: afterwards the parent could let go of a region, or die, before the
    # child has said a word.
    carries = range(1, 2)

    regions: list[int]


class Listen(Message):
    """A client gives the pager a socket to which invited processes connect.

    Carries the socket, which listens already.  The pager uses the first such socket only.
    `secret` is the word by which a process shows there that it was invited.
    """

    carries = range(1, 2)

    secret: str


class Hire(Message):
    """A worker asks the supervisor for a decoder with so many threads.

    Carries the decoder's end of the socket for its jobs.
    """

    carries = range(1, 2)

    threads: int


class Knock(Message):
    """An invited process asks to be a client; sent to the listening socket.

    `secret` shows that the process was invited.  Carries the pager's end of the channel that the
    process will use.  When no answer comes the process may send it again, with the same end.
    """

    carries = range(1, 2)

    version: int
    secret: str


class Welcome(Message):
    """The answer to `Knock`: the process may send `Hello` on its channel.

    `settings` are the settings of the pager, which hold for the process from now on.
    """

    settings: dict[str, Any]


class Refused(Message):
    """The answer to `Knock` of a process that cannot be a client."""

    reason: str


class OpenChannel(Message):
    """A client opens one more channel; carries the pager's end of it."""

    # Each request has a channel to itself while it lasts.  An interrupted request closes its
    # channel, so its answer can never be taken for that of the next.
    carries = range(1, 2)


class OpenRegion(Message):
    """A client has mapped and registered memory for an array.

    `offset` is where the array's memory lies in the memory object of arrays, -1 for memory that
    lies in none.  `map_offset` is where its residency map lies in the other memory object, one
    byte per unit.  `kind` is the name of a `MemoryKind`.  `layout` is the array's layout as text
    (see `lazyarr.layout.document`).  `about` is what traces say of the array: its shape and its
    data type as its users see them.  `origin` names the pages of another pager in whose place the
    region is opened, if any.  Carries the descriptors that the store's reference names.  A region
    whose memory is written back carries one more behind them: the claim on its store, where the
    store can be claimed.  The pager holds the claim as long as it has something to write.
    """

    # Not answered: nothing waits for the pager to open an array.  A layout and not the document
    # of some format, so the pager parses no format.
    carries = range(MAX_DESCRIPTORS + 1)

    region: int
    address: int
    offset: int
    map_offset: int
    url: str
    path: str
    layout: str
    store: dict[str, Any]
    is_remote: bool
    kind: str
    about: dict[str, Any] = {}  # noqa: RUF012 - a value: nobody changes it
    origin: str = ""


class AttachRegion(Message):
    """A client has mapped and registered a region that another client opened."""

    region: int
    address: int


class WantRegion(Message):
    """A client asks for a region whose number it has from a pickle; `layout` is its array's."""

    ticket: int
    region: int
    layout: str


class FindRegion(Message):
    """A client that opens an array asks for a region of it that another client has.

    It gets the region if that was opened for the same `origin`, or if all that was read for it is
    certainly still what is stored.  A region that is written back is what the array is: it goes
    to whoever wants that `kind`, and to nobody else.  The fields are those of `OpenRegion`.
    """

    ticket: int
    url: str
    path: str
    layout: str
    store: dict[str, Any]
    origin: str = ""
    kind: str = "SHARED"


class Found(Message):
    """The answer to `WantRegion` and `FindRegion`; `region` is -1 when there is none.

    Carries the memory objects of the array and of its residency map, in which they lie at
    `offset` and `map_offset`, and behind them the claim on the store, where the memory is written
    back and there is one.  The pager keeps the region until the client has attached it or
    closed it, and the client must do one of the two.  Carries nothing when the client has the
    region already.
    """

    carries = range(4)

    ticket: int
    region: int
    offset: int
    map_offset: int


class WantClaim(Message):
    """A client asks for the claim on a store, by its directory, if the pager has it.

    It does for a client that shares the pager with the one that took the claim, or while
    something is still written that nobody has any more.
    """

    ticket: int
    device: int
    inode: int


class ClaimFound(Message):
    """The answer to `WantClaim`; carries the claim, or nothing."""

    carries = range(2)

    ticket: int


class CloseRegion(Message):
    """A client asks whether it may unmap a region, and waits for the answer."""

    # Where the region was, the client may map something else at once.  So the answer comes when
    # no load is on its way into it.
    ticket: int
    region: int


class Request(Message):
    """A client asks for units: `units` are pairs ``[start, stop]``, of which `stop` is excluded.

    The answer comes when all of these units are resident.  A request for one unit may name a
    range of its `pages`, and then the answer comes when these can be read.  A client that `writes`
    is answered when all of these units are dirty and the pages that each fills alone can be
    written to.
    """

    ticket: int
    region: int
    units: list[list[int]]
    pages: list[int]
    writes: bool = False


class Flush(Message):
    """A client asks that what is dirty now of some units be written to the store.

    The answer is `Done`, with counts, when it is there durably, or when it cannot be written.
    A client that asks for the `is_last` time ends then, and says itself what could not be written.
    """

    ticket: int
    region: int
    start: int
    stop: int
    is_last: bool = False


class Retire(Message):
    """A client asks that nobody write to a region any more, for its array has changed.

    What is dirty is written first.  The answer is `Done`, as to `Flush`; with failures the region
    is as it was before.
    """

    ticket: int
    region: int


class Evict(Message):
    """A client asks that units be evicted."""

    ticket: int
    region: int
    start: int
    stop: int


class Advise(Message):
    """A client tells how it will read units; `advice` is the value of an `Advice`."""

    ticket: int
    region: int
    start: int
    stop: int
    advice: str


class BeginRecording(Message):
    """A client asks that first touches be noted; the ticket is the recording's name."""

    ticket: int


class EndRecording(Message):
    """A client needs a recording no more."""

    ticket: int
    recording: int


class WantTrace(Message):
    """A client asks for a part of what was noted: from these runs, and from these arrays on."""

    ticket: int
    recording: int
    start: int
    n_arrays: int


class Schedule(Message):
    """A client tells what will be touched, in order; `schedule` is its name for that.

    Each of `runs` is a pair ``[start, stop]`` of units.  Its region's place in `regions` is in
    `places`.  The client has told of `n_before` runs before these, and tells of no more if
    `is_last`.
    """

    ticket: int
    schedule: int
    n_before: int
    regions: list[int]
    places: list[int]
    runs: list[list[int]]
    is_last: bool


class Configure(Message):
    """A client sets the settings of the pager, for all clients."""

    ticket: int
    settings: dict[str, Any]


class WantFailure(Message):
    """A client's main thread raises now, and asks for the failure; the answer is `Done`."""

    ticket: int


class WantStatistics(Message):
    """A client asks for the statistics of the pager."""

    ticket: int


class Record(Message):
    """The worker passes a client's message on to the supervisor, before it acts on the message.

    `body` is the client's message as an object; empty when the client is gone.  Carries the
    descriptors of that message.  For `Join` that is the channel of the client to come.
    """

    # What a worker knew must outlive it.  Sent before the worker acts: if it dies in between, the
    # next one acts on the message a second time, which is harmless.
    carries = range(MAX_DESCRIPTORS + 1)

    client: int
    body: dict[str, Any]


class Reserve(Message):
    """The worker has promised a region to a client; sent as the body of a `Record` only."""

    region: int


class Forgotten(Message):
    """The worker needs a region no more; sent as the body of a `Record` only.

    It says so of regions that are written back: these stay in the ledger without a client, until
    what was written to them is in the store.
    """

    region: int


class Ping(Message):
    """The supervisor asks whether a worker or a decoder still answers."""


class Pong(Message):
    """The answer to `Ping`; sent unasked by a process that is ready."""


class Done(Message):
    """The answer to a request that is done.

    Attributes
    ----------
    failures : list of dict
        Why some of its units cannot be had, or not be written; empty when all is well.
    notices : list of dict
        Counts of arrays whose units are loaded again and again; each array is told of once.
    n_units, nbytes : int
        How many units were written, and how many bytes were put into the store for that.
    """

    ticket: int
    failures: list[dict[str, Any]]
    notices: list[dict[str, Any]] = []  # noqa: RUF012 - a value: nobody changes it
    n_units: int = 0
    nbytes: int = 0


class Statistics(Message):
    """The answer to `WantStatistics`."""

    ticket: int
    document: dict[str, Any]


class Trace(Message):
    """The answer to `WantTrace`; see `Core.trace`."""

    ticket: int
    document: dict[str, Any]


KINDS: dict[str, type[Message]] = {kind.__name__: kind for kind in Message.__subclasses__()}
"""Every kind of message, by its name."""

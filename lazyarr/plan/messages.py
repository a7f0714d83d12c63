"""What the pager's state machine is told, and what it tells the pager to do."""

from __future__ import annotations

from typing import TypeAlias

from lazyarr.layout.geometry import Geometry
from lazyarr.memory_kind import MemoryKind
from lazyarr.plan.readahead import Advice
from lazyarr.units import Span
from lazyarr.values import FieldTuple

__all__ = [
    "Advised",
    "Answer",
    "Attached",
    "ClientLeft",
    "Command",
    "Detached",
    "Event",
    "EvictionAsked",
    "Failure",
    "Faulted",
    "Forget",
    "Fragment",
    "HoleFound",
    "InstallPage",
    "LimitChanged",
    "Load",
    "Loaded",
    "LoadFailed",
    "MapPages",
    "Opened",
    "Poison",
    "Promote",
    "Publish",
    "Punch",
    "ReadaheadChanged",
    "Requested",
    "ScratchGrew",
    "Reserved",
    "Stranded",
    "Wake",
]


class Fragment(FieldTuple):
    """The bytes of one unit in a page that it shares with others."""

    page: int
    start: int
    data: bytes


class Failure(FieldTuple):
    """Why a unit cannot be had; `fields` are those of a `ChunkError`."""

    message: str
    fields: dict[str, object]


# --- events -------------------------------------------------------------------


class Attached(FieldTuple):
    """A client has mapped a region and registered it; `remote` if it comes over a network."""

    client: int
    region: int
    address: int
    geometry: Geometry
    kind: MemoryKind
    remote: bool = False


# For a worker that takes over while only announced children have a region: without it
# the region would be forgotten before they come.
class Opened(FieldTuple):
    """A region is there, that only clients will have that are not there yet."""

    region: int
    geometry: Geometry
    kind: MemoryKind
    remote: bool = False


class Reserved(FieldTuple):
    """A client that is not there yet, or has not mapped them yet, will have these regions."""

    client: int
    regions: tuple[int, ...]


class Detached(FieldTuple):
    """A client wants to unmap a region; `ticket` is answered when nothing is on its way into it."""

    client: int
    region: int
    ticket: int


class ClientLeft(FieldTuple):
    """A client is gone, or has called exec."""

    client: int


class Faulted(FieldTuple):
    """A thread of a client waits for the page at `address`."""

    client: int
    address: int


class Requested(FieldTuple):
    """A client asks for units, and is told when all of them are there.

    With `pages`, of its only unit, it is told as soon as these are installed.
    """

    client: int
    region: int
    ticket: int
    units: tuple[Span, ...]
    pages: Span | None = None


class Arrived(FieldTuple):
    """The pages that are waited for of a unit on its way are installed, before the others."""

    region: int
    unit: int
    pages: Span


class Loaded(FieldTuple):
    """A unit's own pages are installed; `fragments` are its share of the others."""

    region: int
    unit: int
    client: int
    fragments: tuple[Fragment, ...]


class LoadFailed(FieldTuple):
    """A unit's bytes cannot be had."""

    region: int
    unit: int
    client: int
    failure: Failure


# Apart from `LoadFailed`: the bytes were right, and others who wait can have them.
class Stranded(FieldTuple):
    """A unit could not be installed, because the client's memory is not there any more."""

    region: int
    unit: int
    client: int


class HoleFound(FieldTuple):
    """A page that should be resident is not: the record was wrong."""

    client: int
    region: int
    page: int


class EvictionAsked(FieldTuple):
    """A client asks for units to be taken out."""

    client: int
    region: int
    ticket: int
    units: Span


class Advised(FieldTuple):
    """A client says how it will read some units."""

    client: int
    region: int
    ticket: int
    units: Span
    advice: Advice


class ReadaheadChanged(FieldTuple):
    """So much may be read ahead at once now."""

    window_nbytes: int


class LinkMeasured(FieldTuple):
    """So many units of an array should be on their way so that its network is never idle.

    Or more, as long as it is not full.
    """

    region: int
    n_units: int
    is_full: bool


class LimitChanged(FieldTuple):
    """The memory limit is now this."""

    limit_nbytes: int


class ScratchGrew(FieldTuple):
    """The memory that units are decoded in has grown, and is kept."""

    nbytes: int


Event: TypeAlias = (
    Attached
    | Opened
    | Reserved
    | Detached
    | ClientLeft
    | Faulted
    | Requested
    | Arrived
    | Loaded
    | LoadFailed
    | Stranded
    | HoleFound
    | EvictionAsked
    | Advised
    | ReadaheadChanged
    | LinkMeasured
    | LimitChanged
    | ScratchGrew
)


# --- commands -----------------------------------------------------------------


class Load(FieldTuple):
    """Read, decode and install a unit in a client's memory, the pages `awaited` first.

    These are what a thread waits for in a fault, or in a request that is to be told of them
    (`Arrived`) if the load `is_pick`; None when all of the unit is wanted.  A unit with a
    `mark` is brought into the memory object only, so that its first touch is a fault.  One that
    `replaces` what a load has left that failed is installed when all of it is decoded, and after
    that is out: the store may have another version now.
    """

    region: int
    unit: int
    # Through whose mapping it is installed.  Shared pages are then in the memory object
    # for all; private pages are this client's alone.
    client: int
    # Somebody waits: ahead of readahead in every queue, and not dropped when it is
    # evicted on its way.
    urgent: bool
    awaited: Span | None = None
    is_pick: bool = False
    mark: bool = False
    replaces: bool = False


class Promote(FieldTuple):
    """Somebody waits now for a unit that was to be loaded without haste."""

    region: int
    unit: int


class InstallPage(FieldTuple):
    """Install a page that several units fill."""

    region: int
    page: int
    client: int
    data: bytes


class MapPages(FieldTuple):
    """Map resident pages in a client that waits for one of them, and wake it."""

    region: int
    client: int
    pages: Span


class Wake(FieldTuple):
    """Let the threads that wait at an address try again."""

    client: int
    address: int


class Punch(FieldTuple):
    """Take pages out of every process."""

    region: int
    pages: Span


class Publish(FieldTuple):
    """Write down for clients to see whether a unit is resident."""

    region: int
    unit: int
    resident: bool


class Poison(FieldTuple):
    """Let the threads that wait for pages die of SIGBUS."""

    region: int
    client: int
    pages: tuple[int, ...]
    failure: Failure


class Answer(FieldTuple):
    """Tell a client that what it asked for is done, or what of it failed."""

    client: int
    ticket: int
    failures: tuple[Failure, ...] = ()


class Forget(FieldTuple):
    """Nobody has this region any more: let go of its memory and its source."""

    region: int


Command: TypeAlias = (
    Load | Promote | InstallPage | MapPages | Wake | Punch | Publish | Poison | Answer | Forget
)

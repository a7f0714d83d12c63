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
    "Copied",
    "CopyBegan",
    "Detached",
    "Event",
    "EvictionAsked",
    "Failure",
    "Faulted",
    "FlushAsked",
    "Flushed",
    "Forget",
    "Fragment",
    "HoleFound",
    "InstallPage",
    "LimitChanged",
    "Load",
    "Loaded",
    "LoadFailed",
    "Lost",
    "MapPages",
    "Opened",
    "Poison",
    "Promote",
    "Protect",
    "Publish",
    "Punch",
    "ReadaheadChanged",
    "RecordingBegan",
    "RecordingEnded",
    "Refuse",
    "Requested",
    "Reserved",
    "Restored",
    "Retired",
    "Scheduled",
    "ScratchGrew",
    "Stranded",
    "Unprotect",
    "Wake",
    "WriteBack",
    "WrittenBack",
]


class Fragment(FieldTuple):
    """The bytes of one unit in a page that it shares with others."""

    page: int
    start: int
    data: bytes


class Failure(FieldTuple):
    """Why a unit cannot be had, or not be written; `fields` are those of a `ChunkError`."""

    message: str
    fields: dict[str, object]


# --- events -------------------------------------------------------------------


class Attached(FieldTuple):
    """A client has mapped a region and registered it; `remote` if it comes over a network.

    `chunks_per_object` is as `ObjectGrid` takes it.
    """

    client: int
    region: int
    address: int
    geometry: Geometry
    kind: MemoryKind
    remote: bool = False
    chunks_per_object: tuple[int, ...] = ()


# For a worker that takes over while only announced children have a region: without it
# the region would be forgotten before they come.
class Opened(FieldTuple):
    """A region is there, that only clients will have that are not there yet."""

    region: int
    geometry: Geometry
    kind: MemoryKind
    remote: bool = False
    chunks_per_object: tuple[int, ...] = ()


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
    """A thread of a client waits for the page at `address`, to write to it if `is_write`."""

    client: int
    address: int
    is_write: bool = False


class Requested(FieldTuple):
    """A client asks for units, and is told when all of them are there.

    With `pages`, of its only unit, it is told as soon as these are installed.  If it `writes`, it
    is told when all of the units are dirty, and the pages that each fills alone can be written to.
    """

    client: int
    region: int
    ticket: int
    units: tuple[Span, ...]
    pages: Span | None = None
    writes: bool = False


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


class FlushAsked(FieldTuple):
    """A client is told (`Flushed`) when what is dirty now of some units is in the store."""

    client: int
    region: int
    ticket: int
    units: Span


# Apart from `WriteBack`: of all that waits to be written, little is copied at a time, and
# writers wait for no more than that.
class CopyBegan(FieldTuple):
    """Units of a `WriteBack` are about to be protected in every client, and then copied.

    From the step on that this is given in, no page of them is unprotected before `Copied`.
    """

    region: int
    units: tuple[int, ...]


class Copied(FieldTuple):
    """A copy of these units was made while they were protected; it is what will be written."""

    region: int
    units: tuple[int, ...]


class WrittenBack(FieldTuple):
    """The copies of these units are in the store, durably; or they are not, for a `failure`.

    Each unit of a `WriteBack` comes to this once, in any order and in any company; with a failure
    also before `CopyBegan` or `Copied`.  `nbytes` is how much was put into the store.  Of very
    many units a few hundred at a time are told of, for a step takes as long as they are many.
    """

    region: int
    units: tuple[int, ...]
    failure: Failure | None
    nbytes: int


class Restored(FieldTuple):
    """These units are in memory and dirty: a worker that has died had them so.

    All pages of them are in the memory object, those too that they share, and each is protected in
    every client, or may be.  It comes after those who have the region (`Attached`, `Reserved`):
    what nobody has is written back and forgotten.
    """

    region: int
    units: tuple[int, ...]


class Retired(FieldTuple):
    """Nobody may write to a region any more: what is dirty is written back, and then `Flushed`.

    Whoever wants to write meanwhile waits for that, and then gets the `failure`.  Where something
    could not be written, the region is as it was before.
    """

    client: int
    ticket: int
    region: int
    failure: Failure = Failure("the array is read-only: it was appended to, or resized", {})


class Advised(FieldTuple):
    """A client says how it will read some units."""

    client: int
    region: int
    ticket: int
    units: Span
    advice: Advice


class RecordingBegan(FieldTuple):
    """A client wants to know in which order units are come to from now on; `ticket` names that."""

    client: int
    ticket: int


class RecordingEnded(FieldTuple):
    """A client needs what it has asked for by the ticket `recording` no more."""

    client: int
    ticket: int
    recording: int


class Scheduled(FieldTuple):
    """A client tells what will be come to, in order: of each run the region, and its units.

    `schedule` is the client's name for the schedule.  It has had `start` runs before these, and
    has no more if `is_last`.
    """

    client: int
    ticket: int
    schedule: int
    start: int
    runs: tuple[tuple[int, Span], ...]
    is_last: bool


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
    """The memory that units are decoded in has grown, or shrunk where the number is negative."""

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
    | FlushAsked
    | CopyBegan
    | Copied
    | WrittenBack
    | Restored
    | Retired
    | Advised
    | RecordingBegan
    | RecordingEnded
    | Scheduled
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
    that is out: the store may have another version now.  One that a thread `writes` to is installed
    without waking anybody (UFFDIO_COPY_MODE_DONTWAKE): `Unprotect` and `MapPages` follow for
    whoever waits.
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
    writes: bool = False


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
    """Write down for clients to see whether a unit is resident, and whether it is dirty."""

    region: int
    unit: int
    resident: bool
    dirty: bool = False


class Poison(FieldTuple):
    """Let the threads that wait for pages die of SIGBUS."""

    region: int
    client: int
    pages: tuple[int, ...]
    failure: Failure


class Protect(FieldTuple):
    """Let nobody write to pages any more without a fault."""

    region: int
    pages: Span


class Unprotect(FieldTuple):
    """Let a client write to pages of dirty units.

    Those that it lacks are mapped (CONTINUE), the protection of all is lifted, and their threads
    are woken.  The units that fill them were published as dirty by commands before this.
    """

    region: int
    client: int
    pages: Span


class Refuse(FieldTuple):
    """Let the threads that wait to write to pages die of SIGBUS; the pages are there.

    Pages that are not there are poisoned instead (`Poison`).
    """

    region: int
    client: int
    pages: tuple[int, ...]
    failure: Failure


class WriteBack(FieldTuple):
    """Write units to the store, those that were dirty first in front.

    Before some of them are protected and copied there is a `CopyBegan`.  Until then clients may
    write to them, and what they write is written back too.
    """

    region: int
    units: tuple[int, ...]


class Flushed(FieldTuple):
    """Tell a client that what was dirty when it asked is in the store, or why some of it is not.

    `n_units` of them were written.  `nbytes` is how much was put into the store for that.
    """

    client: int
    ticket: int
    failures: tuple[Failure, ...]
    n_units: int
    nbytes: int


class Lost(FieldTuple):
    """Say that what was written to some units is lost: nobody is left who could try again."""

    region: int
    units: tuple[int, ...]
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
    Load
    | Promote
    | InstallPage
    | MapPages
    | Wake
    | Punch
    | Publish
    | Poison
    | Protect
    | Unprotect
    | Refuse
    | WriteBack
    | Flushed
    | Lost
    | Answer
    | Forget
)

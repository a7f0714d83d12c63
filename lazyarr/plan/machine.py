"""The pager's state machine: events in, commands out; no I/O, no clock, no threads.

The machine decides what is loaded, mapped, evicted and answered.  `messages` lists the events
that it is given and the commands that it returns.

Who calls, and when
-------------------
`Core.step` (`pager/work/core.py`) gives one event to `Machine.handle`, and has the commands carried
out in their order before it gives the next event.  So the record is never ahead of the memory.
Each caller holds the core's lock, also the one that takes the fast path.  Only `Load` takes time.
Threads and decoders carry it out without the lock, and its end is an event: `Loaded`,
`LoadFailed` or `Stranded`.

No step gets longer with the number of units.  A step looks at one slice of units, and leaves the
rest to `Machine.proceed`.  Events that have come meanwhile may be handled before that.

States of a unit
----------------
ABSENT
    It is in neither of the sets below.  A load may begin.
LOADING
    It is in `RegionState.loading`, and no client waits for it (`Loading.is_for_nobody`): it is
    read ahead, or the requests for it are answered already.
AWAITED
    It is in `RegionState.loading`, and threads (`Loading.faults`) or requests
    (`Loading.requests`) wait for it.  All who come while it is under way join the same load.
DROPPED
    It is in `RegionState.loading` with `is_dropped`: somebody wanted it out before it came.
    What comes may be older than that wish, so it is taken out and loaded again.
RESIDENT
    It is in `RegionState.resident`.  All pages that it fills alone are installed.
LEFT
    It is in `RegionState.left`: its load failed after a request was told of some pages.  These
    pages stay, count towards the limit, and go when a client evicts the unit.  A load may begin,
    as from ABSENT.  It takes the pages out before it installs its own version.

The rest is of memory that is written back (`MemoryKind.writes_back`).  Such a unit is resident,
all of its pages are in the memory object, and it is in `RegionState.dirty`:

DIRTY
    Its memory has, or may have, what the store has not.  It waits (`Stage.WAITING`), or the pager
    was told to write it (`Stage.QUEUED`).
COPYING
    It is protected in every client and being copied.  Whoever wants to write waits for the end.
WRITING
    The copy is on its way to the store, and nobody was let in since it was made.
REDIRTIED
    The same, but somebody was let in: it will be dirty when the copy is in the store.

A unit that is lost on its way to the store is in `RegionState.strays` until its `WrittenBack`.  It
may be dirty again meanwhile, and waits.

Poison is no state of a unit.  It is in the page table of one client, so `RegionState.poisoned`
holds pairs of client and page.  A later load of the unit heals them.

Transitions
-----------
"begin" is `UnitTable.begin`, and "end" is `UnitTable.end`.  Each load goes through both once.
Requests are urgent, those of `prefetch` too: somebody waits for their end.

=========  =======================  =========================================  =========
state      event                    commands                                   next state
=========  =======================  =========================================  =========
ABSENT     Faulted, Requested,      begin: Load (urgent)                       AWAITED
           HoleFound
ABSENT     readahead                begin: Load (not urgent)                   LOADING
ABSENT     another unit's Loaded,   begin: Load for a request that goes on,    AWAITED
           LoadFailed or Stranded   or a thread whose page both units fill
ABSENT     its turn to be written   begin: Load for a writer that waited       AWAITED
LEFT       Faulted, Requested,      begin: Load (urgent, replaces)             AWAITED
           HoleFound
LEFT       readahead                begin: Load (replaces)                     LOADING
LEFT       its turn to be written   begin: Load (replaces)                     AWAITED
LEFT       EvictionAsked            Punch                                      ABSENT
LOADING    Faulted, Requested,      begin: Promote                             AWAITED
           HoleFound
LOADING    its turn to be written   begin: Promote                             AWAITED
LOADING    EvictionAsked            none                                       DROPPED
AWAITED    Faulted, Requested       none; it joins the load                    AWAITED
AWAITED    Arrived                  Answer to the request that picked pages    AWAITED, or
                                                                               LOADING
AWAITED    EvictionAsked            none; they who wait come first             AWAITED
AWAITED    ClientLeft, Detached     none; who waited after Arrived is gone     AWAITED, or
                                                                               LOADING
AWAITED    Faulted to write, or     Poison for all who wait for the page, when AWAITED, or
           WrittenBack, failed      a writer may not                           LOADING
LOADING    Loaded                   end: InstallPage for pages now whole,      RESIDENT
                                    Publish
AWAITED    Loaded                   the same, MapPages for threads that the    RESIDENT
                                    install has not woken, Answer
any load   Loaded, no client left   end: Punch                                 ABSENT
any load   LoadFailed               end: Punch, Poison for threads,            ABSENT, or
                                    Answer with the failure for requests       LEFT
any load   Stranded                 end: Punch; begin for another client       ABSENT, or
                                    that waits, Answer to the others           AWAITED
DROPPED    Loaded, LoadFailed       end: Punch; begin for those who came       ABSENT, or
                                    since                                      AWAITED
RESIDENT   Faulted                  MapPages (of private memory: once)         RESIDENT
RESIDENT   Requested                Answer                                     RESIDENT
RESIDENT   EvictionAsked, no room   Publish, Punch; none while a thread waits  ABSENT
                                    for a page that it shares
RESIDENT   HoleFound, or Faulted    Publish, Punch; begin: Load                AWAITED
           again (private)
RESIDENT   Faulted or Requested to  Publish, Unprotect; Answer                 DIRTY
           write; its turn
RESIDENT   another unit's Loaded,   the same for a writer that needed both     DIRTY
           Stranded or LoadFailed
RESIDENT   Copied of another unit,  the same for a writer that waited          DIRTY
           or its WrittenBack
ABSENT     Restored                 Publish                                    DIRTY
DIRTY      Faulted or Requested to  Unprotect; Answer                          DIRTY
           write
DIRTY      much is dirty,           WriteBack                                  DIRTY
           FlushAsked, Retired
DIRTY      CopyBegan                none                                       COPYING
DIRTY      WrittenBack, failed      Flushed; Lost with the last try            DIRTY, or
                                                                               RESIDENT
COPYING    Faulted or Requested to  none; it waits                             COPYING
           write
COPYING    Copied                   none; Unprotect for those who waited       WRITING, or
                                                                               REDIRTIED
COPYING    WrittenBack, failed      Flushed; Unprotect for those who waited    DIRTY, or
                                                                               RESIDENT
WRITING    Faulted or Requested to  Unprotect; Answer                          REDIRTIED
           write; its turn
WRITING    Loaded, Copied of        Unprotect for a writer that needed both    REDIRTIED
           another unit
WRITING    WrittenBack              Publish, Flushed; Refuse for those who     RESIDENT, or
                                    wait for room, if it failed                DIRTY
REDIRTIED  WrittenBack              Flushed; WriteBack for flushes since       DIRTY
any dirty  HoleFound                Lost, Protect, Publish, Punch; begin:      AWAITED
                                    Load
any        Detached                 Wake for the client's threads; Answer      the same
                                    when nothing is on its way into its
                                    memory; Forget with the last client
any        ClientLeft               none; Forget with the last client          the same
=========  =======================  =========================================  =========

The fast path (`FastPath`) is ABSENT -> AWAITED -> RESIDENT for one unit of whole pages that
nobody else wants.  It enters and ends the load by the same functions, and leaves out only
the events and commands between, which for a small unit cost several times what the unit does.

Invariants (checked by the property test)
-----------------------------------------
- Every load that is begun ends once.
- A page is installed when all units that fill it are resident, and is punched only when none of
  them is.  None is left behind when none of them is.
- A unit is not evicted while somebody waits for a page that it shares.
- While a load is on its way into a client's memory, that client's wish to unmap the region is
  not answered: the address cannot come to mean something else.
- Whoever waits is answered, mapped, woken or poisoned.
"""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from lazyarr.plan import messages as m
from lazyarr.plan.dirty import DirtyUnit, DirtyUnits, Stage, Writer
from lazyarr.plan.eviction import TwoQueues
from lazyarr.plan.lookahead import Lookahead
from lazyarr.plan.recorder import MAX_RUNS, Recorder
from lazyarr.plan.regions import AddressTable, Loading, RegionState
from lazyarr.plan.room import Room
from lazyarr.plan.schedule import Schedule
from lazyarr.plan.selection import merge_spans
from lazyarr.plan.writing import WriteBacks, Writers
from lazyarr.units import Span

__all__ = ["FastLoad", "Machine", "Vacancy"]

Ticket = tuple[int, int]
"""A client, and its number for a request."""

_NOTHING = Span(0, 0)

_COUNTED = (
    "faults", "requests", "units_loaded", "units_reloaded", "bytes_installed", "evictions",
    "errors", "units_ahead", "ahead_read", "ahead_evicted",
    "units_written", "bytes_written", "write_backs", "write_failures",
)  # fmt: skip

# So many units of one request are on their way at once, more where each may take a round trip;
# counted in chunks, for each of those is read.
_MOST_UNITS = 512
_MOST_REMOTE_UNITS = 4096
_MOST_CHUNKS = 1 << 16
# So many schedules are followed at once, of all clients.
_MAX_SCHEDULES = 16
# Half of what a part of a large request has (`client.arrays.passes`): some of its units may be
# neighbours.
_PART_SHARE, _PART_NBYTES = 16, 32 << 20
# An answer names at most so many failures; after so many, no more of its units are tried.
_MAX_FAILURES = 100


class Vacancy(NamedTuple):
    """Pages of one unit, from one that somebody wants on, with nothing in them or on its way."""

    region: int
    unit: int
    pages: Span


class FastLoad(NamedTuple):
    """A unit that can be brought in one step: for whom, and where it goes."""

    client: int
    region: int
    unit: int
    page: int
    address: int
    nbytes: int


class Machine:
    """Decides what is loaded, mapped, evicted and answered.

    Parameters
    ----------
    limit_nbytes : int
        How many bytes may be resident or on their way.  Private memory and the memory
        to decode in count, and cannot be evicted; where these and what is on its way
        are more than half, what can be evicted may still have the other half.
    slice_units : int
        How many units a step looks at before it lets others in.

    Attributes
    ----------
    fast_path : FastPath
        The same in one step, for units that nobody else wants.
    """

    def __init__(self, limit_nbytes: int, *, slice_units: int = 256) -> None:
        self._units = UnitTable(limit_nbytes, slice_units)
        self._members = Members(self._units)
        self._requests = Requests(self._units)
        self._writers = self._requests.writers
        self._write_backs = WriteBacks(self._units, self._members, self._writers)
        self._members.keeps = self._write_backs.keeps
        self._endings = Endings(self._units, self._members, self._requests)
        self.fast_path = FastPath(self._units, self._members, self._requests)
        self.counters = self._units.counters
        # By type, and not by a method on each event: events are plain values that other
        # modules make, and one look-up is all that an event costs before its handler.
        self._handlers: dict[type, Callable[[Any], None]] = {
            m.Attached: self._members.on_attached,
            m.Opened: self._members.on_opened,
            m.Reserved: self._members.on_reserved,
            m.Detached: self._on_detached,
            m.ClientLeft: self._on_client_left,
            m.Faulted: self._on_faulted,
            m.Requested: self._requests.on_requested,
            m.Arrived: self._endings.on_arrived,
            m.Loaded: self._endings.on_loaded,
            m.LoadFailed: self._endings.on_load_failed,
            m.Stranded: self._endings.on_stranded,
            m.HoleFound: self._on_hole_found,
            m.EvictionAsked: self._on_eviction_asked,
            m.FlushAsked: self._write_backs.on_flush_asked,
            m.CopyBegan: self._write_backs.on_copy_began,
            m.Copied: self._write_backs.on_copied,
            m.WrittenBack: self._write_backs.on_written_back,
            m.Restored: self._write_backs.on_restored,
            m.Retired: self._write_backs.on_retired,
            m.Advised: self._on_advised,
            m.RecordingBegan: self._on_recording_began,
            m.RecordingEnded: self._on_recording_ended,
            m.Scheduled: self._on_scheduled,
            m.ReadaheadChanged: self._on_readahead_changed,
            m.LinkMeasured: self._on_link_measured,
            m.LimitChanged: self._on_limit_changed,
            m.ScratchGrew: self._on_scratch_grew,
        }

    def __repr__(self) -> str:
        return (
            f"<Machine: {len(self._units.regions)} regions, {len(self._members)} clients, "
            f"{self._units.resident_nbytes} of {self._units.room.limit_nbytes} bytes>"
        )

    @property
    def resident_nbytes(self) -> int:
        """Bytes of evictable memory that are resident."""
        return self._units.resident_nbytes

    @property
    def n_loading(self) -> int:
        """How many units are on their way."""
        return sum(len(state.loading) for state in self._units.regions.values())

    def loaded_regions(self) -> list[tuple[int, RegionState]]:
        """Return the regions of which anything was loaded."""
        return [
            found for found in self._units.regions.items() if found[1].n_loaded or found[1].dirty
        ]

    def take_thrashing(self) -> list[tuple[int, RegionState]]:
        """Return the regions whose units are loaded again and again; each of them once."""
        thrashing, self._units.thrashing = self._units.thrashing, []
        if not thrashing:
            return []
        return [
            (region, self._units.regions[region]) for region in thrashing if self.region(region)
        ]

    def find_recorder(self, client: int, ticket: int) -> Recorder | None:
        """Return what notes units for a client by the ticket that it has asked with; else None."""
        return self._units.recorders.get((client, ticket))

    def is_recorded(self, region: int) -> bool:
        """Return whether units of a region have been noted for anybody."""
        return any(region in recorder for recorder in self._units.recorders.values())

    @property
    def private_nbytes(self) -> int:
        """Bytes of private memory that were installed; they count, and stay."""
        return self._units.room.private_nbytes

    @property
    def held_nbytes(self) -> int:
        """All that counts towards the memory limit."""
        return self._units.room.taken_nbytes

    @property
    def dirty_nbytes(self) -> int:
        """Bytes of the units that are dirty, those that are being written among them."""
        return self._units.dirty.nbytes

    @property
    def n_dirty(self) -> int:
        """How many units are dirty, or being written; as long as there are any, the pager stays."""
        return self._units.dirty.n_units

    @property
    def limit_nbytes(self) -> int:
        """The memory limit."""
        return self._units.room.limit_nbytes

    def handle(self, event: m.Event) -> list[m.Command]:
        """Return what has to be done about an event, in order."""
        # A new list for each step: the executor may still go through that of the step
        # before.
        commands = self._units.commands = []
        self._handlers[type(event)](event)
        # After each event, so no event has to think of room.
        self._write_backs.follow()
        self._units.make_room(self._requests.asked_nbytes)
        return commands

    @property
    def has_more(self) -> bool:
        """Whether a step has left something to be done, which `proceed` goes on with."""
        return self._units.has_more

    def proceed(self) -> list[m.Command]:
        """Take the next step of what has been left to be done; return what it commands, in order.

        Events may come before it, and between one of these steps and the next.
        """
        commands = self._units.commands = []
        self._units.proceed()
        self._write_backs.follow()
        self._units.make_room(self._requests.asked_nbytes)
        return commands

    def region(self, region: int) -> RegionState | None:
        """Return what is known of a region; None when nobody has it any more."""
        return self._units.regions.get(region)

    def has_regions(self, client: int) -> bool:
        """Return whether a client has mapped any region."""
        return any(client in state.addresses for state in self._units.regions.values())

    def find_vacancy(self, client: int, address: int) -> Vacancy | None:
        """Return the shared pages from an address on that nobody has or loads; else None.

        A page that several units fill is installed in a step of its own, whatever
        becomes of them, and so is alone.
        """
        place = self._members.find(client, address)
        if place is None:
            return None
        region, page = place
        state = self._units.regions[region]
        # Private memory cannot be taken out again, so no zeros may be shown in it; and where
        # clients write, they could change them.
        if not state.kind.is_shared or state.kind.writes_back or state.is_installed(page):
            return None
        unit = state.geometry.units_of_page(page).start
        body = state.geometry.body_pages(unit)
        if page not in body:
            return Vacancy(region, unit, Span(page, page + 1))
        return None if unit in state.loading else Vacancy(region, unit, Span(page, body.stop))

    def is_dropped(self, region: int, unit: int) -> bool:
        """Return whether a unit was evicted on its way, and need not be installed."""
        return self._units.regions[region].loading[unit].is_dropped

    def is_being_written(self, region: int, unit: int) -> bool:
        """Return whether a unit is being copied or written, and wanted in the store still.

        To be asked when a copy was made, before it is put: what is gone from memory meanwhile is
        no longer dirty, or was made dirty anew, and that copy of it may not be written.
        """
        state = self._units.regions.get(region)
        dirty = state.dirty.get(unit) if state is not None else None
        return dirty is not None and dirty.stage in (Stage.COPYING, Stage.WRITING)

    # --- clients go -----------------------------------------------------------

    def _on_detached(self, event: m.Detached) -> None:
        state = self._units.regions.get(event.region)
        address = state.addresses.get(event.client) if state is not None else None
        gone = self._writers.leave(event.client, event.region)
        for writer in gone:
            if writer.ticket is None and state is not None and address is not None:
                place = address + writer.page * state.geometry.page_nbytes
                self._units.commands.append(m.Wake(event.client, place))
        self._members.on_detached(event)
        # Its requests last: they begin no more when the client does not have the region.
        self._writers.end_left(gone)

    def _on_client_left(self, event: m.ClientLeft) -> None:
        # Its requests first: to settle its regions would go on with them, and load for
        # nobody.
        self._requests.forget(event.client)
        self._writers.leave(event.client)
        self._write_backs.leave(event.client)
        self._units.forget_watchers(event.client)
        self._members.on_client_left(event)

    # --- wishes ---------------------------------------------------------------

    def _on_faulted(self, event: m.Faulted) -> None:
        place = self._members.find(event.client, event.address)
        if place is None:
            self.counters["faults"] += 1
            # Old news of memory that is gone; or else it will fault again.
            self._units.commands.append(m.Wake(event.client, event.address))
            return
        region, page = place
        state = self._units.regions[region]
        self._units.count_fault(region, state)
        units = state.geometry.units_of_page(page)
        # Asked before the page is awaited: from then on its units are on their way, and
        # readahead could not tell a reader that it has lost from one that it leads.
        if self._units.is_watched:
            self._units.note_arrival(region, state, event.client, units)
        is_lost = any(state.is_absent(unit) for unit in range(*units))
        if event.is_write and state.kind.writes_back:
            self._units.touch(region, units.start)
            self._writers.fault(region, state, event.client, page)
        elif state.is_installed(page):
            self._on_resident_fault(region, state, event.client, page)
        else:
            self._units.await_page(region, state, event.client, page)
        self._units.look_ahead(region, state, event.client, units, is_lost=is_lost)

    def _on_resident_fault(self, region: int, state: RegionState, client: int, page: int) -> None:
        """Map a page that another process has brought; or load it again.

        On private memory a fault on a resident unit is either old news, read
        after the install that answered it, or memory that the client has given
        back with madvise.  It is woken once; when the same page faults again,
        its unit is loaded again.
        """
        units = state.geometry.units_of_page(page)
        if state.kind.is_shared:
            self._units.touch(region, units.start)
            # All of the unit, for CONTINUE costs little where the pages are there, and the
            # thread goes on to the next page.
            pages = state.geometry.body_pages(units.start)
            self._units.commands.append(
                m.MapPages(region, client, pages if page in pages else Span(page, page + 1))
            )
        elif page not in state.suspects:
            state.suspects.add(page)
            self._units.commands.append(m.MapPages(region, client, Span(page, page + 1)))
        else:
            self._reload(region, state, page, client)

    def _on_hole_found(self, event: m.HoleFound) -> None:
        state = self._units.regions.get(event.region)
        if state is not None and event.client in state.addresses:
            self._reload(event.region, state, event.page, event.client)

    def _reload(self, region: int, state: RegionState, page: int, client: int) -> None:
        """Load the units of a page that is not what the record says."""
        state.suspects.discard(page)
        for unit in range(*state.geometry.units_of_page(page)):
            if unit in state.resident:
                if unit in state.dirty:
                    self._write_backs.lose_unit(region, state, unit)
                self._units.take_out(region, state, unit)
        self._units.await_page(region, state, client, page)

    # --- eviction -------------------------------------------------------------

    def _on_eviction_asked(self, event: m.EvictionAsked) -> None:
        state = self._units.regions.get(event.region)
        candidates: Sequence[int] = ()
        if state is not None and state.kind.is_evictable:
            units = event.units & Span(0, state.geometry.n_units)
            # A range, not a list: an eviction of everything names all units of an array,
            # which may be millions.
            candidates = range(*units)
            if units.size > self._units.slice_units:
                # A look at what there is costs no more than the memory that it is in, and all is
                # copied at once: a set that changes cannot be gone through in slices.
                candidates = [*state.resident, *state.left, *state.loading]
        self._evict_slice(event, candidates, 0)

    def _evict_slice(self, event: m.EvictionAsked, candidates: Sequence[int], start: int) -> None:
        """Take out some units; answer when there are no more."""
        state = self._units.regions.get(event.region)
        stop = start + self._units.slice_units
        if state is not None:
            # Units side by side are one hole: a call for each would cost more than their
            # pages do.
            self._units.hold_punches()
            for unit in candidates[start:stop]:
                if unit in event.units:
                    self._evict_unit(event.region, state, unit)
            self._units.punch_held(event.region)
        if state is not None and stop < len(candidates):
            self._units.later(partial(self._evict_slice, event, candidates, stop))
        else:
            self._units.commands.append(m.Answer(event.client, event.ticket))

    def _evict_unit(self, region: int, state: RegionState, unit: int) -> None:
        if unit in state.resident:
            # A thread waits for a page that this unit shares.  Without it the page would not
            # be whole when its other unit comes, and this one would be loaded again at
            # once.  What is written, or about to be, cannot be had from the store.
            is_kept = unit in state.dirty or unit in state.promised
            if not (is_kept or state.is_awaited(unit)):
                self._units.evict(region, state, unit)
        elif unit in state.loading:
            # Whoever evicts wants newer bytes at the next touch.  What is read ahead may be
            # older, so it is dropped.  Somebody who waits has come before the wish, and gets
            # what is on its way.
            if state.loading[unit].is_for_nobody:
                state.loading[unit].is_dropped = True
                self._units.lookahead.remove((region, unit))
        elif unit in state.left:
            self._units.punch_body(region, state, unit)

    def _on_advised(self, event: m.Advised) -> None:
        state = self._units.regions.get(event.region)
        if state is not None:
            self._units.lookahead.advise(event.region, state, event.units, event.advice)
        self._units.commands.append(m.Answer(event.client, event.ticket))

    def _on_recording_began(self, event: m.RecordingBegan) -> None:
        self._units.begin_recording((event.client, event.ticket))
        self._units.commands.append(m.Answer(event.client, event.ticket))

    def _on_recording_ended(self, event: m.RecordingEnded) -> None:
        self._units.end_recording((event.client, event.recording))
        self._units.commands.append(m.Answer(event.client, event.ticket))

    def _on_scheduled(self, event: m.Scheduled) -> None:
        self._units.add_to_schedule(event)
        self._units.commands.append(m.Answer(event.client, event.ticket))

    def _on_readahead_changed(self, event: m.ReadaheadChanged) -> None:
        self._units.lookahead.window_nbytes = event.window_nbytes

    def _on_link_measured(self, event: m.LinkMeasured) -> None:
        state = self._units.regions.get(event.region)
        if state is not None:
            state.pipe_units, state.is_pipe_full = event.n_units, event.is_full

    def _on_limit_changed(self, event: m.LimitChanged) -> None:
        self._units.room.limit_nbytes = event.limit_nbytes

    def _on_scratch_grew(self, event: m.ScratchGrew) -> None:
        self._units.room.scratch_nbytes += event.nbytes


class FastPath:
    """The fast path: brings one unit of whole pages, that nobody else wants, without events.

    `begin` and `end` stand for `Faulted` and `Loaded`, and `take_down` for both in one step.  They
    use the functions of `UnitTable` that the events use, so there is one record of each load.

    Parameters
    ----------
    units, members, requests
        The machine's.
    """

    def __init__(self, units: UnitTable, members: Members, requests: Requests) -> None:
        self._units = units
        self._members = members
        self._requests = requests

    def __repr__(self) -> str:
        return f"<FastPath: {self._units!r}>"

    def plan(self, client: int, address: int, *, is_write: bool = False) -> FastLoad | None:
        """Return the unit that a fault needs, when it can be brought in one step; else None.

        That is: nobody waits to write to memory that is written back, the unit is whole pages,
        nobody has it or loads it, nothing must be evicted for it, and no page of its array is
        poisoned.  What must follow at once, before any event, is `take_down`, or `begin`, or
        nothing at all.
        """
        place = self._members.find(client, address)
        if place is None:
            return None
        region, page = place
        state = self._units.regions[region]
        geometry = state.geometry
        # The events make it dirty, and have an order for those who come at once.
        if is_write and state.kind.writes_back:
            return None
        # Poisoned pages must be healed when a unit comes that completes them, which
        # only `Loaded` does.
        if not geometry.unit_pages or state.poisoned:
            return None
        unit = page // geometry.unit_pages
        nbytes = geometry.unit_nbytes
        if unit in state.resident or unit in state.loading or unit >= state.n_plain_units:
            return None
        # Only the events tell recorders and schedules of it.
        if self._units.is_watched and self._units.watches(region):
            return None
        # To make room takes commands, and these an order.  What the last load has left
        # must be taken out first.
        if nbytes > self._units.room.free_nbytes or unit in state.left:
            return None
        return FastLoad(client, region, unit, page, state.addresses[client] + unit * nbytes, nbytes)

    def take_down(self, fast: FastLoad) -> None:
        """Take down that a unit of `plan` is resident."""
        state = self._units.regions[fast.region]
        # Loaded and installed already, under the lock: so there is no moment in which
        # it is on its way, and nobody who could have joined.
        self._units.count_fault(fast.region, state)
        self._units.enter(fast.region, state, fast.unit)

    def begin(self, fast: FastLoad) -> list[m.Command]:
        """Take down that a unit of `plan` is on its way; return what to do besides.

        What ends it is `end`, or an event that ends a `Load`.
        """
        state = self._units.regions[fast.region]
        self._units.count_fault(fast.region, state)
        loading = Loading(fast.client)
        loading.faults.add((fast.client, fast.page))
        self._units.start(state, fast.unit, loading, fast.nbytes)
        commands = self._units.commands = []
        units = Span(fast.unit, fast.unit + 1)
        self._units.look_ahead(fast.region, state, fast.client, units, is_lost=True)
        # Nothing is read ahead for most faults, and then nothing new has to fit: the
        # unit itself does, or `plan` would have refused it.
        if commands:
            self._units.make_room(self._requests.asked_nbytes)
        return commands

    def end(self, fast: FastLoad) -> bool:
        """Take down that a unit is resident, and return True; False if `Loaded` must do it.

        It must where something has happened meanwhile.
        """
        state = self._units.regions[fast.region]
        loading = state.loading[fast.unit]
        # Another thread, a request, or a wish to unmap has come meanwhile.  Each needs
        # an answer of its own, and the event has the rules.
        others = loading.requests or loading.late or loading.writers
        is_alone = len(loading.faults) == 1 and not others
        if not is_alone or state.leaving or fast.client not in state.addresses:
            return False
        self._units.end(fast.region, fast.unit)
        self._units.enter(fast.region, state, fast.unit)
        return True


class Members:
    """The clients of all regions.

    Parameters
    ----------
    units : UnitTable
        Holds the regions.
    """

    def __init__(self, units: UnitTable) -> None:
        self._units = units
        self._tables: dict[int, AddressTable] = {}
        # Whether a region stays that nobody has, for what was written to it.
        self.keeps: Callable[[int, RegionState], bool] = lambda _region, _state: False

    def __repr__(self) -> str:
        return f"<Members: {len(self._tables)} clients>"

    def __len__(self) -> int:
        return len(self._tables)

    def find(self, client: int, address: int) -> tuple[int, int] | None:
        """Return region and page of an address; None when it is in no region."""
        table = self._tables.get(client)
        return table.find(address) if table else None

    def on_opened(self, event: m.Opened | m.Attached) -> None:
        """Begin to know a region."""
        # It is known when another client has opened it, or when the ledger has told of
        # it.
        if event.region not in self._units.regions:
            self._units.regions[event.region] = RegionState(
                event.geometry,
                kind=event.kind,
                remote=event.remote,
                chunks_per_object=event.chunks_per_object,
            )

    def on_attached(self, event: m.Attached) -> None:
        """Take down where a client has mapped a region."""
        self.on_opened(event)
        state = self._units.regions[event.region]
        # Promised before, and here now.  From the promise to this the region could not
        # be forgotten.
        state.reserved.discard(event.client)
        state.addresses[event.client] = event.address
        state.n_tries = None
        table = self._tables.setdefault(event.client, AddressTable())
        table.add(event.address, event.region, event.geometry)

    def on_reserved(self, event: m.Reserved) -> None:
        """Keep regions for a client that will have them."""
        for region in event.regions:
            if region in self._units.regions:
                self._units.regions[region].reserved.add(event.client)
                self._units.regions[region].n_tries = None

    def on_detached(self, event: m.Detached) -> None:
        """Let a client unmap a region as soon as nothing is on its way into it."""
        state = self._units.regions.get(event.region)
        # It has never mapped it, as when mapping failed, or is asked a second time
        # after the death of a worker.  The answer is the same: it may unmap.
        if state is None or event.client not in state.addresses:
            self._units.commands.append(m.Answer(event.client, event.ticket))
            if state is not None and event.client in state.reserved:
                state.reserved.discard(event.client)
                self.settle_leaving(event.region, state)
            return
        address = state.addresses.pop(event.client)
        self._tables[event.client].remove(address)
        # Nobody should be waiting; if somebody is, munmap alone would not end it.
        for page in state.drop_waiters(event.client):
            place = address + page * state.geometry.page_nbytes
            self._units.commands.append(m.Wake(event.client, place))
        # Not answered while a load is on its way into its memory: an install that came
        # after the unmapping would go to whatever lies there by then.
        state.leaving[event.client] = event.ticket
        self.settle_leaving(event.region, state)

    def on_client_left(self, event: m.ClientLeft) -> None:
        """Forget a client, and the regions that nobody else has."""
        self._tables.pop(event.client, None)
        for region, state in list(self._units.regions.items()):
            state.addresses.pop(event.client, None)
            state.reserved.discard(event.client)
            state.leaving.pop(event.client, None)
            state.drop_waiters(event.client)
            for loading in state.loading.values():
                loading.requests = {r for r in loading.requests if r[0] != event.client}
            self.settle_leaving(region, state)

    def settle_leaving(self, region: int, state: RegionState) -> None:
        """Answer who may unmap now; forget the region when nobody is left."""
        for client, ticket in list(state.leaving.items()):
            if not state.is_installing(client):
                del state.leaving[client]
                self._units.commands.append(m.Answer(client, ticket))
        # Loads are waited for, too.  Their end looks the region up, and they read from
        # its source until then.
        if state.addresses or state.reserved or state.leaving:
            return
        is_kept = self.keeps(region, state)
        if not (is_kept or state.loading):
            self._units.forget(region, state)


class _Request:
    """How many units it waits for, how long all of them are, what failed, what is not begun.

    Attributes
    ----------
    event : Requested
        What was asked for.
    rest : deque of Span
        Units that were not looked at yet.
    n_waiting : int
        How many units it waits for.
    is_lost : bool
        Whether one of its units was neither there nor on its way.
    is_queued : bool
        Whether it will go on without anything else happening.
    """

    __slots__ = ("event", "failures", "is_lost", "is_queued", "n_waiting", "nbytes", "rest")

    def __init__(self, event: m.Requested, rest: Iterable[Span]) -> None:
        self.event = event
        # What is left is spans, however many units they are: a request for all of an
        # array costs no more than one for a unit, until its units are looked at.
        self.rest = deque(span for span in rest if span.size)
        self.n_waiting = 0
        self.nbytes = 0
        self.is_lost = False
        self.is_queued = False
        self.failures: dict[int, m.Failure] = {}

    def fail(self, unit: int, failure: m.Failure) -> None:
        """Take down that a unit cannot be had."""
        self.failures[unit] = failure
        # A server that is away fails every unit.  After so many the rest is not even
        # tried, and an answer stays short.  The first ones in order are kept, so it does
        # not depend on which ended first.
        if len(self.failures) > _MAX_FAILURES:
            del self.failures[max(self.failures)]
            self.rest.clear()


class Requests:
    """Has the units of requests loaded, some at a time, and answers the requests.

    However much is asked for at once, no step looks at more than a slice of it: the rest follows
    when some of that has come, and others are served in between.

    Parameters
    ----------
    units : UnitTable
        The machine's.

    Attributes
    ----------
    asked_nbytes : int
        How long all units are that requests under way have waited for.
    writers : Writers
        Those who wait until they may write.
    """

    def __init__(self, units: UnitTable) -> None:
        self.asked_nbytes = 0
        self.writers = Writers(units, self)
        self._units = units
        self._requests: dict[Ticket, _Request] = {}

    def __repr__(self) -> str:
        return f"<Requests: {len(self._requests)} under way for {self.asked_nbytes} bytes>"

    def on_requested(self, event: m.Requested) -> None:
        """Begin to load what is asked for."""
        self._units.counters["requests"] += 1
        state = self._units.regions.get(event.region)
        all_units = Span(0, state.geometry.n_units if state is not None else 0)
        if state is not None and state.n_reloaded:
            most_nbytes = min(self._units.room.limit_nbytes // _PART_SHARE, _PART_NBYTES)
            if state.count_scattered(len(event.units), most_nbytes // state.geometry.unit_nbytes):
                self._units.thrashing.append(event.region)
        ticket = (event.client, event.ticket)
        self._requests[ticket] = _Request(event, (span & all_units for span in event.units))
        self._go_on(ticket)

    def advance(self, ticket: Ticket, failure: m.Failure | None = None, unit: int = 0) -> None:
        """Take down that a unit is there, or cannot be had; answer when it was the last one."""
        request = self._requests.get(ticket)
        if request is None:
            return
        request.n_waiting -= 1
        if failure is not None:
            request.fail(unit, failure)
        state = self._units.regions.get(request.event.region)
        # When half of what may be on its way has come.  At each unit it would be a step
        # for each, and the threads would run dry between two of them if it waited for
        # all.
        is_low = state is None or request.n_waiting <= self._most_units(state) // 2
        if not request.is_queued and is_low and (request.rest or not request.n_waiting):
            self._go_on(ticket)

    def forget(self, client: int) -> None:
        """Forget what a client has asked for."""
        for ticket in [ticket for ticket in self._requests if ticket[0] == client]:
            self._drop(ticket)

    def _drop(self, ticket: Ticket) -> _Request:
        request = self._requests.pop(ticket)
        self.asked_nbytes -= request.nbytes
        return request

    def _most_units(self, state: RegionState) -> int:
        """Return how many units of an array may be on their way for one request."""
        # Over a network each takes a round trip, so many more must be on their way.
        # Counted in chunks as well: units of many small ones are work for each.
        most = _MOST_REMOTE_UNITS if state.remote else _MOST_UNITS
        return max(1, min(most, _MOST_CHUNKS // state.geometry.unit_chunks))

    def _go_on(self, ticket: Ticket) -> None:
        """Look at the next units of a request; answer when it waits for none."""
        request = self._requests.get(ticket)
        if request is None:
            return
        event = request.event
        state = self._units.regions.get(event.region)
        # The region went while it was asked for: nothing more is begun, and the request
        # is answered when what is on its way has ended.
        if state is None or event.client not in state.addresses:
            request.rest.clear()
        elif request.rest:
            self._begin_slice(request, state)
            if not request.rest and len(event.units) == 1:
                # One that asks for units here and there knows what it wants.
                span = event.units[0] & Span(0, state.geometry.n_units)
                # Only when all is begun: what is read ahead must not come before what is
                # asked for.
                self._units.look_ahead(
                    event.region, state, event.client, span, is_lost=request.is_lost
                )
        request.is_queued = False
        if not request.rest and not request.n_waiting:
            failures = self._drop(ticket).failures
            in_order = tuple(failures[unit] for unit in sorted(failures))
            self._units.commands.append(m.Answer(*ticket, in_order))
        elif state is not None and request.rest and request.n_waiting < self._most_units(state):
            request.is_queued = True
            self._units.later(partial(self._go_on, ticket))

    def _begin_slice(self, request: _Request, state: RegionState) -> None:
        # One at least, or a request for units of very many chunks would never go on.
        writes = request.event.writes and state.kind.writes_back
        if writes:
            self.writers.hold_unprotects()
        n_units = min(self._units.slice_units, max(1, self._most_units(state) - request.n_waiting))
        while request.rest and n_units:
            span = request.rest.popleft()
            part = Span(span.start, min(span.stop, span.start + n_units))
            n_units -= part.size
            if part.stop < span.stop:
                request.rest.appendleft(Span(part.stop, span.stop))
            if self._units.is_watched:
                event = request.event
                self._units.note_arrival(event.region, state, event.client, part)
            for unit in range(*part):
                if writes:
                    self._begin_write(request, state, unit)
                else:
                    self._begin_unit(request, state, unit)
        if writes:
            self.writers.unprotect_held(request.event.region, request.event.client)

    def _begin_write(self, request: _Request, state: RegionState, unit: int) -> None:
        event = request.event
        self._units.touch(event.region, unit)
        request.is_lost = request.is_lost or state.is_absent(unit)
        writer = self.writers.request(event.region, unit, (event.client, event.ticket))
        if not writer.is_done:
            writer.is_counted = True
            self._wait_for_unit(request, state)
        elif writer.failure is not None:
            request.fail(unit, writer.failure)

    def _begin_unit(self, request: _Request, state: RegionState, unit: int) -> None:
        event = request.event
        if unit in state.resident:
            self._units.touch(event.region, unit)
            return
        request.is_lost = request.is_lost or unit not in state.loading
        ticket = (event.client, event.ticket)
        pages = (event.pages or Span(0, 0)) & state.geometry.body_pages(unit)
        # Only when one unit has all pages that it asks for: a row across two units
        # waits for both, and neither alone may answer.
        is_pick = pages.size > 0 and pages == event.pages
        loading = self._units.begin(
            event.region,
            state,
            unit,
            event.client,
            urgent=True,
            awaited=pages if is_pick else None,
            pick=ticket if is_pick else None,
        )
        # The spans of a request may overlap.
        if ticket not in loading.requests:
            loading.requests.add(ticket)
            self._wait_for_unit(request, state)

    def _wait_for_unit(self, request: _Request, state: RegionState) -> None:
        request.n_waiting += 1
        nbytes = state.geometry.unit_nbytes
        request.nbytes += nbytes
        self.asked_nbytes += nbytes


class Endings:
    """Serves threads and requests that wait for units.

    Parameters
    ----------
    units, members, requests
        The machine's.
    """

    def __init__(self, units: UnitTable, members: Members, requests: Requests) -> None:
        self._units = units
        self._members = members
        self._requests = requests
        self._writers = requests.writers

    def __repr__(self) -> str:
        return f"<Endings: {self._requests!r}>"

    def on_arrived(self, event: m.Arrived) -> None:
        """Answer the requests that need only the part of a unit that is installed already.

        Statistics that a client reads after the answer count the unit as loaded.
        """
        state = self._units.regions[event.region]
        loading = state.loading[event.unit]
        # Not where it was dropped: the pages are older than a wish to have them out,
        # and are taken out when the load ends.
        if loading.pick in loading.requests and not loading.is_dropped:
            loading.told = event.pages
            loading.is_counted = True
            self._units.count(state, event.unit, state.unit_nbytes(event.unit))
            loading.requests.discard(loading.pick)
            self._requests.advance(loading.pick)

    def on_loaded(self, event: m.Loaded) -> None:
        """Take down that a unit is installed; serve who waits for it."""
        state, loading = self._units.end(event.region, event.unit)
        # What has come may be older than the eviction, though it was installed.  It is
        # taken out before anybody is told.
        if loading.is_dropped:
            self._start_over(event, state, loading)
            return
        if state.addresses:
            self._units.enter(
                event.region,
                state,
                event.unit,
                is_counted=loading.is_counted,
            )
            if event.fragments:
                self._units.add_fragments(event, state)
            self._units.commands.append(m.Publish(event.region, event.unit, resident=True))
            if loading.faults or state.poisoned:
                self._serve(event, state, loading)
        else:
            # Nobody is left in whose memory its shared pages could be installed.
            self._units.punch_body(event.region, state, event.unit)
        for key in loading.requests:
            self._requests.advance(key)
        if loading.writers:
            self._let_write(loading, has_fragments=bool(event.fragments))
        if state.leaving or not state.addresses:
            self._members.settle_leaving(event.region, state)

    def _let_write(self, loading: Loading, *, has_fragments: bool) -> None:
        """Let those go on who needed a unit before they can write."""
        # In a step after this one where a shared page was installed: if that fails, a `HoleFound`
        # comes before it, and a unit must not be dirty that lacks a page.
        if has_fragments:
            self._units.later(partial(self._attempt, tuple(loading.writers)))
        else:
            self._attempt(loading.writers)

    def _attempt(self, writers: Iterable[Writer]) -> None:
        for writer in writers:
            self._writers.attempt(writer)

    def _serve(self, event: m.Loaded, state: RegionState, loading: Loading) -> None:
        """Map a unit for who waits, but for those whom the install has woken.

        A page that it shares may lack another unit still, or again.
        """
        body = state.geometry.body_pages(event.unit)
        waiters = sorted(loading.faults | state.take_healed(event.unit))
        # The install has woken all who wait in that client.  A marked unit was mapped
        # nowhere, so it has woken nobody; nor has one that a thread will write to.
        installed_in = None if loading.is_marked or loading.is_silent else event.client
        for client in dict.fromkeys(client for client, page in waiters if page in body):
            if client != installed_in:
                self._units.commands.append(m.MapPages(event.region, client, body))
        for client, page in waiters:
            if page in body:
                is_lost = client == installed_in and (client, page) in loading.late
            elif not state.is_installed(page):
                # A page that several units fill: this one has come, another is absent or
                # has gone again.
                self._units.await_page(event.region, state, client, page)
                continue
            else:
                is_lost = client != event.client
            if is_lost:
                self._units.commands.append(m.MapPages(event.region, client, Span(page, page + 1)))

    def on_load_failed(self, event: m.LoadFailed) -> None:
        """Poison the threads that wait for a unit, and answer the requests."""
        self._units.counters["errors"] += 1
        state, loading = self._units.end(event.region, event.unit)
        self._units.lookahead.remove((event.region, event.unit))
        if loading.is_dropped:
            self._start_over(event, state, loading)
            return
        # Who was told that its pages are there has them, and may look at them any time.
        self._units.leave(event.region, state, event.unit, loading.told)
        for client in sorted({client for client, _ in loading.faults}):
            pages = tuple(sorted(page for who, page in loading.faults if who == client))
            self._units.commands.append(m.Poison(event.region, client, pages, event.failure))
        # The threads die, or their system calls fail.  So they wait for no other unit of
        # their pages any more.
        state.poison(loading.faults)
        for writer in loading.writers:
            self._writers.fail(state, writer, event.failure)
        for key in loading.requests:
            self._requests.advance(key, event.failure, event.unit)
        self._members.settle_leaving(event.region, state)

    def on_stranded(self, event: m.Stranded) -> None:
        """Load again for somebody else who waits and is still there."""
        state, loading = self._units.end(event.region, event.unit)
        self._units.lookahead.remove((event.region, event.unit))
        waiting = [*loading.faults, *loading.requests]
        # Its memory is gone, and with it its threads.  The others have lost nothing but
        # time.
        clients = [c for c, _ in waiting if c != event.client and c in state.addresses]
        self._units.punch_body(event.region, state, event.unit)
        gone = self._writers.leave(event.client, event.region)
        self._writers.end_left(gone)
        self._load_again(event, state, loading, clients)

    def _start_over(
        self, event: m.Loaded | m.LoadFailed, state: RegionState, loading: Loading
    ) -> None:
        """Load a unit again that was evicted on its way, for those who came to wait since."""
        self._units.punch_body(event.region, state, event.unit)
        waiting = [*loading.faults, *loading.requests]
        clients = [client for client, _ in waiting if client in state.addresses]
        self._load_again(event, state, loading, clients)

    def _load_again(
        self,
        event: m.Loaded | m.LoadFailed | m.Stranded,
        state: RegionState,
        loading: Loading,
        clients: list[int],
    ) -> None:
        """Begin a load for some of those who waited for one that has ended; forget the others."""
        for key in loading.requests:
            if key[0] not in clients:
                self._requests.advance(key)
        if clients:
            again = self._units.begin(event.region, state, event.unit, clients[0], urgent=True)
            # They join the new load by name, and not by faulting again: nobody wakes them,
            # so they would never be heard of.
            again.faults = {f for f in loading.faults if f[0] in clients}
            again.requests = {r for r in loading.requests if r[0] in clients}
        self._attempt(loading.writers)
        self._members.settle_leaving(event.region, state)


class UnitTable:
    """Units come and go: what that means for the room there is, and what has to be done.

    Parameters
    ----------
    limit_nbytes : int
        See `Machine`.

    Attributes
    ----------
    room : Room
        How much there is, and how much of it is taken.
    regions : dict of int to RegionState
        By number.
    lookahead : Lookahead
        What is read ahead.
    counters : Counter
        What has happened so far.
    commands : list of Command
        What has to be done, in order.
    slice_units : int
        See `Machine`.
    thrashing : list of int
        Regions whose units are loaded again and again, until a client is told.
    """

    def __init__(self, limit_nbytes: int, slice_units: int) -> None:
        # One for all arrays.  Arrays with limits of their own would leave memory unused
        # where one array is read and the others are not.
        self.room = Room(limit_nbytes)
        self.regions: dict[int, RegionState] = {}
        self.counters: Counter[str] = Counter(dict.fromkeys(_COUNTED, 0))
        self.lookahead = Lookahead(self.counters)
        self.commands: list[m.Command] = []
        self.dirty = DirtyUnits()
        self._policy = TwoQueues()
        # The unit that came last is never evicted: with a limit of one unit its reader
        # would otherwise find it gone each time, for ever.
        self._newest: tuple[int, int] | None = None
        self.slice_units = slice_units
        self.thrashing: list[int] = []
        # Each by the client that has asked for it, and its ticket or name for it.
        self.recorders: dict[Ticket, Recorder] = {}
        self._schedules: dict[Ticket, Schedule] = {}
        self.is_watched = False
        self._left_to_do: deque[Callable[[], None]] = deque()
        self._is_short = False
        self._held_punches: list[Span] | None = None

    def __repr__(self) -> str:
        return f"<UnitTable: {self.resident_nbytes} of {self.room.limit_nbytes} bytes>"

    @property
    def resident_nbytes(self) -> int:
        """Bytes of evictable memory that are resident."""
        return self._policy.resident_nbytes

    def touch(self, region: int, unit: int) -> None:
        """Take down that a resident unit is used."""
        self._policy.touch((region, unit))

    # --- slices -------------------------------------------------------------------

    def later(self, step: Callable[[], None]) -> None:
        """Have a step be taken after others had a chance."""
        self._left_to_do.append(step)

    @property
    def has_more(self) -> bool:
        """Whether there are steps to take, or memory is short and something may go."""
        return bool(self._left_to_do) or self._is_short

    def proceed(self) -> None:
        """Take the next of the steps that were left for later."""
        if self._left_to_do:
            self._left_to_do.popleft()()

    # --- units on their way -------------------------------------------------------

    def begin(
        self,
        region: int,
        state: RegionState,
        unit: int,
        client: int,
        *,
        urgent: bool,
        awaited: Span | None = None,
        pick: tuple[int, int] | None = None,
        mark: bool = False,
        writes: bool = False,
    ) -> Loading:
        """Return the load under way for a unit, started if need be.

        The pages that are `awaited` come first if it is started, which the request `pick` is
        told of.  Nobody is woken by it if a thread `writes`.
        """
        # One load for all who want a unit, in whichever client and by whichever way: a
        # chunk is decompressed once for a machine.
        loading = state.loading.get(unit)
        if loading is None:
            loading = Loading(client, is_urgent=urgent, is_marked=mark)
            loading.pick = pick
            loading.is_silent = writes
            self.start(state, unit, loading, state.unit_nbytes(unit))
            is_pick, replaces = pick is not None, unit in state.left
            self.commands.append(
                m.Load(region, unit, client, urgent, awaited, is_pick, mark, replaces, writes)
            )
        elif urgent and not loading.is_urgent:
            # A load that waits in a queue behind others overtakes them.  One that has begun
            # is not begun again.
            loading.is_urgent = True
            self.commands.append(m.Promote(region, unit))
        return loading

    def start(self, state: RegionState, unit: int, loading: Loading, nbytes: int) -> None:
        """Record that a unit of so many bytes is on its way; `end` is the counterpart."""
        state.loading[unit] = loading
        # It counts from now on, as if it were there.  Otherwise as many loads as fit
        # into an empty memory could begin at any time, and all of them arrive.
        if state.kind.is_evictable:
            loading.held_nbytes = nbytes
            self.room.loading_nbytes += nbytes

    def await_page(self, region: int, state: RegionState, client: int, page: int) -> None:
        """Load what a page lacks, with a thread that waits for it."""
        for unit in range(*state.geometry.units_of_page(page)):
            if unit not in state.resident:
                is_late = unit in state.loading
                awaited = Span(page, page + 1)
                loading = self.begin(region, state, unit, client, urgent=True, awaited=awaited)
                loading.faults.add((client, page))
                # Its message may have been read after the page was installed, and lost
                # since, to swap or madvise.  So the page is mapped once more when the unit
                # is there, which costs a call and does no harm.
                if is_late:
                    loading.late.add((client, page))

    def end(self, region: int, unit: int) -> tuple[RegionState, Loading]:
        """Record that a load has ended, in whatever way; return its region and the load."""
        state = self.regions[region]
        loading = state.loading.pop(unit)
        # As much as it has taken, remembered with the load: the kind and size of the
        # region are not looked at twice, and cannot differ.
        self.room.loading_nbytes -= loading.held_nbytes
        return state, loading

    def look_ahead(
        self, region: int, state: RegionState, client: int, units: Span, *, is_lost: bool
    ) -> None:
        """Have units loaded that whoever has come to these will come to next.

        Where memory is full, only as many are read ahead as stay until they are read.
        """
        if not self.lookahead.window_nbytes:
            return
        # A schedule knows what the pattern of an array lets guess; in a random order units are
        # neighbours by chance now and then.
        if self._schedules and self._is_scheduled(region):
            return
        room_nbytes = self._room_ahead(state)
        ahead = self.lookahead.after(region, state, units, is_lost=is_lost, room_nbytes=room_nbytes)
        for unit in ahead.units:
            self._read_ahead(region, state, unit, client, is_mark=unit == ahead.mark)

    def _room_ahead(self, state: RegionState) -> int:
        """Return for how many bytes there is room that somebody will come to later."""
        room_nbytes = self.room.free_nbytes
        if state.kind.is_evictable:
            new_nbytes = self._policy.nursery_nbytes
            # By the time that so much has come after it, a unit is out, or is kept.
            self.lookahead.forget_before(self._policy.now - new_nbytes)
            # Full memory is the usual state of a long program.  Readahead has half of what
            # is safe from newer units then, less what it has brought and no reader has come
            # to.
            room_nbytes = max(room_nbytes, new_nbytes // 2 - self.lookahead.unread_nbytes)
        return room_nbytes

    def _read_ahead(
        self, region: int, state: RegionState, unit: int, client: int, *, is_mark: bool
    ) -> bool:
        """Have a unit loaded for which nobody waits; return False if its first reader must."""
        # All are marks while somebody records: each first touch must be heard of then.
        is_mark = is_mark or bool(self.recorders)
        # A mark is mapped nowhere, which private memory and shared pages cannot be.  The
        # reader comes there by a fault in any case.
        if is_mark and not state.can_mark(unit):
            return False
        nbytes = state.geometry.unit_nbytes if state.kind.is_evictable else 0
        self.lookahead.add((region, unit), nbytes, self._policy.now)
        self.begin(region, state, unit, client, urgent=False, mark=is_mark)
        return True

    # --- recorders and schedules ----------------------------------------------------

    def watches(self, region: int) -> bool:
        """Return whether a recorder or a schedule wants to know of touches of a region."""
        return bool(self.recorders) or any(region in each for each in self._schedules.values())

    def note_arrival(self, region: int, state: RegionState, client: int, units: Span) -> None:
        """Tell recorders and schedules that somebody comes to units, before these are begun."""
        for recorder in self.recorders.values():
            recorder.note(region, state.geometry, units)
        for name, schedule in list(self._schedules.items()):
            if region not in schedule:
                continue
            is_due = False
            for unit in range(*units):
                is_lost = state.is_absent(unit)
                passed, is_mark = schedule.came(client, region, unit, is_lost=is_lost)
                for key in passed:
                    self.lookahead.passed(key)
                is_due = is_due or is_mark
            if schedule.is_over or schedule.is_forsaken:
                self._drop_schedule(name)
            elif is_due:
                self._go_on(schedule)

    def _is_scheduled(self, region: int) -> bool:
        return any(region in each and each.is_followed for each in self._schedules.values())

    def begin_recording(self, name: Ticket) -> None:
        """Note from now on in which order units are come to."""
        self.recorders.setdefault(name, Recorder())
        self.is_watched = True

    def end_recording(self, name: Ticket) -> None:
        """Forget what was noted."""
        self.recorders.pop(name, None)
        self.is_watched = bool(self.recorders or self._schedules)

    def add_to_schedule(self, event: m.Scheduled) -> None:
        """Add runs to a schedule, a new one if there are none before them; begin to follow it."""
        name = (event.client, event.schedule)
        schedule = self._schedules.get(name)
        if schedule is None and event.start == 0:
            # The client that gives the most schedules loses its first one.
            if len(self._schedules) >= _MAX_SCHEDULES:
                self._drop_schedule(next(iter(self._schedules)))
            schedule = self._schedules[name] = Schedule(event.client)
            self.is_watched = True
        # Its first runs are lost, with another worker; or these have come before.
        if schedule is None or event.start != schedule.n_given or schedule.is_whole:
            return
        # What is known already was asked for, as far as may be: more of it is no reason to ask.
        is_at_end = schedule.frontier == schedule.n_units
        if schedule.n_given + len(event.runs) <= MAX_RUNS:
            known = ((region, self.regions.get(region), units) for region, units in event.runs)
            schedule.add(
                (region, units & Span(0, state.geometry.n_units))
                for region, state, units in known
                if state is not None
            )
        schedule.n_given += len(event.runs)
        schedule.is_whole = event.is_last
        if is_at_end:
            self._go_on(schedule)

    def _go_on(self, schedule: Schedule) -> None:
        """Ask for the next batch of a schedule, when others had a chance."""
        if not schedule.is_queued:
            schedule.begin_batch()
            self.later(partial(self._ask_slice, schedule))

    def _ask_slice(self, schedule: Schedule) -> None:
        """Ask for the next units of a schedule, up to a batch."""
        name = next((name for name, each in self._schedules.items() if each is schedule), None)
        if name is None:
            return
        n_looks = self.slice_units if self.lookahead.window_nbytes else 0
        while n_looks and self._ask_next(schedule):
            n_looks -= 1
            if not n_looks:
                self.later(partial(self._ask_slice, schedule))
                return
        schedule.end_batch()
        if schedule.is_over:
            self._drop_schedule(name)

    def _ask_next(self, schedule: Schedule) -> bool:
        """Ask for the next unit of a schedule; return False where the batch ends before it."""
        key = schedule.next_unit()
        if key is None:
            return False
        region, unit = key
        state = self.regions.get(region)
        if state is None or not state.addresses or not state.is_absent(unit):
            schedule.skip()
            return True
        nbytes, room_nbytes = state.geometry.unit_nbytes, self._room_ahead(state)
        # A reader that comes to the mark of one batch has that before it while the next one comes.
        # So a batch is half of what may be ahead, and half of what there is room for.
        part = 2 / self.lookahead.max_units(state)
        if schedule.is_unmarked:
            all_nbytes = room_nbytes + self.lookahead.unread_nbytes
            schedule.room_nbytes = max(nbytes, all_nbytes // 2)
        if nbytes > min(room_nbytes, schedule.room_nbytes) or not schedule.takes(part):
            return False
        schedule.room_nbytes -= nbytes
        addresses = state.addresses
        client = schedule.reader if schedule.reader in addresses else next(iter(addresses))
        # The last one is a mark too: with its touch the schedule is over.
        is_mark = schedule.is_unmarked or schedule.is_at_last
        is_begun = self._read_ahead(region, state, unit, client, is_mark=is_mark)
        schedule.ask(part, is_left=not is_begun)
        return True

    def _drop_schedule(self, name: Ticket) -> None:
        del self._schedules[name]
        self.is_watched = bool(self.recorders or self._schedules)

    def forget_watchers(self, client: int) -> None:
        """Forget what a client wanted to know, and what it has told of its future."""
        for name in [name for name in self.recorders if name[0] == client]:
            self.end_recording(name)
        for name in [name for name in self._schedules if name[0] == client]:
            self._drop_schedule(name)

    # --- units that are there -----------------------------------------------------

    def count(self, state: RegionState, unit: int, nbytes: int) -> None:
        """Count a unit of so many bytes that has come."""
        self.counters["units_loaded"] += 1
        self.counters["units_reloaded"] += state.count_loaded(unit)
        self.counters["bytes_installed"] += nbytes

    def count_fault(self, region: int, state: RegionState) -> None:
        """Count a touch of memory that was not mapped, of a unit that may be there again."""
        self.counters["faults"] += 1
        # Told once, with the next answer to a client: a fault has no answer.
        if state.n_reloaded and state.count_refault():
            self.thrashing.append(region)

    def enter(
        self,
        region: int,
        state: RegionState,
        unit: int,
        *,
        is_counted: bool = False,
    ) -> None:
        """Take down that the pages which a unit fills alone are there."""
        nbytes = state.unit_nbytes(unit)
        if not is_counted:
            self.count(state, unit, nbytes)
        state.resident.add(unit)
        if state.left:
            self._forget_left(state, unit)
        # A plain unit fills whole pages alone, so its body is all of it.
        self.room.take(state, nbytes if unit < state.n_plain_units else state.body_nbytes(unit))
        if state.kind.is_evictable:
            self._newest = (region, unit)
            self._policy.add(self._newest, nbytes)

    def add_fragments(self, event: m.Loaded, state: RegionState) -> None:
        """Keep a unit's shares of other pages, and have those installed that are whole now."""
        held_nbytes = state.edges.held_nbytes
        client = event.client
        # The page can be installed through any client's mapping of the memory object.
        if client not in state.addresses:
            client = next(iter(state.addresses))
        for fragment in event.fragments:
            data = state.edges.add(event.unit, fragment)
            if data is not None:
                self.commands.append(m.InstallPage(event.region, fragment.page, client, data))
        self.room.take(state, state.edges.held_nbytes - held_nbytes)

    def take_out(self, region: int, state: RegionState, unit: int) -> None:
        """Take a unit out, and with it the shared pages that no resident unit needs."""
        state.resident.discard(unit)
        self._policy.remove((region, unit))
        self.lookahead.remove((region, unit))
        # First: the map is a hint, and one that says too little costs a message, where
        # one that says too much costs a fault.
        self.commands.append(m.Publish(region, unit, resident=False))
        held_nbytes = state.edges.held_nbytes
        state.edges.discard(unit, state.geometry.edge_pages(unit))
        self.punch_body(region, state, unit)
        for page in state.geometry.edge_pages(unit):
            units = range(*state.geometry.units_of_page(page))
            # A page with a resident unit stays, or that unit would lose bytes that it
            # counts as there.
            if state.edges.is_installed(page) and not any(u in state.resident for u in units):
                state.edges.uninstall(page)
                self._punch(region, state, Span(page, page + 1))
        held_nbytes -= state.edges.held_nbytes
        self.room.take(state, -state.body_nbytes(unit) - held_nbytes)

    def evict(self, region: int, state: RegionState, unit: int) -> None:
        """Take a unit out for want of room, or because somebody wants it out."""
        self.counters["evictions"] += 1
        self.take_out(region, state, unit)

    def make_room(self, asked_nbytes: int) -> None:
        """Evict until what is resident and on its way fits, or nothing is left that may go.

        No more than a slice at a time: the limit may have been lowered by very much.
        Of what came last, as much as is asked for at the moment goes after everything else.
        """
        self._is_short = False
        for _ in range(self.slice_units):
            victim = (
                self._policy.victim(self._must_stay, asked_nbytes) if self.room.is_short else None
            )
            if victim is None:
                return
            region, unit = victim
            state = self.regions.get(region)
            if state is None:
                self._policy.remove(victim)
                continue
            self._policy.evict(victim)
            self.lookahead.evict(victim)
            self.evict(region, state, unit)
            state.note_evicted(unit)
        self._is_short = self.room.is_short

    def _must_stay(self, key: tuple[int, int]) -> bool:
        region, unit = key
        state = self.regions.get(region)
        # Of a page that two units fill, the resident one is needed when the other
        # comes.  Dirty units are not among those that are looked at.
        return state is not None and (
            key == self._newest or unit in state.promised or state.is_awaited(unit)
        )

    # --- units that are dirty -------------------------------------------------------

    def mark_dirty(self, region: int, state: RegionState, unit: int) -> None:
        """Take down that a resident unit has, or will have, what the store has not."""
        dirty = state.dirty.get(unit)
        if dirty is not None:
            # What was copied is not all of it any more.
            dirty.is_again = dirty.is_again or dirty.stage is Stage.WRITING
            return
        # First: who is let in may write at once, and all may die then.
        self.commands.append(m.Publish(region, unit, resident=True, dirty=True))
        dirty = state.dirty[unit] = DirtyUnit(
            state.unit_nbytes(unit), (region, state.objects.place_of(unit))
        )
        self.dirty.add((region, unit), dirty, state.objects)
        if unit in state.promised:
            self.dirty.promised_nbytes -= dirty.nbytes
        self._policy.pin((region, unit))

    def mark_clean(self, region: int, state: RegionState, unit: int) -> None:
        """Take down that the store has all that a unit has."""
        dirty = state.dirty.pop(unit)
        self.dirty.remove((region, unit), dirty)
        if unit in state.promised:
            self.dirty.promised_nbytes += dirty.nbytes
        self._policy.unpin((region, unit))
        self.commands.append(m.Publish(region, unit, resident=True))

    def restore(self, region: int, state: RegionState, unit: int) -> None:
        """Take down that a unit is in memory whole, and dirty, of which nothing was known."""
        state.resident.add(unit)
        held_nbytes = state.edges.held_nbytes
        for page in state.geometry.edge_pages(unit):
            state.edges.restore(page)
        held_nbytes = state.edges.held_nbytes - held_nbytes
        self.room.take(state, state.body_nbytes(unit) + held_nbytes)
        self._policy.add((region, unit), state.unit_nbytes(unit))
        self.mark_dirty(region, state, unit)

    # --- units that have gone, or could not be had ----------------------------------

    def leave(self, region: int, state: RegionState, unit: int, pages: Span) -> None:
        """Take out what there is of a unit that failed, but for pages that somebody has."""
        # Of private memory nothing can be taken out, so nothing is kept on purpose.
        # Without a client nobody looks at the pages that were told.
        kept = state.left.get(
            unit, pages if state.kind.is_evictable and state.addresses else _NOTHING
        )
        self.punch_body(region, state, unit, but=kept)
        if kept.size and unit not in state.left:
            state.left[unit] = kept
            self.room.take(state, kept.size * state.geometry.page_nbytes)

    def _forget_left(self, state: RegionState, unit: int) -> None:
        pages = state.left.pop(unit, _NOTHING)
        self.room.take(state, -pages.size * state.geometry.page_nbytes)

    def punch_body(
        self, region: int, state: RegionState, unit: int, *, but: Span = _NOTHING
    ) -> None:
        """Take out the pages that a unit fills alone, `but` for some of them."""
        if not but.size:
            self._forget_left(state, unit)
        body = state.geometry.body_pages(unit)
        rest = (Span(body.start, but.start), Span(but.stop, body.stop)) if but.size else (body,)
        for pages in rest:
            self._punch(region, state, pages)

    def _punch(self, region: int, state: RegionState, pages: Span) -> None:
        """Take pages out; private memory keeps them, and an install over them does nothing."""
        # Private pages stay, and the next load finds them present: it leaves them as
        # they are, for the process may have written there.
        if not (state.kind.is_evictable and pages.size):
            return
        if self._held_punches is None:
            self.commands.append(m.Punch(region, pages))
        else:
            self._held_punches.append(pages)

    def hold_punches(self) -> None:
        """Have pages of one region that are taken out from now on be taken out together."""
        self._held_punches = []

    def punch_held(self, region: int) -> None:
        """Take out the pages that were held, those that are neighbours in one go."""
        held, self._held_punches = self._held_punches or [], None
        self.commands += [m.Punch(region, pages) for pages in merge_spans(held)]

    def forget(self, region: int, state: RegionState) -> None:
        """Take down that nobody has a region any more."""
        self.room.take(state, -state.taken_nbytes)
        self.lookahead.forget(region)
        del self.regions[region]
        for name, schedule in list(self._schedules.items()):
            if not any(each in self.regions for each in schedule.regions):
                self._drop_schedule(name)
        self.commands.append(m.Forget(region))
        self._forget_slice(region, iter(state.resident))

    def _forget_slice(self, region: int, units: Iterator[int]) -> None:
        """Have the policy forget some units of a region that no client has any more."""
        # In slices, as everything: a large array may have been resident as a whole.
        # Whoever is asked for a victim meanwhile passes over units of a region that is
        # not there.
        some = list(itertools.islice(units, self.slice_units))
        for unit in some:
            self._policy.remove((region, unit))
        if len(some) == self.slice_units:
            self.later(partial(self._forget_slice, region, units))

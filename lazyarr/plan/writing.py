"""Who may write to memory that is written back, and when it is written back."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from lazyarr.plan import messages as m
from lazyarr.plan.dirty import DirtyUnit, Flush, Key, Stage, Writer
from lazyarr.plan.selection import merge_spans
from lazyarr.units import Span

if TYPE_CHECKING:
    from lazyarr.plan.regions import RegionState

    # The parts of the machine that these work on (`plan.machine`), which imports this module.
    UnitTable: TypeAlias = Any
    Requests: TypeAlias = Any
    Members: TypeAlias = Any

__all__ = ["WriteBacks", "Writers"]

# Of the memory limit: what may be dirty before some of it is written, and what is left then.
_DIRTY_SHARE, _LEFT_SHARE = 4, 8
# Beyond one half of it: what threads may make dirty that were let in before (`_may_overdraw`).
_OVERDRAFT_SHARE = 8
# So often a unit is tried that nobody has any more.
_LAST_TRIES = 2
_HOLE = m.Failure("a page of memory that was written to is gone, and with it what was written", {})


class Writers:
    """Lets threads and requests write: what they need is loaded, and made dirty, before they may.

    A writer goes through `attempt`, and again each time that what it waits for has come about:

    1. Too much is dirty (`_must_wait`): it waits for its turn, first come, first served.
    2. A unit that it needs is not there: the unit is loaded.
    3. A unit is being copied: it waits for the end of that.
    4. All of its units are made dirty, and then its pages are unprotected.

    From the first of these to the last its units are promised: they count as dirty, and stay.

    Parameters
    ----------
    units, requests
        The machine's.

    Attributes
    ----------
    wants_round : bool
        Whether what is dirty is to be written, since somebody has come to wait for room; what has
        failed is tried again then.
    """

    def __init__(self, units: UnitTable, requests: Requests) -> None:
        self._units = units
        self._requests = requests
        self.wants_round = False
        # Those that wait for their turn.
        self._queue: deque[Writer] = deque()
        # All that wait for anything, to find those of a client that goes.
        self._active: dict[Writer, None] = {}
        # While a request is looked at: the pages that are unprotected together.
        self._held: list[Span] | None = None

    def __repr__(self) -> str:
        return f"<Writers: {len(self._active)} wait, {len(self._queue)} of them for their turn>"

    @property
    def is_waiting(self) -> bool:
        """Whether somebody waits for what is dirty to become less."""
        return bool(self._queue)

    # --- who comes ------------------------------------------------------------------

    def fault(self, region: int, state: RegionState, client: int, page: int) -> None:
        """Let a thread write to a page."""
        self.attempt(Writer(client, region, state.geometry.units_of_page(page), page=page))

    def request(self, region: int, unit: int, ticket: Key) -> Writer:
        """Let a client write to the pages that a unit fills alone; return how far that is."""
        writer = Writer(ticket[0], region, Span(unit, unit + 1), ticket=ticket)
        self.attempt(writer)
        return writer

    def leave(self, client: int, region: int | None = None) -> list[Writer]:
        """Forget those of a client that is gone, or of a region that it unmaps; return them.

        Their requests must be told (`end_left`) when the client does not have the region any more.
        """
        gone = [w for w in self._active if w.client == client and region in (None, w.region)]
        for writer in gone:
            self._finish(writer)
        return gone

    def end_left(self, gone: Iterable[Writer]) -> None:
        """Tell requests that they wait for some writers no more."""
        for writer in gone:
            self._tell(writer)

    # --- how one goes on --------------------------------------------------------------

    def attempt(
        self, writer: Writer, *, has_turn: bool = False, may_overdraw: bool = False
    ) -> None:
        """Let a writer go on as far as it can."""
        state = self._units.regions.get(writer.region)
        if writer.is_done:
            return
        self._active[writer] = None
        if state is None or writer.client not in state.addresses:
            self._finish(writer)
            self._tell(writer)
        elif state.retired is not None:
            self.fail(state, writer, state.retired)
        elif state.retiring:
            self._release(writer)
            state.delayed.append(writer)
        elif not may_overdraw and self._must_wait(state, writer, has_turn=has_turn):
            # What it holds would keep others, and so itself, from getting their turn.
            self._release(writer)
            self._queue.append(writer)
            self.wants_round = True
        else:
            self._hold(state, writer)
            self._go_on(state, writer)

    def _go_on(self, state: RegionState, writer: Writer) -> None:
        missing = self._missing(state, writer.units)
        for unit in missing:
            # A thread is not woken before it may write: it would fault again at once.
            is_thread = writer.ticket is None
            loading = self._units.begin(
                writer.region, state, unit, writer.client, urgent=True, writes=is_thread
            )
            loading.writers[writer] = None
        if missing:
            return
        for unit in range(*writer.units):
            dirty = state.dirty.get(unit)
            if dirty is not None and dirty.stage is Stage.COPYING:
                dirty.blocked.append(writer)
                return
        self._let_in(state, writer)

    def _missing(self, state: RegionState, units: Span) -> list[int]:
        """Return what must be loaded before some units can be dirty.

        All pages of a dirty unit are in the memory object, for whoever writes it back may be
        another process than this.  So the neighbours are needed where a page is shared that is not
        whole.
        """
        geometry = state.geometry
        missing = {unit for unit in range(*units) if unit not in state.resident}
        if not geometry.unit_pages:
            for unit in range(*units):
                for page in geometry.edge_pages(unit):
                    if not state.edges.is_installed(page):
                        others = range(*geometry.units_of_page(page))
                        missing.update(other for other in others if other not in state.resident)
        return sorted(missing)

    def _let_in(self, state: RegionState, writer: Writer) -> None:
        for unit in range(*writer.units):
            self._units.mark_dirty(writer.region, state, unit)
        self._finish(writer)
        geometry = state.geometry
        if writer.ticket is None:
            first, last = writer.units.start, writer.units.stop - 1
            start = min(writer.page, geometry.body_pages(first).start)
            stop = max(writer.page + 1, geometry.body_pages(last).stop)
            self._unprotect(writer, Span(start, stop))
        else:
            unit = writer.units.start
            body = geometry.body_pages(unit)
            pages = {page for page in geometry.edge_pages(unit) if self._is_open(state, page)}
            if body.size:
                pages |= {body.start, body.stop - 1}
            if pages:
                self._unprotect(writer, Span(min(pages), max(pages) + 1))
        self._tell(writer)

    def _is_open(self, state: RegionState, page: int) -> bool:
        """Return whether a shared page can be written to without more units being dirty."""
        units = range(*state.geometry.units_of_page(page))
        return all(unit in state.dirty and state.dirty[unit].is_open for unit in units)

    def _unprotect(self, writer: Writer, pages: Span) -> None:
        if self._held is None:
            self._units.commands.append(m.Unprotect(writer.region, writer.client, pages))
        else:
            self._held.append(pages)

    def hold_unprotects(self) -> None:
        """Have pages of one client that may be written to from now on be unprotected together."""
        self._held = []

    def unprotect_held(self, region: int, client: int) -> None:
        """Unprotect the pages that were held, those that are neighbours in one go."""
        held, self._held = self._held or [], None
        for pages in merge_spans(held):
            self._units.commands.append(m.Unprotect(region, client, pages))

    def fail(self, state: RegionState, writer: Writer, failure: m.Failure) -> None:
        """Tell a writer that it may not."""
        if writer.is_done or self._waits_for_end(state, writer):
            return
        self._finish(writer)
        where = (writer.client, writer.page)
        if writer.ticket is not None:
            writer.failure = failure
            self._tell(writer)
        elif self._is_there(state, writer.page):
            command = m.Refuse(writer.region, writer.client, (writer.page,), failure)
            self._units.commands.append(command)
        elif where not in state.poisoned:
            # It waits for a page that is missing, and this is how it can be told.
            poison = m.Poison(writer.region, writer.client, (writer.page,), failure)
            self._units.commands.append(poison)
            state.poison({where})

    def _waits_for_end(self, state: RegionState, writer: Writer) -> bool:
        """Have a thread that may not write wait while its page is on its way; return whether it is.

        The page may be there before the rest of its unit, and there is no poison for a page that is
        there: the thread would wait for ever.
        """
        unit = state.geometry.units_of_page(writer.page).start if writer.ticket is None else -1
        if unit not in state.loading or writer.page not in state.geometry.body_pages(unit):
            return False
        self._release(writer)
        loading = self._units.begin(writer.region, state, unit, writer.client, urgent=True)
        loading.writers[writer] = None
        return True

    def _is_there(self, state: RegionState, page: int) -> bool:
        """Return whether a page is in memory, maybe without the rest of its unit."""
        units = range(*state.geometry.units_of_page(page))
        return state.is_installed(page) or any(page in state.left.get(u, ()) for u in units)

    def _finish(self, writer: Writer) -> None:
        writer.is_done = True
        self._active.pop(writer, None)
        self._release(writer)

    def _tell(self, writer: Writer) -> None:
        if writer.ticket is not None and writer.is_counted:
            writer.is_counted = False
            self._requests.advance(writer.ticket, writer.failure, writer.units.start)

    # --- how much may be dirty ----------------------------------------------------------

    def _hold(self, state: RegionState, writer: Writer) -> None:
        """Promise the units of a writer."""
        if writer.holds:
            return
        writer.holds = True
        for unit in range(*writer.units):
            n_writers = state.promised.get(unit, 0)
            state.promised[unit] = n_writers + 1
            if not n_writers and unit not in state.dirty:
                self._units.dirty.promised_nbytes += state.unit_nbytes(unit)

    def _release(self, writer: Writer) -> None:
        """Take the promise back, or let it go since it was kept."""
        state = self._units.regions.get(writer.region)
        if not writer.holds or state is None:
            return
        writer.holds = False
        for unit in range(*writer.units):
            state.promised[unit] -= 1
            if not state.promised[unit]:
                del state.promised[unit]
                if unit not in state.dirty:
                    self._units.dirty.promised_nbytes -= state.unit_nbytes(unit)

    def _most_nbytes(self, state: RegionState) -> int:
        """Return how much may be dirty before writers wait."""
        nbytes: int = max(self._units.room.limit_nbytes // 2, _few_nbytes(state))
        return nbytes

    def _must_wait(self, state: RegionState, writer: Writer, *, has_turn: bool) -> bool:
        """Return whether a writer must wait until less is dirty."""
        taken_nbytes = self._units.dirty.taken_nbytes
        is_full = taken_nbytes > self._most_nbytes(state)
        if not is_full and (has_turn or not self._queue):
            return False
        # A unit that is written to again and again would never be clean, and its writer would
        # keep all others out, if it did not take turns with them.
        for unit in range(*writer.units):
            dirty = state.dirty.get(unit)
            if dirty is None:
                if not writer.holds:
                    return True
            elif not dirty.is_open:
                return True
        return False

    def take_turns(self) -> None:
        """Let those go on who wait for their turn, as long as there is room; fail the hopeless."""
        units = self._units
        for _ in range(units.slice_units):
            if not self._queue:
                return
            writer = self._queue[0]
            state = units.regions.get(writer.region)
            is_waiting = not writer.is_done and state is not None
            if is_waiting and self._must_wait(state, writer, has_turn=True):
                return
            self._queue.popleft()
            self.attempt(writer, has_turn=True)
        units.later(lambda: None)

    def fail_hopeless(self, failure: m.Failure) -> None:
        """Fail those for whom there would be no room if all that is not failed were written.

        Not a thread that writes to what is dirty and on its way to the store: that needs no room,
        and goes on when it is known whether it has got there.
        """
        units = self._units
        for _ in range(units.slice_units):
            if not self._queue:
                return
            writer = self._queue[0]
            state = units.regions.get(writer.region)
            if not writer.is_done and state is not None:
                has_room = units.dirty.failed_nbytes <= self._most_nbytes(state)
                if has_room or all(unit in state.dirty for unit in range(*writer.units)):
                    return
                self._queue.popleft()
                if self._may_overdraw(state, writer):
                    self.attempt(writer, may_overdraw=True)
                else:
                    self.fail(state, writer, failure)
            else:
                self._queue.popleft()
        units.later(lambda: None)

    def _may_overdraw(self, state: RegionState, writer: Writer) -> bool:
        """Return whether a thread that needs room is let in though there is none.

        It may have been let in before: its request was answered, or it saw that its unit was dirty,
        and then the unit was written before the thread came to write to it.  It has asked, and was
        promised an exception, which a thread in a fault cannot be told by.
        """
        dirty = self._units.dirty
        most_nbytes = self._most_nbytes(state) + max(
            self._units.room.limit_nbytes // _OVERDRAFT_SHARE, _few_nbytes(state)
        )
        return (
            writer.ticket is None
            and dirty.taken_nbytes <= most_nbytes
            and all(
                unit in state.dirty or dirty.was_written((writer.region, unit))
                for unit in range(*writer.units)
            )
        )


def _few_nbytes(state: RegionState) -> int:
    """Return how many bytes the units have that one instruction may need."""
    # It may write across two pages, and needs the units of both: with room for one of them each
    # would wait for the other for ever.
    return state.geometry.page_nbytes + 2 * state.geometry.unit_nbytes


class WriteBacks:
    """Has dirty units written to the store, and answers flushes.

    What a flush names is written when it is asked for, and all of a region that nobody has any
    more.  Without that, some of what is dirty is written in a *round*: when it is a quarter of the
    memory limit, or when somebody waits for room.  An eighth of the limit is left, of what was
    written to last.  An object is put whole, each time that one of its units is written: so that
    this is done once for each object that somebody fills, a round takes objects that are dirty
    from end to end first, and waits as long as it can for the one that was written to last.

    Parameters
    ----------
    units, members, writers
        The machine's.
    """

    def __init__(self, units: UnitTable, members: Members, writers: Writers) -> None:
        self._units = units
        self._members = members
        self._writers = writers
        self._flushes: dict[Key, Flush] = {}
        self._is_round = False  # all that is dirty is being gone through, in slices
        self._failure: m.Failure | None = None

    def __repr__(self) -> str:
        return f"<WriteBacks: {self._units.dirty!r}, {len(self._flushes)} flushes>"

    # --- what is written, and when ----------------------------------------------------

    def follow(self) -> None:
        """Do what a step has made due: let writers in, and begin to write."""
        writers, dirty = self._writers, self._units.dirty
        if not dirty.n_units and not writers.is_waiting:
            return
        writers.take_turns()
        if not self._is_round:
            self._begin_round()
        # What has failed is tried again first, for whoever has come since.
        if writers.is_waiting and self._failure is not None and not self._is_round:
            writers.fail_hopeless(self._failure)
            # Who is in front now may belong to a region of larger units, and have its turn.
            writers.take_turns()

    def _begin_round(self) -> None:
        """Have units written without a flush, if there is a reason for that."""
        writers, dirty = self._writers, self._units.dirty
        limit_nbytes = self._units.room.limit_nbytes
        # While something is under way there will be room without the rest.
        is_stuck = writers.is_waiting and not dirty.underway_nbytes
        left_nbytes = 0 if is_stuck else limit_nbytes // _LEFT_SHARE
        choosable_nbytes = dirty.fresh_nbytes if is_stuck else dirty.settled_nbytes
        is_wanted = writers.wants_round or (writers.is_waiting and choosable_nbytes > left_nbytes)
        is_much = dirty.settled_nbytes and dirty.settled_nbytes >= limit_nbytes // _DIRTY_SHARE
        if is_wanted or is_much:
            writers.wants_round = False
            self._is_round = True
            chosen = dirty.choose(left_nbytes, with_newest=is_stuck)
            self._list_slice(chosen, 0, {}, None)

    def _list_slice(
        self, keys: Sequence[Key], start: int, batch: dict[int, list[int]], flush: Flush | None
    ) -> None:
        """Queue some units to be written; command that when there are no more.

        With all of them in one command, those that lie in one object are written together.
        """
        stop = start + self._units.slice_units
        for region, unit in keys[start:stop]:
            state = self._units.regions.get(region)
            dirty = state.dirty.get(unit) if state is not None else None
            if dirty is None:
                continue
            if flush is not None and not flush.is_over:
                dirty.join(flush)
            if self._queue(region, state, unit, dirty):
                batch.setdefault(region, []).append(unit)
        if stop < len(keys):
            self._units.later(partial(self._list_slice, keys, stop, batch, flush))
            return
        self._command(batch)
        if flush is None:
            self._is_round = False
        else:
            flush.is_listed = True
            self._settle(flush)

    def _queue(self, region: int, state: RegionState, unit: int, dirty: DirtyUnit) -> bool:
        """Have a unit written that waits for it; return whether it is to be in a `WriteBack`."""
        # Two copies of one unit could come to the store in the wrong order.
        if dirty.stage is not Stage.WAITING or unit in state.strays:
            return False
        # A unit that nobody has any more is not tried again and again since others want room.
        if (state.n_tries or {}).get(unit, 0) >= _LAST_TRIES and not dirty.flushes:
            return False
        self._units.dirty.queue((region, unit), dirty)
        return True

    def _command(self, batch: dict[int, list[int]]) -> None:
        for region, units in batch.items():
            state = self._units.regions.get(region)
            assert state is not None  # it is kept as long as units of it are queued, or strays
            # Of a unit that was lost meanwhile nothing is left to be written, or something else.
            lost = [unit for unit in units if unit in state.strays]
            left = [unit for unit in units if unit not in state.strays]
            left += [unit for unit in lost if self._end_stray(region, state, unit)]
            if left:
                self._units.commands.append(m.WriteBack(region, tuple(left)))
            if lost and not state.dirty:
                self._members.settle_leaving(region, state)

    def _end_stray(self, region: int, state: RegionState, unit: int) -> bool:
        """Take down that nobody writes what was lost; return whether the unit is queued anew."""
        state.strays.discard(unit)
        dirty = state.dirty.get(unit)
        if dirty is None or not (dirty.flushes or state.n_tries is not None):
            return False
        return self._queue(region, state, unit, dirty)

    # --- flushes ----------------------------------------------------------------------

    def on_flush_asked(self, event: m.FlushAsked) -> None:
        """Have what is dirty of some units written, and tell when it is."""
        self._flush(event.region, event.units, Flush(event.client, event.ticket))

    def on_retired(self, event: m.Retired) -> None:
        """Have a region be read-only, and what is dirty of it be written."""
        state = self._units.regions.get(event.region)
        flush = Flush(event.client, event.ticket)
        if state is not None:
            flush.retires = (event.region, event.failure)
            state.retiring.append(flush)
        self._flush(event.region, None, flush)

    def _flush(self, region: int, units: Span | None, flush: Flush) -> None:
        self._flushes[flush.client, flush.ticket] = flush
        state = self._units.regions.get(region)
        dirty: Iterable[int] = state.dirty if state is not None else ()
        # Copied at once, as it is now: units that become dirty later are none of its business.
        keys = [(region, unit) for unit in dirty if units is None or unit in units]
        self._list_slice(keys, 0, {}, flush)

    def _settle(self, flush: Flush) -> None:
        """Answer a flush that waits for nothing any more."""
        if flush.is_over or not flush.is_listed or flush.n_waiting:
            return
        self._end(flush)
        failures = tuple(flush.failures.values())
        self._units.commands.append(
            m.Flushed(flush.client, flush.ticket, failures, flush.n_units, flush.nbytes)
        )

    def _end(self, flush: Flush, *, is_left: bool = False) -> None:
        flush.is_over = True
        self._flushes.pop((flush.client, flush.ticket), None)
        if flush.retires is None:
            return
        region, failure = flush.retires
        state = self._units.regions.get(region)
        if state is None or flush not in state.retiring:
            return
        state.retiring.remove(flush)
        # Where something could not be written, nothing was appended either.
        if not (is_left or flush.failures):
            state.retired = failure
        if not state.retiring and state.delayed:
            delayed, state.delayed = state.delayed, []
            self._units.later(partial(self._attempt_slice, delayed, 0))

    def leave(self, client: int) -> None:
        """Forget the flushes of a client that is gone; what they began goes on."""
        for flush in [flush for flush in self._flushes.values() if flush.client == client]:
            self._end(flush, is_left=True)

    def _attempt_slice(self, writers: list[Writer], start: int) -> None:
        stop = start + self._units.slice_units
        for writer in writers[start:stop]:
            self._writers.attempt(writer)
        if stop < len(writers):
            self._units.later(partial(self._attempt_slice, writers, stop))

    # --- how a write back goes on -----------------------------------------------------

    def on_copy_began(self, event: m.CopyBegan) -> None:
        """Let nobody write to units that are about to be copied."""
        state = self._units.regions.get(event.region)
        for unit in event.units:
            dirty = state.dirty.get(unit) if state is not None else None
            if dirty is not None and dirty.stage is Stage.QUEUED:
                dirty.stage = Stage.COPYING

    def on_copied(self, event: m.Copied) -> None:
        """Let those in who waited for the end of a copy."""
        state = self._units.regions.get(event.region)
        blocked: list[Writer] = []
        for unit in event.units:
            dirty = state.dirty.get(unit) if state is not None else None
            if dirty is not None and dirty.stage is Stage.COPYING:
                dirty.stage = Stage.WRITING
                blocked += self._take_blocked(dirty)
        self._attempt_slice(blocked, 0)

    def _take_blocked(self, dirty: DirtyUnit) -> list[Writer]:
        blocked, dirty.blocked = dirty.blocked, []
        return blocked

    def on_written_back(self, event: m.WrittenBack) -> None:
        """Take down that units are clean, or dirty still or again; tell the flushes."""
        self._count(event)
        state = self._units.regions.get(event.region)
        if state is None:
            return
        if event.failure is not None:
            self._failure = event.failure
        flushes: dict[Flush, None] = {}
        blocked: list[Writer] = []
        again: list[int] = []
        for unit in event.units:
            if unit in state.strays:
                if self._end_stray(event.region, state, unit):
                    again.append(unit)
                continue
            dirty = state.dirty[unit]
            blocked += self._take_blocked(dirty)
            for flush in dirty.flushes:
                flush.end_unit(event.failure)
                flushes[flush] = None
            dirty.flushes, dirty.later_flushes = dirty.later_flushes, []
            if self._end_unit(event, state, unit, dirty):
                again.append(unit)
        for flush in flushes:
            flush.nbytes += event.nbytes if event.failure is None else 0
            self._settle(flush)
        if again:
            self._command({event.region: again})
        self._attempt_slice(blocked, 0)
        if state.n_tries is not None:
            state.last_failure = event.failure or state.last_failure
            self._lose_hopeless(event.region, state)
        if not state.dirty:
            self._members.settle_leaving(event.region, state)

    def _end_unit(
        self, event: m.WrittenBack, state: RegionState, unit: int, dirty: DirtyUnit
    ) -> bool:
        """Take down how the write back of a unit has ended; return whether it is queued again."""
        key = (event.region, unit)
        # Only what was copied can be in the store.
        is_written = event.failure is None and dirty.stage is Stage.WRITING
        if is_written and not dirty.is_again:
            self._units.mark_clean(event.region, state, unit)
            most_nbytes = self._units.room.limit_nbytes // 2
            self._units.dirty.note_written(key, dirty.nbytes, most_nbytes)
            return False
        has_failed = event.failure is not None
        self._units.dirty.put_back(key, dirty, state.objects, has_failed=has_failed)
        is_wanted = bool(dirty.flushes)
        if state.n_tries is not None:
            state.n_tries[unit] = state.n_tries.get(unit, 0) + (event.failure is not None)
            is_wanted = is_wanted or state.n_tries[unit] < _LAST_TRIES
        if is_wanted:
            self._units.dirty.queue(key, dirty)
        return is_wanted

    def _count(self, event: m.WrittenBack) -> None:
        counters = self._units.counters
        if event.failure is None:
            counters["write_backs"] += 1
            counters["units_written"] += len(event.units)
            counters["bytes_written"] += event.nbytes
        else:
            counters["write_failures"] += 1

    # --- regions that nobody has, and what another worker has left --------------------

    def keeps(self, region: int, state: RegionState) -> bool:
        """Return whether a region that nobody has must stay, for what is dirty; have it written."""
        if state.dirty and state.n_tries is None:
            state.n_tries = {}
            keys = [(region, unit) for unit in state.dirty]
            # A flush that nobody has asked for: none of its units is answered.
            nobodys = Flush(-1, -1)
            nobodys.is_over = True
            self._list_slice(keys, 0, {}, nobodys)
        return bool(state.dirty or state.strays)

    def _lose_hopeless(self, region: int, state: RegionState) -> None:
        """Give up what could not be written, and that nobody has any more."""
        # All of it at once, when nothing is under way any more: the last of it may have been
        # written, and what failed before that is not tried again.
        tries = state.n_tries or {}
        if state.last_failure is None or not state.dirty:
            return
        if all(
            dirty.stage is Stage.WAITING and tries.get(unit, 0) >= _LAST_TRIES
            for unit, dirty in state.dirty.items()
        ):
            self._lose(region, state, tuple(state.dirty), state.last_failure)

    def lose_unit(self, region: int, state: RegionState, unit: int) -> None:
        """Give up a unit of which a page is gone from memory: it must not be written."""
        self._lose(region, state, (unit,), _HOLE)

    def _lose(
        self, region: int, state: RegionState, units: tuple[int, ...], failure: m.Failure
    ) -> None:
        # First: were they clean before it is said, and the worker died then, nobody would say it.
        self._units.commands.append(m.Lost(region, units, failure))
        blocked: list[Writer] = []
        for unit in units:
            # They stay with a neighbour that is dirty, and what is written there now must be noted
            # of this unit too.
            for page in state.geometry.edge_pages(unit):
                self._units.commands.append(m.Protect(region, Span(page, page + 1)))
            dirty = state.dirty[unit]
            if dirty.stage is not Stage.WAITING:
                state.strays.add(unit)
            blocked += self._take_blocked(dirty)
            for flush in [*dirty.flushes, *dirty.later_flushes]:
                flush.end_unit(failure)
                self._settle(flush)
            self._units.mark_clean(region, state, unit)
        if blocked:
            self._units.later(partial(self._attempt_slice, blocked, 0))

    def on_restored(self, event: m.Restored) -> None:
        """Take down what another worker has left dirty."""
        state = self._units.regions.get(event.region)
        if state is None:
            return
        for unit in event.units:
            if unit not in state.resident and unit not in state.loading:
                self._units.restore(event.region, state, unit)
        self._members.settle_leaving(event.region, state)

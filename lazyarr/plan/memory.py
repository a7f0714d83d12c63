"""What is in memory, and on its way there, over all arrays."""

from __future__ import annotations

from collections import Counter

from lazyarr.plan import messages as m
from lazyarr.plan.eviction import TwoQueues
from lazyarr.plan.lookahead import Lookahead
from lazyarr.plan.regions import Loading, RegionState
from lazyarr.plan.room import Room
from lazyarr.units import Span

__all__ = ["Memory"]

_NOTHING = Span(0, 0)

_COUNTED = (
    "faults", "requests", "units_loaded", "bytes_installed", "evictions", "errors",
    "units_ahead", "ahead_read", "ahead_evicted",
)  # fmt: skip


class Memory:
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
    """

    def __init__(self, limit_nbytes: int) -> None:
        self.room = Room(limit_nbytes)
        self.regions: dict[int, RegionState] = {}
        self.counters: Counter[str] = Counter(dict.fromkeys(_COUNTED, 0))
        self.lookahead = Lookahead(self.counters)
        self.commands: list[m.Command] = []
        self._policy = TwoQueues()
        self._newest: tuple[int, int] | None = None

    def __repr__(self) -> str:
        return f"<Memory: {self.resident_nbytes} of {self.room.limit_nbytes} bytes>"

    @property
    def resident_nbytes(self) -> int:
        """Bytes of evictable memory that are resident."""
        return self._policy.resident_nbytes

    def touch(self, region: int, unit: int) -> None:
        """Take down that a resident unit is used."""
        self._policy.touch((region, unit))

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
    ) -> Loading:
        """Return the load under way for a unit, started if need be.

        The pages that are `awaited` come first if it is started, which the request `pick` is
        told of.
        """
        loading = state.loading.get(unit)
        if loading is None:
            if state.shared:
                self.room.loading_nbytes += state.unit_nbytes(unit)
            loading = Loading(client, is_urgent=urgent, is_marked=mark)
            loading.pick = pick
            state.loading[unit] = loading
            is_pick, replaces = pick is not None, unit in state.left
            self.commands.append(
                m.Load(region, unit, client, urgent, awaited, is_pick, mark, replaces)
            )
        elif urgent and not loading.is_urgent:
            loading.is_urgent = True
            self.commands.append(m.Promote(region, unit))
        return loading

    def await_page(self, region: int, state: RegionState, client: int, page: int) -> None:
        """Load what a page lacks, with a thread that waits for it."""
        for unit in range(*state.geometry.units_of_page(page)):
            if unit not in state.resident:
                is_late = unit in state.loading
                awaited = Span(page, page + 1)
                loading = self.begin(region, state, unit, client, urgent=True, awaited=awaited)
                loading.faults.add((client, page))
                if is_late:
                    loading.late.add((client, page))

    def end(self, region: int, unit: int) -> tuple[RegionState, Loading]:
        """Take down that a load has ended, somehow; return it."""
        state = self.regions[region]
        if state.shared:
            self.room.loading_nbytes -= state.unit_nbytes(unit)
        return state, state.loading.pop(unit)

    def look_ahead(
        self, region: int, state: RegionState, client: int, units: Span, *, is_lost: bool
    ) -> None:
        """Have units loaded that whoever has come to these will come to next.

        Where memory is full, only as many are read ahead as stay until they are read.
        """
        if not self.lookahead.window_nbytes:
            return
        now, new_nbytes = self._policy.now, self._policy.nursery_nbytes
        room_nbytes = self.room.free_nbytes
        if state.shared:
            # By the time that so much has come after it, a unit is out, or is kept.
            self.lookahead.forget_before(now - new_nbytes)
            room_nbytes = max(room_nbytes, new_nbytes // 2 - self.lookahead.unread_nbytes)
        ahead = self.lookahead.after(region, state, units, is_lost=is_lost, room_nbytes=room_nbytes)
        for unit in ahead.units:
            is_mark = unit == ahead.mark
            if is_mark and not state.can_mark(unit):
                continue  # left to whoever comes there
            nbytes = state.geometry.unit_nbytes if state.shared else 0
            self.lookahead.add((region, unit), nbytes, now)
            self.begin(region, state, unit, client, urgent=False, mark=is_mark)

    # --- units that are there -----------------------------------------------------

    def enter(self, region: int, state: RegionState, unit: int) -> None:
        """Take down that the pages which a unit fills alone are there."""
        nbytes = state.unit_nbytes(unit)
        self.counters["units_loaded"] += 1
        self.counters["bytes_installed"] += nbytes
        state.resident.add(unit)
        if state.left:
            self._forget_left(state, unit)
        self.room.take(state, state.body_nbytes(unit))
        if state.shared:
            self._newest = (region, unit)
            self._policy.add(self._newest, nbytes)

    def add_fragments(self, event: m.Loaded, state: RegionState) -> None:
        """Keep a unit's shares of other pages, and have those installed that are whole now."""
        held_nbytes = state.edges.held_nbytes
        client = event.client
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
        self.commands.append(m.Publish(region, unit, resident=False))
        held_nbytes = state.edges.held_nbytes
        state.edges.discard(unit, state.geometry.edge_pages(unit))
        self.punch_body(region, state, unit)
        for page in state.geometry.edge_pages(unit):
            units = range(*state.geometry.units_of_page(page))
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

        Of what came last, as much as is asked for at the moment goes after everything else.
        """
        while self.room.is_short:
            victim = self._policy.victim(self._must_stay, asked_nbytes)
            if victim is None:
                return
            region, unit = victim
            self._policy.evict(victim)
            self.lookahead.evict(victim)
            self.evict(region, self.regions[region], unit)

    def _must_stay(self, key: tuple[int, int]) -> bool:
        region, unit = key
        return key == self._newest or self.regions[region].is_awaited(unit)

    def leave(self, region: int, state: RegionState, unit: int, pages: Span) -> None:
        """Take out what there is of a unit that failed, but for pages that somebody has."""
        kept = state.left.get(unit, pages if state.shared and state.addresses else _NOTHING)
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
        if state.shared and pages.size:
            self.commands.append(m.Punch(region, pages))

    def forget(self, region: int, state: RegionState) -> None:
        """Take down that nobody has a region any more."""
        for unit in state.resident:
            self._policy.remove((region, unit))
            self.room.take(state, -state.body_nbytes(unit))
        for unit in list(state.left):
            self._forget_left(state, unit)
        self.room.take(state, -state.edges.held_nbytes)
        self.lookahead.forget(region)
        del self.regions[region]
        self.commands.append(m.Forget(region))

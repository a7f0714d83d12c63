"""The pager's brain: events in, commands out; no I/O, no clock, no threads.

Every event is handled in one step, and the commands of a step must be carried
out in their order before the next event is given: what the machine has written
down is then what the memory holds.  Only `Load` takes time; it is carried out
elsewhere, and ends in `Loaded`, `LoadFailed` or `Stranded`.

Invariants (checked by the property test):

- A unit is absent, loading or resident; every load that is started ends once.
- A page is installed when all units that fill it are resident, and is punched
  only when none of them is; none is left behind when none of them is.
- A unit is not evicted while somebody waits for a page that it shares.
- While a load is on its way into a client's memory, that client's wish to unmap
  the region is not answered: the address can not come to mean something else.
- Whoever waits is answered, mapped, woken or poisoned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from lazyarr.plan import messages as m
from lazyarr.plan.members import Members
from lazyarr.plan.memory import Memory
from lazyarr.plan.regions import Loading, RegionState
from lazyarr.plan.requests import Requests, Ticket
from lazyarr.units import Span

__all__ = ["Machine", "Quick", "Vacancy"]


class Quick(NamedTuple):
    """A unit that can be brought in one step: for whom, and where it goes."""

    client: int
    region: int
    unit: int
    page: int
    address: int
    nbytes: int


class Vacancy(NamedTuple):
    """Pages of one unit, from one that somebody wants on, with nothing in them or on its way."""

    region: int
    unit: int
    pages: Span


class Machine:
    """Decides what is loaded, mapped, evicted and answered.

    Parameters
    ----------
    limit_nbytes : int
        How many bytes may be resident or on their way.  Private memory and the memory
        to decode in count, and can not be evicted; where these and what is on its way
        are more than half, what can be evicted may still have the other half.
    """

    def __init__(self, limit_nbytes: int) -> None:
        self._memory = Memory(limit_nbytes)
        self._members = Members(self._memory)
        self._requests = Requests()
        self.counters = self._memory.counters
        self._handlers: dict[type, Callable[[Any], None]] = {
            m.Attached: self._members.on_attached,
            m.Opened: self._members.on_opened,
            m.Reserved: self._members.on_reserved,
            m.Detached: self._members.on_detached,
            m.ClientLeft: self._on_client_left,
            m.Faulted: self._on_faulted,
            m.Requested: self._on_requested,
            m.Arrived: self._on_arrived,
            m.Loaded: self._on_loaded,
            m.LoadFailed: self._on_load_failed,
            m.Stranded: self._on_stranded,
            m.HoleFound: self._on_hole_found,
            m.EvictionAsked: self._on_eviction_asked,
            m.Advised: self._on_advised,
            m.ReadaheadChanged: self._on_readahead_changed,
            m.LimitChanged: self._on_limit_changed,
            m.ScratchGrew: self._on_scratch_grew,
        }

    def __repr__(self) -> str:
        return (
            f"<Machine: {len(self._memory.regions)} regions, {len(self._members)} clients, "
            f"{self._memory.resident_nbytes} of {self._memory.room.limit_nbytes} bytes>"
        )

    @property
    def resident_nbytes(self) -> int:
        """Bytes of evictable memory that are resident."""
        return self._memory.resident_nbytes

    @property
    def n_loading(self) -> int:
        """How many units are on their way."""
        return sum(len(state.loading) for state in self._memory.regions.values())

    @property
    def private_nbytes(self) -> int:
        """Bytes of private memory that were installed; they count, and stay."""
        return self._memory.room.private_nbytes

    @property
    def limit_nbytes(self) -> int:
        """The memory limit."""
        return self._memory.room.limit_nbytes

    def handle(self, event: m.Event) -> list[m.Command]:
        """Return what has to be done about an event, in order."""
        commands = self._memory.commands = []
        self._handlers[type(event)](event)
        self._memory.make_room(self._requests.asked_nbytes)
        return commands

    def region(self, region: int) -> RegionState | None:
        """Return what is known of a region; None when nobody has it any more."""
        return self._memory.regions.get(region)

    def find_vacancy(self, client: int, address: int) -> Vacancy | None:
        """Return the shared pages from an address on that nobody has or loads; else None.

        A page that several units fill is installed in a step of its own, whatever
        becomes of them, and so is alone.
        """
        place = self._members.find(client, address)
        if place is None:
            return None
        region, page = place
        state = self._memory.regions[region]
        if not state.shared or state.is_installed(page):
            return None
        unit = state.geometry.units_of_page(page).start
        body = state.geometry.body_pages(unit)
        if page not in body:
            return Vacancy(region, unit, Span(page, page + 1))
        return None if unit in state.loading else Vacancy(region, unit, Span(page, body.stop))

    def is_dropped(self, region: int, unit: int) -> bool:
        """Return whether a unit was evicted on its way, and need not be installed."""
        return self._memory.regions[region].loading[unit].is_dropped

    # --- the short way: what Faulted, Load and Loaded do for one unit nobody else wants ---

    def plan_quick(self, client: int, address: int) -> Quick | None:
        """Return the unit that a fault needs, when it can be brought in one step; else None.

        That is: it is whole pages, nobody has it or loads it, nothing must be evicted for
        it, and no page of its array is poisoned.  What must follow at once, before any
        event, is `take_down_quick`, or `begin_quick`, or nothing at all.
        """
        place = self._members.find(client, address)
        if place is None:
            return None
        region, page = place
        state = self._memory.regions[region]
        geometry = state.geometry
        if not geometry.unit_pages or state.poisoned:
            return None
        unit = page // geometry.unit_pages
        nbytes = geometry.unit_nbytes
        if unit in state.resident or unit in state.loading or unit >= state.n_plain_units:
            return None
        if nbytes > self._memory.room.free_nbytes:
            return None
        return Quick(client, region, unit, page, state.addresses[client] + unit * nbytes, nbytes)

    def take_down_quick(self, quick: Quick) -> None:
        """Take down that a unit of `plan_quick` is resident."""
        self.counters["faults"] += 1
        self._memory.enter(quick.region, self._memory.regions[quick.region], quick.unit)

    def begin_quick(self, quick: Quick) -> list[m.Command]:
        """Take down that a unit of `plan_quick` is on its way; return what to do besides.

        What ends it is `end_quick`, or an event that ends a `Load`.
        """
        self.counters["faults"] += 1
        state = self._memory.regions[quick.region]
        loading = state.loading[quick.unit] = Loading(quick.client)
        loading.faults.add((quick.client, quick.page))
        if state.shared:
            self._memory.room.loading_nbytes += quick.nbytes
        commands = self._memory.commands = []
        units = Span(quick.unit, quick.unit + 1)
        self._memory.look_ahead(quick.region, state, quick.client, units, is_lost=True)
        if commands:
            self._memory.make_room(self._requests.asked_nbytes)
        return commands

    def end_quick(self, quick: Quick) -> bool:
        """Take down that a unit is resident, and return True; False if `Loaded` must do it.

        It must where something has happened meanwhile.
        """
        state = self._memory.regions[quick.region]
        loading = state.loading[quick.unit]
        is_alone = len(loading.faults) == 1 and not (loading.requests or loading.late)
        if not is_alone or state.leaving or quick.client not in state.addresses:
            return False
        del state.loading[quick.unit]
        if state.shared:
            self._memory.room.loading_nbytes -= quick.nbytes
        self._memory.enter(quick.region, state, quick.unit)
        return True

    # --- clients go -----------------------------------------------------------

    def _on_client_left(self, event: m.ClientLeft) -> None:
        self._requests.forget(event.client)
        self._members.on_client_left(event)

    # --- wishes ---------------------------------------------------------------

    def _on_faulted(self, event: m.Faulted) -> None:
        self.counters["faults"] += 1
        place = self._members.find(event.client, event.address)
        if place is None:
            # Old news of memory that is gone; or else it will fault again.
            self._memory.commands.append(m.Wake(event.client, event.address))
            return
        region, page = place
        state = self._memory.regions[region]
        units = state.geometry.units_of_page(page)
        is_lost = any(state.is_absent(unit) for unit in range(*units))
        if state.is_installed(page):
            self._on_resident_fault(region, state, event.client, page)
        else:
            self._await_page(region, state, event.client, page)
        self._memory.look_ahead(region, state, event.client, units, is_lost=is_lost)

    def _await_page(self, region: int, state: RegionState, client: int, page: int) -> None:
        """Load what a page lacks, with a thread that waits for it."""
        for unit in range(*state.geometry.units_of_page(page)):
            if unit not in state.resident:
                is_late = unit in state.loading
                awaited = Span(page, page + 1)
                loading = self._memory.begin(
                    region, state, unit, client, urgent=True, awaited=awaited
                )
                loading.faults.add((client, page))
                if is_late:
                    loading.late.add((client, page))

    def _on_resident_fault(self, region: int, state: RegionState, client: int, page: int) -> None:
        """Map a page that another process has brought; or load it again.

        On private memory a fault on a resident unit is either old news, read
        after the install that answered it, or memory that the client has given
        back with madvise.  It is woken once; when the same page faults again,
        its unit is loaded again.
        """
        units = state.geometry.units_of_page(page)
        if state.shared:
            self._memory.touch(region, units.start)
            pages = state.geometry.body_pages(units.start)
            self._memory.commands.append(
                m.MapPages(region, client, pages if page in pages else Span(page, page + 1))
            )
        elif page not in state.suspects:
            state.suspects.add(page)
            self._memory.commands.append(m.MapPages(region, client, Span(page, page + 1)))
        else:
            self._reload(region, state, page, client)

    def _on_hole_found(self, event: m.HoleFound) -> None:
        state = self._memory.regions.get(event.region)
        if state is not None and event.client in state.addresses:
            self._reload(event.region, state, event.page, event.client)

    def _reload(self, region: int, state: RegionState, page: int, client: int) -> None:
        """Load the units of a page that is not what the record says."""
        state.suspects.discard(page)
        for unit in range(*state.geometry.units_of_page(page)):
            if unit in state.resident:
                self._memory.take_out(region, state, unit)
        self._await_page(region, state, client, page)

    def _on_requested(self, event: m.Requested) -> None:
        self.counters["requests"] += 1
        state = self._memory.regions.get(event.region)
        ticket = (event.client, event.ticket)
        self._requests.begin(ticket)
        if state is not None and event.client in state.addresses:
            spans = [span & Span(0, state.geometry.n_units) for span in event.units]
            is_lost = any(state.is_absent(unit) for span in spans for unit in range(*span))
            for span in spans:
                for unit in range(*span):
                    self._request_unit(event, state, unit)
            if len(spans) == 1 and spans[0].size:
                # One that asks for units here and there knows what it wants.
                self._memory.look_ahead(
                    event.region, state, event.client, spans[0], is_lost=is_lost
                )
        self._advance(ticket)

    def _request_unit(self, event: m.Requested, state: RegionState, unit: int) -> None:
        if unit in state.resident:
            self._memory.touch(event.region, unit)
            return
        ticket = (event.client, event.ticket)
        pages = (event.pages or Span(0, 0)) & state.geometry.body_pages(unit)
        is_pick = pages.size > 0 and pages == event.pages
        loading = self._memory.begin(
            event.region,
            state,
            unit,
            event.client,
            urgent=event.urgent,
            awaited=pages if is_pick else None,
            pick=ticket if is_pick else None,
        )
        if ticket not in loading.requests:
            loading.requests.add(ticket)
            self._requests.wait(ticket, state.geometry.unit_nbytes)

    def _advance(self, ticket: Ticket, failure: m.Failure | None = None, unit: int = 0) -> None:
        self._memory.commands += self._requests.advance(ticket, failure, unit)

    def _on_arrived(self, event: m.Arrived) -> None:
        loading = self._memory.regions[event.region].loading[event.unit]
        if loading.pick in loading.requests and not loading.is_dropped:
            loading.requests.discard(loading.pick)
            self._advance(loading.pick)

    # --- loads end ------------------------------------------------------------

    def _on_loaded(self, event: m.Loaded) -> None:
        state, loading = self._memory.end(event.region, event.unit)
        if loading.is_dropped:
            self._start_over(event, state, loading)
            return
        if state.addresses:
            self._memory.enter(event.region, state, event.unit)
            if event.fragments:
                self._memory.add_fragments(event, state)
            self._memory.commands.append(m.Publish(event.region, event.unit, resident=True))
            if loading.faults or state.poisoned:
                self._serve(event, state, loading)
        else:
            # Nobody is left in whose memory its shared pages could be installed.
            self._memory.punch_body(event.region, state, event.unit)
        for key in loading.requests:
            self._advance(key)
        if state.leaving or not state.addresses:
            self._members.settle_leaving(event.region, state)

    def _serve(self, event: m.Loaded, state: RegionState, loading: Loading) -> None:
        """Map a unit for who waits, but for those whom the install has woken.

        A page that it shares may lack another unit still, or again.
        """
        body = state.geometry.body_pages(event.unit)
        waiters = sorted(loading.faults | state.take_healed(event.unit))
        installed_in = None if loading.is_marked else event.client
        for client in dict.fromkeys(client for client, page in waiters if page in body):
            if client != installed_in:
                self._memory.commands.append(m.MapPages(event.region, client, body))
        for client, page in waiters:
            if page in body:
                is_lost = client == installed_in and (client, page) in loading.late
            elif not state.is_installed(page):
                self._await_page(event.region, state, client, page)
                continue
            else:
                is_lost = client != event.client
            if is_lost:
                self._memory.commands.append(m.MapPages(event.region, client, Span(page, page + 1)))

    def _on_load_failed(self, event: m.LoadFailed) -> None:
        self.counters["errors"] += 1
        state, loading = self._memory.end(event.region, event.unit)
        self._memory.lookahead.remove((event.region, event.unit))
        self._memory.punch_body(event.region, state, event.unit)
        for client in sorted({client for client, _ in loading.faults}):
            pages = tuple(sorted(page for who, page in loading.faults if who == client))
            self._memory.commands.append(m.Poison(event.region, client, pages, event.failure))
        state.poison(loading.faults)
        for key in loading.requests:
            self._advance(key, event.failure, event.unit)
        self._members.settle_leaving(event.region, state)

    def _on_stranded(self, event: m.Stranded) -> None:
        """Load again for somebody else who waits and is still there."""
        state, loading = self._memory.end(event.region, event.unit)
        self._memory.lookahead.remove((event.region, event.unit))
        waiting = [*loading.faults, *loading.requests]
        clients = [c for c, _ in waiting if c != event.client and c in state.addresses]
        if not clients:
            self._memory.punch_body(event.region, state, event.unit)
        self._load_again(event, state, loading, clients)

    def _start_over(self, event: m.Loaded, state: RegionState, loading: Loading) -> None:
        """Load a unit again that was evicted on its way, for those who came to wait since."""
        self._memory.punch_body(event.region, state, event.unit)
        waiting = [*loading.faults, *loading.requests]
        clients = [client for client, _ in waiting if client in state.addresses]
        self._load_again(event, state, loading, clients)

    def _load_again(
        self,
        event: m.Loaded | m.Stranded,
        state: RegionState,
        loading: Loading,
        clients: list[int],
    ) -> None:
        """Begin a load for some of those who waited for one that has ended; forget the others."""
        for key in loading.requests:
            if key[0] not in clients:
                self._advance(key)
        if clients:
            again = self._memory.begin(event.region, state, event.unit, clients[0], urgent=True)
            again.faults = {f for f in loading.faults if f[0] in clients}
            again.requests = {r for r in loading.requests if r[0] in clients}
        self._members.settle_leaving(event.region, state)

    # --- eviction -------------------------------------------------------------

    def _on_eviction_asked(self, event: m.EvictionAsked) -> None:
        state = self._memory.regions.get(event.region)
        if state is not None and state.shared:
            for unit in range(*(event.units & Span(0, state.geometry.n_units))):
                if unit in state.resident and not state.is_awaited(unit):
                    self._memory.evict(event.region, state, unit)
                elif unit in state.loading and not state.loading[unit].is_urgent:
                    # It was to be read ahead: nobody waits for it.
                    state.loading[unit].is_dropped = True
                    self._memory.lookahead.remove((event.region, unit))
        self._memory.commands.append(m.Answer(event.client, event.ticket))

    def _on_advised(self, event: m.Advised) -> None:
        state = self._memory.regions.get(event.region)
        if state is not None:
            self._memory.lookahead.advise(event.region, state, event.units, event.advice)
        self._memory.commands.append(m.Answer(event.client, event.ticket))

    def _on_readahead_changed(self, event: m.ReadaheadChanged) -> None:
        self._memory.lookahead.window_nbytes = event.window_nbytes

    def _on_limit_changed(self, event: m.LimitChanged) -> None:
        self._memory.room.limit_nbytes = event.limit_nbytes

    def _on_scratch_grew(self, event: m.ScratchGrew) -> None:
        self._memory.room.scratch_nbytes += event.nbytes

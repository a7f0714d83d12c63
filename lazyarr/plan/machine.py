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
from lazyarr.plan.endings import Endings
from lazyarr.plan.members import Members
from lazyarr.plan.memory import Memory
from lazyarr.plan.quick import ShortWay
from lazyarr.plan.regions import RegionState
from lazyarr.plan.requests import Requests
from lazyarr.units import Span

__all__ = ["Machine", "Vacancy"]


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

    Attributes
    ----------
    quick : ShortWay
        The same in one step, for units that nobody else wants.
    """

    def __init__(self, limit_nbytes: int) -> None:
        self._memory = Memory(limit_nbytes)
        self._members = Members(self._memory)
        self._requests = Requests()
        self._endings = Endings(self._memory, self._members, self._requests)
        self.quick = ShortWay(self._memory, self._members, self._requests)
        self.counters = self._memory.counters
        self._handlers: dict[type, Callable[[Any], None]] = {
            m.Attached: self._members.on_attached,
            m.Opened: self._members.on_opened,
            m.Reserved: self._members.on_reserved,
            m.Detached: self._members.on_detached,
            m.ClientLeft: self._on_client_left,
            m.Faulted: self._on_faulted,
            m.Requested: self._on_requested,
            m.Arrived: self._endings.on_arrived,
            m.Loaded: self._endings.on_loaded,
            m.LoadFailed: self._endings.on_load_failed,
            m.Stranded: self._endings.on_stranded,
            m.HoleFound: self._on_hole_found,
            m.EvictionAsked: self._on_eviction_asked,
            m.Advised: self._on_advised,
            m.ReadaheadChanged: self._on_readahead_changed,
            m.LinkMeasured: self._on_link_measured,
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
            self._memory.await_page(region, state, event.client, page)
        self._memory.look_ahead(region, state, event.client, units, is_lost=is_lost)

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
        self._memory.await_page(region, state, client, page)

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
        self._endings.advance(ticket)

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

    # --- eviction -------------------------------------------------------------

    def _on_eviction_asked(self, event: m.EvictionAsked) -> None:
        state = self._memory.regions.get(event.region)
        if state is not None and state.shared:
            for unit in range(*(event.units & Span(0, state.geometry.n_units))):
                if unit in state.resident and not state.is_awaited(unit):
                    self._memory.evict(event.region, state, unit)
                elif unit not in state.loading and unit in state.left:
                    self._memory.punch_body(event.region, state, unit)
                elif unit in state.loading and state.loading[unit].is_for_nobody:
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

    def _on_link_measured(self, event: m.LinkMeasured) -> None:
        state = self._memory.regions.get(event.region)
        if state is not None:
            state.pipe_units, state.is_pipe_full = event.n_units, event.is_full

    def _on_limit_changed(self, event: m.LimitChanged) -> None:
        self._memory.room.limit_nbytes = event.limit_nbytes

    def _on_scratch_grew(self, event: m.ScratchGrew) -> None:
        self._memory.room.scratch_nbytes += event.nbytes

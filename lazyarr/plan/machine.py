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

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from lazyarr.plan import messages as m
from lazyarr.plan.eviction import TwoQueues
from lazyarr.plan.lookahead import Lookahead
from lazyarr.plan.regions import AddressTable, Loading, RegionState
from lazyarr.plan.room import Room
from lazyarr.units import Span

__all__ = ["Machine", "Quick", "Vacancy"]

_COUNTED = (
    "faults", "requests", "units_loaded", "bytes_installed", "evictions", "errors",
    "units_ahead", "ahead_read", "ahead_evicted",
)  # fmt: skip


class _Request:
    """A request under way: how many units it waits for, how long all of them are, what failed."""

    __slots__ = ("failures", "nbytes", "remaining")

    def __init__(self) -> None:
        self.remaining = 1
        self.nbytes = 0
        self.failures: dict[int, m.Failure] = {}


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
        self._room = Room(limit_nbytes)
        self._regions: dict[int, RegionState] = {}
        self._tables: dict[int, AddressTable] = {}
        self._requests: dict[tuple[int, int], _Request] = {}
        self._policy = TwoQueues()
        self._asked_nbytes = 0
        self._newest: tuple[int, int] | None = None
        self._out: list[m.Command] = []
        self.counters: Counter[str] = Counter(dict.fromkeys(_COUNTED, 0))
        self._lookahead = Lookahead(self.counters)
        self._handlers: dict[type, Callable[[Any], None]] = {
            m.Attached: self._on_attached,
            m.Opened: self._on_opened,
            m.Reserved: self._on_reserved,
            m.Detached: self._on_detached,
            m.ClientLeft: self._on_client_left,
            m.Faulted: self._on_faulted,
            m.Requested: self._on_requested,
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
            f"<Machine: {len(self._regions)} regions, {len(self._tables)} clients, "
            f"{self._policy.resident_nbytes} of {self._room.limit_nbytes} bytes>"
        )

    @property
    def resident_nbytes(self) -> int:
        """Bytes of evictable memory that are resident."""
        return self._policy.resident_nbytes

    @property
    def private_nbytes(self) -> int:
        """Bytes of private memory that were installed; they count, and stay."""
        return self._room.private_nbytes

    @property
    def limit_nbytes(self) -> int:
        """The memory limit."""
        return self._room.limit_nbytes

    def handle(self, event: m.Event) -> list[m.Command]:
        """Return what has to be done about an event, in order."""
        self._out = []
        self._handlers[type(event)](event)
        self._make_room()
        return self._out

    def region(self, region: int) -> RegionState | None:
        """Return what is known of a region; None when nobody has it any more."""
        return self._regions.get(region)

    def find_vacancy(self, client: int, address: int) -> Vacancy | None:
        """Return the shared pages from an address on that nobody has or loads; else None.

        A page that several units fill is installed in a step of its own, whatever
        becomes of them, and so is alone.
        """
        table = self._tables.get(client)
        place = table.find(address) if table else None
        if place is None:
            return None
        region, page = place
        state = self._regions[region]
        if not state.shared or state.is_installed(page):
            return None
        unit = state.geometry.units_of_page(page).start
        body = state.geometry.body_pages(unit)
        if page not in body:
            return Vacancy(region, unit, Span(page, page + 1))
        return None if unit in state.loading else Vacancy(region, unit, Span(page, body.stop))

    def is_dropped(self, region: int, unit: int) -> bool:
        """Return whether a unit was evicted on its way, and need not be installed."""
        return self._regions[region].loading[unit].is_dropped

    # --- the short way: what Faulted, Load and Loaded do for one unit nobody else wants ---

    def plan_quick(self, client: int, address: int) -> Quick | None:
        """Return the unit that a fault needs, when it can be brought in one step; else None.

        That is: it is whole pages, nobody has it or loads it, nothing must be evicted for
        it, and no page of its array is poisoned.  What must follow at once, before any
        event, is `take_down_quick`, or `begin_quick`, or nothing at all.
        """
        table = self._tables.get(client)
        place = table.find(address) if table else None
        if place is None:
            return None
        region, page = place
        state = self._regions[region]
        geometry = state.geometry
        if not geometry.unit_pages or state.poisoned:
            return None
        unit = page // geometry.unit_pages
        nbytes = geometry.unit_nbytes
        if unit in state.resident or unit in state.loading or unit >= state.n_plain_units:
            return None
        if nbytes > self._room.free_nbytes:
            return None
        return Quick(client, region, unit, page, state.addresses[client] + unit * nbytes, nbytes)

    def take_down_quick(self, quick: Quick) -> None:
        """Take down that a unit of `plan_quick` is resident."""
        self.counters["faults"] += 1
        self._enter(quick.region, self._regions[quick.region], quick.unit)

    def begin_quick(self, quick: Quick) -> list[m.Command]:
        """Take down that a unit of `plan_quick` is on its way; return what to do besides.

        What ends it is `end_quick`, or an event that ends a `Load`.
        """
        self.counters["faults"] += 1
        state = self._regions[quick.region]
        loading = state.loading[quick.unit] = Loading(quick.client)
        loading.faults.add((quick.client, quick.page))
        if state.shared:
            self._room.loading_nbytes += quick.nbytes
        self._out = []
        units = Span(quick.unit, quick.unit + 1)
        self._look_ahead(quick.region, state, quick.client, units, is_lost=True)
        if self._out:
            self._make_room()
        return self._out

    def end_quick(self, quick: Quick) -> bool:
        """Take down that a unit is resident, and return True; False if `Loaded` must do it.

        It must where something has happened meanwhile.
        """
        state = self._regions[quick.region]
        loading = state.loading[quick.unit]
        is_alone = len(loading.faults) == 1 and not (loading.requests or loading.late)
        if not is_alone or state.leaving or quick.client not in state.addresses:
            return False
        del state.loading[quick.unit]
        if state.shared:
            self._room.loading_nbytes -= quick.nbytes
        self._enter(quick.region, state, quick.unit)
        return True

    # --- clients come and go --------------------------------------------------

    def _on_opened(self, event: m.Opened | m.Attached) -> None:
        if event.region not in self._regions:
            self._regions[event.region] = RegionState(event.geometry, shared=event.shared)

    def _on_attached(self, event: m.Attached) -> None:
        self._on_opened(event)
        state = self._regions[event.region]
        state.reserved.discard(event.client)
        state.addresses[event.client] = event.address
        table = self._tables.setdefault(event.client, AddressTable())
        table.add(event.address, event.region, event.geometry)

    def _on_reserved(self, event: m.Reserved) -> None:
        for region in event.regions:
            if region in self._regions:
                self._regions[region].reserved.add(event.client)

    def _on_detached(self, event: m.Detached) -> None:
        state = self._regions.get(event.region)
        if state is None or event.client not in state.addresses:
            self._out.append(m.Answer(event.client, event.ticket))
            if state is not None and event.client in state.reserved:
                state.reserved.discard(event.client)
                self._settle_leaving(event.region, state)
            return
        address = state.addresses.pop(event.client)
        self._tables[event.client].remove(address)
        # Nobody should be waiting; if somebody is, munmap alone would not end it.
        for page in state.drop_waiters(event.client):
            place = address + page * state.geometry.page_nbytes
            self._out.append(m.Wake(event.client, place))
        state.leaving[event.client] = event.ticket
        self._settle_leaving(event.region, state)

    def _on_client_left(self, event: m.ClientLeft) -> None:
        self._tables.pop(event.client, None)
        for key in [key for key in self._requests if key[0] == event.client]:
            self._asked_nbytes -= self._requests.pop(key).nbytes
        for region, state in list(self._regions.items()):
            state.addresses.pop(event.client, None)
            state.reserved.discard(event.client)
            state.leaving.pop(event.client, None)
            state.drop_waiters(event.client)
            for loading in state.loading.values():
                loading.requests = {r for r in loading.requests if r[0] != event.client}
            self._settle_leaving(region, state)

    def _settle_leaving(self, region: int, state: RegionState) -> None:
        """Answer who may unmap now; forget the region when nobody is left."""
        for client, ticket in list(state.leaving.items()):
            if not state.is_installing(client):
                del state.leaving[client]
                self._out.append(m.Answer(client, ticket))
        if not (state.addresses or state.reserved or state.leaving or state.loading):
            for unit in state.resident:
                self._policy.remove((region, unit))
                self._room.take(state, -state.body_nbytes(unit))
            self._room.take(state, -state.edges.held_nbytes)
            self._lookahead.forget(region)
            del self._regions[region]
            self._out.append(m.Forget(region))

    # --- wishes ---------------------------------------------------------------

    def _on_faulted(self, event: m.Faulted) -> None:
        self.counters["faults"] += 1
        table = self._tables.get(event.client)
        place = table.find(event.address) if table else None
        if place is None:
            # Old news of memory that is gone; or else it will fault again.
            self._out.append(m.Wake(event.client, event.address))
            return
        region, page = place
        state = self._regions[region]
        units = state.geometry.units_of_page(page)
        is_lost = any(state.is_absent(unit) for unit in range(*units))
        if state.is_installed(page):
            self._on_resident_fault(region, state, event.client, page)
        else:
            self._await_page(region, state, event.client, page)
        self._look_ahead(region, state, event.client, units, is_lost=is_lost)

    def _look_ahead(
        self, region: int, state: RegionState, client: int, units: Span, *, is_lost: bool
    ) -> None:
        """Have units loaded that whoever has come to these will come to next.

        Where memory is full, only as many are read ahead as stay until they are read.
        """
        if not self._lookahead.window_nbytes:
            return
        now, new_nbytes = self._policy.now, self._policy.nursery_nbytes
        room_nbytes = self._room.free_nbytes
        if state.shared:
            # By the time that so much has come after it, a unit is out, or is kept.
            self._lookahead.forget_before(now - new_nbytes)
            room_nbytes = max(room_nbytes, new_nbytes // 2 - self._lookahead.unread_nbytes)
        ahead = self._lookahead.after(
            region, state, units, is_lost=is_lost, room_nbytes=room_nbytes
        )
        for unit in ahead.units:
            is_mark = unit == ahead.mark
            if is_mark and not state.can_mark(unit):
                continue  # left to whoever comes there
            nbytes = state.geometry.unit_nbytes if state.shared else 0
            self._lookahead.add((region, unit), nbytes, now)
            self._begin(region, state, unit, client, urgent=False, mark=is_mark)

    def _await_page(self, region: int, state: RegionState, client: int, page: int) -> None:
        """Load what a page lacks, with a thread that waits for it."""
        for unit in range(*state.geometry.units_of_page(page)):
            if unit not in state.resident:
                is_late = unit in state.loading
                loading = self._begin(region, state, unit, client, urgent=True, page=page)
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
            self._policy.touch((region, units.start))
            pages = state.geometry.body_pages(units.start)
            self._out.append(
                m.MapPages(region, client, pages if page in pages else Span(page, page + 1))
            )
        elif page not in state.suspects:
            state.suspects.add(page)
            self._out.append(m.MapPages(region, client, Span(page, page + 1)))
        else:
            self._reload(region, state, page, client)

    def _on_hole_found(self, event: m.HoleFound) -> None:
        state = self._regions.get(event.region)
        if state is not None and event.client in state.addresses:
            self._reload(event.region, state, event.page, event.client)

    def _reload(self, region: int, state: RegionState, page: int, client: int) -> None:
        """Load the units of a page that is not what the record says."""
        state.suspects.discard(page)
        for unit in range(*state.geometry.units_of_page(page)):
            if unit in state.resident:
                self._take_out(region, state, unit)
        self._await_page(region, state, client, page)

    def _on_requested(self, event: m.Requested) -> None:
        self.counters["requests"] += 1
        state = self._regions.get(event.region)
        key = (event.client, event.ticket)
        request = self._requests[key] = _Request()
        if state is not None and event.client in state.addresses:
            spans = [span & Span(0, state.geometry.n_units) for span in event.units]
            is_lost = any(state.is_absent(unit) for span in spans for unit in range(*span))
            for span in spans:
                for unit in range(*span):
                    self._request_unit(event, state, unit, key, request)
            if len(spans) == 1 and spans[0].size:
                # One that asks for units here and there knows what it wants.
                self._look_ahead(event.region, state, event.client, spans[0], is_lost=is_lost)
        self._advance(key, None)

    def _request_unit(
        self,
        event: m.Requested,
        state: RegionState,
        unit: int,
        key: tuple[int, int],
        request: _Request,
    ) -> None:
        if unit in state.resident:
            self._policy.touch((event.region, unit))
            return
        loading = self._begin(event.region, state, unit, event.client, urgent=event.urgent)
        if key not in loading.requests:
            loading.requests.add(key)
            request.remaining += 1
            request.nbytes += state.geometry.unit_nbytes
            self._asked_nbytes += state.geometry.unit_nbytes

    def _begin(
        self,
        region: int,
        state: RegionState,
        unit: int,
        client: int,
        *,
        urgent: bool,
        page: int | None = None,
        mark: bool = False,
    ) -> Loading:
        """Return the load under way for a unit, started if need be; `page` is awaited."""
        loading = state.loading.get(unit)
        if loading is None:
            if state.shared:
                self._room.loading_nbytes += state.unit_nbytes(unit)
            loading = Loading(client, is_urgent=urgent, is_marked=mark)
            state.loading[unit] = loading
            self._out.append(m.Load(region, unit, client, urgent, page, mark))
        elif urgent and not loading.is_urgent:
            loading.is_urgent = True
            self._out.append(m.Promote(region, unit))
        return loading

    def _advance(
        self, key: tuple[int, int], failure: m.Failure | None, unit: int | None = None
    ) -> None:
        """Take one unit off a request; after the last, answer it with failures in order."""
        request = self._requests.get(key)
        if request is None:
            return
        request.remaining -= 1
        if failure is not None and unit is not None:
            request.failures[unit] = failure
        if request.remaining == 0:
            del self._requests[key]
            self._asked_nbytes -= request.nbytes
            failures = tuple(request.failures[unit] for unit in sorted(request.failures))
            self._out.append(m.Answer(*key, failures))

    # --- loads end ------------------------------------------------------------

    def _end(self, region: int, unit: int) -> tuple[RegionState, Loading]:
        state = self._regions[region]
        if state.shared:
            self._room.loading_nbytes -= state.unit_nbytes(unit)
        return state, state.loading.pop(unit)

    def _on_loaded(self, event: m.Loaded) -> None:
        state, loading = self._end(event.region, event.unit)
        if loading.is_dropped:
            self._start_over(event, state, loading)
            return
        if state.addresses:
            self._enter(event.region, state, event.unit)
            if event.fragments:
                self._add_fragments(event, state)
            self._out.append(m.Publish(event.region, event.unit, resident=True))
            if loading.faults or state.poisoned:
                self._serve(event, state, loading)
        else:
            # Nobody is left in whose memory its shared pages could be installed.
            self._punch_body(event.region, state, event.unit)
        for key in loading.requests:
            self._advance(key, None)
        if state.leaving or not state.addresses:
            self._settle_leaving(event.region, state)

    def _enter(self, region: int, state: RegionState, unit: int) -> None:
        """Take down that the pages which a unit fills alone are there."""
        nbytes = state.unit_nbytes(unit)
        self.counters["units_loaded"] += 1
        self.counters["bytes_installed"] += nbytes
        state.resident.add(unit)
        self._room.take(state, state.body_nbytes(unit))
        if state.shared:
            self._newest = (region, unit)
            self._policy.add(self._newest, nbytes)

    def _add_fragments(self, event: m.Loaded, state: RegionState) -> None:
        """Keep a unit's shares of other pages, and have those installed that are whole now."""
        held_nbytes = state.edges.held_nbytes
        client = event.client
        if client not in state.addresses:
            client = next(iter(state.addresses))
        for fragment in event.fragments:
            data = state.edges.add(event.unit, fragment)
            if data is not None:
                self._out.append(m.InstallPage(event.region, fragment.page, client, data))
        self._room.take(state, state.edges.held_nbytes - held_nbytes)

    def _serve(self, event: m.Loaded, state: RegionState, loading: Loading) -> None:
        """Map a unit for who waits, but for those whom the install has woken.

        A page that it shares may lack another unit still, or again.
        """
        body = state.geometry.body_pages(event.unit)
        waiters = sorted(loading.faults | state.take_healed(event.unit))
        installed_in = None if loading.is_marked else event.client
        for client in dict.fromkeys(client for client, page in waiters if page in body):
            if client != installed_in:
                self._out.append(m.MapPages(event.region, client, body))
        for client, page in waiters:
            if page in body:
                is_lost = client == installed_in and (client, page) in loading.late
            elif not state.is_installed(page):
                self._await_page(event.region, state, client, page)
                continue
            else:
                is_lost = client != event.client
            if is_lost:
                self._out.append(m.MapPages(event.region, client, Span(page, page + 1)))

    def _on_load_failed(self, event: m.LoadFailed) -> None:
        self.counters["errors"] += 1
        state, loading = self._end(event.region, event.unit)
        self._lookahead.remove((event.region, event.unit))
        self._punch_body(event.region, state, event.unit)
        for client in sorted({client for client, _ in loading.faults}):
            pages = tuple(sorted(page for who, page in loading.faults if who == client))
            self._out.append(m.Poison(event.region, client, pages, event.failure))
        state.poison(loading.faults)
        for key in loading.requests:
            self._advance(key, event.failure, event.unit)
        self._settle_leaving(event.region, state)

    def _on_stranded(self, event: m.Stranded) -> None:
        """Load again for somebody else who waits and is still there."""
        state, loading = self._end(event.region, event.unit)
        self._lookahead.remove((event.region, event.unit))
        waiting = [*loading.faults, *loading.requests]
        clients = [c for c, _ in waiting if c != event.client and c in state.addresses]
        if not clients:
            self._punch_body(event.region, state, event.unit)
        self._load_again(event, state, loading, clients)

    def _start_over(self, event: m.Loaded, state: RegionState, loading: Loading) -> None:
        """Load a unit again that was evicted on its way, for those who came to wait since."""
        self._punch_body(event.region, state, event.unit)
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
                self._advance(key, None)
        if clients:
            again = self._begin(event.region, state, event.unit, clients[0], urgent=True)
            again.faults = {f for f in loading.faults if f[0] in clients}
            again.requests = {r for r in loading.requests if r[0] in clients}
        self._settle_leaving(event.region, state)

    # --- eviction -------------------------------------------------------------

    def _on_eviction_asked(self, event: m.EvictionAsked) -> None:
        state = self._regions.get(event.region)
        if state is not None and state.shared:
            for unit in range(*(event.units & Span(0, state.geometry.n_units))):
                if unit in state.resident and not state.is_awaited(unit):
                    self._evict(event.region, state, unit)
                elif unit in state.loading and not state.loading[unit].is_urgent:
                    # It was to be read ahead: nobody waits for it.
                    state.loading[unit].is_dropped = True
                    self._lookahead.remove((event.region, unit))
        self._out.append(m.Answer(event.client, event.ticket))

    def _on_advised(self, event: m.Advised) -> None:
        state = self._regions.get(event.region)
        if state is not None:
            self._lookahead.advise(event.region, state, event.units, event.advice)
        self._out.append(m.Answer(event.client, event.ticket))

    def _on_readahead_changed(self, event: m.ReadaheadChanged) -> None:
        self._lookahead.window_nbytes = event.window_nbytes

    def _on_limit_changed(self, event: m.LimitChanged) -> None:
        self._room.limit_nbytes = event.limit_nbytes

    def _on_scratch_grew(self, event: m.ScratchGrew) -> None:
        self._room.scratch_nbytes += event.nbytes

    def _make_room(self) -> None:
        """Evict until what is resident and on its way fits, or nothing is left that may go."""
        while self._room.is_short:
            victim = self._policy.victim(self._must_stay, self._asked_nbytes)
            if victim is None:
                return
            region, unit = victim
            self._policy.evict(victim)
            self._lookahead.evict(victim)
            self._evict(region, self._regions[region], unit)

    def _must_stay(self, key: tuple[int, int]) -> bool:
        region, unit = key
        return key == self._newest or self._regions[region].is_awaited(unit)

    def _evict(self, region: int, state: RegionState, unit: int) -> None:
        self.counters["evictions"] += 1
        self._take_out(region, state, unit)

    def _take_out(self, region: int, state: RegionState, unit: int) -> None:
        """Take a unit out, and with it the shared pages that no resident unit needs."""
        state.resident.discard(unit)
        self._policy.remove((region, unit))
        self._lookahead.remove((region, unit))
        self._out.append(m.Publish(region, unit, resident=False))
        held_nbytes = state.edges.held_nbytes
        state.edges.discard(unit, state.geometry.edge_pages(unit))
        self._punch_body(region, state, unit)
        for page in state.geometry.edge_pages(unit):
            units = range(*state.geometry.units_of_page(page))
            if state.edges.is_installed(page) and not any(u in state.resident for u in units):
                state.edges.uninstall(page)
                self._punch(region, state, Span(page, page + 1))
        held_nbytes -= state.edges.held_nbytes
        self._room.take(state, -state.body_nbytes(unit) - held_nbytes)

    def _punch_body(self, region: int, state: RegionState, unit: int) -> None:
        self._punch(region, state, state.geometry.body_pages(unit))

    def _punch(self, region: int, state: RegionState, pages: Span) -> None:
        """Take pages out; private memory keeps them, and an install over them does nothing."""
        if state.shared and pages.size:
            self._out.append(m.Punch(region, pages))

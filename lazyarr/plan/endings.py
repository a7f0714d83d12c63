"""How loads end, and what that means for those who wait."""

from __future__ import annotations

from lazyarr.plan import messages as m
from lazyarr.plan.members import Members
from lazyarr.plan.memory import Memory
from lazyarr.plan.regions import Loading, RegionState
from lazyarr.plan.requests import Requests, Ticket
from lazyarr.units import Span

__all__ = ["Endings"]


class Endings:
    """Serves threads and requests that wait for units.

    Parameters
    ----------
    memory, members, requests
        The machine's.
    """

    def __init__(self, memory: Memory, members: Members, requests: Requests) -> None:
        self._memory = memory
        self._members = members
        self._requests = requests

    def __repr__(self) -> str:
        return f"<Endings: {self._requests!r}>"

    def advance(self, ticket: Ticket, failure: m.Failure | None = None, unit: int = 0) -> None:
        """Take one step off a request, and answer it after the last."""
        self._memory.commands += self._requests.advance(ticket, failure, unit)

    def on_arrived(self, event: m.Arrived) -> None:
        """Answer the request that waits for no more than what is there."""
        loading = self._memory.regions[event.region].loading[event.unit]
        if loading.pick in loading.requests and not loading.is_dropped:
            loading.told = event.pages
            loading.requests.discard(loading.pick)
            self.advance(loading.pick)

    def on_loaded(self, event: m.Loaded) -> None:
        """Take down that a unit is installed; serve who waits for it."""
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
            self.advance(key)
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
                self._memory.await_page(event.region, state, client, page)
                continue
            else:
                is_lost = client != event.client
            if is_lost:
                self._memory.commands.append(m.MapPages(event.region, client, Span(page, page + 1)))

    def on_load_failed(self, event: m.LoadFailed) -> None:
        """Poison the threads that wait for a unit, and answer the requests."""
        self._memory.counters["errors"] += 1
        state, loading = self._memory.end(event.region, event.unit)
        self._memory.lookahead.remove((event.region, event.unit))
        if loading.is_dropped:
            self._start_over(event, state, loading)
            return
        # Who was told that its pages are there has them, and may look at them any time.
        self._memory.leave(event.region, state, event.unit, loading.told)
        for client in sorted({client for client, _ in loading.faults}):
            pages = tuple(sorted(page for who, page in loading.faults if who == client))
            self._memory.commands.append(m.Poison(event.region, client, pages, event.failure))
        state.poison(loading.faults)
        for key in loading.requests:
            self.advance(key, event.failure, event.unit)
        self._members.settle_leaving(event.region, state)

    def on_stranded(self, event: m.Stranded) -> None:
        """Load again for somebody else who waits and is still there."""
        state, loading = self._memory.end(event.region, event.unit)
        self._memory.lookahead.remove((event.region, event.unit))
        waiting = [*loading.faults, *loading.requests]
        clients = [c for c, _ in waiting if c != event.client and c in state.addresses]
        self._memory.punch_body(event.region, state, event.unit)
        self._load_again(event, state, loading, clients)

    def _start_over(
        self, event: m.Loaded | m.LoadFailed, state: RegionState, loading: Loading
    ) -> None:
        """Load a unit again that was evicted on its way, for those who came to wait since."""
        self._memory.punch_body(event.region, state, event.unit)
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
                self.advance(key)
        if clients:
            again = self._memory.begin(event.region, state, event.unit, clients[0], urgent=True)
            again.faults = {f for f in loading.faults if f[0] in clients}
            again.requests = {r for r in loading.requests if r[0] in clients}
        self._members.settle_leaving(event.region, state)

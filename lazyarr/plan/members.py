"""Which clients have which regions, and where; and when a client may unmap one."""

from __future__ import annotations

from lazyarr.plan import messages as m
from lazyarr.plan.memory import Memory
from lazyarr.plan.regions import AddressTable, RegionState

__all__ = ["Members"]


class Members:
    """The clients of all regions.

    Parameters
    ----------
    memory : Memory
        Holds the regions.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._tables: dict[int, AddressTable] = {}

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
        if event.region not in self._memory.regions:
            self._memory.regions[event.region] = RegionState(
                event.geometry, shared=event.shared, remote=event.remote
            )

    def on_attached(self, event: m.Attached) -> None:
        """Take down where a client has mapped a region."""
        self.on_opened(event)
        state = self._memory.regions[event.region]
        state.reserved.discard(event.client)
        state.addresses[event.client] = event.address
        table = self._tables.setdefault(event.client, AddressTable())
        table.add(event.address, event.region, event.geometry)

    def on_reserved(self, event: m.Reserved) -> None:
        """Keep regions for a client that will have them."""
        for region in event.regions:
            if region in self._memory.regions:
                self._memory.regions[region].reserved.add(event.client)

    def on_detached(self, event: m.Detached) -> None:
        """Let a client unmap a region as soon as nothing is on its way into it."""
        state = self._memory.regions.get(event.region)
        if state is None or event.client not in state.addresses:
            self._memory.commands.append(m.Answer(event.client, event.ticket))
            if state is not None and event.client in state.reserved:
                state.reserved.discard(event.client)
                self.settle_leaving(event.region, state)
            return
        address = state.addresses.pop(event.client)
        self._tables[event.client].remove(address)
        # Nobody should be waiting; if somebody is, munmap alone would not end it.
        for page in state.drop_waiters(event.client):
            place = address + page * state.geometry.page_nbytes
            self._memory.commands.append(m.Wake(event.client, place))
        state.leaving[event.client] = event.ticket
        self.settle_leaving(event.region, state)

    def on_client_left(self, event: m.ClientLeft) -> None:
        """Forget a client, and the regions that nobody else has."""
        self._tables.pop(event.client, None)
        for region, state in list(self._memory.regions.items()):
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
                self._memory.commands.append(m.Answer(client, ticket))
        if not (state.addresses or state.reserved or state.leaving or state.loading):
            self._memory.forget(region, state)

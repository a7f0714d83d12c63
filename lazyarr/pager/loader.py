"""Carries units from their sources into clients' memory, outside of the executor's lock."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from lazyarr.errors import ChunkError, LazyarrError, PagerError
from lazyarr.kernel import PAGE_NBYTES, Stop, punch_hole
from lazyarr.pager import installer
from lazyarr.pager.front import Front
from lazyarr.pager.log import report
from lazyarr.plan import messages as m
from lazyarr.units import Span

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazyarr.loading.source import Fetched
    from lazyarr.loading.workspace import Workspace
    from lazyarr.pager.clients import Client, Region
    from lazyarr.pager.measure import Measurements
    from lazyarr.plan.machine import Machine
    from lazyarr.plan.regions import RegionState

__all__ = ["GONE", "Loader", "awaited_bytes", "is_worth_parts"]

# As much as is installed while the thread that waits would still be waking up.
_FIRST_PAGES = 16
# Decoding in parts costs a twentieth more, for zstd keeps a window of its own then.
_PARTS_NBYTES = 256 << 10
GONE = frozenset({Stop.EXITED, Stop.UNMAPPED})
"""How an install ends when there is nobody to install for."""


class Loader:
    """Reads, decodes and installs.

    Parameters
    ----------
    machine : Machine
        Knows where each client has each region; asked, and told nothing.
    clients, regions : dict
        The executor's.
    measurements : Measurements
        Where times go.
    arrived : callable
        Told of a load when the pages that are waited for are installed, if that is wanted.
    """

    def __init__(
        self,
        machine: Machine,
        clients: dict[int, Client],
        regions: dict[int, Region],
        measurements: Measurements,
        *,
        arrived: Callable[[m.Load], None],
    ) -> None:
        self._machine = machine
        self._clients = clients
        self._regions = regions
        self._measurements = measurements
        self._arrived = arrived

    def __repr__(self) -> str:
        return f"<Loader: {len(self._clients)} clients, {len(self._regions)} regions>"

    def load(
        self, command: m.Load, workspace: Workspace, fetched: Fetched | None = None
    ) -> m.Loaded | m.LoadFailed | m.Stranded:
        """Decode a unit, install it, and return how that ended."""
        try:
            return self._load(command, workspace, fetched)
        except BaseException as error:  # noqa: BLE001 - whoever waits must be told
            return self.failed(command, error)

    def _load(
        self, command: m.Load, workspace: Workspace, fetched: Fetched | None
    ) -> m.Loaded | m.Stranded:
        region, unit, client = command.region, command.unit, command.client
        state = self._machine.region(region)
        assert state is not None
        source = self._regions[region].source
        begin = time.perf_counter()
        # Whole pages of whole units have a short way: the same, without the exceptions.
        front = has_bytes = None
        has_begun = command.replaces
        if fetched is None and unit < state.n_plain_units and not command.replaces:
            front = self._front(command, state, workspace)
            progress = front if is_worth_parts(command, state) else None
            has_bytes = source.load_quickly(unit, workspace, may_wait=True, progress=progress)
            has_begun = has_bytes is None and front is not None and front.has_begun
        if has_bytes is None:
            front, has_bytes = None, source.load(unit, workspace, fetched)
        decoded = time.perf_counter()
        if self._machine.is_dropped(region, unit):
            return m.Loaded(region, unit, client, ())
        if has_begun:
            self._take_out(region, state.geometry.body_pages(unit))
        if not (has_bytes and front and front.finish()):
            stop = self._install_body(command, state, workspace if has_bytes else None)
            if stop in GONE:
                return m.Stranded(region, unit, client)
            if stop is not Stop.DONE:
                raise PagerError(f"the kernel could not install a page: {stop.value}")
        self._measurements.add_load(decoded - begin, time.perf_counter() - decoded)
        view = workspace.unit.view if has_bytes else None
        return m.Loaded(region, unit, client, _fragments(state, unit, view))

    def _front(self, command: m.Load, state: RegionState, workspace: Workspace) -> Front | None:
        """Return what installs a unit of whole pages; None where another way must be gone."""
        owner = self._clients.get(command.client)
        start = state.addresses.get(command.client)
        if owner is None or start is None or command.mark:
            return None
        copy_at_once = owner.uffd.copy_at_once
        nbytes = state.geometry.unit_nbytes
        address = start + command.unit * nbytes

        def copy(begin: int, end: int) -> bool:
            return copy_at_once(address + begin, workspace.unit.address + begin, end - begin)

        arrived = partial(self._arrived, command) if command.is_pick else None
        return Front(copy, nbytes, awaited_bytes(command, state), arrived)

    def _install_body(
        self, command: m.Load, state: RegionState, workspace: Workspace | None
    ) -> Stop:
        """Install the pages that a unit fills alone; zeros when there is no workspace."""
        unit_start = state.geometry.unit_bytes(command.unit).start
        body = state.geometry.body_pages(command.unit)
        if command.mark and self._fill(command.region, body, unit_start, workspace):
            return Stop.DONE
        for pages in _in_order(body, command.awaited):
            skip = pages.start * PAGE_NBYTES - unit_start
            stop = self.install(
                command.region,
                command.client,
                pages.start,
                pages.size,
                source=workspace.unit.address + skip if workspace else None,
                data=workspace.unit.view[skip:] if workspace else None,
            )
            if stop is not Stop.DONE:
                return stop
        return Stop.DONE

    def _take_out(self, region: int, pages: Span) -> None:
        """Take out what may be of another version than what is installed next."""
        backing = self._regions[region].backing
        if backing is not None and pages.size:
            start = backing.offset + pages.start * PAGE_NBYTES
            punch_hole(backing.memfd, start, pages.size * PAGE_NBYTES)

    def _fill(self, region: int, body: Span, unit_start: int, workspace: Workspace | None) -> bool:
        """Bring a unit's pages into the memory object alone; return whether that was done."""
        backing = self._regions[region].backing
        if backing is None:
            return False
        start = body.start * PAGE_NBYTES
        place = backing._replace(offset=backing.offset + start)
        data = workspace.unit.view[start - unit_start :] if workspace else None
        return installer.fill(place, body.size * PAGE_NBYTES, data)

    def install(
        self,
        region: int,
        client: int,
        page: int,
        n_pages: int,
        *,
        source: int | None,
        data: memoryview | None,
    ) -> Stop:
        """Install pages of a region in a client; return `Stop.DONE`, or why not all are in."""
        state = self._machine.region(region)
        owner = self._clients.get(client)
        address = state.addresses.get(client) if state else None
        if owner is None or address is None:
            return Stop.EXITED
        offset = page * PAGE_NBYTES
        backing = self._regions[region].backing
        return installer.install(
            owner.uffd,
            address + offset,
            n_pages * PAGE_NBYTES,
            source=source,
            data=data,
            backing=backing and backing._replace(offset=backing.offset + offset),
        )

    def failed(self, command: m.Load, error: BaseException) -> m.LoadFailed:
        """Return the event for a load that went wrong."""
        if isinstance(error, ChunkError):
            names = ("url", "array", "chunk", "key", "byte_range", "reason")
            fields = {name: getattr(error, name) for name in names}
            failure = m.Failure(error.message, fields)
        else:
            label = self._regions[command.region].label
            reason = f"{type(error).__name__}: {error}"
            failure = m.Failure(f"unit {command.unit} of {label}: {reason}", {"reason": reason})
            if not isinstance(error, LazyarrError):
                report(f"unexpected {reason} while loading unit {command.unit} of {label}")
        return m.LoadFailed(command.region, command.unit, command.client, failure)


def awaited_bytes(command: m.Load, state: RegionState) -> Span | None:
    """Return which bytes of a unit of whole pages somebody waits for."""
    if command.awaited is None:
        return None
    first = command.unit * state.geometry.unit_pages
    start, stop = command.awaited
    return Span((start - first) * PAGE_NBYTES, (stop - first) * PAGE_NBYTES)


def is_worth_parts(command: m.Load, state: RegionState) -> bool:
    """Return whether a unit is to be installed while it is decoded, if it can be.

    When a thread waits for some of its pages.  Not in private memory, where what is installed
    of a chunk that does not decompress to its end could not be taken out.
    """
    is_large = state.geometry.unit_nbytes >= _PARTS_NBYTES
    return command.awaited is not None and state.shared and is_large


def _in_order(body: Span, awaited: Span | None) -> list[Span]:
    """Return a unit's pages in the order in which they are installed.

    A thread that waits for a page goes on when that is there, while the rest is still
    copied: half a millisecond sooner for a unit of a mebibyte.
    """
    if awaited is None or awaited.start not in body or body.size <= 2 * _FIRST_PAGES:
        return [body] if body.size else []
    first = Span(awaited.start, min(awaited.start + _FIRST_PAGES, body.stop))
    return [
        first,
        *(s for s in (Span(first.stop, body.stop), Span(body.start, first.start)) if s.size),
    ]


def _fragments(state: RegionState, unit: int, view: memoryview | None) -> tuple[m.Fragment, ...]:
    """Return a unit's shares of the pages that it does not fill alone."""
    geometry = state.geometry
    if geometry.unit_pages:
        return ()
    span = geometry.unit_bytes(unit)
    fragments = []
    for page in geometry.edge_pages(unit):
        page_start = page * geometry.page_nbytes
        share = span & geometry.page_bytes(page)
        if view is None:
            data = bytes(share.size)
        else:
            data = bytes(view[share.start - span.start : share.stop - span.start])
        fragments.append(m.Fragment(page, share.start - page_start, data))
    return tuple(fragments)

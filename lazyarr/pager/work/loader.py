"""Reads units, decodes them and installs them in clients' memory, outside of the lock.

The pages that a thread waits for are installed first (`ProgressiveInstall`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from lazyarr.errors import ChunkError, LazyarrError, PagerError
from lazyarr.kernel import PAGE_NBYTES, InstallMode, Stop
from lazyarr.pager.log import report
from lazyarr.pager.memory import installer
from lazyarr.plan import messages as m
from lazyarr.shortage import describe_shortage, lacks_descriptors
from lazyarr.units import Span

if TYPE_CHECKING:
    from lazyarr.pager.work.core import Core
    from lazyarr.plan.regions import RegionState
    from lazyarr.reading.workspace import Fetched, Workspace

__all__ = ["GONE", "Loader", "ProgressiveInstall", "arrived", "awaited_bytes", "is_worth_parts"]

# How long a load waits for descriptors, beyond the time that the store's own retries take.
_SHORT_SECONDS = 10.0
_PAUSE_SECONDS = 0.05

# Decoding in parts takes a twentieth longer, for zstd keeps a window of its own then.
# So smaller units are decoded first and installed then.
_PARTS_NBYTES = 256 << 10
# A plain int: flag arithmetic on members of an enumeration costs a microsecond.
_DONTWAKE = int(InstallMode.DONTWAKE)
GONE = frozenset({Stop.EXITED, Stop.UNMAPPED})
"""How an install ends when the client, or its mapping, is gone."""

Copy: TypeAlias = Callable[[int, int], bool]
"""Installs the bytes [start, stop) of a unit; returns whether all of them are installed."""

# The pager installs so much while the thread that waits is still waking up.  Of a unit of a
# mebibyte, the thread has its page half a millisecond sooner than if all came first.
_FIRST_NBYTES = 64 << 10


class ProgressiveInstall:
    """Installs a unit of whole pages, beginning with the pages that a thread waits for.

    A thread that waits in a fault goes on when its page is installed.  One that waits in a
    request goes on when the pager tells it so.  The rest of the unit is copied, or even decoded,
    after that.  Where chunks are decoded in parts this is half a chunk sooner on average.

    Parameters
    ----------
    copy : callable
        Installs a part of the unit.
    nbytes : int
        Size of the unit.
    awaited : Span or None
        The bytes of the pages that a thread waits for; None when none waits for some pages.
    arrived : callable, optional
        Called when the awaited pages are installed, if that is before the others.
    page_nbytes : int
        Size in bytes of the pages.

    Attributes
    ----------
    first : int
        Where the awaited pages begin, in bytes from the unit's start.
    """

    def __init__(
        self,
        copy: Copy,
        nbytes: int,
        awaited: Span | None,
        arrived: Callable[[], None] | None = None,
        *,
        page_nbytes: int = PAGE_NBYTES,
    ) -> None:
        self._copy = copy
        self._nbytes = nbytes
        self._page_nbytes = page_nbytes
        # A smaller unit is installed by one call, which is over while the thread is
        # still waking up.
        self._is_awaited = awaited is not None and nbytes > 2 * _FIRST_NBYTES
        self._awaited = awaited or Span(0, 0)
        self.first = self._next = self._awaited.start
        self._arrived = arrived if self._is_awaited else None
        self._is_right = True

    def __repr__(self) -> str:
        return (
            f"<ProgressiveInstall: [{self.first}, {self._next}) of {self._nbytes} bytes installed>"
        )

    @property
    def has_begun(self) -> bool:
        """Whether any page may have been installed."""
        return self._next > self.first

    def advance(self, nbytes: int) -> None:
        """Install what is decoded, from `first` on, as far as whole pages go.

        Parameters
        ----------
        nbytes : int
            How many bytes of the unit are decoded, from its start.
        """
        # A page cannot be installed in part.  A chunk may be longer than the array's part of it.
        stop = min(nbytes & -self._page_nbytes, self._nbytes)
        start = self._next
        if self._is_awaited and start == self.first:
            # Only where enough is decoded to be worth two calls.
            ahead = max(start + _FIRST_NBYTES, self._awaited.stop)
            if ahead + _FIRST_NBYTES < stop:
                self._install(start, ahead)
                start = ahead
        if stop > start:
            self._install(start, stop)

    def finish(self) -> bool:
        """Install all the rest; return whether everything is installed, False if in doubt."""
        self.advance(self._nbytes)
        if self.first:
            self._next = 0
            self._install(0, self.first)
        return self._is_right

    def _install(self, start: int, stop: int) -> None:
        """Install a part, unless one has failed; tell of the awaited pages when they are in."""
        # After a failure nothing more is tried: the caller finds out why, and installs all again.
        self._is_right = self._is_right and self._copy(start, stop)
        self._next = stop
        if self._arrived and self._is_right and stop >= self._awaited.stop:
            arrived, self._arrived = self._arrived, None
            arrived()


class Loader:
    """Reads, decodes and installs units.

    Parameters
    ----------
    core : Core
        Knows where each client has each region.  The loader gives it one event, `Arrived`: the
        pages that a request waits for are installed, and the rest of their unit is not yet.

    Attributes
    ----------
    spare_descriptors : callable
        Closes files that are kept open for later reads.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self.spare_descriptors: Callable[[], None] = lambda: None

    def __repr__(self) -> str:
        return f"<Loader: {self._core!r}>"

    def load(
        self, command: m.Load, workspace: Workspace, fetched: Fetched | None = None
    ) -> m.Loaded | m.LoadFailed | m.Stranded:
        """Decode a unit, install it, and return the event that tells how the load ended."""
        # A lack of descriptors says nothing of the unit, so the load is tried again when some may
        # be free.
        deadline = time.monotonic() + _SHORT_SECONDS
        while True:
            try:
                return self._load(command, workspace, fetched)
            except BaseException as error:  # noqa: BLE001 - every load ends in an event, for clients wait
                if not lacks_descriptors(error) or time.monotonic() > deadline:
                    return self.failed(command, error)
            self.spare_descriptors()
            time.sleep(_PAUSE_SECONDS)

    def _load(
        self, command: m.Load, workspace: Workspace, fetched: Fetched | None
    ) -> m.Loaded | m.Stranded:
        """Decode a unit and install it; raise what went wrong."""
        region, unit, client = command.region, command.unit, command.client
        state = self._core.machine.region(region)
        assert state is not None
        source = self._core.regions[region].source
        begin = time.perf_counter()
        # A unit of whole pages from an open shard goes a shorter way, which knows no special case.
        # It may begin to install while it decodes.  Where it cannot go on, `source.load` decodes
        # the chunk again, and heals the fault or names the chunk.
        progressive = has_bytes = None
        has_begun = command.replaces
        if fetched is None and unit < state.n_plain_units and not command.replaces:
            progressive = self._make_install(command, state, workspace)
            progress = progressive if is_worth_parts(command, state) else None
            has_bytes = source.load_quickly(unit, workspace, may_wait=True, progress=progress)
            has_begun = has_bytes is None and progressive is not None and progressive.has_begun
        if has_bytes is None:
            progressive, has_bytes = None, source.load(unit, workspace, fetched)
        decoded = time.perf_counter()
        # Evicted on its way: an install would be taken out again.  Only a saving, so the lock is
        # not taken for it.  A unit that is dropped after this look is punched out by `Loaded`.
        if self._core.machine.is_dropped(region, unit):
            return m.Loaded(region, unit, client, ())
        if has_begun:
            # The pages that are installed already may be of another version of the chunk.  Two
            # versions are never mixed, so they are taken out first.
            self._core.regions[region].punch(state.geometry.body_pages(unit))
        if not (has_bytes and progressive and progressive.finish()):
            stop = self._install_body(command, state, workspace if has_bytes else None)
            # The bytes were right.  Other clients that wait for the unit can still have it.
            if stop in GONE:
                return m.Stranded(region, unit, client)
            if stop is not Stop.DONE:
                raise PagerError(f"the kernel could not install a page: {stop.value}")
        self._core.measurements.add_load(decoded - begin, time.perf_counter() - decoded)
        view = workspace.unit.view if has_bytes else None
        return m.Loaded(region, unit, client, _fragments(state, unit, view))

    def _make_install(
        self, command: m.Load, state: RegionState, workspace: Workspace
    ) -> ProgressiveInstall | None:
        """Return what installs a unit of whole pages; None where `_install_body` must do it.

        That is where the client is gone, or the unit is a mark.
        """
        owner = self._core.clients.get(command.client)
        start = state.addresses.get(command.client)
        if owner is None or start is None or command.mark:
            return None
        copy_at_once = owner.uffd_of(state.kind).copy_at_once
        mode = _mode_of(command, state)
        nbytes = state.geometry.unit_nbytes
        address = start + command.unit * nbytes

        def copy(begin: int, end: int) -> bool:
            return copy_at_once(address + begin, workspace.unit.address + begin, end - begin, mode)

        # A thread in a fault needs no message: the install wakes it.
        tell = partial(self._core.handle, [arrived(command)]) if command.is_pick else None
        awaited, page_nbytes = awaited_bytes(command, state), state.geometry.page_nbytes
        return ProgressiveInstall(copy, nbytes, awaited, tell, page_nbytes=page_nbytes)

    def _install_body(
        self, command: m.Load, state: RegionState, workspace: Workspace | None
    ) -> Stop:
        """Install the pages that a unit fills alone; zeros when there is no workspace."""
        # Pages that several units fill are the machine's to complete: `_fragments` has the unit's
        # shares of them.
        page_nbytes = state.geometry.page_nbytes
        body = state.geometry.body_pages(command.unit)
        skip = body.start * page_nbytes - state.geometry.unit_bytes(command.unit).start
        if command.mark and self._fill(command.region, body, skip, workspace):
            return Stop.DONE
        stop = Stop.DONE

        def copy(begin: int, end: int) -> bool:
            nonlocal stop
            stop = self.install(
                command.region,
                command.client,
                Span(body.start + begin // page_nbytes, body.start + end // page_nbytes),
                source=workspace.unit.address + skip + begin if workspace else None,
                data=workspace.unit.view[skip + begin :] if workspace else None,
                wakes=not command.writes,
            )
            return stop is Stop.DONE

        awaited = command.awaited and _bytes_of(command.awaited, body, page_nbytes)
        nbytes = body.size * page_nbytes
        ProgressiveInstall(copy, nbytes, awaited, page_nbytes=page_nbytes).finish()
        return stop

    def _fill(self, region: int, body: Span, skip: int, workspace: Workspace | None) -> bool:
        """Write a unit's pages to the memory object alone; return whether that was done."""
        page_nbytes = self._core.regions[region].kind.page_nbytes
        backing = self._core.regions[region].backing_at(body.start * page_nbytes)
        if backing is None:
            return False
        data = workspace.unit.view[skip:] if workspace else None
        return installer.fill(backing, body.size * page_nbytes, data)

    def install(
        self,
        region: int,
        client: int,
        pages: Span,
        *,
        source: int | None,
        data: memoryview | None,
        wakes: bool = True,
    ) -> Stop:
        """Install pages of a region in a client; return `Stop.DONE`, or why not all are in."""
        # Looked up now, outside of the lock: the client may have ended since the load began.  Its
        # descriptors are still open, for `Core` counts the loads into its memory.
        state = self._core.machine.region(region)
        owner = self._core.clients.get(client)
        address = state.addresses.get(client) if state else None
        if owner is None or address is None:
            return Stop.EXITED
        found = self._core.regions[region]
        page_nbytes = found.kind.page_nbytes
        offset = pages.start * page_nbytes
        return installer.install(
            owner.uffd_of(found.kind),
            address + offset,
            pages.size * page_nbytes,
            source=source,
            data=data,
            backing=found.backing_at(offset),
            page_nbytes=page_nbytes,
            mode=found.kind.copy_mode | (0 if wakes else _DONTWAKE),
            copies_zeros=found.kind.writes_back,
        )

    def failed(self, command: m.Load, error: BaseException) -> m.LoadFailed:
        """Return the event for a load that went wrong."""
        # A `ChunkError` goes to the client field by field, for an exception cannot be sent.  Any
        # other error names the unit, since it knows of no chunk.
        if isinstance(error, ChunkError):
            names = ("url", "array", "chunk", "key", "byte_range", "reason")
            fields = {name: getattr(error, name) for name in names}
            failure = m.Failure(error.message, fields)
        else:
            label = self._core.regions[command.region].label
            reason = f"{type(error).__name__}: {error}"
            if lacks_descriptors(error):
                reason = f"the pager lacks descriptors: {describe_shortage(error)}"
            failure = m.Failure(f"unit {command.unit} of {label}: {reason}", {"reason": reason})
            # Not one of lazyarr's own errors, so nobody expects it.  The client may
            # catch what it gets, and the line on stderr stays.
            if not isinstance(error, LazyarrError):
                report(f"unexpected {reason} while loading unit {command.unit} of {label}")
        return m.LoadFailed(command.region, command.unit, command.client, failure)


def arrived(command: m.Load) -> m.Arrived:
    """Return the event for a load whose awaited pages are installed, and whose others are not."""
    assert command.awaited is not None
    return m.Arrived(command.region, command.unit, command.awaited)


def _mode_of(command: m.Load, state: RegionState) -> int:
    """Return how the bytes of a unit are copied to a client."""
    # A thread that wants to write would fault again, on the protection.  So it is woken when that
    # is lifted (`Unprotect`).
    return state.kind.copy_mode | (_DONTWAKE if command.writes else 0)


def awaited_bytes(command: m.Load, state: RegionState) -> Span | None:
    """Return the bytes of a unit of whole pages that a thread waits for; None when none does."""
    if command.awaited is None:
        return None
    unit_nbytes, page_nbytes = state.geometry.unit_nbytes, state.geometry.page_nbytes
    start = command.awaited.start * page_nbytes - command.unit * unit_nbytes
    if not 0 <= start < unit_nbytes:
        return None
    stop = command.awaited.stop * page_nbytes - command.unit * unit_nbytes
    return Span(start, min(stop, unit_nbytes))


def is_worth_parts(command: m.Load, state: RegionState) -> bool:
    """Return whether a unit is to be installed while it is decoded, if it can be."""
    # Only where a thread waits for some of its pages.  Not in private memory: a chunk may fail to
    # decompress to its end, and the pages installed by then could not be taken out.
    is_large = state.geometry.unit_nbytes >= _PARTS_NBYTES
    return command.awaited is not None and state.kind.is_evictable and is_large


def _bytes_of(awaited: Span, pages: Span, page_nbytes: int) -> Span | None:
    """Return where awaited pages lie in a run of pages, in bytes; None when they do not."""
    if awaited.start not in pages:
        return None
    start, stop = awaited.start - pages.start, min(awaited.stop, pages.stop) - pages.start
    return Span(start * page_nbytes, stop * page_nbytes)


def _fragments(state: RegionState, unit: int, view: memoryview | None) -> tuple[m.Fragment, ...]:
    """Return a unit's shares of the pages that it does not fill alone."""
    geometry = state.geometry
    # A unit of whole pages fills all its pages alone.
    if geometry.unit_pages:
        return ()
    span = geometry.unit_bytes(unit)
    fragments = []
    for page in geometry.edge_pages(unit):
        page_start = page * geometry.page_nbytes
        share = span & geometry.page_bytes(page)
        # Copied, because the workspace is used for the next unit, and the share may have to wait
        # for the page's other units.
        if view is None:
            data = bytes(share.size)
        else:
            data = bytes(view[share.start - span.start : share.stop - span.start])
        fragments.append(m.Fragment(page, share.start - page_start, data))
    return tuple(fragments)

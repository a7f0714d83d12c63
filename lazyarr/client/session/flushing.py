"""Writing back what was written to arrays: by the pager, or without it when it is gone."""

from __future__ import annotations

import functools
import itertools
import os
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from lazyarr import settings
from lazyarr.client.session.failures import do_each, raise_together
from lazyarr.client.session.last_words import say_lost
from lazyarr.client.session.residency_map import dirty_units
from lazyarr.errors import LazyarrError, PagerError
from lazyarr.flush_report import FlushReport
from lazyarr.kernel import alone_with, leave_alone_in_child, renew_in_child
from lazyarr.known import CLOSED_BY_OTHERS, identity_of
from lazyarr.units import Span
from lazyarr.values import Struct

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from lazyarr.client.array_ref import ArrayRef
    from lazyarr.client.session.region import Region
    from lazyarr.committing import Committer

__all__ = [
    "flush_arrays",
    "flush_at_exit",
    "flush_regions",
    "has_written",
    "regions_of",
    "rescue_or_say",
    "rescue_regions",
    "whole",
]

Written: TypeAlias = "tuple[Region, Span]"
"""Memory, and units of it."""

_rescuing = threading.Lock()

# So many regions are flushed at once: each takes a channel meanwhile.
_N_AT_ONCE = 16
# So many parts of a region show on a progress bar.
_N_STEPS = 100


class _Tally(Struct):
    """What a flush has come to."""

    n_units: int
    nbytes: int
    errors: list[LazyarrError]
    gone: list[Region]
    began_at: float

    def report(self) -> FlushReport:
        return FlushReport(self.n_units, self.nbytes, time.monotonic() - self.began_at)


def flush_regions(
    regions: Iterable[Written], *, progress: bool = False, is_last: bool = False
) -> FlushReport:
    """Have what was written to some units be in the store, durably, when this returns.

    Where the pager is gone this process writes it by itself; the arrays cannot be written to
    any more then.

    Parameters
    ----------
    regions : iterable of (Region, Span)
        Memory, and units of it.
    progress : bool
        Whether to show a progress bar on stderr.
    is_last : bool
        Whether this process ends then, and says what could not be written.

    Raises
    ------
    LazyarrError
        When something could not be written back.  It stays in memory, and the next flush tries
        again.
    """
    tally = _new_tally()
    dirty = [(region, units) for region, units in regions if has_written(region, units)]
    parts = _in_steps(dirty) if progress else iter(dirty)
    with _bar(dirty, is_shown=progress) as advance:
        while some := list(itertools.islice(parts, 1 if progress else _N_AT_ONCE)):
            _flush_at_once(some, tally, is_last=is_last)
            advance(sum(units.size for _, units in some))
    _rescue_all(tally.gone, tally)
    raise_together(tally.errors)
    return tally.report()


def flush_arrays(arrays: Iterable[Any], *, progress: bool = False) -> FlushReport:
    """Have what was written to some arrays be in the store, as `flush_regions`.

    Parameters
    ----------
    arrays : iterable of LazyArray, CopyArray, or what their values are in
        Arrays that were opened, and no views of them; `Memory` and `StoredArray` of others.
    progress : bool
        Whether to show a progress bar on stderr.

    Raises
    ------
    LazyarrError
        When something could not be written; all else is written all the same.
    """
    regions, others = regions_of(arrays)
    reports = do_each(
        functools.partial(flush_regions, map(whole, regions), progress=progress),
        *(functools.partial(array.flush, progress=progress) for array in others),
    )
    return FlushReport(
        sum(report.units for report in reports),
        sum(report.bytes for report in reports),
        sum(report.seconds for report in reports),
    )


def regions_of(arrays: Iterable[Any]) -> tuple[list[Region], list[Any]]:
    """Return the memory that some arrays lie in, each once, and the arrays that lie in none.

    Parameters
    ----------
    arrays : iterable
        As `flush_arrays` takes them.
    """
    regions: dict[int, Region] = {}
    others = []
    for array in arrays:
        # An array that is empty or sparse is in no memory, and nothing is written to it.
        in_memory = "_region" if hasattr(array, "_region") else "region"
        if hasattr(array, in_memory):
            region = getattr(array, in_memory)
            if region is not None:
                regions[id(region)] = region
        elif hasattr(array, "flush"):
            others.append(array)
    return list(regions.values()), others


def rescue_regions(regions: Iterable[Region]) -> FlushReport:
    """Write back what is in memory without the pager, which is gone; as `flush_regions`."""
    tally = _new_tally()
    _rescue_all(regions, tally)
    raise_together(tally.errors)
    return tally.report()


def rescue_or_say(regions: Iterable[Region]) -> None:
    """Write back as `rescue_regions` what nobody refers to; say on stderr what is lost."""
    for region in regions:
        try:
            rescue_regions([region])
        except LazyarrError as error:
            _say_lost(region, error)


def flush_at_exit(regions: Iterable[Region]) -> None:
    """Write back what is in memory when the interpreter ends; say on stderr what could not be.

    The pager tries once more when this process has ended, and does not say it again.
    """
    for region in regions:
        try:
            flush_regions([whole(region)], is_last=True)
        except LazyarrError as error:
            _say_lost(region, error, is_at_end=True)


def _say_lost(region: Region, error: LazyarrError, *, is_at_end: bool = False) -> None:
    name, url = region.array.get("path") or "/", region.array.get("url", "another process")
    n_units = len(list(_dirty_units(*whole(region))))
    again = "; the pager tries it once more" if is_at_end and not _is_gone(region) else ""
    say_lost(
        f"{n_units} units of array {name!r} of {url} could not be written back: {error}{again}",
        is_at_end=is_at_end,
    )


def whole(region: Region) -> Written:
    """Return all units of some memory."""
    return region, Span(0, region.geometry.n_units)


def has_written(region: Region, units: Span) -> bool:
    """Return whether the store may lack something of what is in some units."""
    # Clients write to memory, and only the pager to the map: before a page can be written to.
    # A unit is taken off it when the store has it durably.
    if not region.kind.writes_back:
        return False
    return next(_dirty_units(region, units), None) is not None


def _new_tally() -> _Tally:
    return _Tally(n_units=0, nbytes=0, errors=[], gone=[], began_at=time.monotonic())


def _flush_at_once(parts: list[Written], tally: _Tally, *, is_last: bool) -> None:
    """Flush some units of several regions, and wait for all of them."""
    with ExitStack() as stack:
        asked = []
        for region, units in parts:
            try:
                pending = region.owner.begin_flush(region, units, is_last=is_last)
                stack.callback(pending.cancel)  # by Ctrl-C, while another is waited for
                asked.append((region, pending.wait))
            except PagerError as error:
                _note_error(region, error, tally)
        for region, wait in asked:
            try:
                n_units, nbytes = wait()
                tally.n_units += n_units
                tally.nbytes += nbytes
            except LazyarrError as error:
                _note_error(region, error, tally)


def _note_error(region: Region, error: LazyarrError, tally: _Tally) -> None:
    if isinstance(error, PagerError) and _is_gone(region):
        if region not in tally.gone:
            tally.gone.append(region)
    else:
        tally.errors.append(error)


def _is_gone(region: Region) -> bool:
    """Return whether nobody is there who could write back what is in a region."""
    # Asked, for sockets of processes that have just been killed may be open for a moment.
    try:
        region.owner.statistics()
    except PagerError:
        return True
    return False


def _rescue_all(regions: Iterable[Region], tally: _Tally) -> None:
    for region in regions:
        try:
            _rescue(region, tally)
        except (LazyarrError, OSError) as error:
            tally.errors.append(_as_ours(error, region))


def _as_ours(error: Exception, region: Region) -> LazyarrError:
    if isinstance(error, LazyarrError):
        return error
    return PagerError(f"cannot write back array {region.array['path']!r}: {error}")


def _rescue(region: Region, tally: _Tally) -> None:
    """Commit the dirty units of a region from its memory object, which this process has too."""
    # One thread at a time: what is dropped at the end of a program is rescued by two.
    with _rescuing:
        _commit(region, tally)


def _commit(region: Region, tally: _Tally) -> None:
    units = list(_dirty_units(*whole(region))) if region.kind.writes_back else []
    if not units:
        return
    # A program that closes all descriptors may have a file of its own under this number.
    if identity_of(region.memfd) != region.memfd_identity or region.memfd_identity is None:
        if region.rescued.keys() >= set(units):
            return
        raise PagerError(
            f"cannot write back array {region.array['path']!r}: {CLOSED_BY_OTHERS} or flush before"
        )
    # Whoever writes from now on would write to what nobody writes back.
    region.owner.forbid_writes(region)
    # Another process that has the array may still write to it, and write it back.  If both did
    # at once, the one that has copied first could put its copies last, over what is newer.
    with alone_with(region.memfd):
        # What another process has written since this one wrote back, it may not live to
        # write back itself.
        changed = [unit for unit in units if _has_changed(region, unit)]
        if changed:
            _put(region, changed, tally)


def _has_changed(region: Region, unit: int) -> bool:
    """Return whether this process has not written back what is in a unit now."""
    known = region.rescued.get(unit)
    return known is None or known != _digest(_read_unit(region, unit))


def _put(region: Region, units: list[int], tally: _Tally) -> None:
    """Have the store take some units; what cannot be written keeps nothing else from it."""
    if region.node is None:
        raise PagerError(f"cannot write back array {region.array['path']!r}: its store is unknown")
    done: dict[int, bytes] = {}
    with _committer(region.node) as committer:
        for group in committer.group(units):
            chunks: dict[tuple[int, ...], bytes | None] = {}
            digests: dict[int, bytes] = {}
            try:
                for unit in group:
                    data = _read_unit(region, unit)
                    digests[unit] = _digest(data)
                    chunks.update(committer.encode(unit, data))
                committer.put(chunks)
            except (LazyarrError, OSError) as error:
                tally.errors.append(_as_ours(error, region))
                continue
            done.update(digests)
            tally.nbytes += sum(len(stored or b"") for stored in chunks.values())
            tally.n_units += len(group)
        committer.sync()
    region.rescued = {**region.rescued, **done}


def _digest(data: memoryview) -> bytes:
    import hashlib  # hardly any program needs it

    return hashlib.blake2b(data, digest_size=16).digest()


@contextmanager
def _committer(node: ArrayRef) -> Iterator[Committer]:
    """Give what writes changed units of an array into its store."""
    # Imported here: hardly any program needs it.
    from lazyarr.committing import Committer
    from lazyarr.store import open_store
    from lazyarr.store.local import LocalStore

    layout, geometry = node.metadata.layout(), node.geometry()
    with ExitStack() as stack:
        if node.writing is not None:
            store = node.writing.store
        else:
            # Of an array that came in a pickle.
            timeout_seconds = settings.current().timeout
            store = open_store(
                node.url, node.storage_options, writable=True, timeout_seconds=timeout_seconds
            )
            stack.callback(store.close)
            if isinstance(store, LocalStore):
                store.durable = True
        yield Committer(store, node.metadata.path, layout, geometry, url=node.store_url)


def _read_unit(region: Region, unit: int) -> memoryview:
    """Return the bytes of a unit, from the memory object."""
    # Not from the mapping: a page that this process has not mapped would be a fault, which
    # nobody answers any more.
    place = region.geometry.unit_bytes(unit)
    start = region.offset + place.start
    data = memoryview(bytearray(place.size))
    done = 0
    while done < place.size:
        n = os.preadv(region.memfd, [data[done:]], start + done)
        if not n:
            raise PagerError("the memory of the array is not there any more")
        done += n
    # A page that is missing has been read as zeros, and these would be written.  Asked afterwards:
    # it may have gone meanwhile, and no page comes back without the pager.
    if os.lseek(region.memfd, start, os.SEEK_HOLE) < start + place.size:
        raise PagerError(
            f"cannot write back unit {unit} of array {region.array['path']!r}: pages that were "
            "written to are not in memory any more"
        )
    return data


def _dirty_units(region: Region, units: Span) -> Iterator[int]:
    """Yield the dirty units of some."""
    return dirty_units(region.residency, units)


def _in_steps(dirty: list[Written]) -> Iterator[Written]:
    for region, units in dirty:
        step = max(1, -(-units.size // _N_STEPS))
        for start in range(units.start, units.stop, step):
            yield region, Span(start, min(start + step, units.stop))


@contextmanager
def _bar(dirty: list[Written], *, is_shown: bool) -> Iterator[Callable[[int], object]]:
    """Give what moves a progress bar on by some units."""
    if not is_shown:
        yield lambda _: None
        return
    # Imported here: few programs show a bar.
    from tqdm.auto import tqdm

    with tqdm(total=sum(units.size for _, units in dirty), unit="unit", desc="flush") as bar:
        yield bar.update


def _begin_anew() -> None:
    """Have a lock of this process's own: a child may find it taken by a thread of its parent's."""
    global _rescuing
    _rescuing = threading.Lock()
    leave_alone_in_child()


renew_in_child(_begin_anew)

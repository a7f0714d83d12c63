"""The memory of one array in this process."""

from __future__ import annotations

from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from lazyarr.client.session import finalizers
from lazyarr.errors import KernelError
from lazyarr.kernel import (
    PAGE_NBYTES,
    Advice,
    Features,
    Protection,
    RegisterMode,
    Userfaultfd,
    madvise,
    map_private,
    map_shared,
    memory_view,
    protect,
    unmap,
)
from lazyarr.memory_kind import MemoryKind
from lazyarr.values import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Protocol

    from lazyarr.client.array_ref import ArrayRef, CopyingViews
    from lazyarr.client.session.rpc import PendingFlush, PendingRequest
    from lazyarr.known import Identity, KnownDescriptor
    from lazyarr.layout.geometry import Geometry
    from lazyarr.units import Span

    # For types alone: opening must not wait for a protocol to be made, which takes 0.1 ms.
    class RegionOwner(Protocol):
        """What a region belongs to: it tells the pager of it, and asks for its units."""

        @property
        def is_user_mode_only(self) -> bool:
            """Whether system calls do not wait for pages, and fail."""
            ...

        def request(
            self,
            region: Region,
            units: Sequence[Span],
            pages: Span | None = None,
            *,
            writes: bool = False,
        ) -> None:
            """Wait, without the GIL, until units are resident; or, of one unit, some pages.

            With `writes` until they can be written to without a fault.

            Raises
            ------
            ChunkError
                For the first unit that cannot be had; the others are in its notes.
            PagerError
                When the pager is gone, or was started by another user than this process is now.
            """
            ...

        def begin_request(self, region: Region, units: Sequence[Span]) -> PendingRequest | None:
            """Request units, to be waited for later; None where that is not possible."""
            ...

        def begin_flush(
            self, region: Region, units: Span, *, is_last: bool = False
        ) -> PendingFlush:
            """Have what was written to some units be written back, to be waited for later."""
            ...

        def retire_region(self, region: Region) -> tuple[int, int]:
            """Have what was written be written back, and nobody write any more."""
            ...

        def forbid_writes(self, region: Region) -> None:
            """Make every write to a region SIGSEGV."""
            ...

        def statistics(self) -> dict[str, Any]:
            """Return what the pager has counted."""
            ...

        def has_pager(self) -> bool:
            """Return whether the pager is not known to be gone."""
            ...

        def map_here(self, region: Region, units: Sequence[Span]) -> None:
            """Have resident units mapped here, where system calls do not wait for pages."""
            ...

        def install(self, region: Region, start: int, data: bytes) -> None:
            """Install some bytes as whole pages of private memory, without loading their units."""
            ...

        def evict(self, region: Region, units: Span) -> None:
            """Have units taken out of memory."""
            ...

        def advise(self, region: Region, units: Span, advice: str) -> None:
            """Say how units will be read."""
            ...

        def schedule(self, runs: Iterable[tuple[Region, Span]]) -> None:
            """Say which units will be touched, in order."""
            ...

        def invite(self) -> str:
            """Return what other processes need to come to the pager, after letting them in."""
            ...

        def let_go(self, region: Region) -> None:
            """Have one user of a region less; unmap it after the last."""
            ...


__all__ = [
    "TRACKING",
    "Memory",
    "Region",
    "adopt_region",
    "give_way",
    "let_inherit",
    "lose",
    "map_region",
    "map_residency",
    "private_kind",
    "reserve",
    "unmap_region",
]

# Both: MISSING alone would let a page show that a stray mapping of the object has made
# of a hole, all zeros, without any event.
_SHARED_MODE = RegisterMode.MISSING | RegisterMode.MINOR

TRACKING = Features.PAGEFAULT_FLAG_WP | Features.WP_ASYNC
"""Features of the kernel that `find_written` needs to tell which private pages were written."""


class Region(Struct):
    """Where an array lies, in this process and behind it.

    Attributes
    ----------
    owner : RegionOwner
        This process's tie to the pager that fills it.
    number : int
        What client and pager call it.
    geometry : Geometry
        The array's arithmetic.
    kind : MemoryKind
        What can be done with the memory.
    memfd, offset : int
        The memory object and where the array begins in it; -1 for private memory.
    map_memfd, map_offset : int
        Where its residency map lies, one byte per unit.  Of a region that another process
        has opened the descriptors are closed once it is mapped.
    address : int
        Where it is mapped here.
    residency : memoryview
        The residency map; a hint, never a proof.
    array : dict
        What the pager was told of the array; a forked child says it again for
        private memory.
    descriptors : tuple of KnownDescriptor
        The store's descriptors that went with it.
    is_mapped : bool
        Whether what is mapped there is ours; not in a child that has not inherited it, when
        something else has taken the place.
    is_reserved : bool
        Whether its place is taken by memory that nobody may touch, in a child that has not
        inherited it.
    n_users : int
        How many `Memory` objects refer to it.
    node : ArrayRef or None
        The array as it was opened here first.
    copying : CopyingViews or None
        Makes views of the array by the engine that copies, for what a request cannot bring.
    arriving : tuple of int
        Units of which somebody here has a row, and the rest was on its way just now.
    is_retired : bool
        Whether nobody may write to it any more: the array was appended to or resized.
    memfd_identity : Identity or None
        What the memory object is known by: its number may be another file's by now.
    is_forbidden : bool
        Whether every write is SIGSEGV, since nobody would write it back.
    rescued : mapping of int to bytes
        Units that this process has written back by itself, and digests of what was in them.
    """

    owner: RegionOwner
    number: int
    geometry: Geometry
    kind: MemoryKind
    memfd: int
    offset: int
    map_memfd: int
    map_offset: int
    array: dict[str, Any]
    descriptors: tuple[KnownDescriptor, ...]
    address: int = 0
    is_mapped: bool = False
    is_reserved: bool = False
    map_address: int = 0
    residency: memoryview = memoryview(b"")
    n_users: int = 0
    node: ArrayRef | None = None
    copying: CopyingViews | None = None
    arriving: tuple[int, ...] = ()
    is_retired: bool = False
    memfd_identity: Identity | None = None
    is_forbidden: bool = False
    rescued: Mapping[int, bytes] = MappingProxyType({})

    @property
    def memory_nbytes(self) -> int:
        """Length of the mapping in bytes: whole pages."""
        return self.geometry.n_pages * self.geometry.page_nbytes

    @property
    def map_nbytes(self) -> int:
        """Length of the residency map's mapping in bytes: whole pages."""
        return -(-self.geometry.n_units // PAGE_NBYTES) * PAGE_NBYTES


def map_region(region: Region, uffd: Userfaultfd, *, address: int | None = None) -> None:
    """Map a region and register it, before anybody can know its address.

    Parameters
    ----------
    region : Region
        Gets its addresses.
    uffd : Userfaultfd
        This process's own.
    address : int, optional
        Where it must be.

    Raises
    ------
    KernelError
        EEXIST: something else is mapped there.
    """
    nbytes = region.memory_nbytes
    if region.kind.is_shared:
        # Not writable where nothing is written back: the pager installs pages all the same, and
        # a raw write is SIGSEGV, where a flag of NumPy's would protect from Python alone.
        writable = region.kind.is_writable
        region.address = map_shared(
            region.memfd, region.offset, nbytes, writable=writable, address=address
        )
    else:
        region.address = map_private(nbytes, writable=True, address=address)
    region.is_mapped = True
    # Registered before the address leaves this function.  A thread that could touch the
    # memory earlier would read zeros, and make pages of them.
    _guard(region, uffd)
    map_residency(region)


def map_residency(region: Region) -> None:
    """Map the residency map of a region, in place of one that it has had."""
    _unmap_residency(region)
    region.map_address = map_shared(
        region.map_memfd, region.map_offset, region.map_nbytes, writable=False
    )
    region.residency = memory_view(region.map_address, region.geometry.n_units, writable=False)


def adopt_region(region: Region, uffd: Userfaultfd) -> None:
    """Register a region in a forked child that has inherited its mapping without that."""
    _guard(region, uffd)


def reserve(region: Region) -> None:
    """Take the place of a region that this process has not inherited; every touch is SIGSEGV.

    Until then whatever the process maps may come to lie there, where its arrays still point.
    """
    if not region.is_reserved:
        with suppress(KernelError):  # something lies there already
            map_private(region.memory_nbytes, writable=False, address=region.address)
            region.is_reserved = True
            protect(region.address, region.memory_nbytes, Protection.NONE)


def give_way(region: Region) -> None:
    """Make the place of a reserved region free, for its mapping to come there at once."""
    if region.is_reserved:
        region.is_reserved = False
        unmap(region.address, region.memory_nbytes)


def lose(region: Region) -> None:
    """Make every touch of a region SIGSEGV, and every reading ask: nobody is there to fill it.

    One that has not been inherited gets its place taken, so that nothing else comes to lie there.
    `is_mapped` need not be right for it: a fork may have been interrupted before it knew.
    """
    reserve(region)
    region.is_mapped = region.is_mapped or region.is_reserved
    region.is_reserved = False
    if region.is_mapped:
        protect(region.address, region.memory_nbytes, Protection.NONE)
    _unmap_residency(region)
    # A residency map of zeros: every reading asks then, and is told the reason.  The
    # shared one would go on to say that units are here.
    region.map_address = map_private(region.map_nbytes, writable=False)
    region.residency = memory_view(region.map_address, region.geometry.n_units, writable=False)


def let_inherit(region: Region, *, inherit: bool) -> None:
    """Let children that are forked from now on have the mapping, or not."""
    madvise(region.address, region.memory_nbytes, Advice.DOFORK if inherit else Advice.DONTFORK)


def _guard(region: Region, uffd: Userfaultfd) -> None:
    # A forked child keeps a mapping but not its registration: pages that nobody
    # has filled read as zeros there (userfaultfd(2), UFFD_FEATURE_EVENT_FORK).  So
    # a child that lazyarr does not know of has no mapping, and dies of SIGSEGV.
    # One that Python forks inherits it, and registers it before anything else:
    # left out and mapped again, its place could be taken by then.
    let_inherit(region, inherit=False)
    if not region.kind.is_shared:
        region.kind = private_kind(uffd)  # a forked child may have a userfaultfd that can do less
    mode = _SHARED_MODE if region.kind.is_shared else RegisterMode.MISSING
    if region.kind.is_tracked:
        # Pages come write-protected.  In a process's own memory the kernel lifts that at the
        # first write, by itself: no message is sent (WP_ASYNC), and a protected page is one that
        # nobody has written.  In memory that is written back the first write is a fault.
        # A forked child inherits no protection, so all that is there counts as written.
        mode |= RegisterMode.WP
    # Fails for memory that cannot be registered so; nothing has seen the address then.
    uffd.register(region.address, region.memory_nbytes, mode)


def private_kind(uffd: Userfaultfd) -> MemoryKind:
    """Return the kind of a process's own memory: tracked, where its kernel can do that."""
    return MemoryKind.PRIVATE_TRACKED if TRACKING in uffd.features else MemoryKind.PRIVATE


def unmap_region(region: Region) -> None:
    """Unmap a region that the pager has let go of."""
    # Only after the pager has answered `CloseRegion`: until then an install may be on
    # its way to this address, which could be somebody else's memory by the time it
    # lands.
    if region.is_mapped:
        unmap(region.address, region.memory_nbytes)
        region.is_mapped = False
    _unmap_residency(region)


def _unmap_residency(region: Region) -> None:
    address, region.map_address = region.map_address, 0
    region.residency = memoryview(b"")
    if address:
        unmap(address, region.map_nbytes)


class Memory:
    """Keeps a region mapped for as long as an array refers to it.

    NumPy makes it the base of the arrays on the region.  Its end takes no lock
    and makes no call, since it may come at any moment in any thread: it puts the
    region in a queue.  A region that is opened again gets another one of these, made
    under the session's lock: to bring one back that is about to end would be too late.
    """

    def __init__(self, region: Region) -> None:
        self.region = region
        # Counted, and not left to the garbage collector: several arrays may have been
        # opened of one region, each with a `Memory` of its own.
        region.n_users += 1
        finalizers.expect()

    def __repr__(self) -> str:
        return f"<Memory: {self.region.memory_nbytes} bytes at {self.region.address:#x}>"

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """Let NumPy have the bytes (NumPy, array interface protocol, version 3)."""
        region = self.region
        return {
            "version": 3,
            "typestr": "|u1",
            "shape": (region.geometry.nbytes,),
            "data": (region.address, not region.kind.is_writable),
        }

    def __deepcopy__(self, _: Any) -> Memory:
        """Return itself: masked arrays copy the attributes of what they are made of."""
        return self

    def __del__(self) -> None:
        region = self.region
        try:
            finalizers.defer(lambda: region.owner.let_go(region), is_end=True)
        except AttributeError:
            # The interpreter ends, and has emptied the modules: all memory goes.
            return

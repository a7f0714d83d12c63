"""The memory of one array in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lazyarr.client import janitor
from lazyarr.kernel import (
    PAGE_NBYTES,
    Advice,
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
from lazyarr.values import Struct

if TYPE_CHECKING:
    from lazyarr.client.node import ArrayNode
    from lazyarr.client.session import Session
    from lazyarr.plan.geometry import Geometry

__all__ = [
    "Memory",
    "Region",
    "adopt_region",
    "let_inherit",
    "map_region",
    "map_residency",
    "unmap_region",
]

_SHARED_MODE = RegisterMode.MISSING | RegisterMode.MINOR


class Region(Struct):
    """Where an array lies, in this process and behind it.

    Attributes
    ----------
    owner : Session
        Tells the pager of it.
    number : int
        What client and pager call it.
    geometry : Geometry
        The array's arithmetic.
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
    descriptors : tuple of int
        The store's descriptors that went with it.
    n_users : int
        How many `Memory` objects refer to it.
    node : ArrayNode or None
        The array as it was opened here first.
    arriving : tuple of int
        Units of which somebody here has a row, and the rest was on its way just now.
    """

    owner: Session
    number: int
    geometry: Geometry
    memfd: int
    offset: int
    map_memfd: int
    map_offset: int
    array: dict[str, Any]
    descriptors: tuple[int, ...]
    address: int = 0
    map_address: int = 0
    residency: memoryview = memoryview(b"")
    n_users: int = 0
    node: ArrayNode | None = None
    arriving: tuple[int, ...] = ()

    @property
    def is_shared(self) -> bool:
        """Whether other processes can map the same pages."""
        return self.offset >= 0

    @property
    def memory_nbytes(self) -> int:
        """Length of the mapping in bytes: whole pages."""
        return self.geometry.n_pages * PAGE_NBYTES

    @property
    def map_nbytes(self) -> int:
        """Length of the residency map's mapping in bytes: whole pages."""
        return -(-self.geometry.n_units // PAGE_NBYTES) * PAGE_NBYTES


def map_region(region: Region, uffd: Userfaultfd) -> None:
    """Map a region and register it, before anybody can know its address.

    Parameters
    ----------
    region : Region
        Gets its addresses.
    uffd : Userfaultfd
        This process's own.
    """
    nbytes = region.memory_nbytes
    if region.is_shared:
        region.address = map_shared(region.memfd, region.offset, nbytes, writable=False)
    else:
        region.address = map_private(nbytes, writable=True)
    _guard(region, uffd)
    map_residency(region)


def map_residency(region: Region) -> None:
    """Map the residency map of a region."""
    region.map_address = map_shared(
        region.map_memfd, region.map_offset, region.map_nbytes, writable=False
    )
    region.residency = memory_view(region.map_address, region.geometry.n_units, writable=False)


def adopt_region(region: Region, uffd: Userfaultfd) -> None:
    """Register a region in a forked child that has inherited its mapping without that."""
    _guard(region, uffd)


def forbid(region: Region) -> None:
    """Make every touch of a region SIGSEGV: nobody is there to fill it."""
    protect(region.address, region.memory_nbytes, Protection.NONE)


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
    mode = _SHARED_MODE if region.is_shared else RegisterMode.MISSING
    uffd.register(region.address, region.memory_nbytes, mode)


def unmap_region(region: Region) -> None:
    """Unmap a region that the pager has let go of."""
    region.residency = memoryview(b"")
    unmap(region.address, region.memory_nbytes)
    unmap(region.map_address, region.map_nbytes)


class Memory:
    """Keeps a region mapped for as long as an array refers to it.

    NumPy makes it the base of the arrays on the region.  Its end takes no lock
    and makes no call, since it may come at any moment in any thread: it puts the
    region in a queue.  A region that is opened again gets another one of these, made
    under the session's lock: to bring one back that is about to end would be too late.
    """

    def __init__(self, region: Region) -> None:
        self.region = region
        region.n_users += 1

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
            "data": (region.address, region.is_shared),
        }

    def __del__(self) -> None:
        region = self.region
        try:
            janitor.defer(lambda: region.owner.let_go(region))
        except AttributeError:
            # The interpreter ends, and has emptied the modules: all memory goes.
            return

"""The kinds of memory that an array can lie in, and what each kind can do."""

from __future__ import annotations

import enum
import os
from typing import NamedTuple

__all__ = ["MemoryKind"]


class _Traits(NamedTuple):
    """What a kind of memory can do; a value of its own, so that no kind is an alias of another."""

    name: str
    is_shared: bool
    is_writable: bool
    is_tracked: bool
    writes_back: bool = False


class MemoryKind(enum.Enum):
    """How the memory of a region is made, registered and filled.

    Client and pager go by this value alone.  Nobody infers it from an offset or from a memory
    object that is missing: a new kind would then be taken for one of the old ones.

    Attributes
    ----------
    is_shared : bool
        Whether the pages belong to a memory object (memfd_create(2)), which other processes map
        too.  It is registered for missing and for minor faults, and a page that another process
        has brought already is mapped (UFFDIO_CONTINUE).  Other memory is anonymous and is this
        process's own.
    is_evictable : bool
        Whether a page can be taken out of memory again while clients have it mapped: a hole is
        punched in the memory object.  A private page may hold what its process has written, so it
        stays until the region is unmapped.
    is_writable : bool
        Whether the process may write to the memory, in mode ``"c"`` or ``"r+"``.
    is_tracked : bool
        Whether pages are installed write-protected, so that a page which is still protected is
        one that nobody has written.
    writes_back : bool
        Whether the pager writes to the store what clients have written to the memory, in mode
        ``"r+"``.  Such memory is registered with the client's second userfaultfd: the first
        write to a page is a fault, and the pager lifts the protection when it has noted the
        write.  The kernel lifts it by itself in other tracked memory, without a message
        (UFFD_FEATURE_WP_ASYNC, Linux 6.7).
    copy_mode : int
        How bytes are copied to pages of this memory: bits of `kernel.InstallMode`.
    page_nbytes : int
        Size in bytes of the pages that are registered, installed and taken out one by one.

    Examples
    --------
    >>> MemoryKind.SHARED.is_evictable, MemoryKind.PRIVATE.is_evictable
    (True, False)
    >>> MemoryKind["PRIVATE_TRACKED"].is_tracked
    True
    """

    SHARED = _Traits("shared", is_shared=True, is_writable=False, is_tracked=False)
    PRIVATE = _Traits("private", is_shared=False, is_writable=True, is_tracked=False)
    PRIVATE_TRACKED = _Traits("tracked", is_shared=False, is_writable=True, is_tracked=True)
    TRACKED = _Traits(
        "written back", is_shared=True, is_writable=True, is_tracked=True, writes_back=True
    )

    # Attributes of the members, not properties: the pager looks at them for every fault, and a
    # property of an enumeration costs a call.
    def __init__(self, *_: object) -> None:
        traits: _Traits = self.value
        self.is_shared = traits.is_shared
        self.is_evictable = traits.is_shared
        self.is_writable = traits.is_writable
        self.is_tracked = traits.is_tracked
        self.writes_back = traits.writes_back
        # UFFDIO_COPY_MODE_WP of linux/userfaultfd.h, as `kernel.InstallMode` has it too.
        self.copy_mode = 2 if traits.is_tracked else 0
        self.page_nbytes = os.sysconf("SC_PAGE_SIZE")

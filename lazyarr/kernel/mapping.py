"""Memory at addresses that the caller chooses, and memory objects behind it.

Whoever maps unmaps: a mapping made here is a bare address, and nothing ends it
but `unmap`.  All of it is mapped without reservation of swap or huge pages, so that
a sparse terabyte maps.
"""

from __future__ import annotations

import enum
import errno
import mmap
import os
import sys

from lazyarr.kernel.libc import checked_call
from lazyarr.kernel.refusal import describe_errno, refusal

__all__ = [
    "PAGE_NBYTES",
    "Advice",
    "Protection",
    "create_memfd",
    "in_core",
    "madvise",
    "map_private",
    "map_shared",
    "protect",
    "punch_hole",
    "reserve",
    "resize_memfd",
    "seal_memfd",
    "unmap",
]

PAGE_NBYTES = mmap.PAGESIZE
"""Size of a page of this system, in bytes."""

# asm-generic/mman-common.h and mman.h; x86-64 has the same.  Python names these two
# from 3.13 on, and not at all.
_MAP_NORESERVE = 0x4000
_MAP_FIXED_NOREPLACE = 0x100000
_MAP_FIXED = 0x10

# linux/memfd.h: never executable; Linux 6.3.  Without it vm.memfd_noexec=2 refuses
# the call, with it an older kernel does.
_MFD_NOEXEC_SEAL = 0x8

# linux/fcntl.h: nothing more is sealed; it never gets shorter; nobody writes to it, or maps it to
# write (F_SEAL_WRITE, F_SEAL_FUTURE_WRITE).
_F_SEAL_SEAL, _F_SEAL_SHRINK, _F_SEALS_WRITE = 0x1, 0x2, 0x8 | 0x10

# linux/falloc.h; a hole cannot be punched without keeping the size.
_FALLOC_KEEP_SIZE, _FALLOC_PUNCH_HOLE = 0x1, 0x2

_FREE_ADDRESSES = "unmap something, or raise vm.max_map_count and 'ulimit -v'"
_CHECK_RANGE = "check that the range is whole pages of one mapping"


class Protection(enum.IntFlag):
    """What a mapping may be used for (PROT_*)."""

    NONE = 0
    READ = 1
    WRITE = 2


class Advice(enum.IntEnum):
    """What to tell the kernel of a range (MADV_*, asm-generic/mman-common.h)."""

    NORMAL = 0
    RANDOM = 1
    SEQUENTIAL = 2
    WILLNEED = 3
    DONTNEED = 4
    REMOVE = 9
    DONTFORK = 10
    DOFORK = 11
    HUGEPAGE = 14
    NOHUGEPAGE = 15
    DONTDUMP = 16
    DODUMP = 17
    POPULATE_READ = 22
    POPULATE_WRITE = 23


def create_memfd(name: str, *, nbytes: int = 0, hugetlb: bool = False) -> int:
    """Return the descriptor of a new memory object; the caller closes it.

    Parameters
    ----------
    name : str
        What /proc shows of it.
    nbytes : int
        Its size; all of it a hole.
    hugetlb : bool
        Whether it is made of huge pages, which `vm.nr_hugepages` must have.

    Raises
    ------
    KernelError
        EMFILE, ENFILE: too many descriptors; ENOMEM; EFBIG, as `resize_memfd`.

    Examples
    --------
    >>> fd = create_memfd("example", nbytes=1 << 40)
    >>> os.fstat(fd).st_size, os.fstat(fd).st_blocks
    (1099511627776, 0)
    >>> os.close(fd)
    """
    # A program that this process becomes has no use for the object, and its descriptor
    # would keep all pages in memory.
    flags = os.MFD_CLOEXEC | (os.MFD_HUGETLB if hugetlb else 0)
    try:
        try:
            fd = os.memfd_create(name, flags | _MFD_NOEXEC_SEAL)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            fd = os.memfd_create(name, flags | os.MFD_ALLOW_SEALING)
    except OSError as error:
        number = error.errno or 0
        raise refusal(
            f"cannot create memory object {name!r}: {describe_errno(number)}; "
            "close descriptors, or raise 'ulimit -n'",
            number,
        ) from None
    try:
        resize_memfd(fd, nbytes)
    except BaseException:
        os.close(fd)
        raise
    return fd


def resize_memfd(fd: int, nbytes: int) -> None:
    """Change the size of a memory object; what it gets is a hole.

    Raises
    ------
    KernelError
        EFBIG: RLIMIT_FSIZE, which is for files and holds for memory objects all the same
        (setrlimit(2)); ENOMEM.
    """
    try:
        # Only the size: a hole takes no memory, however long.  So the object grows with
        # each array that is opened, and nothing need be known of the next one.
        os.truncate(fd, nbytes)
    except OSError as error:
        number = error.errno or 0
        remedy = "raise 'ulimit -f'" if number == errno.EFBIG else "use a smaller one"
        purpose = f"cannot have a memory object of {nbytes} bytes"
        raise refusal(f"{purpose}: {describe_errno(number)}; {remedy}", number) from None


def seal_memfd(fd: int) -> None:
    """Have a memory object never get shorter, and always be open for writing; it may grow.

    That holds for every process, for as long as the object is there.

    Raises
    ------
    KernelError
        EPERM: it was made without MFD_ALLOW_SEALING, is sealed otherwise, or the descriptor is not
        open for writing; EINVAL: it is a file of another kind.
    """
    import fcntl

    # Whoever has mapped what another process cuts off dies of SIGBUS at the next touch.
    wanted = _F_SEAL_SEAL | _F_SEAL_SHRINK
    try:
        found = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        if found & wanted != wanted:
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, wanted)
        is_writable = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR
        number = 0 if is_writable and not found & _F_SEALS_WRITE else errno.EPERM
    except OSError as error:
        number = error.errno or 0
    if number:
        raise refusal(
            f"cannot seal a memory object: {describe_errno(number)}; make it with "
            "MFD_ALLOW_SEALING, and leave it open for writing",
            number,
        )


def map_shared(
    fd: int,
    offset: int,
    nbytes: int,
    *,
    writable: bool,
    address: int | None = None,
    replace: bool = False,
) -> int:
    """Return the address of a shared mapping of a memory object.

    Parameters
    ----------
    fd : int
        The memory object, open for reading and writing also where the mapping is
        not writable: userfaultfd refuses one that could never be (EPERM).
    offset, nbytes : int
        Which bytes of it; the offset a multiple of the page size.
    writable : bool
        Whether this process may write to it.
    address : int, optional
        Where it must be.
    replace : bool
        Whether it takes the place of what is mapped there (MAP_FIXED), such as
        memory from `reserve`; else what is there is an error.

    Raises
    ------
    KernelError
        EEXIST: something is mapped there; EINVAL: not aligned, or empty; ENOMEM.
    """
    # A mapping that is not writable is filled all the same: UFFDIO_COPY asks whether it
    # could be made writable, and so whether the descriptor was open for writing.  So
    # users get an array that they cannot write to by mistake, at no cost.
    return _map(mmap.MAP_SHARED, fd, offset, nbytes, _usual(writable), address, replace)


def map_private(
    nbytes: int, *, writable: bool, address: int | None = None, replace: bool = False
) -> int:
    """Return the address of new anonymous memory of this process alone.

    Parameters and errors are those of `map_shared`.
    """
    # Anonymous: what a process writes in mode "c" is nobody else's.  The cost is that no
    # other process can take such pages out again, so they stay until the region is
    # unmapped (`MemoryKind.is_evictable`), and count towards the limit all that time.
    kind = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    return _map(kind, -1, 0, nbytes, _usual(writable), address, replace)


def reserve(nbytes: int, align: int = PAGE_NBYTES) -> int:
    """Return an aligned address range in which nothing else is mapped.

    Touching it is SIGSEGV until something is mapped over it.

    Parameters
    ----------
    nbytes : int
        How long; rounded up to whole pages.
    align : int
        A power of two, not less than a page.

    Examples
    --------
    >>> address = reserve(1 << 30, align=1 << 21)
    >>> address % (1 << 21)
    0
    >>> unmap(address, 1 << 30)
    """
    nbytes = -(-nbytes // PAGE_NBYTES) * PAGE_NBYTES
    slack = align - PAGE_NBYTES
    kind = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    found = _map(kind, -1, 0, nbytes + slack, Protection.NONE, None, replace=False)
    address = -(-found // align) * align
    if address > found:
        unmap(found, address - found)
    if address - found < slack:
        unmap(address + nbytes, slack - (address - found))
    return address


def unmap(address: int, nbytes: int) -> None:
    """End every mapping in a range; also where there is none.

    Raises
    ------
    KernelError
        EINVAL: not aligned, or empty; ENOMEM: it would split one mapping too many.
    """
    purpose = f"unmap {nbytes} bytes at {address:#x}"
    # Whoever unmaps a region has asked the pager first.  An install that came after this
    # would land in whatever is mapped at the address by then.
    checked_call(purpose, _FREE_ADDRESSES, "munmap", address, nbytes)


def protect(address: int, nbytes: int, protection: Protection) -> None:
    """Change what a range may be used for.

    Raises
    ------
    KernelError
        ENOMEM: part of it is not mapped; EACCES: the memory object does not allow it.
    """
    purpose = f"give {nbytes} bytes at {address:#x} the protection {protection!r}"
    checked_call(purpose, _CHECK_RANGE, "mprotect", address, nbytes, int(protection))


def madvise(address: int, nbytes: int, advice: Advice) -> None:
    """Tell the kernel how a range is used.

    Raises
    ------
    KernelError
        ENOMEM: part of it is not mapped; EINVAL: not aligned, or advice that
        this kernel or this kind of memory does not know; EFAULT, EHWPOISON: a page
        that POPULATE cannot have.
    """
    purpose = f"advise {Advice(advice).name} for {nbytes} bytes at {address:#x}"
    checked_call(purpose, _CHECK_RANGE, "madvise", address, nbytes, int(advice))


def in_core(address: int, nbytes: int) -> bytearray:
    """Return a byte for each page of a mapping: odd where the page is in memory.

    Nothing is read, and a hole of a memory object stays one.  What is swapped out is not in
    memory (mincore(2)); of a memory object of another user every page is said to be.

    Raises
    ------
    KernelError
        EINVAL: not aligned; ENOMEM: part of it is not mapped.

    Examples
    --------
    >>> fd = create_memfd("example", nbytes=3 * PAGE_NBYTES)
    >>> _ = os.pwrite(fd, b"x", PAGE_NBYTES)
    >>> address = map_shared(fd, 0, 3 * PAGE_NBYTES, writable=False)
    >>> [page & 1 for page in in_core(address, 3 * PAGE_NBYTES)]
    [0, 1, 0]
    >>> unmap(address, 3 * PAGE_NBYTES)
    >>> os.close(fd)
    """
    # A look at a page of a hole, even a read, would make it a page of zeros that takes
    # memory. mincore looks without touching, so describing a sparse array costs what is
    # in memory.
    pages = bytearray(-(-nbytes // PAGE_NBYTES))
    if sys.platform != "linux":
        return bytearray(b"\1" * len(pages))
    # Imported here, as in `libc`: who opens an array does not need it.
    import ctypes

    purpose = f"ask which of {nbytes} bytes at {address:#x} are in memory"
    vector = (ctypes.c_char * len(pages)).from_buffer(pages)
    checked_call(purpose, _CHECK_RANGE, "mincore", address, nbytes, ctypes.addressof(vector))
    return pages


def punch_hole(fd: int, offset: int, nbytes: int) -> None:
    """Give back a memory object's pages, in every process that maps it.

    The bytes of a page that the range holds in part become zeros; the object keeps
    its size.

    Raises
    ------
    KernelError
        EINVAL: empty, or negative; EPERM: sealed; EBADF, EOPNOTSUPP: not such an object.
    """
    purpose = f"punch bytes [{offset}, {offset + nbytes}) out of descriptor {fd}"
    remedy = "check that it is a memory object open for writing"
    # The only way to take pages out of a process that does not help:
    # process_madvise(DONTNEED) on another process is EINVAL, and the client may be
    # stuck in a fault.  Its next touch is a fault again.  Without KEEP_SIZE the call is
    # refused.
    how = _FALLOC_PUNCH_HOLE | _FALLOC_KEEP_SIZE
    checked_call(purpose, remedy, "fallocate", fd, how, offset, nbytes)


def _usual(writable: bool) -> Protection:  # noqa: FBT001
    return Protection.READ | Protection.WRITE if writable else Protection.READ


def _map(
    kind: int,
    fd: int,
    offset: int,
    nbytes: int,
    protection: Protection,
    address: int | None,
    replace: bool,  # noqa: FBT001
) -> int:
    # Without NORESERVE the kernel may refuse a mapping that is larger than memory and
    # swap (vm.overcommit_memory).  Of a sparse terabyte next to nothing is ever used.
    flags = kind | _MAP_NORESERVE
    if address is not None:
        # A place that is named is that of the parent's array, in a child that was
        # forked.  MAP_FIXED would take it from whatever another library has mapped there
        # meanwhile.
        flags |= _MAP_FIXED if replace else _MAP_FIXED_NOREPLACE
    where = "" if address is None else f" at {address:#x}"
    purpose = f"map {nbytes} bytes of descriptor {fd} from {offset}{where}"
    found = checked_call(
        purpose, _FREE_ADDRESSES, "mmap", address, nbytes, int(protection), flags, fd, offset
    )
    if address is not None and found != address:
        # Kernels before 4.17 take MAP_FIXED_NOREPLACE for a mere hint.
        unmap(found, nbytes)
        raise refusal(f"cannot {purpose}: it went to {found:#x}; {_FREE_ADDRESSES}", errno.EEXIST)
    return found

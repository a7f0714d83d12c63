"""Which pages of its own private memory a process may have written, and their contents."""

from __future__ import annotations

import enum
import errno
import os
import struct
from typing import TYPE_CHECKING

from lazyarr.kernel.buffers import buffer_address
from lazyarr.kernel.libc import ioctl
from lazyarr.kernel.mapping import PAGE_NBYTES
from lazyarr.kernel.refusal import describe_errno, refusal
from lazyarr.units import Span

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["find_written", "read_memory"]

# Numbers of Linux 6.7 and later, as in linux/fs.h.  Here and not in `uapi`: most processes never
# look for what they have written, and an enumeration takes half a millisecond to make.
_SCAN_LAYOUT = struct.Struct("=12Q")
"""struct pm_scan_arg (linux/fs.h): size, flags, start, end, walk_end, vec, vec_len, max_pages,
category_inverted, category_mask, category_anyof_mask, return_mask."""

_SCAN_REGION_LAYOUT = struct.Struct("=QQQ")
"""struct page_region: start, end, categories."""

_PAGEMAP_SCAN = 3 << 30 | _SCAN_LAYOUT.size << 16 | ord("f") << 8 | 16

_N_REGIONS = 1024  # one call's answer
_N_ENTRIES = 1 << 15
_ENTRY_NBYTES = 8
# Bits 63 and 62: the page is present, or swapped out (Documentation/admin-guide/mm/pagemap.rst).
_IS_THERE = 0b11 << 62
_READ_NBYTES = 1 << 20


class _PageKind(enum.IntFlag):
    """What PAGEMAP_SCAN says of a page (PAGE_IS_*, linux/fs.h; Linux 6.7)."""

    WRITTEN = 1 << 1
    PRESENT = 1 << 3
    SWAPPED = 1 << 4
    # ZEROPAGE maps the one zero page, which no mode of it protects.  It cannot have been
    # written, for a write would have replaced it, though it counts as WRITTEN.
    PFNZERO = 1 << 5


def find_written(address: int, nbytes: int) -> list[Span]:
    """Return the pages of some memory that may have been written, as spans of bytes, in order.

    Parameters
    ----------
    address, nbytes : int
        Whole pages of private anonymous memory of this process.

    Returns
    -------
    list of Span
        In bytes from `address` on.  Where the range is registered for asynchronous
        write-protection and pages were installed with `InstallMode.WP`: the pages that were
        written since.  Elsewhere, and of memory that a forked child has inherited: all pages
        that exist.  Poisoned pages may be among them; `read_memory` leaves them out.

    Raises
    ------
    KernelError
        /proc/self/pagemap cannot be opened.
    """
    # Raw pointers write too, from numba or C, so lazyarr cannot keep the list itself.
    # Pages are installed write-protected, the kernel lifts that at the first write
    # without a message, and what is not protected has been written.  On older kernels
    # every page that exists counts: more is pickled than need be, and nothing is lost.
    pagemap = _open("pagemap")
    try:
        try:
            return _joined(_scan(pagemap, address, nbytes))
        except OSError as error:
            # ENOTTY: Linux before 6.7.  The others: a sandbox that implements pagemap in part.
            if error.errno not in (errno.ENOTTY, errno.EINVAL, errno.ENOSYS, errno.EPERM):
                raise
        return _joined(_present(pagemap, address, nbytes))
    finally:
        os.close(pagemap)


def read_memory(address: int, nbytes: int) -> list[tuple[int, bytes]]:
    """Return the contents of some pages, as runs of bytes with their offsets from the address.

    Poisoned pages are left out.  A process that touches one dies of SIGBUS, so the pages are
    read through /proc/self/mem, where the kernel returns an error instead.

    Parameters
    ----------
    address, nbytes : int
        Pages that exist, or are poisoned.

    Raises
    ------
    KernelError
        /proc/self/mem cannot be opened.
    """
    memory = _open("mem")
    runs: list[tuple[int, bytes]] = []
    at = 0
    try:
        while at < nbytes:
            data = _read(memory, address + at, min(_READ_NBYTES, nbytes - at))
            if data:
                runs.append((at, data))
            # A page that cannot be read is skipped.
            at += len(data) or PAGE_NBYTES
    finally:
        os.close(memory)
    return runs


def _read(memory: int, address: int, nbytes: int) -> bytes:
    try:
        # A read that meets a poisoned page ends before it, and returns what came first.
        # One that begins there fails, and is left out by the caller.
        data = os.pread(memory, nbytes, address)
    except OSError as error:
        if error.errno not in (errno.EIO, errno.EFAULT):
            raise
        return b""
    return data


def _open(name: str) -> int:
    path = f"/proc/self/{name}"
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        number = error.errno or 0
        raise refusal(
            f"cannot find out which pages were written: {path}: {describe_errno(number)}; "
            "let this process read its own /proc",
            number,
        ) from None


def _scan(pagemap: int, address: int, nbytes: int) -> Iterator[Span]:
    """Yield the pages that PAGEMAP_SCAN finds: not write-protected, and not the zero page."""
    # Answers come for runs of pages, not for each.  A thousand at a time are 24 KiB, and
    # most views that are pickled need one call.
    regions = bytearray(_N_REGIONS * _SCAN_REGION_LAYOUT.size)
    at, stop = address, address + nbytes
    while at < stop:
        argument = bytearray(
            _SCAN_LAYOUT.pack(
                _SCAN_LAYOUT.size,
                0,
                at,
                stop,
                0,
                buffer_address(regions),
                _N_REGIONS,
                0,
                _PageKind.PFNZERO,
                _PageKind.WRITTEN | _PageKind.PFNZERO,
                _PageKind.PRESENT | _PageKind.SWAPPED,
                _PageKind.WRITTEN,
            )
        )
        n_regions = ioctl(pagemap, _PAGEMAP_SCAN, argument)
        used = memoryview(regions)[: n_regions * _SCAN_REGION_LAYOUT.size]
        for start, end, _ in _SCAN_REGION_LAYOUT.iter_unpack(used):
            yield Span(start - address, end - address)
            at = end
        # A full answer goes on behind its last region.  The kernel's `walk_end` is not used: it
        # lay a thousand pages before that region (Linux 6.18).  An answer that is not full is
        # the last.
        if n_regions < _N_REGIONS:
            return


def _present(pagemap: int, address: int, nbytes: int) -> Iterator[Span]:
    """Yield the pages that are present or swapped out, from the entry of each page."""
    n_pages = nbytes // PAGE_NBYTES
    for first in range(0, n_pages, _N_ENTRIES):
        n_entries = min(_N_ENTRIES, n_pages - first)
        place = (address // PAGE_NBYTES + first) * _ENTRY_NBYTES
        entries = os.pread(pagemap, n_entries * _ENTRY_NBYTES, place)
        # Most of a sparse array: 256 KiB of entries are looked at in one step of the
        # interpreter instead of 32 thousand.
        if not any(entries):
            continue
        for page, (entry,) in enumerate(struct.iter_unpack("=Q", entries), first):
            if entry & _IS_THERE:
                yield Span(page * PAGE_NBYTES, (page + 1) * PAGE_NBYTES)


def _joined(spans: Iterator[Span]) -> list[Span]:
    """Return spans, which come in order, with adjacent ones joined."""
    joined: list[Span] = []
    for span in spans:
        if joined and joined[-1].stop == span.start:
            joined[-1] = Span(joined[-1].start, span.stop)
        else:
            joined.append(span)
    return joined

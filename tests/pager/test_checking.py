"""What clients say is checked before anything relies on it."""

from __future__ import annotations

import fcntl
import math
import os

import pytest

from lazyarr import settings
from lazyarr.errors import KernelError, PagerError
from lazyarr.formats.zarr import array_document, parse_data_type, parse_node
from lazyarr.kernel import PAGE_NBYTES, Features, Userfaultfd, create_memfd
from lazyarr.layout.document import layout_text
from lazyarr.pager.checking import check_hello, read_settings
from lazyarr.pager.memory.clients import Arena
from lazyarr.pager.service.region_opening import open_region
from lazyarr.reading.rotation import Rotation
from lazyarr.wire import messages as w
from lazyarr.wire.channel import Received

GOOD = settings.current().document()


@pytest.mark.parametrize(
    "changes",
    [
        *({"memory_limit": value} for value in (0, -1, "x", None, math.inf)),
        *({"threads": value} for value in (0, [], math.nan)),
        *({"timeout": value} for value in (0, -1, math.inf, math.nan, {})),
        {"retries": -1},
    ],
)
def test_settings_that_could_not_hold_are_refused(changes):
    """A worker that went by them would fail, and so would the next."""
    with pytest.raises(PagerError, match="cannot use settings"):
        read_settings({**GOOD, **changes})


def test_settings_are_read_and_threads_are_bounded():
    """A million threads are more than a system starts."""
    limits = read_settings({**GOOD, "threads": 10**6, "timeout": 2.5})
    assert (limits.memory_limit, limits.timeout_seconds) == (GOOD["memory_limit"], 2.5)
    assert limits.threads == 1024
    with pytest.raises(PagerError, match="cannot use settings"):
        read_settings({})


def test_hello_with_other_descriptors_is_refused():
    """Only a userfaultfd is polled for faults, only memory objects are written to."""
    hello = w.Hello(w.VERSION, os.getpid(), 0, GOOD)
    memfd, null = create_memfd("test"), os.open("/dev/null", os.O_RDWR)
    with Userfaultfd.open(Features(0)) as uffd:
        right = (uffd.fileno(), memfd, memfd, null)
        check_hello(Received(hello, right))
        for place in range(3):
            wrong = [*right]
            wrong[place] = null
            with pytest.raises(PagerError, match="expected a descriptor of"):
                check_hello(Received(hello, tuple(wrong)))
        for other in (hello._replace(version=0), hello._replace(pid=0), hello._replace(pid=2**40)):
            with pytest.raises(PagerError):
                check_hello(Received(other, right))
    os.close(memfd)
    os.close(null)


@pytest.mark.parametrize("place", [1, 2])
def test_memory_that_could_be_cut_off_or_closed_to_writing_is_refused(place):
    """The worker maps it, and would die of SIGBUS, or could not take pages out."""
    hello = w.Hello(w.VERSION, os.getpid(), 0, GOOD)
    null = os.open("/dev/null", os.O_RDWR)
    memfds = [create_memfd("test", nbytes=PAGE_NBYTES) for _ in range(2)]
    sealed, closed = create_memfd("sealed"), create_memfd("closed")
    fcntl.fcntl(sealed, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK)
    fcntl.fcntl(closed, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    read_only = os.open(f"/proc/self/fd/{sealed}", os.O_RDONLY)
    bad = [os.memfd_create("never sealed"), closed, read_only]
    with Userfaultfd.open(Features(0)) as uffd:
        right = [uffd.fileno(), *memfds, null]
        check_hello(Received(hello, tuple(right)))
        for memfd in memfds:
            os.truncate(memfd, 2 * PAGE_NBYTES)
            with pytest.raises(PermissionError):
                os.truncate(memfd, PAGE_NBYTES)
        for wrong in bad:
            right[place] = wrong
            with pytest.raises(KernelError, match="cannot seal"):
                check_hello(Received(hello, tuple(right)))
    for descriptor in (null, sealed, *memfds, *bad):
        os.close(descriptor)


def opened(**changes) -> w.OpenRegion:
    document = array_document(shape=(4096,), dtype=parse_data_type("uint8"), chunks=(1024,))
    store = {"kind": "packed", "url": "u", "index": {}}
    layout = layout_text(parse_node(document, path="x").layout())
    region = w.OpenRegion(1, 1 << 30, 0, 0, "u", "x", layout, store, False, "SHARED")
    return region._replace(**changes)


def open_it(message: w.OpenRegion) -> None:
    """Open a region in memory objects of one page each, with a store's descriptor; close it."""
    arena = Arena(*(create_memfd("test", nbytes=PAGE_NBYTES) for _ in range(2)))
    try:
        region, _ = open_region(
            message,
            (os.open("/dev/null", os.O_RDONLY),),
            arena,
            timeout_seconds=1,
            retries=0,
            count=lambda *_: None,
            share=lambda *_: None,
            rotation=Rotation(),
        )
        region.close()
    finally:
        arena.release()


@pytest.mark.parametrize(
    "changes",
    [
        *({"address": value} for value in (0, -1, 4097, 2**63 - 4096)),
        *({"offset": value} for value in (1, 4096, 2**62)),
        *({"map_offset": value} for value in (-1, 4096, 2**62)),
        {"layout": "{}"},
        {"kind": "HUGE"},
        {"offset": -1},
    ],
)
def test_region_that_lies_elsewhere_is_refused(changes):
    """Outside of its memory objects, or not in pages; its descriptors are closed."""
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises((PagerError, ValueError)):
        open_it(opened(**changes))
    assert len(os.listdir("/proc/self/fd")) == before


def test_region_that_was_never_read_leaves_no_descriptor():
    """The store is opened by the first load; what it would be opened with is closed anyhow."""
    before = len(os.listdir("/proc/self/fd"))
    open_it(opened())
    assert len(os.listdir("/proc/self/fd")) == before

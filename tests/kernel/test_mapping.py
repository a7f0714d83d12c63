"""Memory where it was asked for, and memory objects."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest

from lazyarr.errors import KernelError
from lazyarr.kernel import (
    PAGE_NBYTES,
    Advice,
    Protection,
    create_memfd,
    madvise,
    map_private,
    map_shared,
    memory_view,
    protect,
    punch_hole,
    reserve,
    unmap,
)


def smaps_of(address: int) -> dict[str, str]:
    """Return the kernel's view of the mapping that starts at an address."""
    fields: dict[str, str] = {}
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            inside = line.startswith(f"{address:x}-")
            if inside:
                fields["permissions"] = line.split()[1]
        elif inside:
            name, _, value = line.partition(":")
            fields[name] = value.strip()
    return fields


@pytest.fixture
def memfd():
    """A memory object of four pages."""
    fd = create_memfd("test", nbytes=4 * PAGE_NBYTES)
    yield fd
    os.close(fd)


def test_memfd_is_named_empty_and_not_executable(memfd):
    """It costs nothing until it is filled, and no program inherits it."""
    status = os.fstat(memfd)
    assert (status.st_size, status.st_blocks) == (4 * PAGE_NBYTES, 0)
    assert not os.get_inheritable(memfd)
    assert "/memfd:test" in os.readlink(f"/proc/self/fd/{memfd}")


def test_memfd_with_too_long_a_name_is_refused():
    """The kernel allows 249 bytes."""
    with pytest.raises(KernelError, match="EINVAL"):
        create_memfd("x" * 300)


def test_terabyte_maps_without_memory():
    """Nothing is reserved for it."""
    fd = create_memfd("test", nbytes=1 << 40)
    address = map_shared(fd, 0, 1 << 40, writable=True)
    memory_view(address + (1 << 39), 1, writable=True)[0] = 7
    assert os.fstat(fd).st_blocks * 512 == PAGE_NBYTES
    assert "nr" in smaps_of(address)["VmFlags"].split()
    unmap(address, 1 << 40)
    os.close(fd)


def test_mappings_of_one_object_share_their_bytes(memfd):
    """What one writes at an offset, the other reads there."""
    writer = map_shared(memfd, 0, 4 * PAGE_NBYTES, writable=True)
    reader = map_shared(memfd, PAGE_NBYTES, PAGE_NBYTES, writable=False)
    memory_view(writer + PAGE_NBYTES, 4, writable=True)[:] = b"lazy"
    assert bytes(memory_view(reader, 4, writable=False)) == b"lazy"
    assert smaps_of(writer)["permissions"] == "rw-s"
    assert smaps_of(reader)["permissions"] == "r--s"
    unmap(writer, 4 * PAGE_NBYTES)
    unmap(reader, PAGE_NBYTES)


def test_private_memory_is_zero_and_ours():
    """Fresh anonymous pages."""
    address = map_private(2 * PAGE_NBYTES, writable=True)
    assert bytes(memory_view(address, 2 * PAGE_NBYTES, writable=False)) == bytes(2 * PAGE_NBYTES)
    assert smaps_of(address)["permissions"] == "rw-p"
    unmap(address, 2 * PAGE_NBYTES)


def test_address_that_was_asked_for_is_kept(memfd, free_range):
    """Where nothing is mapped, it is exactly there."""
    assert map_shared(memfd, 0, PAGE_NBYTES, writable=False, address=free_range) == free_range


@pytest.mark.parametrize("kind", ["shared", "private"])
def test_what_is_mapped_already_is_not_replaced_unasked(memfd, kind):
    """EEXIST, and the old memory is untouched; with `replace` it gives way."""
    address = map_private(PAGE_NBYTES, writable=True)
    memory_view(address, 1, writable=True)[0] = 7

    def again(*, replace: bool) -> int:
        if kind == "private":
            return map_private(PAGE_NBYTES, writable=True, address=address, replace=replace)
        return map_shared(memfd, 0, PAGE_NBYTES, writable=True, address=address, replace=replace)

    with pytest.raises(KernelError, match=f"{address:#x}") as caught:
        again(replace=False)
    assert caught.value.errno == errno.EEXIST
    assert memory_view(address, 1, writable=False)[0] == 7
    assert again(replace=True) == address
    assert memory_view(address, 1, writable=False)[0] == 0
    unmap(address, PAGE_NBYTES)


@pytest.mark.parametrize("align", [PAGE_NBYTES, 1 << 16, 1 << 21, 1 << 30])
def test_reservation_is_aligned_and_leaves_no_slack(align):
    """Its ends are unmapped again, and nobody may touch it."""
    before = Path("/proc/self/maps").read_text().count("---p")
    address = reserve(3 * PAGE_NBYTES - 1, align)
    assert address % align == 0
    (line,) = [
        line
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.startswith(f"{address:x}-{address + 3 * PAGE_NBYTES:x} ")
    ]
    assert line.split()[1] == "---p"
    unmap(address, 3 * PAGE_NBYTES)
    assert Path("/proc/self/maps").read_text().count("---p") == before


def test_reservation_takes_a_mapping(memfd):
    """A region is reserved first and filled with its memory after."""
    address = reserve(4 * PAGE_NBYTES)
    found = map_shared(memfd, 0, 2 * PAGE_NBYTES, writable=True, address=address, replace=True)
    assert found == address
    memory_view(address, 1, writable=True)[0] = 1
    unmap(address, 4 * PAGE_NBYTES)


def test_empty_mapping_is_refused():
    """EINVAL, named."""
    with pytest.raises(KernelError, match="EINVAL"):
        map_private(0, writable=True)


def test_mapping_larger_than_the_address_space_is_refused():
    """ENOMEM, with what to do."""
    with pytest.raises(KernelError, match="max_map_count") as caught:
        map_private(1 << 60, writable=True)
    assert caught.value.errno == errno.ENOMEM


def test_unmap_needs_an_aligned_address():
    """EINVAL, with the address."""
    with pytest.raises(KernelError, match="0x1001"):
        unmap(0x1001, PAGE_NBYTES)


def test_protection_can_change():
    """Read-only memory becomes writable and back."""
    address = map_private(PAGE_NBYTES, writable=False)
    protect(address, PAGE_NBYTES, Protection.READ | Protection.WRITE)
    memory_view(address, 1, writable=True)[0] = 1
    protect(address, PAGE_NBYTES, Protection.NONE)
    assert smaps_of(address)["permissions"] == "---p"
    unmap(address, PAGE_NBYTES)


def test_protection_of_nothing_is_refused(free_range):
    """ENOMEM: there is no mapping."""
    with pytest.raises(KernelError) as caught:
        protect(free_range, PAGE_NBYTES, Protection.READ)
    assert caught.value.errno == errno.ENOMEM


@pytest.mark.parametrize(
    ("advice", "undo", "flag"),
    [
        (Advice.DONTFORK, Advice.DOFORK, "dc"),
        (Advice.DONTDUMP, Advice.DODUMP, "dd"),
        (Advice.NOHUGEPAGE, Advice.HUGEPAGE, "nh"),
        (Advice.RANDOM, Advice.NORMAL, "rr"),
        (Advice.SEQUENTIAL, Advice.NORMAL, "sr"),
    ],
)
def test_advice_reaches_the_mapping(advice, undo, flag):
    """The kernel shows the flag, and no more after the opposite."""
    address = map_private(PAGE_NBYTES, writable=True)
    madvise(address, PAGE_NBYTES, advice)
    assert flag in smaps_of(address)["VmFlags"].split()
    madvise(address, PAGE_NBYTES, undo)
    assert flag not in smaps_of(address)["VmFlags"].split()
    unmap(address, PAGE_NBYTES)


def test_advice_for_nothing_names_the_advice(free_range):
    """The message says what was tried."""
    with pytest.raises(KernelError, match="DONTFORK"):
        madvise(free_range, PAGE_NBYTES, Advice.DONTFORK)


def test_hole_gives_pages_back_in_every_mapping(memfd):
    """The size stays; the bytes are zeros where nobody watches."""
    address = map_shared(memfd, 0, 4 * PAGE_NBYTES, writable=True)
    memory_view(address, 4 * PAGE_NBYTES, writable=True)[:] = b"x" * (4 * PAGE_NBYTES)
    punch_hole(memfd, PAGE_NBYTES, 2 * PAGE_NBYTES)
    status = os.fstat(memfd)
    assert (status.st_size, status.st_blocks * 512) == (4 * PAGE_NBYTES, 2 * PAGE_NBYTES)
    assert bytes(memory_view(address, 4 * PAGE_NBYTES, writable=False)[::PAGE_NBYTES]) == b"x\0\0x"
    unmap(address, 4 * PAGE_NBYTES)


def test_hole_in_a_pipe_is_refused():
    """The error names the descriptor."""
    reading, writing = os.pipe()
    with pytest.raises(KernelError, match=f"descriptor {writing}") as caught:
        punch_hole(writing, 0, PAGE_NBYTES)
    assert caught.value.errno == errno.ESPIPE
    os.close(reading)
    os.close(writing)

"""What a file is like now: the same by either way of asking."""

from __future__ import annotations

import os

import pytest

from lazyarr.kernel import current_stamp, stamp_of


@pytest.mark.parametrize("path", ["/proc/self/exe", "/", "/dev/null", "/proc/self/stat"])
def test_both_ways_of_asking_agree(path):
    """statx(2) says what fstat(2) says, of files of every kind."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        assert current_stamp(descriptor) == stamp_of(os.fstat(descriptor))
    finally:
        os.close(descriptor)


def test_a_large_file_is_told_by_its_size(tmp_path):
    """Sizes and times are whole 64-bit numbers."""
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(1 << 41)
        os.utime(file.fileno(), ns=(5 * 10**18 + 7, 5 * 10**18 + 7))
        stamp = current_stamp(file.fileno())
        assert stamp.nbytes == 1 << 41
        assert stamp == stamp_of(os.fstat(file.fileno()))


def test_a_closed_descriptor_is_an_error():
    """The errno is the kernel's."""
    descriptor = os.open("/", os.O_RDONLY)
    os.close(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        current_stamp(descriptor)

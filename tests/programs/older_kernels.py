"""Programs of tests/process/test_older_kernels.py: a process on an older kernel.

What the kernel would refuse is refused here, where the calls are made.  The pager is another
process, and goes by what this one has told it of its userfaultfds.
"""

from __future__ import annotations

import errno
import multiprocessing
import os

import numpy as np
from click.testing import CliRunner

import lazyarr
from lazyarr.cli import main
from lazyarr.errors import KernelUnsupportedError
from lazyarr.kernel import Features, InstallMode, RegisterMode, descriptor, probe, raw
from lazyarr.kernel.libc import ioctl
from lazyarr.kernel.uapi import (
    API_LAYOUT,
    RANGE_MODE_RESULT_LAYOUT,
    REGISTER_LAYOUT,
    UFFDIO_API,
    UFFDIO_CONTINUE,
    UFFDIO_REGISTER,
)
from tests.programs.support import in_child, read_all, wait_until

_SINCE_6_6 = Features.POISON | Features.WP_ASYNC | Features.MOVE
# Linux 5.15 and 6.1, as distributions have them.
_LACKS = {
    "5.15": _SINCE_6_6 | Features.WP_HUGETLBFS_SHMEM | Features.WP_UNPOPULATED,
    "6.1": _SINCE_6_6,
}


def _play(release):
    """Refuse what a kernel of that release refuses (fs/userfaultfd.c there)."""
    lacks = _LACKS[release]

    def older(fd, request, argument):
        if request == UFFDIO_API:
            _, features, _ = API_LAYOUT.unpack(argument)
            if Features(features) & lacks:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            ioctl(fd, request, argument)
            api, offered, ioctls = API_LAYOUT.unpack(argument)
            argument[:] = API_LAYOUT.pack(api, offered & ~int(lacks), ioctls)
            return 0
        # Both releases know but one mode of CONTINUE, and refuse any other bit.
        if request == UFFDIO_CONTINUE:
            mode = RANGE_MODE_RESULT_LAYOUT.unpack(argument)[2]
            if mode & ~InstallMode.DONTWAKE:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        elif request == UFFDIO_REGISTER and Features.WP_HUGETLBFS_SHMEM in lacks:
            mode = REGISTER_LAYOUT.unpack(argument)[2]
            if mode & RegisterMode.WP and mode & RegisterMode.MINOR:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return ioctl(fd, request, argument)

    raw.ioctl = descriptor.ioctl = older


def _n_userfaultfds(pid="self"):
    links = (f"/proc/{pid}/fd/{fd}" for fd in os.listdir(f"/proc/{pid}/fd"))
    return sum("userfaultfd" in os.readlink(link) for link in links if os.path.lexists(link))


def read_and_count(x):
    """Read an array that was sent here; return its sum, and how many userfaultfds there are."""
    return int(np.asarray(x).sum(dtype="i8")), _n_userfaultfds()


def each_process_has_two(url, copy):
    """Of this kernel, where it has all that writing needs."""
    x, data = lazyarr.open(url), np.load(copy)
    expected = int(data.sum(dtype="i8")), 2
    assert read_and_count(x) == expected

    def child():
        assert read_and_count(x) == expected
        assert in_child(lambda: None if read_and_count(x) == expected else os._exit(3)) == 0

    assert in_child(child) == 0
    # The worker holds those of the clients that are left.
    assert wait_until(lambda: _n_userfaultfds(lazyarr.stats()["pid"]) == 2)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(read_and_count, (x,)) == expected
        assert _n_userfaultfds(lazyarr.stats()["pid"]) == 4


def reads_and_cannot_write(url, copy, release):
    _play(release)
    data = np.load(copy)
    support = probe()
    assert not support.write_back
    try:
        support.require_write_back()
    except KernelUnsupportedError as error:
        print(", ".join(error.missing), error.remedy, error, sep=" | ")
    x = lazyarr.open(url)
    assert isinstance(x, lazyarr.LazyArray)
    assert _n_userfaultfds() == 1
    assert (np.asarray(x)[:7] == data[:7]).all()

    def child():
        assert read_all(x) == data.tobytes()
        assert _n_userfaultfds() == 1

    assert in_child(child) == 0
    assert read_all(x) == data.tobytes()
    shown = CliRunner().invoke(main, ["doctor"]).stdout
    (row,) = [line for line in shown.splitlines() if "write_back" in line]
    print(row)

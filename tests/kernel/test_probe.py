"""What the probe says of this machine, and of what it could not be."""

from __future__ import annotations

import errno
import os

import pytest

from lazyarr.errors import KernelUnsupportedError
from lazyarr.kernel import Attempt, Features, Ioctls, Userfaultfd, probe
from lazyarr.kernel.descriptor import WAYS
from lazyarr.kernel.opening import open_shaken


def test_probe_says_what_opening_finds():
    """The same ways, the same rights."""
    support = probe()
    with Userfaultfd.open(Features(0)) as uffd:
        assert support.usable
        assert support.full_rights == (not uffd.user_mode_only)
    assert support.release == os.uname().release
    assert support.page_nbytes == os.sysconf("SC_PAGE_SIZE")
    assert Ioctls.REGISTER | Ioctls.API in support.ioctls
    assert [attempt.way for attempt in support.attempts] == list(WAYS)


def test_every_feature_that_the_probe_reports_can_be_turned_on():
    """But for the events, which no handle reads."""
    events = (
        Features.EVENT_FORK | Features.EVENT_REMAP | Features.EVENT_REMOVE | Features.EVENT_UNMAP
    )
    for feature in probe().features & ~events:
        with Userfaultfd.open(feature) as uffd:
            assert uffd.features == feature


def test_named_flags_follow_the_feature_bits():
    """Each property is one bit."""
    support = probe()._replace(features=Features(0))
    names = {
        "missing_shmem": Features.MISSING_SHMEM,
        "minor_shmem": Features.MINOR_SHMEM,
        "missing_hugetlbfs": Features.MISSING_HUGETLBFS,
        "minor_hugetlbfs": Features.MINOR_HUGETLBFS,
        "wp": Features.PAGEFAULT_FLAG_WP,
        "wp_shmem": Features.WP_HUGETLBFS_SHMEM,
        "wp_async": Features.WP_ASYNC,
        "poison": Features.POISON,
        "thread_id": Features.THREAD_ID,
    }
    for name, bit in names.items():
        assert not getattr(support, name)
        assert getattr(support._replace(features=bit), name)


def test_old_kernel_is_missing_features_and_wants_a_newer_one():
    """Usable, with the features named that it lacks."""
    support = probe()._replace(features=Features.MISSING_SHMEM | Features.THREAD_ID)
    assert support.missing == ("PAGEFAULT_FLAG_WP", "MINOR_SHMEM", "WP_HUGETLBFS_SHMEM", "POISON")
    assert support.remedy.endswith("use a newer Linux kernel")


def test_kernel_that_opens_nothing_is_missing_userfaultfd():
    """The features do not matter then."""
    refused = tuple(Attempt(way, errno.EPERM) for way in WAYS)
    support = probe()._replace(attempts=refused, features=Features(0))
    assert not support.usable
    assert support.missing == ("userfaultfd",)
    assert support.remedy


def test_opening_by_no_way_is_unsupported(run_python):
    """The error comes from the kernel's answers: here there is no descriptor left to have."""
    ended = run_python("""
import resource
from lazyarr.errors import KernelUnsupportedError
from lazyarr.kernel import *
from lazyarr.kernel.libc import call
call("getpid")
Userfaultfd.open(Features(0)).close()
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
try:
    Userfaultfd.open(Features(0))
except KernelUnsupportedError as error:
    print(error.missing, error.errno, "EMFILE" in str(error))
""")
    assert (ended.stdout, ended.stderr) == (f"('userfaultfd',) {errno.EMFILE} True\n", "")


def test_feature_of_no_kernel_is_unsupported():
    """The handshake is refused and nothing is kept open."""
    with pytest.raises(KernelUnsupportedError) as caught:
        open_shaken(Features(1 << 61))
    assert caught.value.errno == errno.EINVAL

"""What the probe says of this machine, and of what it could not be."""

from __future__ import annotations

import errno
import os

import pytest

from lazyarr.errors import KernelError, KernelUnsupportedError
from lazyarr.kernel import (
    PAGE_NBYTES,
    WRITE_BACK,
    Attempt,
    Features,
    Ioctls,
    RegisterMode,
    Stop,
    Userfaultfd,
    create_memfd,
    map_shared,
    probe,
    unmap,
)
from lazyarr.kernel.descriptor import WAYS
from lazyarr.kernel.opening import open_shaken
from tests.programs import kernel as programs


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
    assert set(support.missing) == {
        "PAGEFAULT_FLAG_WP",
        "MINOR_SHMEM",
        "WP_HUGETLBFS_SHMEM",
        "WP_ASYNC",
        "POISON",
    }
    assert support.remedy.endswith("use a newer Linux kernel")


@pytest.mark.parametrize("lacking", [*WRITE_BACK, "CONTINUE_MODE_WP"])
def test_what_writing_needs_is_named_where_it_is_missing(lacking):
    """One of the features, or the mode of CONTINUE, of which no feature tells."""
    support = probe()._replace(features=WRITE_BACK, continue_wp=True)
    assert support.write_back
    support.require_write_back()
    if isinstance(lacking, Features):
        support = support._replace(features=WRITE_BACK & ~lacking)
    else:
        support = support._replace(continue_wp=False)
    assert not support.write_back
    with pytest.raises(KernelUnsupportedError, match="cannot write to arrays in memory") as caught:
        support.require_write_back()
    assert caught.value.missing == (getattr(lacking, "name", lacking),)
    assert caught.value.remedy == "use Linux 6.4 or newer, or pass engine='copy'"


def test_a_page_is_tried_where_the_features_allow_it():
    """What the probe says of this kernel is what a page that is mapped so shows."""
    support = probe()
    if WRITE_BACK not in support.features:
        assert not support.continue_wp
        return
    memfd = create_memfd("test", nbytes=PAGE_NBYTES)
    os.pwrite(memfd, b"p", 0)
    address = map_shared(memfd, 0, PAGE_NBYTES, writable=True)
    with Userfaultfd.open(WRITE_BACK) as uffd:
        mode = RegisterMode.MISSING | RegisterMode.MINOR | RegisterMode.WP
        uffd.register(address, PAGE_NBYTES, mode)
        try:
            is_mapped = uffd.continue_(address, PAGE_NBYTES, mode=2).stop is Stop.DONE
        except KernelError:
            is_mapped = False
    unmap(address, PAGE_NBYTES)
    os.close(memfd)
    assert support.continue_wp == is_mapped


def test_kernel_that_opens_nothing_is_missing_userfaultfd():
    """The features do not matter then."""
    refused = tuple(Attempt(way, errno.EPERM) for way in WAYS)
    support = probe()._replace(attempts=refused, features=Features(0))
    assert not support.usable
    assert support.missing == ("userfaultfd",)
    assert support.remedy
    with pytest.raises(KernelUnsupportedError, match="lacks userfaultfd") as caught:
        support.require_write_back()
    assert caught.value.missing == ("userfaultfd",)
    assert caught.value.remedy == f"{support.remedy}, or pass engine='copy'"


def test_a_lack_of_descriptors_is_not_taken_for_a_kernel_without_userfaultfd(run_python):
    """It is named, and is no reason to copy arrays instead."""
    ended = run_python(programs.lacks_descriptors)
    assert (ended.stdout, ended.stderr) == (f"False {errno.EMFILE} True\n", "")


def test_feature_of_no_kernel_is_unsupported():
    """The handshake is refused and nothing is kept open."""
    with pytest.raises(KernelUnsupportedError) as caught:
        open_shaken(Features(1 << 61))
    assert caught.value.errno == errno.EINVAL

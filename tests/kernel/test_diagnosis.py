"""From errnos and hints to what the user is told to do."""

from __future__ import annotations

import errno

import pytest

from lazyarr.kernel import Attempt, Features, Ioctls, RegisterMode, Surroundings
from lazyarr.kernel.descriptor import WAYS
from lazyarr.kernel.diagnosis import (
    feature_names,
    parse_surroundings,
    plan_remedy,
    unopenable,
    unserved_modes,
    unsupported_features,
)

BARE = Surroundings(seccomp=0, gvisor=False)
FILTERED = Surroundings(seccomp=2, gvisor=False)
GVISOR = Surroundings(seccomp=0, gvisor=True)


def attempts(*numbers):
    """Return the attempts of every way, with these errnos."""
    return [Attempt(way, number) for way, number in zip(WAYS, numbers, strict=True)]


@pytest.mark.parametrize(
    ("numbers", "surroundings", "words"),
    [
        ((None, None, None), BARE, ""),
        ((errno.ENOENT, None, None), BARE, ""),
        ((None, errno.EPERM, errno.EPERM), FILTERED, ""),
        ((errno.EACCES, errno.EPERM, None), BARE, "unprivileged_userfaultfd"),
        ((errno.EACCES, errno.EPERM, None), FILTERED, "setfacl"),
        ((errno.EACCES, errno.EPERM, errno.EINVAL), BARE, "setfacl"),
        ((errno.ENOENT, errno.EPERM, errno.EPERM), FILTERED, "--device /dev/userfaultfd"),
        ((errno.ENOENT, errno.ENOSYS, errno.ENOSYS), BARE, "CONFIG_USERFAULTFD"),
        ((errno.ENOENT, errno.ENOSYS, errno.ENOSYS), GVISOR, "gVisor"),
    ],
)
def test_remedy_fits_what_stands_in_the_way(numbers, surroundings, words):
    """Nothing where all is well; else the step that helps here."""
    remedy = plan_remedy(attempts(*numbers), surroundings)
    assert words in remedy
    assert bool(remedy) == bool(words)


@pytest.mark.parametrize(
    ("status", "version", "found"),
    [
        ("Name:\tpython\nSeccomp:\t0\nSeccomp_filters:\t0\n", "Linux version 6.18.0", BARE),
        ("Seccomp:\t2\n", "Linux version 6.1.0-18-cloud-amd64", FILTERED),
        ("Seccomp:\t0\n", "Linux version 4.4.0 #1 SMP Sun Jan 10 15:06:54 PST 2016", GVISOR),
        ("Seccomp:\t0\n", "Linux version 4.19.0-gvisor #1 SMP", GVISOR),
        ("", "", Surroundings(seccomp=None, gvisor=False)),
        ("Seccomp: what\n", "", Surroundings(seccomp=None, gvisor=False)),
    ],
)
def test_surroundings_are_read_from_proc(status, version, found):
    """A filter and gVisor are told, and a kernel that says nothing is no error."""
    assert parse_surroundings(status, version) == found


def test_error_of_a_descriptor_that_nothing_opens_names_every_way():
    """The message has each errno; the fields say what is missing and what to do."""
    error = unopenable(attempts(errno.EACCES, errno.EPERM, errno.ENOSYS), FILTERED)
    assert str(error) == (
        "cannot open userfaultfd: EACCES (Permission denied) on /dev/userfaultfd, "
        "EPERM (Operation not permitted) from the system call, "
        "ENOSYS (Function not implemented) from the system call for user-mode-only; "
        "run 'lazyarr doctor'"
    )
    assert error.errno == errno.ENOSYS
    assert error.missing == ("userfaultfd",)
    assert "--device" in error.remedy


def test_error_of_a_handshake_names_the_missing_features():
    """An older kernel is told from one that wants a privilege."""
    wanted = Features.POISON | Features.MINOR_SHMEM
    error = unsupported_features(wanted, Features.MINOR_SHMEM, errno.EINVAL)
    assert error.missing == ("POISON",)
    assert "POISON" in str(error)
    error = unsupported_features(wanted, wanted, errno.EPERM)
    assert error.missing == ()
    assert "EPERM" in str(error)
    assert error.errno == errno.EPERM


def test_modes_need_their_operations():
    """A range whose faults could not be answered is refused before anybody touches it."""
    both = RegisterMode.MISSING | RegisterMode.MINOR
    assert unserved_modes(both, Ioctls.COPY | Ioctls.CONTINUE) is None
    error = unserved_modes(both, Ioctls.COPY | Ioctls.WAKE)
    assert error is not None
    assert error.missing == ("CONTINUE",)


def test_feature_names_leave_out_bits_without_a_name():
    """A later kernel's bit has no name to print."""
    assert feature_names(Features(1 << 14 | 1 << 50)) == ("POISON",)

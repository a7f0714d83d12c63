"""Why userfaultfd cannot be used, and what to do about it; nothing here makes a call."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, NamedTuple

from lazyarr.errors import KernelUnsupportedError
from lazyarr.kernel.descriptor import DEVICE_PATH, Way
from lazyarr.kernel.refusal import describe_errno
from lazyarr.kernel.uapi import Features, Ioctls, RegisterMode

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "Attempt",
    "Surroundings",
    "feature_names",
    "parse_surroundings",
    "plan_remedy",
    "unopenable",
    "unserved_modes",
    "unsupported_features",
    "unwritable_arrays",
]

_NEEDED = {
    RegisterMode.MISSING: Ioctls.COPY,
    RegisterMode.WP: Ioctls.WRITEPROTECT,
    RegisterMode.MINOR: Ioctls.CONTINUE,
}

_GRANT = (
    f"sudo setfacl -m u:$USER:rw {DEVICE_PATH}, or sudo sysctl -w vm.unprivileged_userfaultfd=1"
)


class Attempt(NamedTuple):
    """One try to open a userfaultfd, and the errno it ended with; None when it opened."""

    way: Way
    errno: int | None


class Surroundings(NamedTuple):
    """What stands between the process and the kernel.

    Attributes
    ----------
    seccomp : int or None
        Mode of the system call filter: 0 none, 1 strict, 2 a profile, as Docker's;
        None where the kernel does not say.
    gvisor : bool
        Whether the kernel is gVisor, which has no userfaultfd.
    """

    seccomp: int | None
    gvisor: bool


def parse_surroundings(status: str, version: str) -> Surroundings:
    r"""Return what /proc/self/status and /proc/version give away.

    Examples
    --------
    >>> parse_surroundings("Name: python\nSeccomp: 2\n", "Linux version 6.18.0").seccomp
    2
    """
    seccomp = None
    for line in status.splitlines():
        name, _, value = line.partition(":")
        if name == "Seccomp" and value.strip().isdigit():
            seccomp = int(value)
    # gVisor reports this build date in every release (pkg/sentry/syscalls/linux).
    gvisor = "gvisor" in version.lower() or "Sun Jan 10 15:06:54 PST 2016" in version
    return Surroundings(seccomp, gvisor)


def feature_names(features: Features) -> tuple[str, ...]:
    """Return the names of the features that are known, lowest bit first.

    Examples
    --------
    >>> feature_names(Features.POISON | Features.MINOR_SHMEM)
    ('MINOR_SHMEM', 'POISON')
    """
    return tuple(feature.name or "" for feature in Features if feature & features)


def plan_remedy(attempts: Sequence[Attempt], surroundings: Surroundings) -> str:
    """Return what would give full use of userfaultfd; empty when nothing is amiss."""
    # A container's filter or kernel answers before the rights of a user are looked at,
    # so it is named first: advice on rights would be wrong there.
    opened = [attempt.way for attempt in attempts if attempt.errno is None]
    if any(not way.user_mode_only for way in opened):
        return ""
    if opened:
        return _GRANT
    if surroundings.gvisor:
        return "run the container with another runtime than gVisor, which has no userfaultfd"
    if surroundings.seccomp:
        return (
            f"start the container with --device {DEVICE_PATH}, or with a seccomp profile that "
            "allows the userfaultfd system call"
        )
    if all(attempt.errno in (errno.ENOSYS, errno.ENOENT) for attempt in attempts):
        return "use a Linux kernel that was built with CONFIG_USERFAULTFD"
    return _GRANT


def unopenable(attempts: Sequence[Attempt], surroundings: Surroundings) -> KernelUnsupportedError:
    """Return the error of a userfaultfd that no way opens."""
    found = ", ".join(
        f"{describe_errno(attempt.errno or 0)} {_describe_way(attempt.way)}" for attempt in attempts
    )
    error = KernelUnsupportedError(
        f"cannot open userfaultfd: {found}; run 'lazyarr doctor'",
        missing=("userfaultfd",),
        remedy=plan_remedy(attempts, surroundings),
    )
    error.errno = attempts[-1].errno
    return error


def unsupported_features(
    wanted: Features, offered: Features, number: int
) -> KernelUnsupportedError:
    """Return the error of a handshake that was refused."""
    # Nothing missing, and refused all the same: a feature that the kernel has and this
    # user may not have.  EVENT_FORK is the only such one (userfaultfd(2)).
    missing = feature_names(wanted & ~offered)
    found = f"it lacks {', '.join(missing)}" if missing else describe_errno(number)
    remedy = "use a newer Linux kernel" if missing else "leave out what needs CAP_SYS_PTRACE"
    error = KernelUnsupportedError(
        f"cannot use this kernel's userfaultfd: {found}; {remedy}", missing=missing, remedy=remedy
    )
    error.errno = number
    return error


def unwritable_arrays(missing: tuple[str, ...], remedy: str) -> KernelUnsupportedError:
    """Return the error of a kernel on which arrays cannot be written back.

    Parameters
    ----------
    missing : tuple of str
        What is not there, in the kernel's names.
    remedy : str
        What would give full use of userfaultfd; empty when nothing is amiss with rights.
    """
    newer = "use Linux 6.4 or newer" if "userfaultfd" not in missing else remedy
    steps = f"{newer or 'allow userfaultfd'}, or pass engine='copy'"
    return KernelUnsupportedError(
        f"cannot write to arrays in memory: this kernel's userfaultfd lacks "
        f"{', '.join(missing)}; {steps}",
        missing=missing,
        remedy=steps,
    )


def unserved_modes(mode: RegisterMode, offered: Ioctls) -> KernelUnsupportedError | None:
    """Return the error of a range whose faults could not be answered, None where they can.

    Examples
    --------
    >>> unserved_modes(RegisterMode.MISSING, Ioctls.COPY | Ioctls.WAKE) is None
    True
    """
    missing = tuple(
        need.name or "" for kind, need in _NEEDED.items() if kind & mode and not need & offered
    )
    if not missing:
        return None
    remedy = "use another kind of memory"
    return KernelUnsupportedError(
        f"cannot serve faults of {mode!r}: the kernel does not offer {', '.join(missing)} "
        f"there; {remedy}",
        missing=missing,
        remedy=remedy,
    )


def _describe_way(way: Way) -> str:
    place = f"on {DEVICE_PATH}" if way.source == "dev" else "from the system call"
    return f"{place} for user-mode-only" if way.user_mode_only else place

"""What this kernel allows this user: the facts behind `lazyarr doctor`."""

from __future__ import annotations

import os

from lazyarr.kernel.descriptor import WAYS
from lazyarr.kernel.diagnosis import Attempt, Surroundings, feature_names, plan_remedy
from lazyarr.kernel.mapping import PAGE_NBYTES
from lazyarr.kernel.opening import attempt_way, read_surroundings
from lazyarr.kernel.uapi import Features, Ioctls
from lazyarr.values import Value

__all__ = ["KernelSupport", "probe"]

# What lazyarr makes use of: the shared and the tracked memory kind, and poison.
_USED = (
    Features.PAGEFAULT_FLAG_WP
    | Features.MISSING_SHMEM
    | Features.THREAD_ID
    | Features.MINOR_SHMEM
    | Features.WP_ASYNC
    | Features.POISON
)


class KernelSupport(Value):
    """What the kernel offers, and what it refuses.

    Attributes
    ----------
    release, machine : str
        As `os.uname` gives them.
    page_nbytes : int
        The size of a page.
    attempts : tuple of Attempt
        Every way to open a userfaultfd, best first, and its errno.
    features : Features
        All that the kernel offers, also bits that have no name here; none when
        nothing opens.
    ioctls : Ioctls
        The operations on the descriptor itself.
    surroundings : Surroundings
        Hints of a container: seccomp, gVisor.
    """

    release: str
    machine: str
    page_nbytes: int
    attempts: tuple[Attempt, ...]
    features: Features
    ioctls: Ioctls
    surroundings: Surroundings

    def _opens(self, *, user_mode_only: bool) -> bool:
        return any(
            attempt.errno is None and attempt.way.user_mode_only == user_mode_only
            for attempt in self.attempts
        )

    @property
    def full_rights(self) -> bool:
        """Whether faults taken inside system calls are served too."""
        return self._opens(user_mode_only=False)

    @property
    def usable(self) -> bool:
        """Whether a userfaultfd opens at all, if only for user-mode faults."""
        return self.full_rights or self._opens(user_mode_only=True)

    @property
    def missing_shmem(self) -> bool:
        """Whether missing faults on shared memory are served."""
        return Features.MISSING_SHMEM in self.features

    @property
    def minor_shmem(self) -> bool:
        """Whether minor faults on shared memory are served: several processes, one copy."""
        return Features.MINOR_SHMEM in self.features

    @property
    def missing_hugetlbfs(self) -> bool:
        """Whether missing faults on huge pages are served."""
        return Features.MISSING_HUGETLBFS in self.features

    @property
    def minor_hugetlbfs(self) -> bool:
        """Whether minor faults on huge pages are served."""
        return Features.MINOR_HUGETLBFS in self.features

    @property
    def wp(self) -> bool:
        """Whether write faults on private anonymous memory are served."""
        return Features.PAGEFAULT_FLAG_WP in self.features

    @property
    def wp_shmem(self) -> bool:
        """Whether write faults on shared memory are served."""
        return Features.WP_HUGETLBFS_SHMEM in self.features

    @property
    def wp_async(self) -> bool:
        """Whether writes can be tracked without messages."""
        return Features.WP_ASYNC in self.features

    @property
    def poison(self) -> bool:
        """Whether pages can be poisoned."""
        return Features.POISON in self.features

    @property
    def thread_id(self) -> bool:
        """Whether messages name the thread."""
        return Features.THREAD_ID in self.features

    @property
    def missing(self) -> tuple[str, ...]:
        """What lazyarr would use and is not there, in the kernel's names."""
        if not self.usable:
            return ("userfaultfd",)
        return feature_names(_USED & ~self.features)

    @property
    def remedy(self) -> str:
        """What to do for all of it; empty when nothing is amiss."""
        steps = [plan_remedy(self.attempts, self.surroundings)]
        if self.usable and self.missing:
            steps.append("use a newer Linux kernel")
        return "; ".join(step for step in steps if step)


def probe() -> KernelSupport:
    """Return what the kernel allows this user; everything opened for it is closed again.

    Examples
    --------
    >>> probe().usable
    True
    """
    release, machine = _system()
    # All ways, also after one has opened: `lazyarr doctor` says of each why it does
    # not, and who may use only the second best is told what the best needs.
    results = [attempt_way(way) for way in WAYS]
    offers = [offer for _, offer in results if offer is not None]
    return KernelSupport(
        release=release,
        machine=machine,
        page_nbytes=PAGE_NBYTES,
        attempts=tuple(attempt for attempt, _ in results),
        features=offers[0].features if offers else Features(0),
        ioctls=offers[0].ioctls if offers else Ioctls(0),
        surroundings=read_surroundings(),
    )


def _system() -> tuple[str, str]:
    """Return the system's release and the kind of machine."""
    if hasattr(os, "uname"):
        names = os.uname()
        return names.release, names.machine
    import platform  # Windows

    return platform.release(), platform.machine()

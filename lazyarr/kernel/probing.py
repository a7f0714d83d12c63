"""What this kernel allows this user: the facts behind `lazyarr doctor`."""

from __future__ import annotations

import errno
import functools
import os
from contextlib import ExitStack

from lazyarr.errors import KernelError, KernelUnsupportedError
from lazyarr.kernel.descriptor import WAYS
from lazyarr.kernel.diagnosis import (
    Attempt,
    Surroundings,
    feature_names,
    plan_remedy,
    unwritable_arrays,
)
from lazyarr.kernel.handle import Userfaultfd
from lazyarr.kernel.mapping import PAGE_NBYTES, create_memfd, map_shared, unmap
from lazyarr.kernel.opening import attempt_way, read_surroundings
from lazyarr.kernel.uapi import Features, InstallMode, Ioctls, RegisterMode
from lazyarr.values import Value

__all__ = ["WRITE_BACK", "KernelSupport", "probe"]

WRITE_BACK = (
    Features.PAGEFAULT_FLAG_WP
    | Features.MISSING_SHMEM
    | Features.MINOR_SHMEM
    | Features.WP_HUGETLBFS_SHMEM
)
"""The features without which memory that is written back cannot be had.

UFFDIO_CONTINUE must map pages write-protected too (Linux 6.4), of which no feature tells.
"""

# What lazyarr makes use of: the shared and the tracked memory kinds, and poison.
_USED = WRITE_BACK | Features.THREAD_ID | Features.WP_ASYNC | Features.POISON
_CONTINUE_WP = "CONTINUE_MODE_WP"
_WRITE_BACK_MODE = RegisterMode.MISSING | RegisterMode.MINOR | RegisterMode.WP


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
    continue_wp : bool
        Whether a page that the memory object has can be mapped write-protected; it was tried.
    """

    release: str
    machine: str
    page_nbytes: int
    attempts: tuple[Attempt, ...]
    features: Features
    ioctls: Ioctls
    surroundings: Surroundings
    continue_wp: bool

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
    def write_back(self) -> bool:
        """Whether arrays can be written to in mode ``"r+"``."""
        return not self._missing_to_write_back

    @property
    def _missing_to_write_back(self) -> tuple[str, ...]:
        if not self.usable:
            return ("userfaultfd",)
        lacks = feature_names(WRITE_BACK & ~self.features)
        return lacks if self.continue_wp else (*lacks, _CONTINUE_WP)

    def require_write_back(self) -> None:
        """Raise unless arrays can be written to in mode ``"r+"``.

        Raises
        ------
        KernelUnsupportedError
            They cannot; `missing` and `remedy` say why not and what to do.
        """
        missing = self._missing_to_write_back
        if missing:
            raise unwritable_arrays(missing, plan_remedy(self.attempts, self.surroundings))

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
        lacks = feature_names(_USED & ~self.features)
        return lacks if self.continue_wp else (*lacks, _CONTINUE_WP)

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
    features = offers[0].features if offers else Features(0)
    return KernelSupport(
        release=release,
        machine=machine,
        page_nbytes=PAGE_NBYTES,
        attempts=tuple(attempt for attempt, _ in results),
        features=features,
        ioctls=offers[0].ioctls if offers else Ioctls(0),
        surroundings=read_surroundings(),
        continue_wp=WRITE_BACK in features and _can_continue_protected(),
    )


@functools.cache
def _can_continue_protected() -> bool:
    """Return whether a page of a memory object can be mapped write-protected."""
    # The mode came with Linux 6.4, and no feature tells of it.  A kernel without it refuses the
    # mode (EINVAL).  So it is tried on a page that nobody else sees, once in a process and its
    # forked children.
    with ExitStack() as undoing:
        uffd = undoing.enter_context(Userfaultfd.open(WRITE_BACK))
        memfd = create_memfd("lazyarr-probe", nbytes=PAGE_NBYTES)
        undoing.callback(os.close, memfd)
        os.pwrite(memfd, b"\1", 0)
        address = map_shared(memfd, 0, PAGE_NBYTES, writable=True)
        undoing.callback(unmap, address, PAGE_NBYTES)
        try:
            uffd.register(address, PAGE_NBYTES, _WRITE_BACK_MODE)
            uffd.continue_(address, PAGE_NBYTES, mode=int(InstallMode.WP))
        except KernelUnsupportedError:
            return False
        except KernelError as error:
            if error.errno != errno.EINVAL:
                raise
            return False
    return True


def _system() -> tuple[str, str]:
    """Return the system's release and the kind of machine."""
    if hasattr(os, "uname"):
        names = os.uname()
        return names.release, names.machine
    import platform  # Windows

    return platform.release(), platform.machine()

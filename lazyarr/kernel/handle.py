"""The typed handle of one userfaultfd."""

from __future__ import annotations

import os
from typing import Self

from lazyarr.kernel.descriptor import WAYS, Source
from lazyarr.kernel.diagnosis import unserved_modes
from lazyarr.kernel.events import PAGEFAULT, Fault, decode_faults
from lazyarr.kernel.libc import ioctl
from lazyarr.kernel.opening import open_shaken
from lazyarr.kernel.outcome import Operation, Outcome
from lazyarr.kernel.raw import administer, operate, read_messages
from lazyarr.kernel.uapi import (
    COPY_LAYOUT,
    MESSAGE_LAYOUT,
    RANGE_LAYOUT,
    RANGE_MODE_RESULT_LAYOUT,
    REGISTER_LAYOUT,
    UFFDIO_CONTINUE,
    UFFDIO_COPY,
    UFFDIO_POISON,
    UFFDIO_REGISTER,
    UFFDIO_UNREGISTER,
    UFFDIO_WAKE,
    UFFDIO_WRITEPROTECT,
    UFFDIO_ZEROPAGE,
    Features,
    Ioctls,
    RegisterMode,
    WriteProtectMode,
)
from lazyarr.known import Identity, identity_of

__all__ = ["Userfaultfd"]

_EVENTS = Features.EVENT_FORK | Features.EVENT_REMAP | Features.EVENT_REMOVE | Features.EVENT_UNMAP


class Userfaultfd:
    """A userfaultfd and the operations on the memory that it is responsible for.

    The operations act on the memory of the process that opened the descriptor,
    whichever process calls them.  They take addresses of that process.

    Parameters
    ----------
    fd : int
        A descriptor after its handshake; this object closes it.
    features : Features
        What the handshake turned on.
    user_mode_only : bool
        Whether it was opened so.
    source : {'dev', 'syscall'} or None
        How it was opened, None where that is not known.

    Notes
    -----
    Every operation may be called from several threads at once and runs without
    the GIL; `fcntl.ioctl` copies the argument back also where the call fails,
    which is how a partial install tells what it has done (CPython, fcntlmodule.c).
    `close` is for the owner, after those threads have ended: a number that is
    closed is given to the next file that is opened.

    Closing the last descriptor of a userfaultfd lets its waiters read zeros, so
    the process that owns the memory keeps a `dup` as long as the memory lives.

    Examples
    --------
    >>> from lazyarr.kernel import PAGE_NBYTES, ScratchBuffer, map_private, unmap
    >>> with Userfaultfd.open(Features(0)) as uffd, ScratchBuffer(PAGE_NBYTES) as scratch:
    ...     address = map_private(PAGE_NBYTES, writable=True)
    ...     ioctls = uffd.register(address, PAGE_NBYTES, RegisterMode.MISSING)
    ...     outcome = uffd.copy(address, scratch.address, PAGE_NBYTES)
    ...     unmap(address, PAGE_NBYTES)
    >>> outcome.stop.value
    'done'
    """

    def __init__(
        self,
        fd: int,
        features: Features,
        *,
        user_mode_only: bool = False,
        source: Source | None = None,
    ) -> None:
        self._fd = fd
        self._identity: Identity | None = None
        self.features = features
        self.user_mode_only = user_mode_only
        self.source = source

    @classmethod
    def open(cls, features: Features, *, user_mode_only: bool | None = None) -> Self:
        """Return a new userfaultfd for this process's memory, with features on.

        Parameters
        ----------
        features : Features
            What to turn on; those of the events are refused.
        user_mode_only : bool, optional
            True or False ask for that alone.  By default full rights are tried,
            through /dev/userfaultfd and then by the system call, and user-mode-only
            after that.

        Raises
        ------
        KernelUnsupportedError
            It cannot be opened, or a feature is missing.
        ValueError
            A feature of the EVENT kind is asked for.  These events block whoever causes
            them until they are read, and make every install fail with EAGAIN meanwhile.
        """
        # The pager reads no messages but page faults.  An event that is never read would
        # block its sender, a fork or munmap of the user's, for ever.
        if features & _EVENTS:
            raise ValueError(
                f"cannot open a userfaultfd with {features & _EVENTS!r}: its messages would "
                "not be read; leave the events out"
            )
        ways = [way for way in WAYS if user_mode_only in (None, way.user_mode_only)]
        fd, way = open_shaken(features, ways)
        opened = cls(fd, features, user_mode_only=way.user_mode_only, source=way.source)
        opened._identity = identity_of(fd)
        return opened

    @classmethod
    def from_fd(
        cls,
        fd: int,
        features: Features,
        *,
        user_mode_only: bool = False,
        source: Source | None = None,
    ) -> Self:
        """Return the handle of a descriptor that another process opened and sent.

        The handle owns the descriptor, and makes it non-blocking and close-on-exec.
        """
        # Whether it blocks belongs to the open file, and so to whoever sent it;
        # close-on-exec belongs to the descriptor, which is new here.  On a blocking
        # userfaultfd poll() reports an error.
        os.set_blocking(fd, False)
        os.set_inheritable(fd, False)  # noqa: FBT003
        return cls(fd, features, user_mode_only=user_mode_only, source=source)

    def __repr__(self) -> str:
        kind = "user-mode-only" if self.user_mode_only else "all faults"
        return f"<Userfaultfd fd={self._fd} {kind} source={self.source}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def fileno(self) -> int:
        """Return the descriptor, for poll and for sending; -1 once closed."""
        return self._fd

    def close(self) -> None:
        """Close the descriptor; once closed, do nothing."""
        # A program that becomes a daemon closes all descriptors, and its next file gets
        # this number.  To close that would be a fault in the user's program, far away
        # from its cause.
        is_own = self.is_own()
        fd, self._fd = self._fd, -1
        if fd >= 0 and is_own:
            os.close(fd)

    def is_own(self) -> bool:
        """Return whether the descriptor still is the file that `open` has opened."""
        return self._identity is None or identity_of(self._fd) == self._identity

    def dup(self) -> Self:
        """Return another handle, with a descriptor of its own, of the same userfaultfd."""
        return type(self)(
            os.dup(self._fd),
            self.features,
            user_mode_only=self.user_mode_only,
            source=self.source,
        )

    def register(self, address: int, nbytes: int, mode: RegisterMode) -> Ioctls:
        """Report faults of a range from now on; return the operations that it takes.

        Parameters
        ----------
        address, nbytes : int
            Whole pages of this process.
        mode : RegisterMode
            The kinds of fault.

        Raises
        ------
        KernelError
            EINVAL: not aligned, not mapped, or memory that cannot be registered so; EBUSY:
            registered with another userfaultfd; EPERM: a file mapping that cannot
            be made writable; ENOMEM: too many mappings, or the process is gone.
        KernelUnsupportedError
            The range does not take an operation that the mode needs; it is not
            registered then.
        """
        # The kernel may register a range for faults that it has no operation to answer,
        # and says so only in the list of ioctls that it returns.  A thread that touched
        # such memory would never go on, so the list is compared with what the modes
        # need.
        argument = bytearray(REGISTER_LAYOUT.pack(address, nbytes, mode, 0))
        administer("UFFDIO_REGISTER", self._fd, UFFDIO_REGISTER, argument)
        ioctls = Ioctls(REGISTER_LAYOUT.unpack(argument)[3])
        unserved = unserved_modes(mode, ioctls)
        if unserved:
            self.unregister(address, nbytes)
            raise unserved
        return ioctls

    def unregister(self, address: int, nbytes: int) -> None:
        """Report no more faults of a range, and wake who waits in it.

        Pages that nobody has installed read as zeros from then on.

        Raises
        ------
        KernelError
            EINVAL: not aligned, or not mapped; ENOMEM: the process is gone.
        """
        argument = bytearray(RANGE_LAYOUT.pack(address, nbytes))
        administer("UFFDIO_UNREGISTER", self._fd, UFFDIO_UNREGISTER, argument)

    def wake(self, address: int, nbytes: int) -> None:
        """Make every thread that waits in a range try again; EINVAL as `register`."""
        argument = bytearray(RANGE_LAYOUT.pack(address, nbytes))
        administer("UFFDIO_WAKE", self._fd, UFFDIO_WAKE, argument)

    def copy(self, dst: int, src: int, nbytes: int, *, mode: int = 0) -> Outcome:
        """Install a copy of the caller's memory, page by page, and wake the waiters.

        Parameters
        ----------
        dst : int
            Where in the owner's memory, page-aligned.
        src : int
            Where in the caller's memory; need not be aligned.
        nbytes : int
            Whole pages.
        mode : int
            Bits of `InstallMode`.

        Returns
        -------
        Outcome
            `DONE`, `PARTIAL`, `PRESENT`, `CHANGING`, `UNMAPPED`, `NO_MEMORY` or `EXITED`.

        Raises
        ------
        KernelError
            EINVAL: not aligned, or an unknown mode; EFAULT: the source cannot be
            read, or the destination lies behind the end of the memory object.

        Notes
        -----
        `PRESENT` on shared memory means that the object has the page, not that it is
        mapped: `continue_` maps it.  On hugetlbfs an empty pool answers `PRESENT`
        too (Linux 6.18); there `continue_` finds a `HOLE`.
        """
        # One argument for each call.  `fcntl.ioctl` releases the GIL, so another thread
        # may install at the same time, and the kernel writes the result into the
        # argument.
        argument = bytearray(COPY_LAYOUT.pack(dst, src, nbytes, mode, 0))
        return operate(Operation.COPY, self._fd, UFFDIO_COPY, argument, nbytes)

    def copy_at_once(self, dst: int, src: int, nbytes: int, mode: int = 0) -> bool:
        """Install as `copy` does; return whether all of it is in.

        For the path of every small fault, where nearly always it is; after False
        `copy` finds out why not.
        """
        # An `Outcome` takes several calls to make, and nearly always says that all is
        # in.  So this asks for that alone, which a unit of 4 KiB notices.  `copy` may
        # repeat the call: an install of what is there changes nothing.
        argument = bytearray(COPY_LAYOUT.pack(dst, src, nbytes, mode, 0))
        try:
            ioctl(self._fd, UFFDIO_COPY, argument)
        except OSError:
            return False
        return True

    def zeropage(self, address: int, nbytes: int, *, mode: int = 0) -> Outcome:
        """Install zeros; not on hugetlbfs (EINVAL), never write-protected.

        Private memory gets the one zero page, a memfd pages that take memory.
        Parameters, outcomes and errors are those of `copy`.
        """
        # On a memory object each of these zero pages takes memory, as COPY of zeros
        # would, but no zeros have to be decoded, read or copied.  Write-protection
        # cannot be had with it: tracked memory relies on `find_written` telling the
        # zero page apart.
        argument = bytearray(RANGE_MODE_RESULT_LAYOUT.pack(address, nbytes, mode, 0))
        return operate(Operation.ZEROPAGE, self._fd, UFFDIO_ZEROPAGE, argument, nbytes)

    def continue_(self, address: int, nbytes: int, *, mode: int = 0) -> Outcome:
        """Map pages that the memory object already has, and wake the waiters.

        As `copy`, and `HOLE` where there is no page to map; EINVAL behind the end of
        the memory object.
        """
        # No byte is copied, only page tables are written: about 16 GiB/s (Linux 6.18).
        # So a page that another process has brought costs little more than the wake-up.
        argument = bytearray(RANGE_MODE_RESULT_LAYOUT.pack(address, nbytes, mode, 0))
        return operate(Operation.CONTINUE, self._fd, UFFDIO_CONTINUE, argument, nbytes)

    def poison(self, address: int, nbytes: int, *, mode: int = 0) -> Outcome:
        """Make touching these missing pages raise SIGBUS, and wake the waiters.

        Poison lies in the page tables of this one mapping.  It gives way to `copy`, to
        `continue_` where the memory object has the page, and on a memfd to
        `zeropage`; not to `wake`, `unregister` or (hugetlbfs apart) `punch_hole`.
        """
        # Nothing else stops a thread that waits in a fault without running Python in
        # its process.  That it gives way to `copy` is what makes a failed unit heal when
        # the next load succeeds.
        argument = bytearray(RANGE_MODE_RESULT_LAYOUT.pack(address, nbytes, mode, 0))
        return operate(Operation.POISON, self._fd, UFFDIO_POISON, argument, nbytes)

    def writeprotect(
        self, address: int, nbytes: int, *, mode: int = int(WriteProtectMode.WP)
    ) -> Outcome:
        """Protect pages from writing, or with mode 0 unprotect them and wake the waiters.

        Returns
        -------
        Outcome
            `DONE`, `CHANGING`, `UNMAPPED` or `EXITED`; never in part.
        """
        # The kernel reads no further than the mode: the result field stays 0.
        argument = bytearray(RANGE_MODE_RESULT_LAYOUT.pack(address, nbytes, mode, 0))
        return operate(Operation.WRITEPROTECT, self._fd, UFFDIO_WRITEPROTECT, argument, nbytes)

    def read_faults(self, max: int = 64) -> list[Fault]:  # noqa: A002
        """Return the faults that wait, at most so many; empty when there are none.

        A fault that was returned is not reported again, unless it is woken
        without a page.
        """
        return decode_faults(read_messages(self._fd, max * MESSAGE_LAYOUT.size))

    def read_addresses(self, max: int = 64) -> list[int]:  # noqa: A002
        """Return where the faults are that wait; as `read_faults`, with less of them."""
        # Read and decoded without further calls, for each fault comes this way.
        try:
            messages = os.read(self._fd, max * MESSAGE_LAYOUT.size)
        except OSError:  # nothing waits, or the handle is closed; this tells them apart
            messages = read_messages(self._fd, max * MESSAGE_LAYOUT.size)
        return [
            address
            for event, _, address, _ in MESSAGE_LAYOUT.iter_unpack(messages)
            if event == PAGEFAULT
        ]

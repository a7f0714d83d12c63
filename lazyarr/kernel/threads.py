"""What /proc tells of another process's threads, and a signal handler that tells more."""

from __future__ import annotations

import errno
import os

from lazyarr.kernel.libc import call, checked_call, syscall_number

__all__ = [
    "arm_once",
    "has_handler",
    "is_armed",
    "is_deaf",
    "read_turns",
    "signal_main_thread",
    "signal_thread",
]

# struct sigaction of glibc and musl on 64 bits: handler, a mask of 128 bytes, flags, restorer.
_SIGACTION_NBYTES = 256
_FLAGS_AT = 8 + 128
_SA_RESETHAND = 0x80000000


def read_turns(pid: int, thread_id: int) -> int:
    """Return how often a thread has been given a processor.

    Raises
    ------
    OSError
        The thread is gone, or this kernel does not count (CONFIG_SCHED_INFO).
    """
    # The third field counts time slices.  A thread that was woken has run when it has
    # had another one.  Nothing else tells of it: it runs machine code, and takes no
    # lock.
    with open(f"/proc/{pid}/task/{thread_id}/schedstat", "rb") as file:
        return int(file.read().split()[2])


def has_handler(pid: int, signal: int) -> bool:
    """Return whether a process has a handler for a signal, blocked or not.

    Raises
    ------
    OSError
        The process is gone, or there is no /proc.
    """
    return _has_bit(_read_status(pid, pid)["SigCgt"], signal)


def is_deaf(pid: int, thread_id: int, signal: int) -> bool:
    """Return whether a signal that is sent to a thread stays without effect, for now or ever.

    Its thread blocks it, or its process ignores it.

    Raises
    ------
    OSError
        The thread is gone, or there is no /proc.
    """
    status = _read_status(pid, thread_id)
    return any(_has_bit(status[name], signal) for name in ("SigBlk", "SigIgn"))


def is_armed(pid: int, signal: int) -> bool:
    """Return whether a process has a handler for a signal that its main thread lets through.

    It does not while that handler runs, either: the kernel blocks the signal meanwhile
    (sigaction(2)), so this is no proof that a handler is gone.

    Raises
    ------
    OSError
        The process is gone, or there is no /proc.
    """
    status = _read_status(pid, pid)
    return _has_bit(status["SigCgt"], signal) and not _has_bit(status["SigBlk"], signal)


def _read_status(pid: int, thread_id: int) -> dict[str, str]:
    """Return what /proc says of a thread, by name."""
    # Not asked of the process itself: its thread waits in a fault, perhaps with the GIL
    # held.  SigCgt and SigIgn are the process's, SigBlk the thread's.
    with open(f"/proc/{pid}/task/{thread_id}/status", encoding="ascii", errors="replace") as file:
        return dict(line.split(":", 1) for line in file)


def _has_bit(signals: str, signal: int) -> bool:
    """Return whether a signal is in a set of signals, as /proc has it."""
    return bool(int(signals, 16) & 1 << (signal - 1))


def signal_main_thread(pid: int, signal: int) -> None:
    """Send a signal to the main thread of a process, and to no other of its threads.

    Raises
    ------
    OSError
        As `signal_thread`.
    """
    # The thread group and the thread have the same number for the main thread. kill(2)
    # would let the kernel choose any thread, and Python would hear of that one only
    # when it next waits for the GIL.
    signal_thread(pid, pid, signal)


def signal_thread(pid: int, thread_id: int, signal: int) -> None:
    """Send a signal to one thread of a process.

    Raises
    ------
    OSError
        The thread is gone, or is somebody else's; ENOSYS on a machine that is not known.
    """
    number = syscall_number("tgkill")
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    call("syscall", number, pid, thread_id, signal)


def arm_once(signal: int) -> None:
    """Have a signal's handler, which must be there, serve for one signal only.

    The kernel takes it away when the signal comes (SA_RESETHAND in sigaction(2)), which
    `is_armed` tells other processes.  A handler that somebody puts in its place
    without this stays, so that they can tell that, too.

    Raises
    ------
    KernelError
        EINVAL: no such signal.
    """
    import ctypes

    action = ctypes.create_string_buffer(_SIGACTION_NBYTES)
    purpose = f"change how signal {signal} is handled"
    remedy = "check that there is such a signal"
    # Python puts its C handler in place; only the flag is changed, and all else read
    # and written back as it was.  `signal.signal` has no way to set it.
    checked_call(purpose, remedy, "sigaction", signal, None, action)
    flags = ctypes.c_uint32.from_buffer(action, _FLAGS_AT)
    flags.value |= _SA_RESETHAND
    checked_call(purpose, remedy, "sigaction", signal, action, None)

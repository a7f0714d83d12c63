"""How much memory the other pagers of this user hold; read by a pager without a limit of its own.

By default the memory limit is half of the machine's memory.  Every worker process of a cluster
that opens a store by itself has a pager.  So the pagers for which no limit was set share that
half: each may hold what the others leave, and at least an equal part.  A pager that holds
little, as that of an idle notebook, takes nothing from the rest.

The pagers tell each other what they hold through the name of their worker process (proc(5),
comm).  The kernel forgets the name with the process, so nothing is left behind.  A process
of another user with such a name is ignored.  A name is up to two seconds old; the other half
of the memory has room for what was loaded meanwhile.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress

from lazyarr.cgroups import is_in_group, limiting_group

__all__ = ["Neighbours"]

# TASK_COMM_LEN in linux/sched.h leaves 15 characters.
_NAME = re.compile(r"lazyarr (\d{1,6})([MG])\n")
_SCALES = {"M": 1 << 20, "G": 1 << 30}
# Reading all of /proc takes milliseconds on a small system, more on a large one.  So the pause
# grows with the time that the last look took: at most a five-hundredth goes into looking.
_PAUSE_SECONDS = 2.0
_MOST_OF_TIME = 1 / 500


class Neighbours:
    """The other pagers of this user, on this machine or under the same cgroup's memory limit.

    Parameters
    ----------
    proc : str
        Where procfs is mounted.
    """

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc
        self._group = limiting_group()
        self._looks_again_at = 0.0

    def __repr__(self) -> str:
        return f"<Neighbours: in {self._group or 'all of the machine'}>"

    def begin(self) -> bool:
        """Return whether `part_of` is due; one caller alone gets True, and must then call it."""
        is_due = time.monotonic() >= self._looks_again_at
        # Until `part_of` has set the next time, nobody else looks: a look may take longer than
        # the supervisor's next question.
        if is_due:
            self._looks_again_at = math.inf
        return is_due

    def part_of(self, limit_nbytes: int, held_nbytes: int) -> int:
        """Tell the other pagers what this one holds; return its part of a shared limit.

        Parameters
        ----------
        limit_nbytes : int
            How many bytes all pagers together may hold.  0 where this pager has a limit of its
            own, and then the result is 0.
        held_nbytes : int
            How many bytes this pager holds.
        """
        begin = time.monotonic()
        part_nbytes = limit_nbytes
        # A lack of descriptors is no reason for the worker to end: the next look is soon.
        with suppress(OSError):
            # Also with a limit of its own: the others leave room for what this pager holds.
            self._say(held_nbytes)
            if limit_nbytes:
                # An equal part at least, so that one who came late is not starved by one who
                # came early.  All parts together may exceed the limit for a while.
                others = list(self._others())
                least_nbytes = limit_nbytes // (1 + len(others))
                part_nbytes = max(least_nbytes, limit_nbytes - sum(others))
        end = time.monotonic()
        self._looks_again_at = end + max(_PAUSE_SECONDS, (end - begin) / _MOST_OF_TIME)
        return part_nbytes

    def _say(self, held_nbytes: int) -> None:
        """Write into the name of this process what the pager holds."""
        # Rounded up.  Six digits of mebibytes are a tebibyte, and above that it is gibibytes.
        scale = "M" if held_nbytes <= (10**6 - 1) << 20 else "G"
        with open(f"{self._proc}/self/comm", "w") as file:
            file.write(f"lazyarr {-(-held_nbytes // _SCALES[scale])}{scale}")

    def _others(self) -> Iterator[int]:
        """Yield how many bytes each of the other pagers holds."""
        own_pid = os.getpid()
        for name in os.listdir(self._proc):
            if name.isdecimal() and int(name) != own_pid:
                # The process may end at any time, and its directory with it.
                with suppress(OSError):
                    found = self._held_by(f"{self._proc}/{name}")
                    if found is not None:
                        yield found

    def _held_by(self, process: str) -> int | None:
        """Return how many bytes a process holds as a pager; None when it is no pager that counts.

        Parameters
        ----------
        process : str
            The process's directory in procfs.
        """
        with open(f"{process}/comm", errors="replace") as file:
            match = _NAME.fullmatch(file.read())
        # Another user may give a process such a name, and could starve this pager by
        # it.
        if match is None or os.stat(process).st_uid != os.getuid():
            return None
        # A limit of a container is shared by the processes in it, not by all of the machine.
        if self._group:
            with open(f"{process}/cgroup") as file:
                if not is_in_group(file.read(), self._group):
                    return None
        return int(match[1]) * _SCALES[match[2]]

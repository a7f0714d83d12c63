"""What the kernel says of a process: memory and processor time (proc(5))."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

__all__ = ["ProcessorTime", "anonymous_nbytes", "memory_object_nbytes", "processor_time"]


class ProcessorTime(NamedTuple):
    """Seconds of processor time: in the process's own code, and in the kernel for it."""

    user: float
    system: float


def processor_time(pid: int) -> ProcessorTime:
    """Return what a process has used, all threads together."""
    # The name of the program comes before and may hold anything, but for a last bracket.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    per_second = os.sysconf("SC_CLK_TCK")
    return ProcessorTime(int(fields[11]) / per_second, int(fields[12]) / per_second)


def anonymous_nbytes(pid: int | str) -> int:
    """Return the memory that a process has to itself: anonymous, and page tables."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return sum(int(fields[name].split()[0]) << 10 for name in ("RssAnon", "VmPTE"))


def memory_object_nbytes(pid: int | str) -> int:
    """Return what the memory objects (memfd_create(2)) take that a process has open."""
    found = {}
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if os.readlink(link).startswith("/memfd:"):
                status = link.stat()
                found[status.st_dev, status.st_ino] = status.st_blocks * 512
        except FileNotFoundError:
            continue  # closed meanwhile: the directory's own
    return sum(found.values())

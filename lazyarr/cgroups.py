"""How much memory the kernel lets this process have."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

__all__ = ["memory_nbytes"]

# cgroup v1: Documentation/admin-guide/cgroup-v1/memory.rst; no limit is a huge number.
# cgroup v2: Documentation/admin-guide/cgroup-v2.rst; no limit is "max".  Above `high`
# processes are slowed down until they have less.
_V1_FILES: tuple[str, ...] = ("memory.limit_in_bytes",)
_V2_FILES: tuple[str, ...] = ("memory.max", "memory.high")

# What a machine is taken to have that does not tell: Windows, by Python's own means.
_ASSUMED_NBYTES = 8 << 30


def memory_nbytes(root: str = "") -> int:
    """Return the memory of the machine, or of the smallest cgroup around this process.

    Parameters
    ----------
    root : str
        The directory in which proc and the cgroup file systems are, if not the root.
    """
    if not hasattr(os, "sysconf"):
        return _ASSUMED_NBYTES
    machine_nbytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine_nbytes, *_limits(root)])


def _limits(root: str) -> Iterator[int]:
    """Yield the limits of this process's cgroup and of those that it lies in."""
    groups, mounts = _read(f"{root}/proc/self/cgroup"), _read(f"{root}/proc/self/mountinfo")
    for line in groups.splitlines():
        # hierarchy:controllers:path (cgroups(7)); version 2 has number 0 and no names.
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            places, names = _mounts_of(mounts, "cgroup2"), _V2_FILES
        elif "memory" in controllers.split(","):
            places, names = _mounts_of(mounts, "cgroup", "memory"), _V1_FILES
        else:
            continue
        for group, place in places:
            yield from _limits_along(root + place, _below(group, path), names)


def _mounts_of(mounts: str, kind: str, option: str = "") -> Iterator[tuple[str, str]]:
    """Yield which cgroup is mounted where (proc(5), mountinfo)."""
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        described = rest.split(" ")
        if described[0] == kind and (not option or option in described[-1].split(",")):
            _, _, _, group, place, *_ = fields.split(" ")
            yield _unescape(group), _unescape(place)


def _unescape(path: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), path)


def _below(group: str, path: str) -> list[str]:
    """Return the names that lead from the mounted cgroup to this process's.

    A process that lies outside of what is mounted, as in a container without a cgroup
    namespace, is given what is mounted: that is the container's.
    """
    outer = [name for name in group.split("/") if name]
    names = [name for name in path.split("/") if name]
    is_inside = names[: len(outer)] == outer and ".." not in names
    return names[len(outer) :] if is_inside else []


def _limits_along(place: str, below: list[str], files: tuple[str, ...]) -> Iterator[int]:
    """Yield the limits from the cgroup that is mounted down to this process's."""
    for depth in range(len(below) + 1):
        for file in files:
            text = _read("/".join((place, *below[:depth], file))).strip()
            if text.isascii() and text.isdigit():
                yield int(text)


def _read(path: str) -> str:
    """Return what a file holds; nothing when it can not be read."""
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""

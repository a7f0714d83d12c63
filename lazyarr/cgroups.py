"""How much memory the kernel lets this process have."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

__all__ = ["is_in_group", "limiting_group", "memory_nbytes"]

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
    return min([_machine_nbytes(), *(nbytes for nbytes, _ in _limits(root))])


def limiting_group(root: str = "") -> str:
    """Return the cgroup that sets the limit, as /proc/PID/cgroup names it; "" for the machine.

    Also where that file cannot tell what lies in it, as in a container without a cgroup namespace:
    there all that can be seen does.
    """
    nbytes, group = min(_limits(root), default=(_machine_nbytes(), ""))
    return group if nbytes < _machine_nbytes() else ""


def is_in_group(groups: str, group: str) -> bool:
    """Return whether a process lies in a cgroup, by what its /proc/PID/cgroup says."""
    return any(
        path == group or path.startswith(f"{group.rstrip('/')}/")
        for _, path, _ in _memory_groups(groups)
    )


def _machine_nbytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _memory_groups(groups: str) -> Iterator[tuple[bool, str, tuple[str, ...]]]:
    """Yield whether a hierarchy that limits memory is of version 2, the path in it, the files."""
    for line in groups.splitlines():
        # hierarchy:controllers:path (cgroups(7)); version 2 has number 0 and no names.
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            yield True, path, _V2_FILES
        elif "memory" in controllers.split(","):
            yield False, path, _V1_FILES


def _limits(root: str) -> Iterator[tuple[int, str]]:
    """Yield the limits of this process's cgroup and of those that it lies in, and which it is."""
    groups, mounts = _read(f"{root}/proc/self/cgroup"), _read(f"{root}/proc/self/mountinfo")
    for is_v2, path, files in _memory_groups(groups):
        kind, option = ("cgroup2", "") if is_v2 else ("cgroup", "memory")
        for group, place in _mounts_of(mounts, kind, option):
            below = _below(group, path)
            is_inside = bool(below) or _names(group) == _names(path)
            for depth, nbytes in _limits_along(root + place, below, files):
                names = _names(path)[: depth - len(below) or None]
                yield nbytes, "/" + "/".join(names) if is_inside else ""


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
    outer, names = _names(group), _names(path)
    is_inside = names[: len(outer)] == outer and ".." not in names
    return names[len(outer) :] if is_inside else []


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name]


def _limits_along(
    place: str, below: list[str], files: tuple[str, ...]
) -> Iterator[tuple[int, int]]:
    """Yield how deep, from the cgroup that is mounted down to this process's, and the limit."""
    for depth in range(len(below) + 1):
        for file in files:
            text = _read("/".join((place, *below[:depth], file))).strip()
            if text.isascii() and text.isdigit():
                yield depth, int(text)


def _read(path: str) -> str:
    """Return what a file holds; nothing when it cannot be read."""
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""

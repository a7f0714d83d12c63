"""The user and groups by which the kernel decides which files a thread may open."""

from __future__ import annotations

import os
from typing import NamedTuple

from lazyarr.kernel.libc import call

__all__ = ["Identity", "current_identity"]

# setfsuid(2) returns the present user; with a user that cannot exist it changes nothing.
_SAME = 0xFFFFFFFF


class Identity(NamedTuple):
    """The user and groups by which the kernel decides which files may be opened (credentials(7)).

    Attributes
    ----------
    user, group : int
        The user and group for access to files; as a rule the effective ones.
    groups : tuple of int
        The supplementary groups.
    """

    user: int
    group: int
    groups: tuple[int, ...]


def current_identity() -> Identity:
    """Return the user and groups with which this thread opens files.

    Examples
    --------
    >>> current_identity().user == os.geteuid()
    True
    """
    # The ids of the thread, from the kernel.  `os.geteuid` would miss setfsuid, by which
    # file servers act for their users, and a library may change them behind Python's
    # back.  It takes a microsecond, for each request.
    return Identity(_current("setfsuid"), _current("setfsgid"), tuple(os.getgroups()))


def _current(name: str) -> int:
    return call(name, _SAME) & _SAME

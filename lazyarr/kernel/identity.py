"""The user and groups by which the kernel decides which files a thread may open."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, NamedTuple

from lazyarr.kernel.libc import function

if TYPE_CHECKING:
    from collections.abc import Callable

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
    # back.  Each request asks for it, after some milliseconds in which the processor's caches
    # have forgotten this code; so it makes no call that it does not need.
    set_user, set_group = _functions()
    return Identity(set_user(_SAME), set_group(_SAME), tuple(os.getgroups()))


@functools.cache
def _functions() -> tuple[Callable[[int], int], Callable[[int], int]]:
    return function("setfsuid"), function("setfsgid")

"""Every exception that lazyarr raises, and the warnings that it gives.

All of them are picklable and keep their fields, so that an error in a worker
process arrives whole.  Messages read *what failed: what was found; what to do*.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "ChunkError",
    "EngineWarning",
    "FormatError",
    "KernelError",
    "KernelUnsupportedError",
    "LazyarrError",
    "NodeNotFoundError",
    "NotStoredError",
    "PagerError",
    "PerformanceWarning",
    "StoreError",
    "StoreWarning",
]


class LazyarrError(Exception):
    """Base class of everything that lazyarr raises on purpose."""

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.message = message
        _set_fields(self, fields)

    def __str__(self) -> str:
        """Return the message alone, also where a base class would add an errno."""
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        """Rebuild from the message and the fields, without calling `__init__`."""
        fields = dict(self.__dict__)
        if isinstance(self, OSError) and self.errno is not None:
            fields["errno"] = self.errno
        return (_rebuild, (type(self), self.message, fields))


class NotStoredError(LazyarrError, AttributeError):
    """An array has no stored array behind it that would have what it was asked for."""


def _rebuild(cls: type[LazyarrError], message: str, fields: dict[str, Any]) -> LazyarrError:
    error = cls.__new__(cls, message)
    _set_fields(error, fields)
    error.args = (message,)
    return error


def _set_fields(error: LazyarrError, fields: dict[str, Any]) -> None:
    # One by one: OSError keeps errno in a slot of its own, which hides __dict__.
    for name, value in fields.items():
        setattr(error, name, value)


class StoreError(LazyarrError, OSError):
    """A store cannot be reached, listed or written.

    Attributes
    ----------
    url : str
        The store, as it was given, without credentials.
    key : str or None
        The object in it, where one is concerned.
    transient : bool
        Whether the same call may succeed later: a dropped connection, a
        time-out, throttling.  False for a refused permission.
    """

    url: str = ""
    key: str | None = None
    transient: bool = False


class NodeNotFoundError(StoreError, FileNotFoundError, KeyError):
    """There is no array or group at this place.

    Attributes
    ----------
    path : str
        The node that was asked for, relative to the store's root.
    """

    path: str = ""


class FormatError(LazyarrError, ValueError):
    """Metadata, a shard index or a chunk is not what its format allows, or not what lazyarr maps.

    Attributes
    ----------
    path : str
        The node or object concerned, relative to the store's root.
    """

    path: str = ""


class ChunkError(LazyarrError, OSError):
    """A chunk cannot be had, so its elements cannot be given.

    Attributes
    ----------
    url : str
        The store.
    array : str
        The array's path in the store.
    chunk : tuple of int
        The chunk's place in the grid of the smallest chunks.
    key : str
        The object that holds, or should hold, the chunk.
    byte_range : tuple of (int, int) or None
        Half-open range of bytes in that object; None where it is not known.
    reason : str
        What was expected and what was found.
    """

    url: str = ""
    array: str = ""
    chunk: tuple[int, ...] = ()
    key: str = ""
    byte_range: tuple[int, int] | None = None
    reason: str = ""


class KernelError(LazyarrError, OSError):
    """The kernel refused something that lazyarr needs.

    Attributes
    ----------
    errno : int or None
        The error number of the call that was refused.
    """


class KernelUnsupportedError(KernelError):
    """This kernel, or this user on it, cannot use userfaultfd as lazyarr needs it.

    Attributes
    ----------
    missing : tuple of str
        What is not there, in the kernel's names.
    remedy : str
        What to do about it: a command, or a setting.
    """

    missing: tuple[str, ...] = ()
    remedy: str = ""


class PagerError(LazyarrError, ConnectionError):
    """The process that fills pages is gone, or does not answer as it should.

    Attributes
    ----------
    pid : int or None
        The pager's process id, where it is known.
    """

    pid: int | None = None


class EngineWarning(UserWarning):
    """Arrays are not memory here: each read makes a copy.

    Given once per process, where userfaultfd cannot be had and no engine was chosen.
    """


class PerformanceWarning(UserWarning):
    """The chunks of an array are loaded again and again, as there is no room to keep them.

    Given once for each array.  ``lazyarr.stats()["arrays"]`` has how often.  Also where a trace
    could not be recorded, or not all of it.
    """


class StoreWarning(UserWarning):
    """A store was read, and something in it is odd: what is read may not be what was meant.

    Consolidated metadata that its nodes do not agree with, an array of which no chunk is
    stored though other objects lie beside its document, attributes that the store refused.
    """

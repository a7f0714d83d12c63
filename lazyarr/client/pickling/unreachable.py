"""What a worker process gets in place of an array that cannot be opened there."""

from __future__ import annotations

import multiprocessing
import os
import socket
from typing import Any, NoReturn

from numpy.lib.mixins import NDArrayOperatorsMixin

from lazyarr.errors import LazyarrError
from lazyarr.integrations.distributed import is_worker

__all__ = ["Unreachable", "raise_later"]


def raise_later(error: Exception) -> Unreachable:
    """Return what raises an error as soon as it is used; raise it now outside of worker processes.

    `multiprocessing.Pool` loses a task whose arguments cannot be unpickled, and whoever waits
    for its result waits for ever; an error of the task itself is sent back to him
    (Lib/multiprocessing/pool.py, `worker`).  A worker of distributed's closes the connection that
    brought what it cannot unpickle.
    """
    # It is read elsewhere, by whoever sent the reference.
    if isinstance(error, LazyarrError):
        error.message += f" (in process {os.getpid()} on host {socket.gethostname()})"
        error.args = (error.message,)
    # A child that was spawned knows of its parent only after it has unpickled what it is to do.
    begins = getattr(multiprocessing.current_process(), "_inheriting", False)
    if multiprocessing.parent_process() is None and not begins and not is_worker():
        raise error
    return Unreachable(error)


class Unreachable(NDArrayOperatorsMixin):
    """Stands for an array or a group: any use of it raises why it could not be opened here.

    Parameters
    ----------
    error : Exception
        The reason.
    """

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __repr__(self) -> str:
        return f"<Unreachable: {type(self._error).__name__}: {self._error}>"

    def _raise(self, *_: Any, **__: Any) -> NoReturn:
        raise self._error

    # What Python looks for in the class alone; operators are NumPy's, by way of ufuncs.
    __array_ufunc__ = __array_function__ = __array__ = _raise
    __getattr__ = __getitem__ = __setitem__ = __len__ = __iter__ = __contains__ = _raise
    __bool__ = __float__ = __int__ = __complex__ = __index__ = __format__ = _raise
    __enter__ = __exit__ = __reduce_ex__ = _raise

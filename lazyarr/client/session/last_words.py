"""What is said where something is lost, and no exception can tell anybody of it."""

from __future__ import annotations

import atexit
import sys
from contextlib import suppress
from typing import Any

__all__ = ["say_lost"]

# Of a stderr that is None, without a reader, or closed.
_UNHEARD = (AttributeError, OSError, ValueError)


class _LastStream:
    """stderr as it is at the end of the interpreter, which makes that end a failure.

    Python ends with the exit code 120 where its streams cannot be flushed then (`sys.exit`), and
    functions that are given to `atexit` have no other way to change the code.
    """

    closed = False  # else the interpreter does not flush it

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def flush(self) -> None:
        """Flush the stream; raise where the interpreter asks for it, and no code that it runs."""
        with suppress(*_UNHEARD):
            self._stream.flush()
        if sys._getframe().f_back is None:  # noqa: SLF001 - there is no other way to know
            raise OSError("something that was written is lost")


def say_lost(text: str, *, is_at_end: bool = False) -> None:
    """Say on stderr what is lost, and have the process end with exit code 120.

    Parameters
    ----------
    text : str
        What could not be done, and why.
    is_at_end : bool
        Whether the interpreter ends: functions that are given to `atexit` are being called.

    Notes
    -----
    A program that ends by `os._exit` or a signal, as forked children of `multiprocessing` do, has
    the exit code that it chooses.
    """
    with suppress(*_UNHEARD):
        sys.stderr.write(f"lazyarr: {text}\n")
        sys.stderr.flush()
    # Until the end the stream is the program's.
    if is_at_end:
        _fail()
    else:
        atexit.register(_fail)


def _fail() -> None:
    if not isinstance(sys.stderr, _LastStream):
        sys.stderr = _LastStream(sys.stderr)

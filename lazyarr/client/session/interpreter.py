"""The program that is started as the pager: a Python interpreter, or a frozen program itself."""

from __future__ import annotations

import os
import sys

from lazyarr import errors
from lazyarr.errors import PagerError

__all__ = ["PAGER_ARGUMENT", "PAGER_MARK", "NoPagerError", "find_command", "offer_program"]

PAGER_ARGUMENT = "--lazyarr-pager"
"""The first argument of a frozen program that is to become the pager."""

PAGER_MARK = "_LAZYARR_PAGER"
"""Environment variable that is set for every program that is started as the pager."""

# sys.executable is the program that the interpreter runs in, which may be no interpreter.
# uWSGI, started with the pager's arguments, would begin as a web server; a frozen program would
# run once more.  So only a file with the name of an interpreter is started.
_NAMES = ("python", "pypy", "graalpy")

_SET_PYTHON = (
    f"set LAZYARR_PYTHON, or lazyarr.configure(python=...), to a Python "
    f"{sys.version_info[0]}.{sys.version_info[1]}"
)
_FREEZE = (
    "call lazyarr.freeze_support() first of all where the program begins, as "
    "multiprocessing.freeze_support()"
)

_is_offered = False


class NoPagerError(PagerError):
    """No program can be started as the pager, or what was started is none.

    Attributes
    ----------
    found : str
        What was found in place of a pager.
    remedy : str
        What to do about it.
    """

    found: str = ""
    remedy: str = ""

    @classmethod
    def because(cls, found: str, remedy: str = _SET_PYTHON) -> NoPagerError:
        """Return the error that says what was found, and what to do."""
        message = f"cannot start the pager: {found}; {remedy}"
        return cls(message, found=found, remedy=remedy)


def offer_program() -> None:
    """Allow a frozen program to be started as the pager: it has called `freeze_support`."""
    global _is_offered
    _is_offered = True


def find_command(python: str | None) -> tuple[str, ...]:
    """Return the program to start as the pager, and its first arguments.

    Parameters
    ----------
    python : str or None
        The interpreter that the user has set, if any.

    Raises
    ------
    NoPagerError
        When there is no such program.  A frozen program that did not call `freeze_support` is
        never started: it would run once more, open its arrays, start itself again, and so on.
    """
    # The mark is inherited by what the program starts, and so on: without it a program
    # that opens arrays while it should become a pager would start itself for ever.
    if PAGER_MARK in os.environ:
        found = f"this process was itself started to become one, and runs {sys.argv[:1]} instead"
        raise NoPagerError.because(found)
    is_frozen = bool(getattr(sys, "frozen", False))
    if python is None and is_frozen:
        if not _is_offered:
            raise NoPagerError.because("this program is frozen, and has no interpreter", _FREEZE)
        return sys.executable, PAGER_ARGUMENT
    program = python or _find_python()
    if program is None:
        found = f"sys.executable is {sys.executable!r}, and no Python interpreter was found"
        raise NoPagerError.because(found)
    package = os.path.dirname(os.path.realpath(errors.__file__))
    # Isolated, and without `site`: a third of the start goes into that, and a module in
    # the user's working directory cannot stand in for one of Python's.  The path of the
    # file, not "-m": the package cannot be imported yet.
    return program, "-I", "-S", os.path.join(package, "pager", "__main__.py")


def _find_python() -> str | None:
    """Return the path of an interpreter of this Python's version; None where there is none."""
    # A program that has called multiprocessing.set_executable has named its interpreter there.
    spawn = sys.modules.get("multiprocessing.spawn")
    told = spawn.get_executable() if spawn is not None else None
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    roots = (sys.exec_prefix, sys.base_exec_prefix)
    # What the program itself has named comes first.  The last are guesses, for a program
    # with Python inside has no other way to say.
    candidates = (
        told,
        sys.executable,
        getattr(sys, "_base_executable", None),
        *(os.path.join(root, "bin", f"python{version}") for root in roots),
    )
    return next((found for found in map(_as_python, candidates) if found), None)


def _as_python(candidate: object) -> str | None:
    """Return a candidate as a path, if it is a file with the name of an interpreter."""
    if not isinstance(candidate, str | bytes | os.PathLike):
        return None
    path = os.fsdecode(candidate)
    is_named = os.path.basename(path).lower().startswith(_NAMES)
    return path if is_named and os.path.isfile(path) else None

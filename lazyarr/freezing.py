"""How a frozen program has a pager: the program itself is started once more as the pager."""

from __future__ import annotations

import os
import sys

from lazyarr.client.session.interpreter import PAGER_ARGUMENT, PAGER_MARK, offer_program

__all__ = ["freeze_support"]


def freeze_support() -> None:
    """Let a frozen program (PyInstaller, cx_Freeze, and so on) become the pager.

    The pager, the process that fills arrays, is a Python interpreter.  A frozen program has no
    interpreter, so the program itself is started once more as the pager.  Call this function
    where the program begins, before anything else, as with `multiprocessing.freeze_support`.  In
    the process that is the pager it does not return.  Without the call, arrays copy what is
    read, after an `EngineWarning`.  In a program that is not frozen it does nothing.

    Examples
    --------
    >>> import lazyarr
    >>> if __name__ == "__main__":
    ...     lazyarr.freeze_support()
    """
    offer_program()
    if sys.argv[1:2] == [PAGER_ARGUMENT] and PAGER_MARK in os.environ:
        from lazyarr.pager.__main__ import main

        main(sys.argv[2:])
        sys.exit()

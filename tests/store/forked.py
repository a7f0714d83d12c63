"""Run a function in a forked child."""

from __future__ import annotations

import os
import signal
import traceback
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT_SECONDS = 60


def succeeds_in_child(function: Callable[[], bool]) -> bool:
    """Return what a function returns in a forked child; False when it raises or hangs."""
    with warnings.catch_warnings():
        # Python 3.12 and later warn of what is tested here.
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        # A child that hangs in a lock is ended by the kernel.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(LIMIT_SECONDS)
        code = 1
        try:
            code = 0 if function() else 1
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1] == 0

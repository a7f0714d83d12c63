"""The command ``lazyarr``.

Exit codes: 0 done, 1 failed or damaged, 2 wrong usage.  Results go to stdout,
progress and messages to stderr.

Public: `main`, which the installed command calls.
Not here: anything that a program could want, which is a function of lazyarr.
"""

from __future__ import annotations

from lazyarr.cli.application import Application, main
from lazyarr.cli.convert import convert
from lazyarr.cli.demo import demo
from lazyarr.cli.doctor import doctor
from lazyarr.cli.look import info, tree
from lazyarr.cli.verify import verify

__all__ = ["Application", "main"]

for _command in (demo, info, tree, convert, verify, doctor):
    main.add_command(_command)
